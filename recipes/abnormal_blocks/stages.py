"""Pre-training, diagnosis and fine-tuning of every variant; what is there already is left as it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from otoscope.diagnosis.result import Diagnosis
from otoscope.errors import TrainingError
from otoscope.speech.corpus import Corpus
from otoscope.training.ctc import CtcSettings
from otoscope.training.settings import TrainingSettings
from otoscope.training.vocabulary import vocabulary_of
from otoscope.workflow.diagnosing import diagnose
from otoscope.workflow.examining import Passes
from otoscope.workflow.finetuning import finetune
from otoscope.workflow.pretraining import pretrain
from recipes.abnormal_blocks.variants import FAMILY, VARIANTS, Design, Variant
from recipes.trials.comparing import finished
from recipes.trials.runs import one_thread, told
from recipes.trials.speech import Speech

VERDICT_SECONDS = 120.0


@dataclass(frozen=True)
class Job:
    """One variant of one seed: its pre-training, or that and its fine-tuning after it."""

    variant: Variant
    seed: int

    @property
    def name(self) -> str:
        """Of its folders."""
        return f"{self.variant.name}-{self.seed}"

    @classmethod
    def named(cls, name: str) -> "Job":
        """The job of a name.

        Raises:
            TrainingError: there is none of that name.

        >>> Job.named("custom-1").variant.limited
        True
        """
        variant, _, seed = name.rpartition("-")
        known = {one.name: one for one in VARIANTS}
        if variant not in known or not seed.isdecimal():
            raise TrainingError(
                f"There is no variant {name!r}", f"Name one of {', '.join(known)} with a seed: custom-0."
            )
        return cls(known[variant], int(seed))

    def pretrained(self, work: Path) -> Path:
        """The folder of the pre-trained model."""
        return work / f"{self.name}-ssl"

    def finetuned(self, work: Path) -> Path:
        """The folder of the fine-tuned model."""
        return work / f"{self.name}-ctc"


@dataclass(frozen=True)
class Budget:
    """What every variant is trained with; seeds are the jobs'.

    Attributes:
        pretraining: settings.
        finetuning: settings.
        mask: share of frames under masks while pre-training.
        mask_span: frames a mask.
        ctc: what belongs to CTC.
    """

    pretraining: TrainingSettings
    finetuning: TrainingSettings
    mask: float
    mask_span: int
    ctc: CtcSettings


def pretrained(job: Job, design: Design, blocks: Sequence[int], speech: Speech, work: Path, budget: Budget) -> Path:
    """The folder of a variant that was pre-trained from nothing; an interrupted training is gone on with."""
    folder = job.pretrained(work)
    if finished(folder):
        return folder
    one_thread()
    treatments = design.treatments(job.variant, blocks, job.seed)
    pretrain(
        FAMILY, speech.train, folder, size=design.size_of(job.variant, blocks), settings=budget.pretraining,
        mask=budget.mask, mask_span=budget.mask_span, plan=treatments or None, dev=speech.dev,
        resume=(folder / "run").exists(), report=told,
    )  # fmt: skip
    return folder


def finetuned(job: Job, speech: Speech, work: Path, budget: Budget) -> Path:
    """The folder of a variant that was fine-tuned on the speech that it was pre-trained on."""
    folder = job.finetuned(work)
    if finished(folder):
        return folder
    one_thread()
    finetune(
        job.pretrained(work), speech.train, folder, settings=budget.finetuning, ctc=budget.ctc, dev=speech.dev,
        vocabulary=vocabulary_of([*speech.train, *speech.dev]), resume=(folder / "run").exists(), report=told,
    )  # fmt: skip
    return folder


def diagnosed(job: Job, dev: Corpus, work: Path) -> Diagnosis:
    """How the blocks of a pre-trained model attend."""
    return _diagnosed(job.pretrained(work), dev, ["abnormality", "neighbour-deviation"], work / f"{job.name}-blocks")


def judged(job: Job, dev: Corpus, work: Path) -> Diagnosis:
    """Whether the fine-tuned model needs its abnormal blocks, by interventions on each."""
    measures = ["abnormality", "block-intervention", "block-verdict", "block-control"]
    return _diagnosed(job.finetuned(work), dev, measures, work / f"{job.name}-verdicts", ("ctc-loss",))


def _diagnosed(
    model: Path, dev: Corpus, measures: Sequence[str], folder: Path, metrics: Sequence[str] = ()
) -> Diagnosis:
    if not (folder / "diagnosis.json").exists():
        print(f"Diagnosis of {model.name} ...", flush=True)
        diagnose(model, dev, measures, passes=Passes(seconds=VERDICT_SECONDS, metrics=metrics)).save(folder)
    return Diagnosis.load(folder)
