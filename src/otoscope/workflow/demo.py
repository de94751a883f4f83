"""The demo: diagnose, prescribe, treat, fine-tune, verify and report, on what comes with otoscope."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from otoscope.diagnosis.observation import Progress
from otoscope.diagnosis.result import Diagnosis
from otoscope.errors import TrainingError
from otoscope.evaluation.outcome import Outcome
from otoscope.models.loading import load
from otoscope.models.model import SpeechModel
from otoscope.plans.plan import Plan
from otoscope.speech.corpus import Corpus
from otoscope.workflow.blocks import BlockPasses
from otoscope.workflow.corpora import read_corpus
from otoscope.workflow.diagnosing import diagnose
from otoscope.workflow.examining import Passes
from otoscope.workflow.prescribing import prescribe
from otoscope.workflow.treating import treat
from otoscope.workflow.verifying import verify

MODEL, EXAM, TRAIN = "embedded", "embedded", "embedded:train"
MEASURES = ("cca-mel", "cca-phone", "cca-word", "heads", "relative-profile", "abnormality", "block-summary")
"""What takes seconds; `otoscope diagnose` takes the rest."""


@dataclass(frozen=True)
class Repair:
    """How much is spent on what comes after the diagnosis.

    Attributes:
        seconds: of speech on which layers are left out, to see which of them the model misses.
        goal: of the plan.
        margin: of the plan, see `otoscope.plans.Limits`.
        steps: of fine-tuning.
        learning_rate: of fine-tuning.
        repeats: pairs of runs that are timed.
    """

    seconds: float = 60.0
    goal: str = "size"
    margin: float = 1.0
    steps: int = 60
    learning_rate: float = 2e-4
    repeats: int = 9


@dataclass(frozen=True)
class Demo:
    """What the demo found and did.

    Attributes:
        diagnosis: of the model, on speech for examination.
        plan: what was prescribed; its evidence comes from speech for training.
        outcome: the treated model against the one before; None where the plan is empty.
        seconds: how long each stage took.
    """

    diagnosis: Diagnosis
    plan: Plan
    outcome: Outcome | None
    seconds: dict[str, float]


def run_demo(
    seed: int = 0,
    progress: Progress | None = None,
    *,
    repair: Repair | None = None,
    keep: Path | None = None,
    tell: Callable[[str], None] | None = None,
) -> Demo:
    """Diagnoses the embedded model, treats it by what was found, and verifies what came of it.

    What is changed is decided on the embedded speech for training, and what came of it is told on that for examination,
    whose voices and sentences neither the model nor the plan has met.

    Args:
        seed: of every random choice.
        progress: called with the seconds of speech done and in all.
        repair: how much is spent on what comes after the diagnosis.
        keep: folder for the treated and fine-tuned model; it is thrown away otherwise.
        tell: called with a line before each stage.

    Raises:
        TrainingError: the folder holds something already.
    """
    given, say = repair or Repair(), tell or (lambda line: None)
    if keep is not None and keep.exists() and (not keep.is_dir() or any(keep.iterdir())):
        raise TrainingError(f"{keep} is not empty", "Name a new folder for the treated model.")
    seconds: dict[str, float] = {}
    began = time.perf_counter()

    def stage(name: str, line: str) -> None:
        nonlocal began
        now = time.perf_counter()
        if seconds:
            seconds[next(reversed(seconds))] = now - began
        seconds[name], began = 0.0, now
        say(line)

    model, exam, train = load(MODEL), read_corpus(EXAM), read_corpus(TRAIN)
    stage("diagnose", f"1  Diagnosing {model.name} on {exam.seconds / 60:.1f} minutes of speech for examination")
    found = diagnose(model, exam, MEASURES, seed, progress=progress)
    stage("evidence", f"2  Leaving out each layer in turn, on {given.seconds:g} s of speech for training")
    evidence = _evidence(model, train, given, seed)
    stage("prescribe", f"3  Prescribing for {given.goal}, and treating a copy")
    plan = prescribe(evidence, given.goal, margin=given.margin)
    outcome = None
    if plan.lines:
        with tempfile.TemporaryDirectory() as temporary:
            outcome = _treated(model, plan, (train, exam), given, seed, keep or Path(temporary) / "model", stage)
    stage("end", "")
    seconds.pop("end")
    return Demo(found, plan, outcome, seconds)


def _evidence(model: SpeechModel, train: Corpus, given: Repair, seed: int) -> Diagnosis:
    """What the metric of the model's own head loses without each of its layers."""
    passes = replace(Passes(), seconds=given.seconds, blocks=BlockPasses(modes=("bypass",)))
    return diagnose(model, train, ("criticality", "block-influence"), seed, passes=passes)


def _treated(
    model: SpeechModel,
    plan: Plan,
    speech: tuple[Corpus, Corpus],
    given: Repair,
    seed: int,
    folder: Path,
    stage: Callable[[str, str], None],
) -> Outcome:
    from otoscope.training.augmentation import Augmentation
    from otoscope.training.ctc import CtcSettings
    from otoscope.training.settings import TrainingSettings
    from otoscope.workflow.finetuning import finetune

    train, exam = speech
    stage("finetune", f"4  Fine-tuning the copy for {given.steps} steps, with the original as its teacher")
    settings = TrainingSettings(
        steps=given.steps, batch_seconds=24, learning_rate=given.learning_rate, warmup=0.1, hold=0.3, seed=seed,
        evaluate_every=given.steps, save_every=given.steps,
    )  # fmt: skip
    # Ten minutes of twelve voices are soon learnt by heart, which noise, other speeds and other colours hinder.
    varied = Augmentation(noise=0.4, snr=(12.0, 40.0), telephone=0.05, speed=(0.88, 1.14), colour=5.0)
    ctc = CtcSettings(mask=0.02)
    finetune(treat(model, plan), train, folder, settings=settings, ctc=ctc, augmentation=varied, teacher=model)
    stage("verify", f"5  Verifying on {exam.seconds / 60:.1f} minutes that neither plan nor training has met")
    return verify(model, load(folder, name=f"{model.name}, treated"), exam, seed=seed, repeats=given.repeats)
