"""Central trainings, the diagnosis of the server's model, federated trainings; what is there already is left as it is."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from otoscope.diagnosis.result import Diagnosis
from otoscope.errors import TrainingError
from otoscope.federation.channels import groups_of
from otoscope.federation.evidence import Evidence
from otoscope.federation.result import FederationResult, RoundRow
from otoscope.federation.settings import FederationSettings
from otoscope.interventions.criticality.resets import NAME, NORMALISED
from otoscope.models.loading import load
from otoscope.models.recogniser import Recogniser
from otoscope.models.vocabulary import Vocabulary
from otoscope.training.ctc import CtcSettings
from otoscope.training.folders import INITIAL
from otoscope.training.settings import TrainingSettings
from otoscope.training.vocabulary import vocabulary_of
from otoscope.workflow.blocks import BlockPasses
from otoscope.workflow.diagnosing import diagnose
from otoscope.workflow.examining import Passes
from otoscope.workflow.federating import federate
from otoscope.workflow.finetuning import finetune
from recipes.federated.aims import SCHEDULES, Choice, choose
from recipes.federated.models import NORMS, Size, elements_of, fresh, members_of, normed, smaller
from recipes.federated.speech import Speech, usable
from recipes.trials.comparing import finished
from recipes.trials.runs import one_thread, told

SERVER, DENSE, SMALL = "server", "dense", "small"  # central; central and small; the latter adapted by clients
MODE, METRIC = "re-initialise", "ctc-loss"
_APART = 1000  # between the seeds of an ensemble's members


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
        kind: "server" or "dense" of central ones; of federated ones a schedule, or "small".
        seed: of weights, batches, cohorts and what clients are sent.
        member: of an ensemble, from 1, where the model is a small dense one.
    """

    kind: str
    seed: int
    member: int = 1

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.kind}{self.member if self.kind in (DENSE, SMALL) else ''}-{self.seed}"

    @property
    def central(self) -> bool:
        """Whether the model is trained from nothing, on all of the long utterances."""
        return self.kind in (SERVER, DENSE)

    @property
    def begins_with(self) -> "Job":
        """The central training that a federated one goes on from."""
        return Job(DENSE if self.kind == SMALL else SERVER, self.seed, self.member)

    @property
    def own_seed(self) -> int:
        """The seed that it trains with; members of an ensemble have different ones."""
        return self.seed + _APART * (self.member - 1)


def central_jobs(seeds: int, members: int) -> list[Job]:
    """All central trainings, first all of one seed, so that an interrupted recipe has whole comparisons."""
    return [
        one
        for seed in range(seeds)
        for one in (Job(SERVER, seed), *(Job(DENSE, seed, k) for k in range(1, members + 1)))
    ]


def federated_jobs(seeds: int, members: int) -> list[Job]:
    """All federated trainings, in the same order."""
    return [
        one
        for seed in range(seeds)
        for one in (*(Job(kind, seed) for kind in SCHEDULES), *(Job(SMALL, seed, k) for k in range(1, members + 1)))
    ]


@dataclass(frozen=True)
class Work:
    """Everything that trainings depend on, but for their seeds.

    Attributes:
        folder: of models, diagnoses and logs.
        speech: as it was read.
        size: of the server's model.
        client_size: share of its elements that clients hold, at most.
        central: settings of central trainings.
        federation: settings of federated ones.
        clients: how utterances are dealt to clients.
        diagnosis_seconds: of speech that the server's model is diagnosed on, at most.
    """

    folder: Path
    speech: Speech
    size: Size
    client_size: float
    central: TrainingSettings
    federation: FederationSettings
    clients: str
    diagnosis_seconds: float

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Of all models: the characters of all transcripts."""
        return vocabulary_of([*self.speech.long, *self.speech.short, *self.speech.dev])

    @cached_property
    def heard(self) -> Speech:
        """The speech without utterances that are too short for their characters."""
        return usable(self.speech, Recogniser(normed(fresh(self.size, self.vocabulary, 0)), self.vocabulary))

    @cached_property
    def small(self) -> Size:
        """Of a small dense model."""
        return smaller(self.size, self.client_size, self.vocabulary)

    @property
    def members(self) -> int:
        """Of an ensemble of small dense models."""
        return members_of(self.client_size)

    def of(self, job: Job) -> Path:
        """The folder of a job's model."""
        return self.folder / job.name

    def choice(self, seed: int) -> Path:
        """The file that tells what the schedules of a seed aim at."""
        return self.folder / f"choice-{seed}.json"


def trained(job: Job, work: Work, settings: TrainingSettings) -> Path:
    """The folder of a model that was trained centrally, from nothing, on long utterances; gone on with if interrupted.

    Args:
        job: which one.
        work: see `Work`.
        settings: with the job's own seed.
    """
    folder = work.of(job)
    if finished(folder):
        return folder
    one_thread()
    model = fresh(work.small if job.kind == DENSE else work.size, work.vocabulary, job.own_seed)
    finetune(
        model, work.heard.long, folder, settings=settings, ctc=CtcSettings(mask=0.0, freeze_convolutions=False),
        plan=NORMS, any_weights=True, vocabulary=work.vocabulary, dev=work.heard.dev, resume=(folder / "run").exists(),
        report=told,
    )  # fmt: skip
    return folder


def chosen(seed: int, work: Work) -> Choice:
    """What the schedules of a seed aim at, by the diagnosis of its server's model.

    Raises:
        TrainingError: the diagnosis does not tell how much every layer matters.
        FederationError: clients cannot be as small as asked for.
    """
    place, folder = work.choice(seed), work.of(Job(SERVER, seed))
    if place.exists():
        return Choice.load(place)
    model = load(folder)
    groups, total = groups_of(model), elements_of(model)
    elsewhere = total - sum(group.elements for group in groups.values())
    evidence = Evidence.from_diagnosis(diagnosed(seed, work), MODE)
    found = choose(groups, evidence, int(work.client_size * total), elsewhere, seed)
    found.save(place)
    return found


def diagnosed(seed: int, work: Work) -> Diagnosis:
    """How much the layers of a server's model matter: the CTC loss on dev, with each set back to its initial weights."""
    folder = work.folder / f"diagnosis-{seed}"
    if not (folder / "diagnosis.json").exists():
        server = work.of(Job(SERVER, seed))
        print(f"Diagnosis of {server.name} ...", flush=True)
        blocks = BlockPasses(modes=(MODE,), initial=server / INITIAL)
        passes = Passes(seconds=work.diagnosis_seconds, metrics=(METRIC,), blocks=blocks)
        diagnose(server, work.heard.dev, [NAME, NORMALISED], passes=passes).save(folder)
    return Diagnosis.load(folder)


def adapted(job: Job, work: Work, settings: FederationSettings) -> Path:
    """The folder of a model that clients adapted by their short utterances; an interrupted training is gone on with.

    Args:
        job: which one.
        work: see `Work`.
        settings: with the job's own seed.

    Raises:
        TrainingError: the model to begin with is not there, or what the schedules aim at was not chosen.
    """
    folder, begun = work.of(job), work.of(job.begins_with)
    if finished(folder):
        return folder
    if not finished(begun):
        raise TrainingError(
            f"{job.name} begins with {begun.name}, which is not there", f"Train it: --only {begun.name}."
        )
    rates: Any = "full" if job.kind == SMALL else Choice.load(work.choice(job.seed)).aims[job.kind].rates
    one_thread()
    federate(
        begun, work.heard.short, folder, clients=work.clients, settings=settings, schedule=rates, dev=work.heard.dev,
        resume=(folder / "run").exists(), report=_told,
    )  # fmt: skip
    return folder


def _told(result: FederationResult, row: RoundRow) -> None:
    print(row, flush=True)
