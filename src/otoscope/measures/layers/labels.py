"""Which labels of a tier a measure looks at, fixed by the corpus and not by what has been seen of it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from otoscope.errors import MeasureError
from otoscope.speech import Corpus, Interval, Utterance
from otoscope.statistics import uniform

FEWEST_ROWS = 5
FEWEST_FOLDS = 2

SPEAKER = "speaker"
"""The tier of a corpus whose one interval is the whole utterance and whose label is the speaker."""

NO_LABELS = frozenset({"", "sil", "sp", "spn", "<eps>", "<unk>"})
"""Labels of pauses, noises and unknown words, which name no phone and no word."""


@dataclass(frozen=True)
class Segments:
    """Labelled segments of an utterance.

    Attributes:
        starts: first samples, shape (n,).
        ends: one past the last samples, shape (n,).
        labels: class of each segment, shape (n,).
        permuted: a class drawn for each segment regardless of what it holds, shape (n,).
    """

    starts: np.ndarray
    ends: np.ndarray
    labels: np.ndarray
    permuted: np.ndarray


@dataclass(frozen=True)
class LabelSet:
    """The labels of a tier that are kept.

    Attributes:
        tier: name of the tier.
        labels: what is kept, most frequent first.
        rows: segments of each of them in the corpus, shape (K,).
        labels_left_out: how many labels were not kept.
        rows_left_out: how many segments these have.
        seed: of the permuted labels.
        absent: frequent labels that were not among those that may be kept.
    """

    tier: str
    labels: tuple[str, ...]
    rows: np.ndarray
    labels_left_out: int
    rows_left_out: int
    seed: int
    absent: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def segments(self, utterance: Utterance) -> Segments:
        """The segments of an utterance whose labels are kept, with permuted labels beside their own.

        A permuted label is drawn from the distribution of labels in the corpus by a hash of (seed, utterance,
        segment), so it is the same in whatever order and part of the corpus the segment comes.
        """
        index = {label: i for i, label in enumerate(self.labels)}
        found = [
            (i, x.start, x.end, index[x.label]) for i, x in enumerate(tier_of(utterance, self.tier)) if x.label in index
        ]
        places, starts, ends, labels = np.array(found, dtype=np.int64).reshape(-1, 4).T
        draws = [uniform(self.seed, utterance.id, int(i), f"permuted {self.tier}") for i in places]
        cumulative = np.cumsum(self.rows) / self.rows.sum()
        # The last edge is 1 up to rounding, and a draw is less than 1.
        permuted = np.minimum(np.searchsorted(cumulative, draws, side="right"), len(self) - 1)
        return Segments(starts, ends, labels, permuted.astype(np.int64))


def tier_of(utterance: Utterance, tier: str) -> tuple[Interval, ...]:
    """The intervals of a tier; none where the utterance lacks it."""
    if tier != SPEAKER:
        return utterance.tiers.get(tier, ())
    return () if utterance.speaker is None else (Interval(0, utterance.n_samples, utterance.speaker),)


def choose_labels(
    corpus: Corpus,
    tier: str,
    fold_of: Mapping[str, int] | None,
    seed: int,
    most: int | None = None,
    among: Collection[str] | None = None,
) -> LabelSet:
    """Chooses the labels of a tier that have enough rows.

    Left out are labels beyond the `most` frequent ones (ties in alphabetical order), labels with fewer than
    five segments, labels with segments in fewer than two folds, and labels that are not `among` some. Pauses, noises and
    unknown words are no labels.

    Args:
        corpus: the whole corpus.
        tier: name of the tier, or "speaker".
        fold_of: fold of every utterance that has the tier; None where rows and not utterances are dealt into folds.
        seed: of the permuted labels.
        most: how many labels there may be; any number where None.
        among: labels that may be kept, such as the words of a table; any where None.

    Raises:
        MeasureError: fewer than two labels remain.
    """
    rows: Counter[str] = Counter()
    folds: defaultdict[str, set[int]] = defaultdict(set)
    for utterance in corpus:
        for interval in tier_of(utterance, tier):
            if interval.label not in NO_LABELS:
                rows[interval.label] += 1
                folds[interval.label].add(0 if fold_of is None else fold_of[utterance.id])
    frequent = sorted(rows, key=lambda label: (-rows[label], label))[:most]
    fewest_folds = FEWEST_FOLDS if fold_of is not None else 1
    kept = [x for x in frequent if rows[x] >= FEWEST_ROWS and len(folds[x]) >= fewest_folds]
    absent = [x for x in kept if among is not None and x not in among]
    kept = [x for x in kept if among is None or x in among]
    if len(kept) < 2:
        also = f", of which {len(absent)} are not in the table" if absent else ""
        raise MeasureError(
            f"Of {len(rows)} labels in tier {tier!r} of corpus {corpus.name}, {len(kept) + len(absent)} have at least "
            f"{FEWEST_ROWS} segments and segments in {FEWEST_FOLDS} folds{also}; a correlation needs two labels",
            "Give more speech with this tier, or leave out the measure.",
        )
    counts = np.array([rows[x] for x in kept], dtype=np.float64)
    return LabelSet(
        tier=tier,
        labels=tuple(kept),
        rows=counts,
        labels_left_out=len(rows) - len(kept),
        rows_left_out=int(sum(rows.values()) - counts.sum()),
        seed=seed,
        absent=tuple(absent),
    )
