"""The pass: every batch goes through the model once, and all measures see what it gave."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file
from threadpoolctl import threadpool_limits

from otoscope.diagnosis.catalogue import choose
from otoscope.diagnosis.entries import Entry
from otoscope.diagnosis.options import Options
from otoscope.diagnosis.provenance import corpus_facts, versions
from otoscope.diagnosis.result import Diagnosis, table_of
from otoscope.errors import AudioError, CorpusError, MeasureError, StateError
from otoscope.evaluation.part_costs import part_costs
from otoscope.measures.measure import Measure, Result
from otoscope.measures.source import Source, SourcedMeasure
from otoscope.models.capture import Transform
from otoscope.models.model import SpeechModel
from otoscope.models.reductions import Reduction
from otoscope.speech.batching import read_batches
from otoscope.speech.corpus import Corpus, LeftOut

# Called after each batch with the seconds of speech that are done and that there are in all.
Progress = Callable[[float, float], None]


@dataclass
class Observation:
    """Measures prepared for one model and corpus, with what they have seen so far.

    States of parts of a corpus, observed anywhere, merge to that of the whole.

    Attributes:
        model: the model.
        corpus: the whole corpus, without utterances that the model cannot take.
        seed: seed of every random choice.
        measures: prepared measures, by name.
        asked: names of those that were asked for one by one, whose failure is an error.
        skipped: measures that could not be taken, with the reason.
        seen: ids of the utterances that went through.
        left_out: utterances that were skipped, with the reason.
        counts: clipped samples and the like, summed over what was seen.
        broken: a pass failed midway, so that some measures saw a batch that others did not.
        outside: sum over utterances of the attention per layer and head on padding that the model attends to.
        sources: states that several of the measures read, by key.
        other: another model that the first is compared with.
        makers: for every name that is wanted the measure whose object gives its rows.
    """

    model: SpeechModel
    corpus: Corpus
    seed: int
    measures: dict[str, Measure]
    asked: frozenset[str]
    skipped: list[dict[str, str]]
    seen: set[str] = field(default_factory=set)
    left_out: list[LeftOut] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    outside: np.ndarray = field(default_factory=lambda: np.zeros(()))
    seconds: float = 0.0
    broken: bool = False
    sources: dict[str, Source] = field(default_factory=dict)
    other: SpeechModel | None = None
    makers: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for measure in self.measures.values():
            if isinstance(measure, SourcedMeasure):
                own = measure.require_prepared()
                source = self.sources.setdefault(own.key, own)
                if source is not own:
                    source.absorb(own)
                measure.source, measure.shared = source, True

    @classmethod
    def prepare(
        cls,
        model: SpeechModel,
        corpus: Corpus,
        measures: str | Sequence[str] | None = None,
        seed: int = 0,
        skip_bad: bool = False,
        options: Options | None = None,
        other: SpeechModel | None = None,
    ) -> Observation:
        """Fixes folds, groups and labels from the whole corpus.

        Args:
            model: the model.
            corpus: the whole corpus.
            measures: names and groups; None for all that one pass gives.
            seed: of every random choice.
            skip_bad: leave out utterances that the model cannot take, and list them.
            options: folds, tables and files that measures read.
            other: another model, which hears the same batches, for the measures that compare the two.

        Raises:
            CorpusError: the corpus is empty.
            AudioError: an utterance is too short or too long for the model, without `skip_bad`.
            MeasureError: a measure that was asked for by name cannot be taken here.
        """
        left_out = list(corpus.left_out)
        kept = []
        for utterance in corpus:
            try:
                model.frontend.check(utterance.n_samples, f"Utterance {utterance.id!r}")
            except AudioError as error:
                if not skip_bad:
                    raise
                left_out.append(LeftOut(utterance.id, str(error)))
            else:
                kept.append(utterance.id)
        corpus = corpus.subset(kept)
        if not len(corpus):
            raise CorpusError(
                f"Corpus {corpus.name} has no utterance to examine{_first_reason(left_out)}",
                "Give it recordings of at least two frames.",
            )
        prepared: dict[str, Measure] = {}
        skipped: list[dict[str, str]] = []
        beside = None if other is None else (other.anatomy, other.name)
        options = replace(options or Options(), other=beside, corpus=corpus, seed=seed)
        chosen = [(entry, by_name) for entry, by_name in choose(measures, options) if entry.make is not None]
        wanted = frozenset(entry.name for entry, _ in chosen)
        options = replace(options, wanted=wanted)
        for entry, by_name in chosen:
            if entry.maker in prepared:
                continue
            try:
                prepared[entry.maker] = _prepared(entry, options, model, corpus, seed)
            except (MeasureError, CorpusError) as error:
                if by_name:
                    raise
                skipped.append({"measure": entry.name, "reason": str(error)})
        asked = frozenset(entry.maker for entry, by_name in chosen if by_name)
        makers = {entry.name: entry.maker for entry, _ in chosen if entry.maker in prepared}
        shape = (model.anatomy.n_layers, max(model.anatomy.heads))
        return cls(
            model,
            corpus,
            seed,
            prepared,
            asked,
            skipped,
            left_out=left_out,
            outside=np.zeros(shape),
            other=other,
            makers=makers,
        )

    def update(
        self,
        corpus: Corpus | None = None,
        *,
        batch_seconds: float = 30.0,
        skip_bad: bool = False,
        progress: Progress | None = None,
    ) -> None:
        """Passes utterances through the model, once each.

        Args:
            corpus: a part of the corpus that was prepared; None for all of it.
            batch_seconds: frame budget of a batch, in seconds of padded speech.
            skip_bad: leave out what cannot be read, and list it.
            progress: called after every batch.

        Raises:
            AudioError: a recording cannot be read, without `skip_bad`.
            StateError: an utterance was seen before, or is not in the corpus that was prepared.
        """
        self._require_whole()
        known = {utterance.id for utterance in self.corpus}
        left_out = {one.id for one in self.left_out}
        part = [u for u in (self.corpus if corpus is None else corpus) if u.id not in left_out]
        strangers = [u.id for u in part if u.id not in known]
        if strangers:
            raise StateError(
                f"Utterance {strangers[0]!r} is not in the corpus that was prepared", "Prepare with the whole corpus."
            )
        again = [u.id for u in part if u.id in self.seen]
        if again:
            raise StateError(f"Utterance {again[0]!r} was observed before", "Give every utterance once.")
        began = time.perf_counter()
        streams = tuple(dict.fromkeys(s for m in self.measures.values() for s in m.streams))
        others = tuple(dict.fromkeys(s for m in self.measures.values() for s in m.streams_of_other))
        reductions: list[Callable[[], Reduction]] = list(
            dict.fromkeys(kind for m in self.measures.values() for kind in m.reductions)
        )
        transforms: dict[str, Transform] = {}
        for measure in self.measures.values():
            transforms |= measure.transforms(self.model.anatomy)
        reader = read_batches(part, batch_seconds, skip_bad=skip_bad)
        done = 0.0
        for batch in reader:
            capture = self.model.capture(batch.utterances, batch.samples, streams, reductions, transforms)
            if self.other is not None and others:
                capture = replace(capture, other=self.other.capture(batch.utterances, batch.samples, others))
            self.broken = True  # until all measures have seen the batch
            for source in self.sources.values():
                source.update(capture)
            for measure in self.measures.values():
                measure.update(capture)
            self.broken = False
            self.seen |= {utterance.id for utterance in batch.utterances}
            for layer, found in capture.outside.items():
                for one in found:
                    self.outside[layer - 1, : len(one)] += one.cpu().numpy()
            done += batch.seconds
            if progress is not None:
                progress(done, reader.seconds)
        self.left_out += reader.left_out
        for name, count in reader.counts.items():
            self.counts[name] = self.counts.get(name, 0) + count
        self.seconds += time.perf_counter() - began

    def merge(self, other: Observation) -> None:
        """Adds another part's states, in place.

        Raises:
            StateError: the two were prepared differently, or saw the same utterance.
        """
        self._require_whole()
        other._require_whole()
        both = self.seen & other.seen
        mine, theirs = self._identity(), other._identity()
        differ = [key for key in mine if mine[key] != theirs[key]]
        if both or differ:
            why = f"both saw {min(both)!r}" if both else f"they were prepared with another {differ[0]}"
            raise StateError(f"Two observations cannot be merged: {why}", "Observe disjoint parts of one corpus alike.")
        self.broken = True
        for key, source in self.sources.items():
            source.merge(other.sources[key])
        for name, measure in self.measures.items():
            measure.merge(other.measures[name])
        self.seen |= other.seen
        self.left_out += [one for one in other.left_out if one not in self.left_out]
        for name, count in other.counts.items():
            self.counts[name] = self.counts.get(name, 0) + count
        self.outside += other.outside
        self.seconds += other.seconds
        self.broken = False

    def compute(self, command: str = "") -> Diagnosis:
        """Turns the states into a diagnosis, leaving them as they are.

        Raises:
            StateError: nothing was observed.
            MeasureError: a measure that was asked for by name gives no right number.
        """
        self._require_whole()
        if not self.seen:
            raise StateError(
                f"Nothing was observed{_first_reason(self.left_out)}",
                "Call update before compute, with at least one utterance that can be used.",
            )
        began = time.perf_counter()
        results: dict[str, Result] = {}
        skipped = list(self.skipped)
        for name, measure in self.measures.items():
            try:
                # The matrices are too small for a second thread to pay, and one thread gives the same digits anywhere.
                with threadpool_limits(1, "blas"):
                    results[name] = measure.compute()
            except MeasureError as error:
                if name in self.asked:
                    raise
                skipped.append({"measure": name, "reason": str(error)})
        for source in self.sources.values():
            source.memory.clear()  # decomposed covariances take more room than the states
        notes: dict[str, Any] = {name: result.notes for name, result in results.items()}
        if self.outside.any():
            heads = self.model.anatomy.heads
            notes["attention_on_padding"] = {
                f"layer.{k}": round(float(row.sum() / count / len(self.seen)), 6)
                for k, (row, count) in enumerate(zip(self.outside, heads, strict=True), 1)
                if count
            }
        provenance = {
            "model": self.model.describe() | {"parts": part_costs(self.model)},
            "corpus": corpus_facts(self.corpus, self.seen, self.left_out, self.counts),
            "measures": [name for name, maker in self.makers.items() if maker in results],
            "skipped": skipped,
            "notes": notes,
            "versions": versions(),
            "seed": self.seed,
            "command": command,
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(self.seconds + time.perf_counter() - began, 2),
        }
        arrays = {key: array for result in results.values() for key, array in result.arrays.items()}
        rows = (row for result in results.values() for row in result.rows if row.measure in self.makers)
        return Diagnosis(table_of(rows), arrays, provenance)

    def _identity(self) -> dict[str, Any]:
        """What two observations must share for their states to be of one kind."""
        return {
            "model": self.model.fingerprint(),
            "corpus": self.corpus.fingerprint(),
            "seed": self.seed,
            "measures": list(self.measures),
            "sources": list(self.sources),
            "other": None if self.other is None else self.other.fingerprint(),
        }

    def _require_whole(self) -> None:
        if self.broken:
            raise StateError(
                "An earlier pass failed midway, so some measures saw a batch that others did not",
                "Prepare and observe anew.",
            )

    def save(self, path: str | Path) -> None:
        """Writes the states as one safetensors file, whole or not at all.

        Raises:
            StateError: it cannot be written there.
        """
        path = Path(path).resolve()
        held: dict[str, Source | Measure] = {**self.sources, **self.measures}
        arrays = {
            f"{name}:{key}": np.ascontiguousarray(array)
            for name, part in held.items()
            for key, array in part.state().items()
        }
        self._require_whole()
        about = {
            **self._identity(), "seen": sorted(self.seen), "counts": self.counts, "seconds": self.seconds,
            "left_out": [[one.id, one.reason] for one in self.left_out],
        }  # fmt: skip
        unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            save_file({**arrays, "outside": self.outside}, unfinished, {"otoscope": json.dumps(about)})
            unfinished.replace(path)
        except (OSError, SafetensorError, ValueError) as error:
            raise StateError(
                f"The states cannot be written to {path}: {error}",
                "Name a file in a folder that you may write to and that has room.",
            ) from error
        finally:
            with contextlib.suppress(OSError):
                unfinished.unlink(missing_ok=True)

    def load(self, path: str | Path) -> None:
        """Takes over states that `save` wrote; this observation must have been prepared in the same way.

        Raises:
            StateError: the file is absent or broken, or was written for another model, corpus, seed or measures.
        """
        try:
            with safe_open(path, "numpy") as file:
                about = json.loads(file.metadata()["otoscope"])
            arrays = load_file(path)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise StateError(f"{path} holds no observation ({error})", "Name a file that `save` wrote.") from error
        for key, value in self._identity().items():
            if about.get(key) != value:
                raise StateError(
                    f"{path} was observed with another {key}",
                    "Prepare with the same model, whole corpus, seed and measures.",
                )
        held: dict[str, Source | Measure] = {**self.sources, **self.measures}
        for name, part in held.items():
            start = f"{name}:"
            part.load_state({k.removeprefix(start): v for k, v in arrays.items() if k.startswith(start)})
        self.outside = arrays["outside"]
        self.seen, self.counts, self.seconds = set(about["seen"]), about["counts"], about["seconds"]
        self.left_out = [LeftOut(name, reason) for name, reason in about["left_out"]]


def _first_reason(left_out: Sequence[LeftOut]) -> str:
    if not left_out:
        return ""
    return f": {len(left_out)} were left out, the first ({left_out[0].id}) because: {left_out[0].reason}"


def _prepared(entry: Entry, options: Options, model: SpeechModel, corpus: Corpus, seed: int) -> Measure:
    assert entry.make is not None
    measure = entry.make(options)
    measure.prepare(model.anatomy, corpus, seed)
    return measure
