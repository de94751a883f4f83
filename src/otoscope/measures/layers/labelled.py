"""Segments with labels that are dealt into folds, for measures that are fitted on some rows and scored on others."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import nsmallest
from typing import Any

import numpy as np

from otoscope.errors import MeasureError
from otoscope.measures.layers.labels import FEWEST_FOLDS, FEWEST_ROWS, NO_LABELS
from otoscope.measures.rows import RowsMeasure, Segment, choose_segments
from otoscope.speech import Corpus, Interval
from otoscope.statistics import Folds, partition, uniform

MOST_ROWS = 4000
MOST_PER_PHONE = 200
MOST_PER_WORD = 15
MOST_WORDS = 500
FRAME_STEP = 320
"""Samples between instants that may be chosen as frames: 20 ms."""

SPAN_OF = {"phone": "phone", "word": "word", "speaker": "utterance", "frame-phone": "word"}
"""What rows can be labelled with, and how the segment of a row is pooled."""


@dataclass(frozen=True)
class Rows:
    """The rows that went through, without their vectors.

    Attributes:
        labels: number of each row's label, shape (n,).
        controls: number of each row's control label, shape (n,).
        folds: fold of each row, shape (n,).
        groups: group of each row for the jackknife, shape (n,).
        classes: how many labels there are.
    """

    labels: np.ndarray
    controls: np.ndarray
    folds: np.ndarray
    groups: np.ndarray
    classes: int

    def splits(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Rows to fit on and rows that are held out, as masks; every fold is held out once."""
        for fold in np.unique(self.folds):
            yield self.folds != fold, self.folds == fold


class LabelledRows(RowsMeasure):
    """A measure of rows with labels, held out by fold.

    Targets, each at most 4,000 rows, chosen by a hash of (seed, utterance, segment):

    - "phone": at most 200 segments of each phone, the mean of their middle frames;
    - "word": at most 15 segments of each of the 500 most frequent words, the mean of all their frames;
    - "speaker": whole utterances, the mean of all frames;
    - "frame-phone": single frames at any instant inside a phone (whole multiples of 20 ms).

    At width 768 and 14 streams 4,000 rows take 172 MB. What the limits leave out is counted in the notes.

    Labels with fewer than five rows or with rows in one fold only are left out and counted. Folds are by speaker, or
    by utterance where there are fewer than three and where the speaker is what is asked for.

    Control labels (Hewitt and Liang 2019) are drawn at random from the distribution of the labels, once for every
    type; rows of one type share them, so that they can be learnt by heart but not from what the label is. Where the
    task is to name the label itself, a random label for each label would only rename the classes. A type therefore is
    a label together with the label before it in the utterance.

    Args:
        target: a name of `SPAN_OF`.
        folds: how many folds are wanted.
        most: the most rows.

    Raises:
        MeasureError: there is no such target.
    """

    def __init__(self, target: str, *, folds: int = 3, most: int = MOST_ROWS) -> None:
        super().__init__()
        if target not in SPAN_OF:
            raise MeasureError(f"There are no rows labelled {target!r}", f"Choose one of {', '.join(SPAN_OF)}.")
        self.target, self.span = target, SPAN_OF[target]
        self._tier = {"speaker": "utterance", "frame-phone": "phone"}.get(target, target)
        self.tiers = () if target == "speaker" else (self._tier,)
        self._wanted_folds, self._most = folds, most

    def choose(self, corpus: Corpus, seed: int) -> tuple[Segment, ...]:
        """Chooses rows, folds, labels and control labels.

        Raises:
            MeasureError: fewer than two labels or folds remain.
            CorpusError: the corpus lacks the tier.
        """
        found = self._candidates(corpus, seed)
        if not found:
            raise MeasureError(
                f"{self.name} finds no labelled row in corpus {corpus.name}",
                "Give speech whose utterances name their speakers, or leave out the measure."
                if self.target == "speaker"
                else f"Give more speech with a tier {self._tier!r}, or leave out the measure.",
            )
        speakers = {u.id: None if self.target == "speaker" else u.speaker for u in corpus}
        sizes = Counter(one.utterance for one in found)
        self._folds: Folds = partition(sizes, speakers, self._wanted_folds, seed)
        of = self._folds.of
        folds: defaultdict[str, set[int]] = defaultdict(set)
        for one in found:
            folds[self._label(one)].add(of[one.utterance])
        rows = Counter(map(self._label, found))
        kept = sorted(x for x in rows if rows[x] >= FEWEST_ROWS and len(folds[x]) >= FEWEST_FOLDS)
        if len(kept) < 2:
            raise MeasureError(
                f"Of {len(rows)} labels ({self.target}) in corpus {corpus.name}, {len(kept)} have at least "
                f"{FEWEST_ROWS} rows and rows in {FEWEST_FOLDS} folds; {self.name} needs two labels",
                "Give more speech, or leave out the measure.",
            )
        self._labels = {label: number for number, label in enumerate(kept)}
        self._left_out = {
            "labels_left_out": len(rows) - len(kept),
            "rows_left_out": len(found) - sum(rows[x] for x in kept),
            "rows_not_drawn": self._there(corpus) - len(found),
            "utterances_without_tier": sum(self._tier not in u.tiers for u in corpus) if self.tiers else 0,
        }
        chosen = tuple(one for one in found if self._label(one) in self._labels)
        self._types = _types(corpus, self._tier, chosen) if self.target != "speaker" else {}
        share = np.cumsum([rows[x] for x in kept]) / sum(rows[x] for x in kept)
        self._controls = {
            # The last edge is 1 up to rounding, and a draw is less than 1.
            name: min(int(np.searchsorted(share, uniform(seed, name, purpose="control"), side="right")), len(kept) - 1)
            for name in set(self._types.values())
        }
        return chosen

    def _candidates(self, corpus: Corpus, seed: int) -> tuple[Segment, ...]:
        if self.target == "frame-phone":
            return choose_frames(corpus, self._tier, seed, self._most)
        found = choose_segments(
            corpus,
            self._tier,
            seed,
            most_labels=MOST_WORDS if self.target == "word" else None,
            per_label={"phone": MOST_PER_PHONE, "word": MOST_PER_WORD}.get(self.target),
            most=self._most,
        )
        return tuple(one for one in found if one.speaker is not None) if self.target == "speaker" else found

    def _there(self, corpus: Corpus) -> int:
        """How many rows there are to choose from; utterances without a speaker are among them."""
        if self.target == "speaker":
            return len(corpus)
        named = (x for u in corpus for x in u.tiers.get(self._tier, ()) if x.label not in NO_LABELS)
        return sum(len(_steps(x)) if self.target == "frame-phone" else 1 for x in named)

    def _label(self, one: Segment) -> str:
        return str(one.speaker) if self.target == "speaker" else one.label

    def rows(self) -> Rows:
        """What went through.

        Raises:
            MeasureError: fewer than two folds or labels have gone through.
        """
        seen = self.seen_segments()
        labels = np.array([self._labels[self._label(one)] for one in seen], dtype=np.int64)
        folds = np.array([self._folds.of[one.utterance] for one in seen], dtype=np.int64)
        if len(np.unique(folds)) < FEWEST_FOLDS or len(np.unique(labels)) < 2:
            raise MeasureError(
                f"{self.name} has rows of {len(np.unique(labels))} labels in {len(np.unique(folds))} folds; "
                "it needs two of each to train and to test",
                "Pass more of the corpus through the model, better of three speakers or more.",
            )
        controls = np.array(
            [self._controls.get(self._types.get((one.utterance, one.place), ""), 0) for one in seen], dtype=np.int64
        )
        return Rows(labels, controls, folds, self.groups(seen), len(self._labels))

    def told(self) -> dict[str, Any]:
        """What was chosen and left out, for the notes of the result."""
        return {
            "folds": self._folds.count,
            "folds_by": self._folds.by,
            "labels": len(self._labels),
            **self._left_out,
        }

    def types_known(self, rows: Rows) -> float | None:
        """Share of held-out rows whose type occurs among the rows that were fitted on; None where there are no types.

        Control labels can be learnt by heart on this share only.
        """
        if not self._types:
            return None
        names = np.array([self._types[one.utterance, one.place] for one in self.seen_segments()])
        known = [np.isin(names[held], names[fit]).sum() for fit, held in rows.splits()]
        return float(np.sum(known) / len(names))


def choose_frames(corpus: Corpus, tier: str, seed: int, most: int) -> tuple[Segment, ...]:
    """Chooses single frames at multiples of 20 ms inside labelled intervals, by a hash of (seed, utterance, instant).

    Memory does not grow with the corpus.

    Args:
        corpus: the whole corpus.
        tier: name of the tier. Frames in pauses, noises and unknown words are never chosen.
        seed: of the choice.
        most: the most frames.

    Returns:
        Segments of one sample, which touch one frame each, in the order of the corpus; `place` is the instant in
        units of 20 ms.

    Raises:
        CorpusError: the corpus lacks the tier.
    """
    corpus.require_tier(tier)

    def instants() -> Iterator[tuple[float, int, int, str]]:
        for place, utterance in enumerate(corpus):
            for x in utterance.tiers.get(tier, ()):
                if x.label not in NO_LABELS:
                    for step in _steps(x):
                        yield uniform(seed, utterance.id, step, "frames"), place, step, x.label

    chosen = sorted((place, step, label) for _, place, step, label in nsmallest(most, instants()))
    return tuple(
        Segment(corpus[p].id, corpus[p].speaker, step, step * FRAME_STEP, step * FRAME_STEP + 1, label)
        for p, step, label in chosen
    )


def _steps(x: Interval) -> range:
    """The multiples of 20 ms inside an interval."""
    return range(-(-x.start // FRAME_STEP), -(-x.end // FRAME_STEP))


def _types(corpus: Corpus, tier: str, segments: tuple[Segment, ...]) -> dict[tuple[str, int], str]:
    """Type of each segment, by utterance and place: its label and the one before it."""
    intervals = {u.id: u.tiers.get(tier, ()) for u in corpus}
    starts = {name: [x.start for x in found] for name, found in intervals.items()}
    types = {}
    for one in segments:
        k = bisect_right(starts[one.utterance], one.start) - 1
        before = intervals[one.utterance][k - 1].label if k else ""
        types[one.utterance, one.place] = f"{len(before)} {before} {one.label}"
    return types
