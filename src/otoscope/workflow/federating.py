"""Federate: a model, speech with speakers and transcripts, and clients that train parts of the model on their own speech."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from otoscope.diagnosis.result import Diagnosis
from otoscope.errors import FederationError, MissingPackageError
from otoscope.evaluation.references import check_frames, reference_of
from otoscope.federation.encoding import ClientSize, sizes
from otoscope.federation.partition import Share, partition
from otoscope.federation.result import FederationResult
from otoscope.federation.running import Report, check_run_folder
from otoscope.federation.server import Server
from otoscope.federation.settings import FederationSettings
from otoscope.models.loading import load
from otoscope.models.model import SpeechModel
from otoscope.models.recogniser import Recogniser, recogniser_of
from otoscope.models.vocabulary import Vocabulary
from otoscope.speech.corpus import Corpus, LeftOut
from otoscope.speech.utterance import Utterance
from otoscope.training.ctc import check_transcript
from otoscope.training.folders import without_bars
from otoscope.training.subsets import split_by_length
from otoscope.workflow.client_rates import Asked
from otoscope.workflow.finetuning import with_head
from otoscope.workflow.training_speech import training_speech

RUNNERS = ("local", "ray", "deploy")


@dataclass(frozen=True)
class Prepared:
    """Everything that a federated training begins with.

    Attributes:
        recogniser: the model.
        shares: each client's speech.
        held_out: speech that no client has.
        rates: share of the units that clients keep, by group.
        asked: how these were come by, see `Asked.told`.
        settings: of the training.
        client: size of a client of the first round.
        memory: most bytes that a training step of a client holds, where clients were made for a memory; else None.
        left_out: utterances that could not be used.
    """

    recogniser: Recogniser
    shares: tuple[Share, ...]
    held_out: tuple[Utterance, ...]
    rates: Mapping[str, float]
    asked: Mapping[str, Any]
    settings: FederationSettings
    client: ClientSize
    memory: int | None
    left_out: tuple[LeftOut, ...]

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "model": self.recogniser.model.name,
            "clients": {one.client: round(one.utterances.seconds, 3) for one in self.shares},
            "held_out": len(self.held_out), "rates": dict(self.rates),
            "asked": dict(self.asked),
            "client": {
                "elements": self.client.elements, "share": self.client.share,
                "download_bytes": self.client.download_bytes, "upload_bytes": self.client.upload_bytes,
                "step_bytes": self.memory,
            },
            "settings": self.settings.to_dict(), "left_out": [[one.id, one.reason] for one in self.left_out],
        }  # fmt: skip

    def __str__(self) -> str:
        spoken = [one.utterances.seconds for one in self.shares]
        narrowed = {name: rate for name, rate in self.rates.items() if rate < 1}
        lines = [
            f"{self.recogniser.model.name}: {len(self.shares)} clients with {min(spoken) / 60:.1f} to "
            f"{max(spoken) / 60:.1f} min of speech, {len(self.held_out)} utterances held out",
            f"A client of the first round holds {self.client.share:.1%} of the model: {self.client.elements:,} elements, "
            f"{self.client.download_bytes / 2**20:.2f} MiB down, {self.client.upload_bytes / 2**20:.2f} MiB up",
        ]
        if self.memory is not None:
            lines.append(f"A training step of a client holds {self.memory / 2**20:.1f} MiB at most")
        if narrowed:
            lines.append("Kept of each unit, where not all is: " + _in_words(narrowed))
        return "\n".join([*lines, *(f"left out: {one.id}: {one.reason}" for one in self.left_out)])


def prepared(
    model: SpeechModel | nn.Module | str | Path,
    corpus: Corpus | str | Path = "embedded:train",
    *,
    clients: str = "speaker",
    settings: FederationSettings | None = None,
    schedule: str | Mapping[str, float] = "full",
    keep: float = 0.5,
    diagnosis: Diagnosis | str | Path | None = None,
    mode: str | None = None,
    layers: int | None = None,
    client_size: float | str | None = None,
    client_memory: str | None = None,
    shorter_than: float | None = None,
    vocabulary: str | Vocabulary | None = None,
    dev: Corpus | str | Path | None = None,
    hold_out: float = 0.1,
    skip_bad: bool = False,
) -> Prepared:
    """Reads everything, and refuses what cannot be, before anything is trained; arguments as of `federate`.

    Raises:
        FederationError: the schedule, the clients, the cohort, privacy or the size of a client make no sense for this model
            and speech.
        MissingPackageError: privacy is asked for, and Opacus is not installed.
        OtoscopeError: the model or the speech cannot be read or used.
    """
    given = settings or FederationSettings()
    asked = Asked(schedule, keep, diagnosis, mode, layers, client_size, client_memory)
    ready = model if isinstance(model, SpeechModel) else load(model)
    speech = training_speech(corpus, dev, hold_out, given.seed, skip_bad, ready.frontend, 1.0)
    speech.keep(check_transcript)
    source, spelling = with_head(ready, [*speech.train, *speech.held], vocabulary, given.seed)
    recogniser = recogniser_of(SpeechModel(source, ready.family, ready.frontend, ready.name), spelling)
    speech.keep(lambda one: check_frames(recogniser, one, reference_of(recogniser, one)))
    whole = Corpus(speech.corpus.name, tuple(speech.train))
    if shorter_than is not None:
        whole, _ = split_by_length(whole, shorter_than)
    shares = partition(whole, clients, given.seed)
    rates, memory = asked.rates(recogniser, shares, given)
    server = Server(recogniser.model, [one.client for one in shares], rates, given)
    drawn = server.submodel(1, server.cohort(1)[0])
    held = tuple(speech.held)
    client = sizes(recogniser.model, drawn, given.dtype)
    return Prepared(recogniser, shares, held, rates, asked.told(), given, client, memory, tuple(speech.left_out))


@without_bars()
def federate(
    model: SpeechModel | nn.Module | str | Path,
    corpus: Corpus | str | Path = "embedded:train",
    output: str | Path = "federated",
    *,
    clients: str = "speaker",
    settings: FederationSettings | None = None,
    schedule: str | Mapping[str, float] = "full",
    keep: float = 0.5,
    diagnosis: Diagnosis | str | Path | None = None,
    mode: str | None = None,
    layers: int | None = None,
    client_size: float | str | None = None,
    client_memory: str | None = None,
    shorter_than: float | None = None,
    vocabulary: str | Vocabulary | None = None,
    dev: Corpus | str | Path | None = None,
    hold_out: float = 0.1,
    skip_bad: bool = False,
    runner: str = "local",
    workers: int = 0,
    device: str = "cpu",
    deployment: Any = None,
    resume: bool = False,
    report: Report | None = None,
) -> FederationResult:
    """Trains a copy of a model on the speech of clients, each of which is sent a part of it (Zhou et al. 2022).

    Clients train on their own speech and send back by how much their part changed; the server takes the mean of every
    element over those that held it. A diagnosis can aim what is left out at ambient layers, which the model can spare.

    Args:
        model: what `otoscope.load` takes; one without a CTC head gets one for the characters of the transcripts.
        corpus: speech with speakers and transcripts: a corpus, a path, or "embedded:train".
        output: folder for the trained model, `federation.json` and the states that a run is taken up from.
        clients: "speaker", "speaker:8" or "dirichlet:8:0.3"; see `otoscope.federation.partition`.
        settings: rounds, cohort, server, seed and the like.
        schedule: how much of which units clients keep: "full", "uniform", "random", "ambient", "critical", "linear",
            "budget", a TOML file, or a mapping of units to shares; see `otoscope.federation.schedules`.
        keep: share that is kept of the units that the schedule aims at.
        diagnosis: of the model, with `criticality`; or its folder.
        mode: of criticality, that the schedule goes by; by default the first that was taken.
        layers: of the schedule "random", how many.
        client_size: of a client: a share of the model's elements, such as 0.6, or bytes of float32 that it is sent, such
            as "8MiB"; the share that is kept is then solved for.
        client_memory: bytes that a client's training step may hold at most, such as "200MiB", with every batch of every
            client; the share that is kept is then solved for. Steps are tried on the CPU for that; see
            `otoscope.federation.training_memory` for what is counted.
        shorter_than: clients hold only utterances shorter than this, in seconds (domain adaptation).
        vocabulary: of a fresh head, see `finetune`.
        dev: speech to watch the training with; by default speakers of the corpus are held out.
        hold_out: share of the speakers to hold out.
        skip_bad: leave out utterances that cannot be used, and list them.
        runner: "local" (this process, clients take turns), "ray" (processes of Ray) or "deploy" (Flower's SuperLink and
            SuperNodes, on this machine or others).
        workers: of "ray", clients that train at a time; 0 for as many as there are cores.
        device: where clients of "ray" and "deploy" train.
        deployment: of "deploy", an `otoscope.federation.flower.deploy.Deployment`.
        resume: go on with an interrupted run.
        report: called with the result so far and each new row.

    Returns:
        The result, which also lies in the folder.

    Raises:
        FederationError: settings, schedule, clients or folder cannot be used, too many clients failed, or a process of
            the runner ended.
        MissingPackageError: Flower or Ray is not installed.
        OtoscopeError: the model or the speech cannot be read or used.
    """
    folder = Path(output)
    if runner not in RUNNERS:
        raise FederationError(f"There is no runner {runner!r}", f"Choose one of {', '.join(RUNNERS)}.")
    if importlib.util.find_spec("flwr") is None:
        raise MissingPackageError("Flower is not installed", "Install otoscope[federation].")
    if runner == "deploy" and (isinstance(corpus, Corpus) or isinstance(dev, Corpus)):
        raise FederationError(
            "SuperNodes read their speech by themselves, and a corpus in memory has no path", "Pass its path."
        )
    check_run_folder(folder, resume)
    found = prepared(
        model, corpus, clients=clients, settings=settings, schedule=schedule, keep=keep, diagnosis=diagnosis, mode=mode,
        layers=layers, client_size=client_size, client_memory=client_memory, shorter_than=shorter_than,
        vocabulary=vocabulary, dev=dev, hold_out=hold_out, skip_bad=skip_bad,
    )  # fmt: skip
    common: dict[str, Any] = {
        "folder": folder, "held_out": found.held_out, "resume": resume, "report": report, "asked": found.asked,
    }  # fmt: skip
    given = (found.recogniser, found.shares, found.rates, found.settings)
    if runner == "local":
        from otoscope.federation.flower.inline import run_local

        return run_local(*given, **common)
    if runner == "ray":
        from otoscope.federation.flower.ray import run_ray

        return run_ray(*given, **common, workers=workers, device=device)
    from otoscope.federation.flower.deploy import Deployment, run_deploy

    where = deployment or Deployment(device=device)
    return run_deploy(
        *given, **common, corpus=str(corpus), held_out_corpus="" if dev is None else str(dev), deployment=where
    )


def _in_words(rates: Mapping[str, float]) -> str:
    """Rates, those of units in a row that keep as much taken together.

    >>> _in_words({"layer.1.attention": 0.5, "layer.2.attention": 0.5, "layer.2.feed_forward": 0.25})
    'layer.1.attention, layer.2.attention 0.5; layer.2.feed_forward 0.25'
    """
    by: dict[str, list[str]] = {}
    for name, rate in rates.items():
        by.setdefault(f"{rate:.3g}", []).append(name)
    return "; ".join(f"{', '.join(names)} {rate}" for rate, names in by.items())
