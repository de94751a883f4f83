"""Diagnosis, plan, treatment, fine-tuning with a teacher, verification; and the controls."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from otoscope.diagnosis.result import Diagnosis
from otoscope.evaluation.outcome import Outcome
from otoscope.models.loading import load
from otoscope.plans.plan import Plan
from otoscope.training.augmentation import Augmentation
from otoscope.training.ctc import CtcSettings
from otoscope.training.settings import TrainingSettings
from otoscope.workflow.diagnosing import diagnose
from otoscope.workflow.examining import Passes
from otoscope.workflow.finetuning import finetune
from otoscope.workflow.prescribing import prescribe
from otoscope.workflow.verifying import verify
from recipes.treated.speech import split, thinned

MODEL = "embedded:wavlm"
MEASURES = ("heads", "blocks", "importance-loo")
AUGMENTATION = Augmentation(noise=0.4, snr=(12.0, 40.0), telephone=0.05, speed=(0.88, 1.14), colour=5.0)
WATCHED = 5  # one in so many utterances of dev is looked at while training


@dataclass(frozen=True)
class Variant:
    """A model that is held against the original.

    Attributes:
        name: of its folder.
        treated: whether it was treated by the plan.
        trained: whether it was fine-tuned.
        teacher: whether the original was its teacher.
    """

    name: str
    treated: bool
    trained: bool
    teacher: bool

    @property
    def words(self) -> str:
        """What was done, in words."""
        done = "treated" if self.treated else "not treated"
        taught = " with the original as teacher" if self.teacher else " on transcripts alone"
        return f"{done}, {f'fine-tuned{taught}' if self.trained else 'not fine-tuned'}"


VARIANTS = (
    Variant("treated", True, False, False),
    Variant("treated-taught", True, True, True),
    Variant("treated-alone", True, True, False),
    Variant("original-taught", False, True, True),
)


def examined(work: Path, seconds: float = 180.0) -> Diagnosis:
    """The diagnosis of the original on dev, from which the plan is made."""
    folder = work / "diagnosis"
    if not (folder / "diagnosis.json").exists():
        passes = Passes(seconds=seconds, metrics=("ctc-loss", "wer"))
        diagnose(MODEL, split(work, "dev"), MEASURES, passes=passes, tell=print).save(folder)
    return Diagnosis.load(folder)


def planned(work: Path, margin: float) -> Plan:
    """The plan; one that a person has edited is taken as it is."""
    place = work / "plan.toml"
    if not place.exists():
        prescribe(examined(work), "size", margin=margin).save(place)
    return Plan.load(place)


def settings(steps: int, seed: int = 0) -> TrainingSettings:
    """Of the fine-tuning, the same for all variants."""
    return TrainingSettings(
        steps=steps, batch_seconds=32, learning_rate=7e-4, precision="bfloat16", seed=seed, log_every=25, warmup=0.05,
        hold=0.3, evaluate_every=max(1, steps // 5), save_every=250,
    )  # fmt: skip


def made(work: Path, variant: Variant, plan: Plan, steps: int) -> Path:
    """The folder of a variant; what is there already is left as it is, and an interrupted training gone on with."""
    from otoscope.workflow.treating import treat

    torch.set_num_threads(1)
    folder = work / variant.name
    if (folder / "config.json").exists():
        return folder
    original = load(MODEL)
    if not variant.trained:
        treat(original, plan, folder)
        return folder
    finetune(
        MODEL, split(work, "train"), folder, settings=settings(steps), augmentation=AUGMENTATION,
        ctc=CtcSettings(mask=0.05, mask_span=6, freeze_convolutions=False), plan=plan if variant.treated else None,
        teacher=original if variant.teacher else None, dev=thinned(split(work, "dev"), WATCHED),
        resume=(folder / "run").exists(), report=_print,
    )  # fmt: skip
    return folder


def verified(work: Path, variant: Variant) -> Outcome:
    """A variant against the original on the examination speech."""
    place = work / f"{variant.name}.json"
    if not place.exists():
        verify(MODEL, work / variant.name, split(work, "exam")).save(place)
    return Outcome.load(place)


def _print(row: Mapping[str, Any]) -> None:
    print(json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}), flush=True)
