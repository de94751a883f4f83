"""What Flower's processes run on the machines of a deployment: the server app, and the client app with its own speech."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from otoscope.embedded import SPEECH
from otoscope.errors import FederationError
from otoscope.federation.flower.client_app import Node, kind_of, make_client_app
from otoscope.federation.flower.strategy import drive, meet, open_run
from otoscope.federation.partition import Share, partition
from otoscope.federation.result import RESULT, FederationResult
from otoscope.federation.running import ENGINE, reason_of
from otoscope.federation.settings import FederationSettings
from otoscope.models.recogniser import load_recogniser
from otoscope.speech.corpus import Corpus
from otoscope.speech.reading import read_corpus

JOB = "job.json"
_POLL = 0.5


def client_app() -> ClientApp:
    """The client app of a SuperNode, which says by its node configuration what it holds; see `node_of`."""
    return make_client_app(lambda context: node_of(json.dumps(dict(context.node_config), sort_keys=True)))


@cache
def node_of(config: str) -> Node:
    """The clients of a SuperNode.

    Args:
        config: the node's configuration as JSON: `model`, a folder or name, and `corpus`, a path or name, both on the
            node's own machine; `device`, where it trains. Of the corpus it holds what `shares` says, a file with the ids
            of each client's utterances, or else what `clients` and `seed` do (see `partition`). With `partition-id` k and
            `num-partitions` n it holds every n-th client from the k-th on.

    Raises:
        FederationError: an entry is absent or cannot be used.
        OtoscopeError: the model or the speech cannot be read.
    """
    told = dict(json.loads(config))
    for name in ("model", "corpus"):
        if name not in told:
            raise FederationError(
                f"The SuperNode's configuration names no {name}", f"Start it with --node-config '{name}=\"PATH\" ...'."
            )
    corpus = corpus_at(str(told["corpus"]))
    shares = list(
        partition(corpus, str(told.get("clients", "speaker")), int(told.get("seed", 0)))
        if "shares" not in told
        else _listed(corpus, Path(str(told["shares"])))
    )
    part, parts = int(told.get("partition-id", 0)), int(told.get("num-partitions", 1))
    if not 0 <= part < parts:
        raise FederationError(f"There is no partition {part} of {parts}", "Count partitions from 0.")
    own = shares[part::parts]
    if not own:
        raise FederationError(
            f"Corpus {corpus.name} gives {len(shares)} clients, too few for {parts} SuperNodes",
            "Start fewer SuperNodes.",
        )
    return Node(load_recogniser(str(told["model"]), device=str(told.get("device", "cpu"))), own)


def server_app() -> ServerApp:
    """The server app: trains the rounds of the job in the folder that the run's configuration names."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        folder = Path(str(context.run_config["folder"]))
        try:
            serve(grid, folder)
        except BaseException as error:
            # Flower calls a run complete whose clients all failed: what counts is this file.
            tell_failed(folder, error)
            raise

    return app


def serve(grid: Grid, folder: Path) -> FederationResult:
    """Waits for the SuperNodes, and trains.

    Args:
        grid: the SuperNodes.
        folder: of the training; `flower/job.json` in it says what is to be done.

    Raises:
        FederationError: too few SuperNodes come in time, or see `drive`.
    """
    job = json.loads((folder / ENGINE / JOB).read_text(encoding="utf-8"))
    recogniser = load_recogniser(job["model"], name=job["name"])
    settings = FederationSettings.from_dict(job["settings"])
    held = job["held_out"]
    held_out = _chosen(corpus_at(held["corpus"]), held["ids"]) if held is not None else ()
    wait_for(lambda: len(list(grid.get_node_ids())) >= job["nodes"], job["wait"], f"{job['nodes']} SuperNodes")
    members = meet(grid, kind_of(recogniser), job["wait"])
    with open_run(
        recogniser, members, job["rates"], settings, held_out, folder, "deploy", job["resume"], None, job["asked"]
    ) as run:  # fmt: skip
        return drive(run, members, grid)


def wait_for(ready: Callable[[], bool], seconds: float, what: str) -> None:
    """Waits until something is there.

    Raises:
        FederationError: it is not in time.
    """
    until = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > until:
            raise FederationError(f"{what} did not come in {seconds:g} s", "See their logs, or wait longer.")
        time.sleep(_POLL)


def corpus_at(place: str) -> Corpus:
    """A corpus by path, or embedded speech by name."""
    return read_corpus(SPEECH.get(place, place), name=place if place in SPEECH else None)


def _listed(corpus: Corpus, path: Path) -> list[Share]:
    """Shares by a file: a JSON object with a list of ids for each client."""
    try:
        told: Mapping[str, list[str]] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FederationError(f"The shares {path} cannot be read ({error})", "Write them as JSON.") from error
    return [
        Share(name, Corpus(f"{corpus.name} of {name}", tuple(_chosen(corpus, ids)), corpus.root))
        for name, ids in sorted(told.items())
    ]


def _chosen(corpus: Corpus, ids: list[str]) -> list[Any]:
    """Utterances by their ids, in order.

    Raises:
        FederationError: the corpus lacks one.
    """
    by_id = {one.id: one for one in corpus}
    absent = [one for one in ids if one not in by_id]
    if absent:
        raise FederationError(
            f"Corpus {corpus.name} has no utterance {absent[0]!r}", "Give all machines the same speech."
        )
    return [by_id[one] for one in ids]


def tell_failed(folder: Path, error: BaseException) -> None:
    """Makes sure that the result file tells of a failure, also of one before the first round."""
    why = reason_of(error)
    if (folder / RESULT).exists():
        result = FederationResult.load(folder)
        if result.status == "running":
            result.ended(why).save(folder)
        return
    FederationResult("", (), "deploy", {}, {}).ended(why).save(folder)
