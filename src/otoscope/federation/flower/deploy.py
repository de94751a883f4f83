"""Runs a federated training through Flower's SuperLink and SuperNodes: on this machine, or on many."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from otoscope._version import __version__
from otoscope.embedded import SPEECH
from otoscope.errors import FederationError
from otoscope.federation.flower.apps import JOB, tell_failed
from otoscope.federation.flower.credentials import Certificates, make_certificates, make_node_key
from otoscope.federation.flower.processes import CONNECTION, HOST, Processes, free_ports, listens
from otoscope.federation.partition import Share
from otoscope.federation.result import COMPLETED, RESULT, RUNNING, FederationResult
from otoscope.federation.running import ENGINE, Report, alone, check_run_folder, put_recogniser
from otoscope.federation.settings import FederationSettings
from otoscope.models.recogniser import Recogniser
from otoscope.speech.utterance import Utterance
from otoscope.training.folders import replace_text

TEMPLATE = "template"
_POLL, _ASK_EVERY = 0.5, 30.0  # seconds between looks at the result, and between questions to Flower
_APP = """from otoscope.federation.flower.apps import client_app, server_app

server = server_app()
client = client_app()
"""


@dataclass(frozen=True)
class Deployment:
    """Where a training runs.

    Attributes:
        nodes: SuperNodes; the training begins when so many are there.
        port: of the SuperLink; SuperNodes that are started here take those after it. 0 takes free ones.
        superlink: address, as host:port, of a SuperLink that runs on this machine already, with its SuperNodes wherever
            they are; nothing is then started here. The SuperLink must be able to read and write the training's folder.
        authority: certificate that a SuperLink which runs already is checked with; None where it has no TLS.
        secure: of what is started here: talk by TLS with a certificate made for it, and let in SuperNodes by keys alone.
        device: where the SuperNodes started here train.
        wait: seconds to wait for SuperLink and SuperNodes.
    """

    nodes: int = 2
    port: int = 0
    superlink: str = ""
    authority: Path | None = None
    secure: bool = False
    device: str = "cpu"
    wait: float = 180.0

    def __post_init__(self) -> None:
        if self.nodes < 1:
            raise FederationError(f"{self.nodes} SuperNodes are asked for", "Ask for one or more.")


def run_deploy(
    recogniser: Recogniser,
    shares: Sequence[Share],
    rates: Mapping[str, float],
    settings: FederationSettings | None = None,
    *,
    folder: Path,
    corpus: str,
    held_out: Sequence[Utterance] = (),
    held_out_corpus: str = "",
    resume: bool = False,
    report: Report | None = None,
    asked: Mapping[str, Any] | None = None,
    deployment: Deployment | None = None,
) -> FederationResult:
    """Trains through a SuperLink; every process that was started here has ended when this returns, however it does.

    Args:
        recogniser: the model that the training begins with; it is left as it is.
        shares: each client's speech, dealt to the SuperNodes that are started here; SuperNodes that run already know
            their own.
        rates: share of the units that is kept, by group.
        settings: see `FederationSettings`.
        folder: for the trained model and the result; `flower/` in it holds Flower's own files and logs.
        corpus: path or name that all shares can be read from, on this machine.
        held_out: speech that no client has, to watch the training with.
        held_out_corpus: path or name that it can be read from; `corpus` by default.
        resume: go on with an interrupted run.
        report: called with the result so far and each new row.
        asked: how the rates were come by, for the result.
        deployment: where it runs.

    Returns:
        The result, which also lies in the folder.

    Raises:
        FederationError: a port is in use, something does not start or ends early, or the training fails; the message
            names the log.
    """
    given, where, folder = settings or FederationSettings(), deployment or Deployment(), folder.resolve()
    check_run_folder(folder, resume)
    if not where.superlink and len(shares) < where.nodes:
        raise FederationError(
            f"There are {len(shares)} clients for {where.nodes} SuperNodes", "Start no more SuperNodes than clients."
        )
    ports = [] if where.superlink else free_ports(where.port, where.nodes + 1)
    engine = folder / ENGINE
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder):  # what a training that is under way needs stays
        shutil.rmtree(engine, ignore_errors=True)
        engine.mkdir()
    reported = 0
    if (folder / RESULT).exists():  # of the interrupted run
        before = FederationResult.load(folder)
        reported = len(before.rows)
        replace(before, status=RUNNING, reason="").save(folder)
    put_recogniser(recogniser, engine / TEMPLATE)
    held = {"corpus": _place(held_out_corpus or corpus), "ids": [one.id for one in held_out]} if held_out else None
    job = {
        "model": str(engine / TEMPLATE), "name": recogniser.name, "settings": given.to_dict(), "rates": dict(rates),
        "nodes": where.nodes, "wait": where.wait, "resume": resume, "held_out": held, "asked": dict(asked or {}),
    }  # fmt: skip
    replace_text(engine / JOB, json.dumps(job))
    _write_app(engine / "app", folder)
    try:
        with Processes(engine) as processes:
            if where.superlink:
                _connect(engine, where.superlink, where.authority)
            else:
                address, authority = f"{HOST}:{ports[0]}", _superlink(processes, ports[0], where)
                _connect(engine, address, authority)
                _supernodes(processes, ports[1:], shares, _place(corpus), where, address, authority)
            processes.call("flwr", "run", str(engine / "app"), CONNECTION, "--format", "json")
            return _watch(processes, folder, reported, report)
    except BaseException as error:
        tell_failed(folder, error)
        raise


def _superlink(processes: Processes, port: int, where: Deployment) -> Path | None:
    """Starts the SuperLink, and waits until it listens.

    Returns:
        The certificate to check it with, where it talks by TLS.
    """
    made: Certificates | None = make_certificates(processes.engine / "certificates", HOST) if where.secure else None
    options = ["--insecure"] if made is None else [
        "--ssl-ca-certfile", str(made.authority), "--ssl-certfile", str(made.certificate), "--ssl-keyfile", str(made.key),
        "--enable-supernode-auth",
    ]  # fmt: skip
    processes.start("superlink", "flower-superlink", "--host", HOST, "--port", str(port), *options)
    until = time.monotonic() + where.wait
    while not listens(port):
        processes.check()
        if time.monotonic() > until:
            raise FederationError(
                f"The SuperLink did not start in {where.wait:g} s", f"See {processes.log('superlink')}."
            )
        time.sleep(_POLL)
    return made.authority if made is not None else None


def _supernodes(
    processes: Processes,
    ports: Sequence[int],
    shares: Sequence[Share],
    corpus: str,
    where: Deployment,
    address: str,
    authority: Path | None,
) -> None:
    """Starts the SuperNodes with their shares of the speech."""
    dealt = {share.client: [one.id for one in share.utterances] for share in shares}
    replace_text(processes.engine / "shares.json", json.dumps(dealt))
    for k, port in enumerate(ports):
        config = {
            "model": str(processes.engine / TEMPLATE), "corpus": corpus, "shares": str(processes.engine / "shares.json"),
            "device": where.device, "partition-id": k, "num-partitions": where.nodes,
        }  # fmt: skip
        path = processes.engine / f"node-{k}.toml"
        # JSON's strings and numbers are TOML's too.
        replace_text(path, "".join(f"{name} = {json.dumps(value)}\n" for name, value in config.items()))
        options = ["--insecure"]
        if authority is not None:
            key = make_node_key(processes.engine / "keys", f"node-{k}")
            processes.call("flwr", "supernode", "register", f"{key}.pub", CONNECTION)
            options = ["--root-certificates", str(authority), "--auth-supernode-private-key", str(key)]
        processes.start(
            f"node-{k}", "flower-supernode", "--superlink", address, "--host", HOST, "--port", str(port),
            "--node-config", str(path), *options,
        )  # fmt: skip


def _watch(processes: Processes, folder: Path, reported: int, report: Report | None) -> FederationResult:
    """Reports new rows until the training has ended.

    Raises:
        FederationError: it failed, or a process ended early.
    """
    asked, cure = time.monotonic(), f"See the logs in {processes.engine}."
    while True:
        result = FederationResult.load(folder) if (folder / RESULT).exists() else None
        if result is not None:
            for row in result.rows[reported:]:
                reported += 1
                if report is not None:
                    report(result, row)
            if result.status == COMPLETED:
                return result
            if result.status != RUNNING:
                raise FederationError(result.reason, cure)
        processes.check()
        if time.monotonic() - asked > _ASK_EVERY:
            asked = time.monotonic()
            status = processes.run_status()
            if status.startswith("finished") and FederationResult.load(folder).status == RUNNING:
                raise FederationError(f"The server app ended as {status!r}, without a result", cure)
        time.sleep(_POLL)


def _write_app(app: Path, folder: Path) -> None:
    """Writes the app that Flower hands to all machines: only where its parts are, since otoscope is installed there."""
    package = app / "federation"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("", encoding="utf-8")
    (package / "apps.py").write_text(_APP, encoding="utf-8")
    (app / "pyproject.toml").write_text(
        f"""[project]
name = "otoscope-federation"
version = "{__version__}"
description = "A federated training of a speech model"
license = "Apache-2.0"
dependencies = ["flwr=={_flower_version()}"]

[tool.flwr.app]
publisher = "otoscope"

[tool.flwr.app.components]
serverapp = "federation.apps:server"
clientapp = "federation.apps:client"

[tool.flwr.app.config]
folder = {json.dumps(str(folder))}
""",
        encoding="utf-8",
    )


def _connect(engine: Path, address: str, authority: Path | None) -> None:
    """Tells Flower's commands where the SuperLink is."""
    secure = "insecure = true" if authority is None else f"root-certificates = {json.dumps(str(authority))}"
    home = engine / "home"
    home.mkdir(parents=True, exist_ok=True)
    replace_text(
        home / "config.toml",
        f"""[superlink]
default = "{CONNECTION}"

[superlink.{CONNECTION}]
address = {json.dumps(address)}
{secure}
""",
    )


def _place(corpus: str) -> str:
    """A name of embedded speech as it is, a path in full."""
    return corpus if corpus in SPEECH else str(Path(corpus).expanduser().resolve())


def _flower_version() -> str:
    from flwr.supercore.version import package_version

    return str(package_version)
