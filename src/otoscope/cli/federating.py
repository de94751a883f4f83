"""The command that trains on the speech of many clients: federate."""

import json
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console

from otoscope.cli.app import Flag, Json, app, use_threads

Place = Annotated[Path, Parameter(name=["--output", "-o"])]


@Parameter(name="*")
@dataclass(frozen=True)
class Rounds:
    """How the server goes on from round to round.

    Parameters
    ----------
    rounds
        Rounds of training.
    cohort
        Clients that train in a round, drawn by the seed; 0 has all of them train.
    seed
        Of held-out speakers, cohorts, sub-models, batches and masks.
    server
        fedavg, fedadam or lamb.
    server_rate
        Of the server's step. Default: the server's usual one.
    denominator
        What an element's mean is over: coverage (the clients that held it) or cohort (all of a round).
    tolerance
        Share of a round's clients that may fail; the round goes on without them.
    timeout
        Seconds that a client has in a round.
    evaluate_every
        Rounds between looks at held-out speech.
    dtype
        Of the deltas that clients send: float32, bfloat16 or float16.
    order
        Which units a client keeps: random, prefix (the first ones: HeteroFL, FjORD) or rolling (FedRolex).
    scope
        Whose draw it is: client-round, round (all clients of a round alike) or client (the same in all rounds).
    widths
        For FjORD, the widths that a client draws from each round, such as 0.25,0.5,1.
    freeze
        Share of whole variables that are frozen in a round and not sent back (partial variable training).
    privacy_noise
        Standard deviation of the noise over the clipping norm; 0 for no differential privacy.
    privacy_norm
        Norm to which the delta of a client is clipped.
    privacy_delta
        Probability for which epsilon need not hold.
    privacy_per
        Clip the model as a whole, or each layer.
    privacy_seed
        Of the noise; keep it to yourself, since who knows it can take the noise away. Default: noise that cannot be drawn
        again.
    """

    rounds: int = 10
    cohort: int = 0
    seed: int = 0
    server: str = "fedavg"
    server_rate: float | None = None
    denominator: str | None = None
    tolerance: float = 0.0
    timeout: float = 600.0
    evaluate_every: int = 1
    dtype: str = "float32"
    order: str = "random"
    scope: str = "client-round"
    widths: str = ""
    freeze: float = 0.0
    privacy_noise: float = 0.0
    privacy_norm: float = 1.0
    privacy_delta: float = 1e-5
    privacy_per: str = "model"
    privacy_seed: int | None = None

    def settings(self, local: Any) -> Any:
        """As `FederationSettings`.

        Raises:
            FederationError: a number is out of its range, or a width is none.
        """
        from otoscope.errors import FederationError
        from otoscope.federation.drawing import Drawing
        from otoscope.federation.settings import FederationSettings, PrivacySettings

        try:
            widths = tuple(float(one) for one in self.widths.split(",") if one.strip())
        except ValueError as error:
            raise FederationError(
                f"--widths {self.widths!r} are no numbers", "Write shares, as in --widths 0.25,0.5,1."
            ) from error
        privacy = None
        if self.privacy_noise:
            privacy = PrivacySettings(
                self.privacy_norm, self.privacy_noise, self.privacy_delta, self.privacy_per, self.privacy_seed
            )
        return FederationSettings(
            rounds=self.rounds, cohort=self.cohort, seed=self.seed, tolerance=self.tolerance, server=self.server,
            rate=self.server_rate, dtype=self.dtype, drawing=Drawing(self.seed, self.order, self.scope, widths, self.freeze),
            denominator=self.denominator or ("coverage" if privacy is None else "cohort"), local=local,
            evaluate_every=self.evaluate_every, timeout=self.timeout, privacy=privacy,
        )  # fmt: skip


@Parameter(name="*")
@dataclass(frozen=True)
class Local:
    """How a client trains in a round.

    Parameters
    ----------
    epochs
        Times that a client hears its speech in a round.
    local_steps
        Updates of a client in a round at most; 0 for as many as its epochs have.
    batch_seconds
        Seconds of padded speech in a batch.
    optimiser
        sgd or adamw; it begins anew every round.
    learning_rate
        Of the clients.
    clip
        Highest norm of a client's gradient.
    mask
        Share of frames under SpecAugment's masks.
    precision
        float32 or bfloat16.
    rescale
        Scale what is left of narrowed units to the size of the whole in training.
    train_convolutions
        Train the convolutions over samples too.
    """

    epochs: int = 1
    local_steps: int = 0
    batch_seconds: float = 40.0
    optimiser: str = "sgd"
    learning_rate: float = 0.1
    clip: float = 1.0
    mask: float = 0.0
    precision: str = "float32"
    rescale: Flag = False
    train_convolutions: Flag = False

    def settings(self) -> Any:
        """As `LocalSettings`.

        Raises:
            FederationError: a number is out of its range.
        """
        from otoscope.federation.client import LocalSettings

        return LocalSettings(
            epochs=self.epochs, steps=self.local_steps, batch_seconds=self.batch_seconds, optimiser=self.optimiser,
            learning_rate=self.learning_rate, clip=self.clip, mask=self.mask, precision=self.precision,
            rescale=self.rescale, freeze_convolutions=not self.train_convolutions,
        )  # fmt: skip


_ROUNDS, _LOCAL = Rounds(), Local()


@app.command
def federate(
    model: str = "embedded",
    corpus: str = "embedded:train",
    *,
    output: Place,
    clients: str = "speaker",
    schedule: str = "full",
    keep: float = 0.5,
    diagnosis: Path | None = None,
    mode: str | None = None,
    layers: int | None = None,
    client_size: str | None = None,
    client_memory: str | None = None,
    shorter_than: float | None = None,
    dev: str | None = None,
    hold_out: float = 0.1,
    skip_bad: Flag = False,
    runner: str = "local",
    workers: int = 0,
    nodes: int = 2,
    port: int = 0,
    superlink: str = "",
    authority: Path | None = None,
    secure: Flag = False,
    device: str = "cpu",
    rounds: Rounds = _ROUNDS,
    local: Local = _LOCAL,
    resume: Flag = False,
    tensorboard: Flag = False,
    dry_run: Flag = False,
    threads: int | None = None,
    as_json: Json = False,
) -> None:
    """Train a copy of a model on the speech of clients, each of which is sent only a part of it.

    Clients train on their own speech and send back by how much their part changed; the server takes the mean of every
    element over those that held it. A diagnosis can aim what is left out at ambient layers, which the model can spare.

    Examples:

        otoscope federate recogniser speech/train -o federated --clients speaker --rounds 20
        otoscope diagnose recogniser speech/dev --measures criticality,criticality-normalised -o found
        otoscope federate recogniser speech/train -o federated --schedule ambient --diagnosis found --client-size 0.7
        otoscope federate recogniser speech/train -o federated --clients speaker:8 --schedule uniform --dry-run
        otoscope federate recogniser speech/train -o federated --runner deploy --nodes 2 --secure

    Parameters
    ----------
    model
        Folder, Hub name, or `embedded`; one without a CTC head gets one for the characters of the transcripts.
    corpus
        Folder or manifest with speakers and transcripts, or `embedded:train`.
    output
        Folder for the trained model, federation.json, DIR/initial and DIR/run (states).
    clients
        speaker (each one a client), speaker:8 (speakers dealt to eight clients) or dirichlet:8:0.3 (eight clients that
        share speakers unevenly; the lower the last number, the more so).
    schedule
        What clients keep: full, uniform, random (layers), ambient or critical (layers, by a diagnosis), linear (in
        importance), budget (least loss at a given size), or a TOML file with a table [keep] of units and shares.
    keep
        Share that is kept of the units that the schedule aims at; of linear, the lowest.
    diagnosis
        Folder of a diagnosis of MODEL with criticality.
    mode
        Of criticality, such as bypass or rewind:pretrained. Default: the first that the diagnosis has.
    layers
        For the schedule random, how many layers. Default: as many as the diagnosis calls ambient.
    client_size
        Of a client: a share of the model, such as 0.6, or bytes that it is sent, such as 8MiB; --keep is then solved for.
    client_memory
        Bytes that a client's training step may hold at most, such as 200MiB; --keep is then solved for.
    shorter_than
        Clients hold only utterances shorter than this many seconds.
    dev
        Speech to watch the training with. Default: speakers of CORPUS are held out.
    hold_out
        Share of the speakers to hold out.
    skip_bad
        Leave out utterances that cannot be used, and list them.
    runner
        local (this process), ray (workers of Ray) or deploy (Flower's SuperLink and SuperNodes).
    workers
        For ray, clients that train at a time; 0 for as many as there are cores.
    nodes
        For deploy, SuperNodes that are started, or waited for.
    port
        For deploy, of the SuperLink; SuperNodes take those after it. 0 takes free ones.
    superlink
        For deploy, address (HOST:PORT) of a SuperLink that runs already; nothing is started then.
    authority
        For deploy, the certificate that the running SuperLink is checked with.
    secure
        For deploy, talk by TLS with a certificate made for it, and let SuperNodes in by keys alone.
    device
        Where clients of ray and deploy train, such as cpu or cuda.
    resume
        Go on with an interrupted run.
    tensorboard
        Log for TensorBoard too, in DIR/run.
    dry_run
        Tell clients, rates and sizes, and train nothing.
    threads
        Threads on the CPU; for small models, or beside other work, one is the quickest.
    as_json
        Print the result as JSON, and the rounds on stderr.
    """
    from otoscope.workflow.federating import federate as run
    from otoscope.workflow.federating import prepared

    use_threads(threads)
    what: dict[str, Any] = {
        "clients": clients, "settings": rounds.settings(local.settings()), "schedule": schedule, "keep": keep,
        "diagnosis": diagnosis, "mode": mode, "layers": layers, "client_size": client_size,
        "client_memory": client_memory, "shorter_than": shorter_than, "dev": dev, "hold_out": hold_out, "skip_bad": skip_bad,
    }  # fmt: skip
    console = Console(stderr=as_json)
    if dry_run:
        found = prepared(model, corpus, **what)
        if as_json:
            print(json.dumps(found.to_dict()))
        else:
            console.print(str(found), highlight=False, markup=False, soft_wrap=True)
        return
    deployment = None
    if runner == "deploy":
        from otoscope.federation.flower.deploy import Deployment

        deployment = Deployment(nodes, port, superlink, authority, secure, device)
    with _Progress(console, rounds.rounds, output if tensorboard else None) as progress:
        result = run(
            model, corpus, output, **what, runner=runner, workers=workers, device=device, deployment=deployment,
            resume=resume, report=progress.row,
        )  # fmt: skip
    if as_json:
        print(json.dumps(result.to_dict()))
        return
    console.print(str(result), highlight=False, markup=False, soft_wrap=True)
    following = f"otoscope verify {quote(model)} {quote(str(output))} CORPUS"
    console.print(f"Next: {following}", highlight=False, markup=False, soft_wrap=True)


class _Progress:
    """A bar over rounds on a terminal, a line a round everywhere, and TensorBoard where it is asked for.

    Args:
        console: where they are printed.
        rounds: in all.
        board: folder of the training, where TensorBoard is wanted.
    """

    def __init__(self, console: Console, rounds: int, board: Path | None) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("round"), MofNCompleteColumn(), BarColumn(), TextColumn("left"), TimeRemainingColumn(compact=True)
        )  # fmt: skip
        self._bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bar.add_task("rounds", total=rounds)
        self._told_initial, self._folder = False, board
        self._board: Any = None

    def __enter__(self) -> "_Progress":
        if self._folder is not None:
            from otoscope.federation.board import Board

            self._board = Board(self._folder)
        self._bar.start()
        return self

    def __exit__(self, *args: object) -> None:
        self._bar.stop()
        if self._board is not None:
            self._board.close()

    def row(self, result: Any, row: Any) -> None:
        """A round that is complete."""
        if not self._told_initial and result.initial:
            figures = "  ".join(f"{name} {value:.3f}" for name, value in result.initial.items())
            self._say(f"before the first round  {figures}")
        self._told_initial = True
        self._say(str(row))
        for client, why in row.failures.items():
            self._say(f"  {client} failed: {why}")
        self._bar.update(self._task, completed=row.round)
        if self._board is not None:
            self._board.row(row)

    def _say(self, text: str) -> None:
        self._bar.console.print(text, highlight=False, markup=False, soft_wrap=True)
