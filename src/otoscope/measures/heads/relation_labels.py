"""Which label holds what share of each frame: a tier laid over the frames of attention maps."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from otoscope.errors import MeasureError
from otoscope.measures.layers.labels import FEWEST_ROWS, NO_LABELS
from otoscope.models.anatomy import Grid
from otoscope.speech import Corpus, Utterance
from otoscope.speech.phones import SILENCE, SILENCES
from otoscope.statistics import uniform

MOST_LABELS = 60
FEWEST_UTTERANCES = 2

_BY_MANNER = (
    *("iy", "ih", "eh", "ey", "ae", "aa", "ao", "ah", "uh", "uw", "ow", "ay", "aw", "oy", "er"),
    *("l", "r", "w", "y", "m", "n", "ng", "dx"),
    *("p", "t", "k", "b", "d", "g", "f", "v", "th", "dh", "hh", "s", "z", "sh", "zh", "ch", "jh"),
)


@dataclass(frozen=True)
class Laid:
    """The labels of an utterance laid over its frames, piece by piece: a piece lies in one frame and one run.

    Attributes:
        frame: frame of each piece, in order, shape (n,).
        run: run of each piece, counted from 0, shape (n,).
        share: of the frame that the piece takes up; those of a frame sum to one, shape (n,).
        labels: label of each run, shape (runs,).
        frames: how many frames there are.
        n_labels: how many labels there are.
    """

    frame: Int[np.ndarray, " n"]
    run: Int[np.ndarray, " n"]
    share: Float[np.ndarray, " n"]
    labels: Int[np.ndarray, " runs"]
    frames: int
    n_labels: int

    def shares(self) -> Float[np.ndarray, "t labels"]:
        """Share of each frame that each label holds; rows sum to one."""
        out = np.zeros((self.frames, self.n_labels))
        np.add.at(out, (self.frame, self.labels[self.run]), self.share)
        return out

    def blocks(self) -> list[tuple[int, int, Float[np.ndarray, " t"]]]:
        """For each run its label, its first frame, and its share of that frame and the next ones."""
        first = np.searchsorted(self.run, np.arange(len(self.labels) + 1))
        return [
            (int(label), int(self.frame[a]), self.share[a:b])
            for label, a, b in zip(self.labels, first[:-1], first[1:], strict=True)
            if b > a
        ]

    def uniform(self, exclude_run: bool) -> Float[np.ndarray, "labels labels"]:
        """P_U of `relation_map` for this utterance."""
        runs = np.bincount(self.run, self.share, len(self.labels)) / self.frames
        labels = np.bincount(self.labels, runs, self.n_labels)
        out = np.outer(labels, labels)
        if exclude_run:
            # Written so that a label with a single run has exactly nothing beside it.
            beside = runs * (labels[self.labels] - runs)
            np.fill_diagonal(out, np.maximum(np.bincount(self.labels, beside, self.n_labels), 0.0))
        return out


@dataclass(frozen=True)
class RelationLabels:
    """The labels of a tier that a relation map has rows and columns for, and one more for the rest.

    Silences are a label of their own. The rest is time that the tier leaves without a label, unknown words, and labels
    that are left out: with fewer than five intervals, with intervals in fewer than two utterances, or beyond the 60 most
    frequent ones. With it the labels of a frame sum to one.

    A frame stands for the time that is nearer to its centre than to that of any other frame, a hop long; a label's share
    of the frame is its share of that time. The recording's first and last label go on beyond its ends.

    Attributes:
        tier: name of the tier.
        labels: what is kept: phones by manner of articulation, other labels by the alphabet, silence last.
        seed: of the permuted labels.
        labels_left_out: how many labels were not kept.
        intervals_left_out: how many intervals these have.
    """

    tier: str
    labels: tuple[str, ...]
    seed: int
    labels_left_out: int
    intervals_left_out: int

    @classmethod
    def choose(cls, corpus: Corpus, tier: str, seed: int) -> RelationLabels:
        """Chooses the labels that occur often enough.

        Raises:
            CorpusError: the corpus lacks the tier.
            MeasureError: fewer than two labels remain.
        """
        corpus.require_tier(tier)
        intervals: Counter[str] = Counter()
        inside: defaultdict[str, set[str]] = defaultdict(set)
        for utterance in corpus:
            for x in utterance.tiers.get(tier, ()):
                label = _named(x.label)
                if label is not None:
                    intervals[label] += 1
                    inside[label].add(utterance.id)
        frequent = sorted(intervals, key=lambda label: (-intervals[label], label))[:MOST_LABELS]
        kept = [x for x in frequent if intervals[x] >= FEWEST_ROWS and len(inside[x]) >= FEWEST_UTTERANCES]
        if len(kept) < 2:
            raise MeasureError(
                f"Of {len(intervals)} labels in tier {tier!r} of corpus {corpus.name}, {len(kept)} have at least "
                f"{FEWEST_ROWS} intervals in {FEWEST_UTTERANCES} utterances; a relation map needs two labels",
                "Give more speech with this tier, or leave out the measure.",
            )
        return cls(
            tier,
            tuple(sorted(kept, key=_place)),
            seed,
            len(intervals) - len(kept),
            sum(intervals.values()) - sum(intervals[x] for x in kept),
        )

    def __len__(self) -> int:
        return len(self.labels) + 1

    def lay(self, utterance: Utterance, grid: Grid, frames: int, permuted: bool = False) -> Laid | None:
        """The labels of an utterance over the frames of a stream; None where it has no label.

        Args:
            utterance: whose labels.
            grid: of the stream.
            frames: how many there are.
            permuted: with the labels of its runs dealt anew among them, in the order of a hash of (seed, utterance,
                run); how long the runs are stays as it is.
        """
        if not utterance.tiers.get(self.tier):
            return None
        ends, labels = self._runs(utterance)
        if permuted:
            purpose = f"permuted {self.tier} relations"
            draws = [uniform(self.seed, utterance.id, k, purpose) for k in range(len(labels))]
            ends, labels = _joined(ends, labels[np.argsort(draws)])
        # In half samples, so that the middle of a frame is a whole number.
        edges = 2 * grid.offset + grid.field - grid.hop + 2 * grid.hop * np.arange(frames + 1)
        bounds = 2 * ends[:-1]
        inner = bounds[(bounds > edges[0]) & (bounds < edges[-1])]
        cuts = np.unique(np.concatenate([edges, inner]))
        frame = np.searchsorted(edges, cuts[:-1], side="right") - 1
        run = np.searchsorted(bounds, cuts[:-1], side="right")
        return Laid(frame, run, np.diff(cuts) / (2 * grid.hop), labels, frames, len(self))

    def _runs(self, utterance: Utterance) -> tuple[np.ndarray, np.ndarray]:
        """Last samples plus one and labels of unbroken runs, which follow each other from the first sample on."""
        index = {label: k for k, label in enumerate(self.labels)}
        rest, ends, labels, reached = len(self.labels), [], [], 0
        for x in utterance.tiers.get(self.tier, ()):
            if x.start > reached:
                ends.append(x.start)
                labels.append(rest)
            ends.append(x.end)
            labels.append(index.get(_named(x.label) or "", rest))
            reached = x.end
        if reached < utterance.n_samples:
            ends.append(utterance.n_samples)
            labels.append(rest)
        return _joined(np.array(ends, dtype=np.int64), np.array(labels, dtype=np.int64))


def _named(label: str) -> str | None:
    """Every silence under one name; None for an unknown word."""
    if label.strip().lower() in SILENCES:
        return SILENCE
    return None if label in NO_LABELS else label


def _place(label: str) -> tuple[int, int, str]:
    if label in _BY_MANNER:
        return 0, _BY_MANNER.index(label), label
    return (2 if label == SILENCE else 1), 0, label


def _joined(ends: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Neighbours of one label made one."""
    last = np.append(labels[1:] != labels[:-1], True)
    return ends[last], labels[last]
