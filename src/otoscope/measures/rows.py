"""Vectors of segments that are chosen beforehand, for measures that no sum of fixed size serves."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, replace

import numpy as np
from jaxtyping import Float32, Int

from otoscope.errors import MeasureError, StateError
from otoscope.measures.layers.labels import NO_LABELS
from otoscope.measures.layers.spans import SPANS, span_means, word_spans
from otoscope.measures.measure import Measure, Result
from otoscope.models.anatomy import Anatomy, Grid
from otoscope.models.capture import Capture
from otoscope.speech import Corpus, Utterance
from otoscope.statistics import groups, uniform
from otoscope.statistics.least import Least
from otoscope.statistics.partition import FEWEST_SPEAKERS
from otoscope.statistics.state import take_over

SEQUENCE = "sequence"
"""The span whose frames are kept one by one."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of an utterance.

    Attributes:
        utterance: its id.
        speaker: who speaks, or None.
        place: index of the interval in its tier; 0 for a whole utterance.
        start: first sample.
        end: one past the last sample.
        label: label of the interval; empty for a whole utterance.
    """

    utterance: str
    speaker: str | None
    place: int
    start: int
    end: int
    label: str


def choose_segments(
    corpus: Corpus,
    tier: str,
    seed: int,
    *,
    most_labels: int | None = None,
    per_label: int | None = None,
    most: int | None = None,
    fewest: int = 1,
) -> tuple[Segment, ...]:
    """Chooses segments by a hash of (seed, utterance, segment), so that order and split of the corpus do not matter.

    Memory is that of what is chosen, and a draw a segment of the labels that are kept.

    Args:
        corpus: the whole corpus.
        tier: "phone", "word", or "utterance" for whole utterances. Pauses, noises and unknown words are never chosen.
        seed: of the choice.
        most_labels: only the most frequent labels, ties in alphabetical order.
        per_label: at most so many segments of a label.
        most: at most so many segments in all.
        fewest: labels with fewer segments are left out.

    Returns:
        Segments in the order of the corpus.

    Raises:
        CorpusError: the corpus lacks the tier.
    """
    if tier == "utterance":
        return _drawn_least(((k, 0, "") for k in range(len(corpus))), corpus, seed, tier, None, most)
    corpus.require_tier(tier)
    counts = Counter(x.label for u in corpus for x in u.tiers.get(tier, ()) if x.label not in NO_LABELS)
    frequent = sorted(counts, key=lambda label: (-counts[label], label))[:most_labels]
    kept = {label for label in frequent if counts[label] >= fewest}
    found = (
        (k, place, x.label)
        for k, u in enumerate(corpus)
        for place, x in enumerate(u.tiers.get(tier, ()))
        if x.label in kept
    )
    return _drawn_least(found, corpus, seed, tier, per_label, most)


def _drawn_least(
    found: Iterable[tuple[int, int, str]],
    corpus: Corpus,
    seed: int,
    tier: str,
    per_label: int | None,
    most: int | None,
) -> tuple[Segment, ...]:
    """Those of (utterance, place, label) whose draws are least, so many a label and so many in all."""
    kinds: defaultdict[str, Least[tuple[int, int]]] = defaultdict(
        lambda: Least(most if per_label is None else per_label)
    )
    for k, place, label in found:
        draw = uniform(seed, corpus[k].id, place, f"rows {tier}")
        kinds[label if per_label is not None else ""].add((draw, corpus[k].id, place), (k, place))
    least: Least[tuple[int, int]] = Least(most)
    for kind in kinds.values():
        for key, one in kind.items():
            least.add(key, one)
    return tuple(_segment(corpus[k], tier, place) for k, place in sorted(one for _, one in least.items()))


def _segment(utterance: Utterance, tier: str, place: int) -> Segment:
    if tier == "utterance":
        return Segment(utterance.id, utterance.speaker, 0, 0, utterance.n_samples, "")
    x = utterance.tiers[tier][place]
    return Segment(utterance.id, utterance.speaker, place, x.start, x.end, x.label)


def choose_frames(corpus: Corpus, seed: int, most: int, apart: int = 1280) -> tuple[Segment, ...]:
    """Chooses single frames by a hash of (seed, utterance, place); memory is that of what is chosen.

    Args:
        corpus: the whole corpus.
        seed: of the choice.
        most: at most so many.
        apart: samples from one candidate to the next; as much as the longest hop of the models, so that none comes twice.
    """
    least: Least[tuple[int, int, int]] = Least(most)
    for k, u in enumerate(corpus):
        for place, start in enumerate(range(apart // 2, u.n_samples - apart, apart)):
            least.add((uniform(seed, u.id, place, "frames"), u.id, place), (k, place, start))
    return tuple(
        Segment(corpus[k].id, corpus[k].speaker, place, start, start + 1, "")
        for k, place, start in sorted(one for _, one in least.items())
    )


class RowsMeasure(Measure):
    """A measure of the vectors of chosen segments.

    A subclass gives `choose` and `score`. Memory is one float32 vector a segment and stream, or with the span "sequence"
    one a frame.

    Attributes:
        span: how a segment becomes a vector: a name of `SPANS`, or "sequence".
        other: anatomy of another model whose streams are stored too, under names that begin with "other/".
        seed: of the choice.
        segments: what was chosen.
        seen: which of them have gone through, shape (n,).
    """

    span: str = "word"
    other: Anatomy | None = None

    def __init__(self) -> None:
        self._streams: tuple[str, ...] = ()
        self._others: dict[str, str] = {}
        self._prepared = ""

    @abstractmethod
    def choose(self, corpus: Corpus, seed: int) -> tuple[Segment, ...]:
        """Chooses the segments.

        Raises:
            MeasureError: the corpus gives no ground for the measure.
            CorpusError: the corpus lacks a tier.
        """

    @abstractmethod
    def score(self) -> Result:
        """Rows of the table from the vectors of the segments that were seen."""

    @property
    def streams(self) -> tuple[str, ...]:
        """Names of the streams it wants captured; known once it is prepared."""
        return self._streams

    @property
    def streams_of_other(self) -> tuple[str, ...]:
        """Names of the streams it wants captured of another model."""
        return tuple(self._others.values())

    def prepare(self, anatomy: Anatomy, corpus: Corpus, seed: int) -> None:
        """Chooses the segments and allocates their vectors.

        Raises:
            MeasureError: the model has none of the streams, or the corpus gives no ground.
            CorpusError: the corpus lacks a tier.
        """
        self._streams = _of_layers(anatomy)
        if not self._streams:
            raise MeasureError(
                f"{self.name} finds none of its streams among {', '.join(anatomy.streams) or 'none at all'}",
                "Choose measures that this model has streams for.",
            )
        self.seed, self.corpus_name = seed, corpus.name
        # By name, so that rows stand in one order whatever that of the corpus is.
        ordered = tuple(sorted(corpus.utterances, key=lambda u: u.id))
        self.segments = self.choose(replace(corpus, utterances=ordered), seed)
        if not self.segments:
            raise MeasureError(
                f"{self.name} finds no segment in corpus {corpus.name}", "Give more speech, or leave out the measure."
            )
        self._grids = {s: anatomy.grids[s] for s in self._streams}
        widths = {s: anatomy.widths[s] for s in self._streams}
        if self.other is not None:
            self._others = {f"other/{s}": s for s in _of_layers(self.other)}
            self._grids |= {name: self.other.grids[s] for name, s in self._others.items()}
            widths |= {name: self.other.widths[s] for name, s in self._others.items()}
        self._places: defaultdict[str, list[int]] = defaultdict(list)
        for i, one in enumerate(self.segments):
            self._places[one.utterance].append(i)
        self.seen = np.zeros(len(self.segments), dtype=bool)
        self._counts = {s: np.ones(len(self.segments), dtype=np.int64) for s in widths}
        self._first = {s: self._bounds(self._grids[s]) for s in widths}
        # Written at once, so that memory is taken up here and not as segments are first seen.
        self._rows = {s: np.full((self._first[s][-1], d), 0, dtype=np.float32) for s, d in widths.items()}
        told = [
            self.name, self.span, seed, [astuple(one) for one in self.segments],
            {s: (d, astuple(self._grids[s])) for s, d in widths.items()},
        ]  # fmt: skip
        self._prepared = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    def _bounds(self, grid: Grid) -> np.ndarray:
        """First row of every segment, and one past the last row of all, shape (n + 1,)."""
        counts = np.ones(len(self.segments), dtype=np.int64)
        if self.span == SEQUENCE:
            starts, ends = np.array([(one.start, one.end) for one in self.segments]).T
            # One frame more than any utterance has, so that nothing is clipped.
            first, last = word_spans(starts, ends, grid.hop, int(ends.max()) // grid.hop + 2, grid.offset < 0)
            counts = last - first
        return np.concatenate([[0], np.cumsum(counts)])

    def update(self, capture: Capture) -> None:
        """Stores the segments of one batch.

        Raises:
            MeasureError: a stream holds values that are not finite.
        """
        self._require_prepared()
        cut = SPANS.get(self.span, word_spans)
        for k, utterance in enumerate(capture.utterances):
            places = self._places.get(utterance.id, [])
            if not places:
                continue
            starts, ends = np.array([(self.segments[i].start, self.segments[i].end) for i in places]).T
            for stream in self._rows:
                frames, grid = self._frames(capture, stream, k), self._grids[stream]
                if not np.isfinite(frames).all():
                    raise MeasureError(
                        f"{self.name}, stream {stream}, {utterance.id}: values are not finite",
                        "Check the model's weights and the recordings for NaN and infinity.",
                    )
                first, last = cut(starts, ends, grid.hop, len(frames), grid.offset < 0)
                rows, begin = self._rows[stream], self._first[stream]
                if self.span != SEQUENCE:
                    rows[begin[places]] = span_means(frames, first, last)
                    continue
                for i, a, b in zip(places, first, last, strict=True):
                    self._counts[stream][i] = min(b - a, begin[i + 1] - begin[i])
                    rows[begin[i] : begin[i] + self._counts[stream][i]] = frames[a : a + self._counts[stream][i]]
            self.seen[places] = True

    def _frames(self, capture: Capture, stream: str, k: int) -> np.ndarray:
        source: Capture | None = capture
        if stream in self._others:
            source, stream = capture.other, self._others[stream]
        if source is None:
            raise StateError("The other model's streams were not captured", "Pass both models through one observation.")
        return source.frames(stream, k).detach().float().cpu().numpy()

    def seen_segments(self) -> tuple[Segment, ...]:
        """The segments that went through, in the order of `vectors` and `sequences`."""
        return tuple(one for one, seen in zip(self.segments, self.seen, strict=True) if seen)

    def vectors(self, stream: str) -> Float32[np.ndarray, "n d"]:
        """The vector of every segment that went through."""
        return self._rows[stream][self._first[stream][:-1]][self.seen]

    def sequences(self, stream: str) -> list[Float32[np.ndarray, "t d"]]:
        """The frames of every segment that went through."""
        rows, begin, counts = self._rows[stream], self._first[stream], self._counts[stream]
        return [rows[begin[i] : begin[i] + counts[i]] for i in np.flatnonzero(self.seen)]

    def hop(self, stream: str) -> int:
        """Samples from one frame of a stream to the next."""
        return self._grids[stream].hop

    def groups(self, segments: Sequence[Segment]) -> Int[np.ndarray, " n"]:
        """Group of every segment, for intervals that leave one group out at a time; at most 20 groups.

        They are by speaker, or by utterance where there are fewer than three speakers.
        """
        speakers = {one.speaker for one in segments}
        by_speaker = None not in speakers and len(speakers) >= FEWEST_SPEAKERS
        units = [str(one.speaker) if by_speaker else one.utterance for one in segments]
        group_of = groups(units, self.seed)
        return np.array([group_of[unit] for unit in units], dtype=np.int64)

    def permuted(self, labels: np.ndarray, purpose: str = "") -> np.ndarray:
        """Labels of the segments that were seen, shuffled by a hash of (seed, utterance, segment)."""
        told = f"permuted {self.name} {purpose}"
        drawn = [uniform(self.seed, one.utterance, one.place, told) for one in self.seen_segments()]
        return np.asarray(labels)[np.argsort(drawn, kind="stable")]

    def merge(self, other: Measure) -> None:
        """Adds what another part has stored, in place.

        Raises:
            StateError: the two were prepared differently, or have stored the same segment.
        """
        self._same_kind(other)
        assert isinstance(other, RowsMeasure)
        self._require_prepared()
        if self._prepared != other._prepared or (self.seen & other.seen).any():
            why = "have stored the same segment" if self._prepared == other._prepared else "were prepared differently"
            raise StateError(
                f"Two states of {self.name} {why}",
                "Prepare all parts with the same model, the whole corpus and one seed, and give each utterance once.",
            )
        for stream, rows in self._rows.items():
            for i in np.flatnonzero(other.seen):
                a, b = self._first[stream][i : i + 2]
                rows[a:b] = other._rows[stream][a:b]
            self._counts[stream][other.seen] = other._counts[stream][other.seen]
        self.seen |= other.seen

    def compute(self) -> Result:
        """Rows of the table.

        Raises:
            MeasureError: too few segments have gone through.
        """
        self._require_prepared()
        if not self.seen.any():
            raise MeasureError(f"{self.name} has seen none of its segments", "Pass the whole corpus through the model.")
        result = self.score()
        held = sum(rows.nbytes for rows in self._rows.values())
        told = {"seed": self.seed, "span": self.span, "segments": int(self.seen.sum()), "state_bytes": held}
        return Result(result.rows, result.arrays, {**told, **result.notes})

    def state(self) -> dict[str, np.ndarray]:
        """The state as named arrays (not copies), and the digest of how it was prepared (bytes)."""
        self._require_prepared()
        return {
            "seen": self.seen,
            **{f"{s}/rows": rows for s, rows in self._rows.items()},
            **{f"{s}/counts": counts for s, counts in self._counts.items()},
            "prepared": np.frombuffer(bytes.fromhex(self._prepared), dtype=np.uint8),
        }

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Takes over a state; the measure must have been prepared in the same way.

        Raises:
            StateError: an array is missing, has another shape, or comes from another preparation.
        """
        take_over(self.state(), state, self.name)

    def _require_prepared(self) -> None:
        if not self._prepared:
            raise StateError(f"{self.name} was not prepared", "Call prepare(anatomy, corpus, seed) first.")


def _of_layers(anatomy: Anatomy) -> tuple[str, ...]:
    return tuple(s for s in anatomy.streams if s.startswith("layer.") or s in ("input", "final_norm"))
