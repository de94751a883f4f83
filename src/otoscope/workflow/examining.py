"""Examinations that take many passes: of blocks, of heads, of context mixing; run beside the one pass, and told first."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from otoscope.diagnosis.entries import Entry
from otoscope.diagnosis.result import Diagnosis, with_results
from otoscope.errors import CorpusError, MeasureError, ModelError
from otoscope.evaluation.catalogue import metric_by_name
from otoscope.interventions.mixing import context_mixing, method_and_spans
from otoscope.measures.measure import Result
from otoscope.models.model import SpeechModel
from otoscope.speech.corpus import Corpus
from otoscope.workflow.blocks import BlockPasses, examine_blocks
from otoscope.workflow.importance import examine_importance

Tell = Callable[[str], None]
Progress = Callable[[float, float], None]


@dataclass(frozen=True)
class Passes:
    """How much is spent on what takes many passes.

    Attributes:
        seconds: at most so much speech is used to rank heads and to prune them, and to change blocks and layers.
        utterances: at most so many are looked at for context mixing.
        metrics: names of metrics ("wer", "ctc-loss") that are taken without each head, and along pruning curves, beside
            the model's own loss and the probes; and of changed blocks and layers, in place of those that suit the model.
        store: folder in which finished variants are kept, so that a run that was cut off goes on.
        blocks: how blocks and layers are examined.
    """

    seconds: float = 120.0
    utterances: int = 20
    metrics: Sequence[str] = ()
    store: str | Path | None = None
    blocks: BlockPasses = field(default_factory=BlockPasses)


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

    def mixed(name: str) -> Result:
        method, spans = method_and_spans(name)
        return context_mixing(model, corpus, method, spans=spans, limit=spent.utterances, seed=seed)

    for name in [name for name in wanted if name.startswith("mixing-")]:
        if tell is not None:
            what = name.removeprefix("mixing-")
            tell(f"Context mixing ({what}) of {min(len(corpus), spent.utterances)} utterances, one by one")
        taken(name, wanted[name], partial(mixed, name))
    done = [name for name in wanted if name in results]
    diagnosis = with_results(diagnosis, results, done, skipped)
    metrics = [metric_by_name(name) for name in spent.metrics]
    store = None if spent.store is None else Path(spent.store)
    groups = {entry.name: entry.group for entry, _ in chosen}
    blocks = {name: by_name for name, by_name in wanted.items() if groups[name] in ("blocks", "noise")}
    if blocks:
        found, missed = examine_blocks(
            diagnosis, blocks, model, corpus, seed, given=spent.blocks, metrics=metrics, seconds=spent.seconds,
            batch_seconds=batch_seconds, store=None if store is None else store / "blocks",
            refused=[name for name, by_name in blocks.items() if by_name], tell=tell, progress=progress,
        )  # fmt: skip
        diagnosis = with_results(diagnosis, found, [name for name in blocks if not _in(missed, name)], missed)
    ranked = {name: by_name for name, by_name in wanted.items() if groups[name] in ("importance", "spans")}
    if not ranked:
        return _timed(diagnosis, began)
    try:
        importance = examine_importance(
            model, corpus, seed=seed, seconds=spent.seconds, metrics=metrics, batch_seconds=batch_seconds, store=store,
            wanted=set(ranked), beside=diagnosis, tell=tell,
            progress=progress,
        )  # fmt: skip
    except (MeasureError, CorpusError, ModelError) as error:
        if any(ranked.values()):
            raise
        return _timed(with_results(diagnosis, {}, [], [{"measure": "importance", "reason": str(error)}]), began)
    _refuse(importance.skipped, ranked)
    return _timed(importance.joined(diagnosis), began)


def _refuse(skipped: Sequence[Mapping[str, str]], by_name: Mapping[str, bool]) -> None:
    """Refuses what was asked for by name and cannot be taken."""
    for one in skipped:
        if by_name.get(one["measure"]):
            raise MeasureError(f"{one['measure']}: {one['reason']}", "Leave it out, or name the group importance.")


def _in(skipped: Sequence[Mapping[str, str]], name: str) -> bool:
    return any(one["measure"] == name for one in skipped)


def _timed(diagnosis: Diagnosis, began: float) -> Diagnosis:
    """The diagnosis with the time that was spent on it since then added to what it says."""
    about = diagnosis.provenance
    told = {
        "seconds": round(about.get("seconds", 0.0) + time.perf_counter() - began, 2),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return Diagnosis(diagnosis.table, diagnosis.arrays, about | told)
