"""Acoustic word discrimination: are two words the same? Average precision over all pairs of spoken words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from otoscope.errors import MeasureError
from otoscope.measures.layers.dtw import as_array, pair_distances, unit_rows
from otoscope.measures.measure import Result, Row
from otoscope.measures.rows import SEQUENCE, RowsMeasure, Segment, choose_segments
from otoscope.models.anatomy import layer_of
from otoscope.speech import Corpus
from otoscope.statistics import jackknife

BLOCK = 1 << 20
"""Pairs whose scores are held at once."""

MOST_ROWS = 20_000
"""Rows whose pairs are ranked: 200 million pairs, some minutes."""

DIGITS = 12
"""Cosines that agree to so many digits tie; a matrix product rounds equal rows differently."""

FEWEST_SAME = 10
"""Pairs of one word that a score is taken over at least."""

ENOUGH_SAME = 1000
"""Pairs of one word of the floor's permutations together, or one permutation that has more."""

MOST_DRAWS = 20

SPEAKERS = ("", "-within", "-across")
"""All pairs; those of one speaker; those of two."""

Chunk = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Scores of pairs, the first row of each pair and the second, each of shape (p,)."""


def average_precision(vectors: Any, labels: Any) -> float:
    """Average precision of ranking all pairs of rows by their cosine, where pairs of one label are to come first.

        AP = sum_k (R_k - R_(k-1)) P_k

    over the different cosines in falling order, with precision P_k and recall R_k of the pairs that score so much or
    more: as scikit-learn's `average_precision_score`, exact for ties (cosines that agree to 12 digits tie). A row of
    zeros has cosine 0 with every row. This is the same-different task of Carlin et al. (2011). Memory is 8 bytes for
    each pair of one label and for 2^20 pairs beside them.

    Args:
        vectors: shape (N, d), torch or numpy.
        labels: shape (N,), of any kind that can be compared.

    Returns:
        Between 0 and 1; for vectors that know nothing of the labels, the share of pairs of one label.

    Raises:
        MeasureError: the shapes disagree, a value is not finite, no two rows have one label, or there are more than
            20,000 rows.

    >>> average_precision(np.array([[1.0, 0.0], [2.0, 0.1], [0.0, 1.0]]), ["yes", "yes", "no"])
    1.0
    """
    x, codes = _checked(vectors, labels)
    return float(ranked(lambda: cosine_chunks(x), codes).value)


def _checked(vectors: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    x, y = as_array(vectors), as_array(labels)
    if x.ndim != 2 or y.shape != x.shape[:1]:
        raise MeasureError(
            f"Vectors of shape {x.shape} do not fit labels of shape {y.shape}", "Give shapes (N, d) and (N,)."
        )
    if not np.isfinite(x).all():
        raise MeasureError("Vectors are not finite", "Check the model's weights and the recordings for NaN.")
    if len(x) > MOST_ROWS:
        raise MeasureError(f"{len(x)} rows have too many pairs to rank", f"Give at most {MOST_ROWS} rows.")
    codes = np.unique(y, return_inverse=True)[1]
    if len(x) < 2 or np.bincount(codes).max() < 2:
        raise MeasureError(f"No two of {len(x)} rows have the same label", "Give a label twice at least.")
    return x.astype(np.float64), codes


def cosine_chunks(x: Float[np.ndarray, "n d"]) -> Iterator[Chunk]:
    """Cosines of all unordered pairs of rows, in chunks."""
    unit, n = unit_rows(x), len(x)
    start = 0
    while start < n - 1:
        stop = min(n, start + max(1, BLOCK // (n - start)))
        i, j = np.triu_indices(stop - start, 1, n - start)
        yield (unit[start:stop] @ unit[start:].T)[i, j].round(DIGITS), i + start, j + start
        start = stop


@dataclass(frozen=True)
class Ranking:
    """Average precision over pairs.

    Attributes:
        value: average precision; NaN without a pair of one label.
        without: the same with one group of rows left out at a time, shape (g,).
        share: pairs of one label out of all.
        pairs: how many pairs there are.
        same: how many of them are of one label.
    """

    value: float
    without: np.ndarray
    share: float
    pairs: int
    same: int


def ranked(
    chunks: Callable[[], Iterable[Chunk]], labels: Int[np.ndarray, " n"], groups: Int[np.ndarray, " n"] | None = None
) -> Ranking:
    """Average precision of pairs that come in chunks.

    Two passes: the first takes the scores of pairs of one label, the second counts between which of them the others lie.

    Args:
        chunks: gives scores of pairs, the same whenever it is called.
        labels: code of each row's label.
        groups: of the rows, to be left out one at a time.
    """
    groups = np.zeros(len(labels), dtype=np.int64) if groups is None else groups
    count = int(groups.max()) + 1 if len(groups) else 1
    same = [(s[k], i[k], j[k]) for s, i, j in chunks() for k in [labels[i] == labels[j]]]
    scores, first, second = (np.concatenate(v) for v in zip(*same, strict=True)) if same else np.zeros((3, 0), int)
    levels, places = np.unique(scores, return_inverse=True)
    width = len(levels) + 1
    # A score above k levels is in bin k; one of a pair of one label that is level k itself is in bin k + 1.
    hits = _by_group(places + 1, groups[first], groups[second], count, width)
    misses = np.zeros_like(hits)
    for s, i, j in chunks():
        k = labels[i] != labels[j]
        bins = np.searchsorted(levels, s[k], side="right")
        misses += _by_group(bins, groups[i[k]], groups[j[k]], count, width)
    hits[1:], misses[1:] = hits[0] - hits[1:], misses[0] - misses[1:]
    found = _precision(hits, misses)
    pairs = int(hits[0].sum() + misses[0].sum())
    return Ranking(float(found[0]), found[1:], len(scores) / pairs if pairs else float("nan"), pairs, len(scores))


def _by_group(bins: np.ndarray, a: np.ndarray, b: np.ndarray, count: int, width: int) -> np.ndarray:
    """Pairs by bin, first of all and then of those with a row in each group, shape (1 + g, bins)."""
    other = a != b
    found = np.bincount(bins + width * a, minlength=count * width).reshape(count, width)
    shared = np.bincount(bins[other] + width * b[other], minlength=count * width).reshape(count, width)
    return np.concatenate([found.sum(axis=0, keepdims=True), found + shared])


def _precision(hits: np.ndarray, misses: np.ndarray) -> np.ndarray:
    """Average precision from pairs by bin, one a row; NaN where there is no hit."""
    above = np.cumsum(hits[:, ::-1], axis=1)[:, ::-1]
    all_above = above + np.cumsum(misses[:, ::-1], axis=1)[:, ::-1]
    with np.errstate(invalid="ignore"):
        return (hits * above / np.maximum(all_above, 1)).sum(axis=1) / hits.sum(axis=1)


class WordDiscrimination(RowsMeasure):
    """Average precision of telling same words from different ones, by the cosine of mean-pooled words.

    Over all unordered pairs of a sample of spoken words; nothing is trained. Three rows a stream: target "pooled" for
    all pairs, "pooled-within" for pairs of one speaker, "pooled-across" for pairs of two. A target with fewer than ten
    pairs of one word has no rows and is named in the notes, which also count such pairs. The floor is the same with the
    labels permuted, the mean of so many draws that they have some thousand pairs of one word together; the ceiling is 1.
    The interval is a jackknife over speakers; there is none where all speakers give the same.

    Words are the most frequent ones of the corpus, function words among them, of any length; so scores lie below those
    of samples that hold long words only.

    Args:
        most_labels: the most frequent words that are looked at.
        per_label: at most so many instances of each.
        most: at most so many instances in all.

    Raises:
        MeasureError: the sample may be too large.
    """

    name = "awd"
    tiers = ("word",)
    span = "word"
    target = "pooled"

    def __init__(self, *, most_labels: int = 500, per_label: int = 15, most: int = 1500) -> None:
        super().__init__()
        if most > MOST_ROWS:
            raise MeasureError(f"{most} words have too many pairs to rank", f"Choose at most {MOST_ROWS} words.")
        self.most_labels, self.per_label, self.most = most_labels, per_label, most

    def choose(self, corpus: Corpus, seed: int) -> tuple[Segment, ...]:
        """Instances of frequent words.

        Raises:
            MeasureError: no word is there twice.
            CorpusError: the corpus lacks the tier.
        """
        found = choose_segments(
            corpus, "word", seed, most_labels=self.most_labels, per_label=self.per_label, most=self.most, fewest=2
        )
        if len({one.label for one in found}) == len(found):
            raise MeasureError(
                f"{self.name} finds no word twice in its sample of corpus {corpus.name}",
                "Give more speech with a word tier, or leave out the measure.",
            )
        return found

    def chunks(self, stream: str) -> Callable[[], Iterable[Chunk]]:
        """Scores of all pairs; the higher, the more alike."""
        x = self.vectors(stream)
        return lambda: cosine_chunks(x)

    def score(self) -> Result:
        """Three rows a stream."""
        segments = self.seen_segments()
        words, labels = np.unique([one.label for one in segments], return_inverse=True)
        groups = self.groups(segments)
        names = sorted({one.speaker for one in segments if one.speaker is not None})
        speakers = np.array([-1 if one.speaker is None else names.index(one.speaker) for one in segments])
        sizes = np.bincount(groups).astype(np.float64)
        rows: list[Row] = []
        pairs: dict[str, int] = {}
        same: dict[str, int] = {}
        shares: dict[str, float] = {}
        for stream in self.streams:
            everything = self.chunks(stream)
            for which in SPEAKERS:
                target = self.target + which
                found = ranked(_chosen(everything, speakers, which), labels, groups)
                if found.same < FEWEST_SAME:
                    continue
                floor = self._floor(_chosen(everything, speakers, which), labels, found.same)
                # A group that has all the pairs of one word leaves nothing to be ranked without it.
                defined = np.isfinite(found.without)
                low, high = jackknife(found.value, np.where(defined, found.without, 0.0), np.where(defined, sizes, 0.0))
                if low == high:  # as where every pair is in order: what does not vary tells nothing of its spread
                    low = high = np.asarray(np.nan)
                pairs[target], shares[target], same[target] = found.pairs, found.share, found.same
                rows.append(
                    Row(
                        self.name, stream, layer_of(stream), target=target, value=found.value,
                        low=max(float(low), 0.0) if np.isfinite(low) else None,
                        high=min(float(high), 1.0) if np.isfinite(high) else None,
                        floor=None if np.isnan(floor) else float(floor), ceiling=1.0, n=len(segments),
                    )
                )  # fmt: skip
        if not rows:
            raise MeasureError(
                f"{self.name} has seen fewer than {FEWEST_SAME} pairs of one word in corpus {self.corpus_name}",
                "Pass the whole corpus through the model, or give more speech.",
            )
        notes = {
            "words": len(words),
            "pairs": pairs,
            "pairs_of_one_word": same,
            "share_of_same": shares,
            "too_few_pairs_of_one_word": [self.target + w for w in SPEAKERS if self.target + w not in pairs],
        }
        return Result(rows, {}, notes)

    def _floor(self, chunks: Callable[[], Iterable[Chunk]], labels: np.ndarray, same: int) -> float:
        """Mean score of permuted labels."""
        draws = min(MOST_DRAWS, -(-ENOUGH_SAME // same))
        found = [ranked(chunks, self.permuted(labels, str(k) if k else "")).value for k in range(draws)]
        return float(np.nanmean(found)) if np.isfinite(found).any() else float("nan")


class AlignedWordDiscrimination(WordDiscrimination):
    """The same on frames: words are compared by dynamic time warping of angular distances.

    Score of a pair: the mean angle per step of the cheapest alignment, negated. Targets "dtw", "dtw-within" and
    "dtw-across". The sample is smaller than that of `WordDiscrimination`, so the two are not over the same pairs.

    Args:
        most_labels: the most frequent words that are looked at.
        per_label: at most so many instances of each.
        most: at most so many instances in all.
    """

    name = "awd-dtw"
    span = SEQUENCE
    target = "dtw"

    def __init__(self, *, most_labels: int = 50, per_label: int = 4, most: int = 200) -> None:
        super().__init__(most_labels=most_labels, per_label=per_label, most=most)

    def chunks(self, stream: str) -> Callable[[], Iterable[Chunk]]:
        """Scores of all pairs; the higher, the more alike."""
        sequences = self.sequences(stream)
        i, j = np.triu_indices(len(sequences), 1)
        scores = -pair_distances(sequences, i, j).round(DIGITS)
        return lambda: [(scores, i, j)]


def _chosen(chunks: Callable[[], Iterable[Chunk]], speakers: np.ndarray, which: str) -> Callable[[], Iterator[Chunk]]:
    """Only pairs of one speaker, or only those of two; a speaker who is not known (-1) is in neither."""

    def kept() -> Iterator[Chunk]:
        for s, i, j in chunks():
            a, b = speakers[i], speakers[j]
            k = slice(None) if not which else (a >= 0) & (b >= 0) & ((a == b) == (which == "-within"))
            yield s[k], i[k], j[k]

    return kept
