"""Treat: a model and a plan in, a new model out; or, on trial, what it would save."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from otoscope.errors import CheckpointError, OtoscopeError, PlanError, SurgeryError, TreatmentError
from otoscope.evaluation.timing import TimeComparison, compare_time
from otoscope.models.loading import load
from otoscope.models.model import SpeechModel
from otoscope.plans.checks import at_line
from otoscope.plans.plan import Line, Plan
from otoscope.speech.corpus import Corpus
from otoscope.treatments.applying import record_of, treated
from otoscope.treatments.files import PARTIAL
from otoscope.treatments.folders import save_treated
from otoscope.treatments.sizes import Sizes
from otoscope.treatments.treatment import Treatment
from otoscope.workflow.corpora import read_corpus

PLAN = "plan.toml"
_UNFIT = (SurgeryError, TreatmentError, CheckpointError)
TIMED_SECONDS = 10.0
"""About so much speech is in each of the runs that are timed."""


@dataclass(frozen=True)
class Trial:
    """What a plan would save; nothing was written.

    Attributes:
        treatments: what would be done, a line each.
        parameters: of the encoder before and after.
        macs_per_second: multiply-accumulates of the encoder for a second of speech, before and after; None where they
            cannot be counted.
        time: both timed in turn on the same speech; None where they were not.
    """

    treatments: tuple[str, ...]
    parameters: tuple[int, int]
    macs_per_second: tuple[int | None, int | None]
    time: TimeComparison | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [f"{number:>3}  {one}" for number, one in enumerate(self.treatments, start=1)]
        lines = lines or ["The plan holds no treatment, so nothing would change."]
        for name, (before, after) in (("parameters", self.parameters), ("MACs a second", self.macs_per_second)):
            if before is None or after is None:
                lines.append(f"{name}: cannot be counted")
            else:
                lines.append(f"{name}: {before:,} before, {after:,} after ({100 * (after - before) / before:+.1f} %)")
        return "\n".join([*lines, *([str(self.time)] if self.time is not None else [])])


def treat(
    model: SpeechModel | nn.Module | str | Path,
    plan: Plan | str | Path | Sequence[Treatment],
    output: str | Path | None = None,
    *,
    name: str | None = None,
    any_weights: bool = False,
    device: str | None = None,
) -> SpeechModel:
    """Carries out a plan on a copy of a model.

    Names of layers and heads stay those of the original. A plan without treatments gives a copy that is equal bit for bit.

    Args:
        model: a `SpeechModel`, a transformers model, a folder, a Hub name, or "embedded"; left as it is.
        plan: a plan, its file, or treatments in order.
        output: a folder for the treated model, with the plan and a model card beside it; `load` reads it.
        name: what reports call the treated model; by default the name of the original, with a note that it was treated.
        any_weights: take a plan that was made for a model of the same sizes and other weights.
        device: where a model that is loaded is put.

    Raises:
        ModelError: the model cannot be loaded.
        PlanError: the plan cannot be read, is for another model, or cannot be carried out, with the line; or it holds no
            treatment, so that there is none to be stored.
        TreatmentError: the folder cannot be written.
    """
    made = as_plan(plan)
    if output is not None:
        check_folder(output)
        if not made.lines:
            raise PlanError(
                "The plan holds no treatment, so there is no treated model to be stored",
                "Prescribe by another goal or with a wider margin, or add a treatment.",
            )
    ready = model if isinstance(model, SpeechModel) else load(model, device=device)
    record = record_of(ready.source)
    before = () if record is None else record.treatments
    made.check(Sizes.of(ready), ready.fingerprint(), same_sizes=any_weights, done=before)
    try:
        found = treated(ready, made.treatments, name)
    except _UNFIT as error:
        raise _located(ready, made, error) from error
    if output is not None:
        _store(found, made, Path(output))
    return found


def try_plan(
    model: SpeechModel | nn.Module | str | Path,
    plan: Plan | str | Path | Sequence[Treatment],
    corpus: Corpus | str | Path | None = "embedded",
    *,
    repeats: int = 15,
    any_weights: bool = False,
    device: str | None = None,
) -> Trial:
    """Says what a plan would save, without writing anything.

    Args:
        model: see `treat`.
        plan: see `treat`.
        corpus: speech, a few seconds of which are run through both models in turn; None times nothing.
        repeats: pairs of runs.
        any_weights: see `treat`.
        device: see `treat`.

    Raises:
        ModelError: the model cannot be loaded.
        PlanError: the plan cannot be read, is for another model, or cannot be carried out.
        EvaluationError: fewer pairs of runs than an interval can stand on.
        SpeechError: the speech cannot be read.
    """
    made = as_plan(plan)
    before = model if isinstance(model, SpeechModel) else load(model, device=device)
    after = treat(before, made, any_weights=any_weights)
    time = None
    if corpus is not None:
        speech = corpus if isinstance(corpus, Corpus) else read_corpus(corpus)
        time = compare_time(before, after, _some(speech), repeats)
    counts = (before.macs_per_second(), after.macs_per_second())
    return Trial(tuple(map(str, made.treatments)), (before.parameters, after.parameters), counts, time)


def as_plan(plan: Plan | str | Path | Sequence[Treatment]) -> Plan:
    """A plan, whether it is one, a file, or treatments.

    Raises:
        PlanError: the file is no plan.
    """
    if isinstance(plan, Plan):
        return plan
    if isinstance(plan, str | Path):
        return Plan.load(plan)
    return Plan(tuple(Line(one) for one in plan))


def carried_plan(model: SpeechModel, plan: Plan | None) -> Plan | None:
    """The plan that goes with a model which is treated again, or only trained: all that is done to the original.

    Args:
        model: before its treatment by `plan`; the plan in the folder that it was read from is taken, and lines without
            evidence for what that does not tell.
        plan: what is done to it now; None is nothing.

    Returns:
        None where nothing is done.

    Raises:
        PlanError: the plan in the model's folder cannot be read.
    """
    record = record_of(model.source)
    done = () if record is None else record.treatments
    beside = Path(str(getattr(model.source.config, "_name_or_path", ""))) / PLAN
    before = Plan.load(beside) if done and beside.is_file() else Plan()
    now = plan or Plan()
    known = [line for line in before.lines if line.treatment in done]
    known += [Line(one) for one in done if one not in {line.treatment for line in known}]
    lines = (*known, *(line for line in now.lines if line.treatment not in done))
    if not lines:
        return None
    last = now if now.lines else before
    about = before if done else now
    return Plan(lines, last.goal, about.model, last.diagnosis, tuple(dict.fromkeys((*before.notes, *now.notes))))


def check_folder(folder: str | Path) -> None:
    """Makes sure that a treated model may be written to a folder; to be called before long work.

    Raises:
        PlanError: it is a file, or holds something other than a treated model.
    """
    place = Path(folder)
    if place.exists() and not place.is_dir():
        raise PlanError(f"{folder} is a file", "Name a folder for the treated model.")
    there = place.iterdir() if place.is_dir() else ()
    if any(not path.name.startswith(PARTIAL) for path in there) and not (place / "treatment.json").is_file():
        raise PlanError(
            f"The folder {folder} holds something other than a treated model", "Name a new or empty folder."
        )


def _located(model: SpeechModel, plan: Plan, error: OtoscopeError) -> OtoscopeError:
    """Why a plan cannot be carried out, with the first line that cannot: not all of it can be told from sizes."""
    for k, line in enumerate(plan.lines):
        try:
            treated(model, plan.treatments[: k + 1])
        except _UNFIT as first:
            return at_line(k, line, first)
    return error


def _store(model: SpeechModel, plan: Plan, folder: Path) -> None:
    """Writes the folder: the model, the plan beside it, and the model card."""
    from otoscope.reporting.model_card import write_card

    def write(path: Path) -> None:
        plan.save(path)

    save_treated(model, folder, extra={PLAN: write})
    write_card(folder, plan)


def _some(corpus: Corpus) -> list[np.ndarray]:
    """Utterances of all lengths, about `TIMED_SECONDS` in all."""
    ordered = sorted(corpus, key=lambda one: (one.n_samples, one.id))
    count = int(np.clip(round(TIMED_SECONDS * len(ordered) / corpus.seconds), 1, len(ordered)))
    places = np.unique(np.linspace(0, len(ordered) - 1, count + 2)[1:-1].round().astype(int))
    return [ordered[k].read() for k in places]
