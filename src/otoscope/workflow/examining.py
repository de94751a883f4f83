"""Examinations that take many passes: importance of heads, and context mixing; run beside the one pass, and told first."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from otoscope.diagnosis.entries import Entry
from otoscope.diagnosis.result import Diagnosis, with_results
from otoscope.errors import CorpusError, MeasureError, ModelError
from otoscope.evaluation.catalogue import metric_by_name
from otoscope.interventions.mixing import context_mixing
from otoscope.measures.measure import Result
from otoscope.models.model import SpeechModel
from otoscope.speech.corpus import Corpus
from otoscope.workflow.importance import examine_importance

Tell = Callable[[str], None]
Progress = Callable[[float, float], None]


@dataclass(frozen=True)
class Passes:
    """How much is spent on what takes many passes.

    Attributes:
        seconds: at most so much speech is used to rank heads and to prune them.
        utterances: at most so many are looked at for context mixing.
        metrics: names of metrics ("wer", "ctc-loss") that are taken without each head, and along pruning curves, beside
            the model's own loss and the probes.
        store: folder in which finished variants are kept, so that a run that was cut off goes on.
    """

    seconds: float = 120.0
    utterances: int = 20
    metrics: Sequence[str] = ()
    store: str | Path | None = None


def examine(
    diagnosis: Diagnosis,
    chosen: Sequence[tuple[Entry, bool]],
    model: SpeechModel,
    corpus: Corpus,
    seed: int,
    *,
    passes: Passes | None = None,
    batch_seconds: float = 30.0,
    tell: Tell | None = None,
    progress: Progress | None = None,
) -> Diagnosis:
    """Adds what takes many passes to a diagnosis.

    Args:
        diagnosis: what one pass gave.
        chosen: entries of the catalogue that are wanted, each with whether it was asked for by name; those that one
            pass gives are passed over.
        model: the model.
        corpus: the speech.
        seed: of every random choice.
        passes: see `Passes`.
        batch_seconds: budget of a batch, in seconds of padded speech.
        tell: called with a line before each stage.
        progress: called with what is done and to do of the stage at hand.

    Raises:
        MeasureError: what was asked for by name cannot be taken.
    """
    began = time.perf_counter()
    spent = passes or Passes()
    wanted = {entry.name: by_name for entry, by_name in chosen if entry.make is None}
    results: dict[str, Result] = {}
    skipped: list[dict[str, str]] = []

    def taken(name: str, by_name: bool, take: Callable[[], Result]) -> None:
        try:
            results[name] = take()
        except (MeasureError, CorpusError, ModelError) as error:
            if by_name:
                raise
            skipped.append({"measure": name, "reason": str(error)})

    def mixed(method: str) -> Result:
        return context_mixing(model, corpus, method, limit=spent.utterances, seed=seed)

    for name in [name for name in wanted if name.startswith("mixing-")]:
        method = name.removeprefix("mixing-")
        if tell is not None:
            tell(f"Context mixing ({method}) of {min(len(corpus), spent.utterances)} utterances, one by one")
        taken(name, wanted[name], partial(mixed, method))
    done = [name for name in wanted if name in results]
    diagnosis = with_results(diagnosis, results, done, skipped)
    ranked = {name: by_name for name, by_name in wanted.items() if not name.startswith("mixing-")}
    if not ranked:
        return _timed(diagnosis, began)
    try:
        found = examine_importance(
            model, corpus, seed=seed, seconds=spent.seconds, metrics=[metric_by_name(name) for name in spent.metrics],
            batch_seconds=batch_seconds, store=spent.store, tell=tell, progress=progress,
        )  # fmt: skip
    except (MeasureError, CorpusError, ModelError) as error:
        if any(ranked.values()):
            raise
        return _timed(with_results(diagnosis, {}, [], [{"measure": "importance", "reason": str(error)}]), began)
    for one in found.skipped:
        if ranked.get(one["measure"]):
            raise MeasureError(f"{one['measure']}: {one['reason']}", "Leave it out, or name the group importance.")
    kept = {*ranked, *(f"pruning-{name}" for name in spent.metrics)}
    found.result.rows = [row for row in found.result.rows if _base(row.measure) in kept]
    return _timed(found.joined(diagnosis), began)


def _timed(diagnosis: Diagnosis, began: float) -> Diagnosis:
    """The diagnosis with the time that was spent on it since then added to what it says."""
    about = diagnosis.provenance
    told = {
        "seconds": round(about.get("seconds", 0.0) + time.perf_counter() - began, 2),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return Diagnosis(diagnosis.table, diagnosis.arrays, about | told)


def _base(measure: str) -> str:
    """A measure's name without what tells its kinds of rows apart."""
    return measure.removesuffix("-change").removesuffix("-frozen")
