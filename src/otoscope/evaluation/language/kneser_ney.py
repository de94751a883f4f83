"""Interpolated modified Kneser-Ney: a model of n-grams estimated from sentences."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from otoscope.errors import EvaluationError
from otoscope.evaluation.language.model import END, MARKS, START, UNKNOWN
from otoscope.evaluation.language.ngram import Level, NGram

FALLBACK = (0.5, 1.0, 1.5)  # discounts where the counts of counts give none, as KenLM's --discount_fallback
MOST = 10  # the highest order
START_LOG10 = -99.0  # what stands for the start of a sentence, which has no probability


def kneser_ney(sentences: Iterable[Sequence[str]], order: int = 4, name: str = "n-gram") -> NGram:
    """Estimates a model of n-grams.

    Each order is interpolated with the one below, and unigrams with a uniform distribution over all words, the end of a
    sentence and the unknown word (Chen and Goodman 1999, "An empirical study of smoothing techniques for language
    modeling", section 3):

        p(w | h) = (a(hw) - D(a(hw))) / sum_x a(hx) + g(h) p(w | h'),  g(h) = sum_x D(a(hx)) / sum_x a(hx)

    where h' is h without its first word. In the highest order a is the count of the n-gram; below, it is the number of
    different words that were seen before it, but the count where the n-gram begins with the start of a sentence, which
    no word can stand before (Heafield et al. 2013, "Scalable modified Kneser-Ney language model estimation"). D is
    `discounts` of the order's a. Nothing is pruned. A sentence has one start and one end.

    Args:
        sentences: words of each; empty ones are left out.
        order: n, from 1 to 10; no higher than the longest sentence with its start and end.
        name: what results call it.

    Returns:
        The model; its probabilities after any context that was seen sum to one.

    Raises:
        EvaluationError: the order is out of range, no sentence holds a word, or a word is a mark such as <s>.
    """
    if not 1 <= order <= MOST:
        raise EvaluationError(f"A language model of order {order}", f"Give an order from 1 to {MOST}.")
    vocabulary, numbers, starts = _numbered(sentences)
    size, counted = len(vocabulary), _counted(len(vocabulary), numbers, starts, order)
    below = np.where(np.arange(size) == 0, 0.0, 1 / (size - 1))  # the uniform distribution
    levels: list[Level] = []
    for n, (keys, counts, _) in enumerate(counted, 1):
        taken = np.array([0.0, *discounts(counts)])[np.minimum(counts, 3)]
        context = keys // size  # one and the same, of no word, for all unigrams
        among = len(counted[n - 2].keys) if n > 1 else 1
        total = np.bincount(context, counts, among)
        weight = np.divide(np.bincount(context, taken, among), total, out=np.ones(among), where=total > 0)
        probability = (counts - taken) / total[context] + weight[context] * below
        if n > 1:
            levels[-1] = replace(levels[-1], backoff=np.log10(weight))
        with np.errstate(divide="ignore"):
            levels.append(Level(keys, np.log10(probability), np.zeros(len(keys))))
        below = probability[counted[n].suffixes] if n < len(counted) else below
    levels[0].log10[0] = START_LOG10
    return NGram(vocabulary, levels, name)


def discounts(counts: np.ndarray) -> tuple[float, float, float]:
    """What is taken from counts of 1, of 2, and of 3 or more (Chen and Goodman 1999, equation 26).

    D_k = k - (k + 1) Y t_{k+1} / t_k with Y = t_1 / (t_1 + 2 t_2), where t_k is how many n-grams have a count of k. Where
    t_1, t_2, t_3 or t_4 is zero, or a D_k is not between 0 and k, the discounts are `FALLBACK`: that is so of a handful of
    sentences, where no n-gram is seen four times.

    Args:
        counts: of all n-grams of an order, shape (k,).

    Returns:
        D_1, D_2 and D_3+.

    >>> discounts(np.repeat([1, 2, 3, 4], [60, 20, 10, 5]))
    (0.6, 1.1, 1.8)
    """
    t = [int((counts == k).sum()) for k in range(1, 5)]
    if not all(t):
        return FALLBACK
    y = t[0] / (t[0] + 2 * t[1])
    d1, d2, d3 = (k - (k + 1) * y * t[k] / t[k - 1] for k in (1, 2, 3))
    return (d1, d2, d3) if 0 < d1 < 1 and 0 < d2 < 2 and 0 < d3 < 3 else FALLBACK


def _numbered(sentences: Iterable[Sequence[str]]) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Words by number, numbers of all sentences in a row, and where each begins; start, end and unknown come first."""
    known = {START: 0, END: 1, UNKNOWN: 2}
    numbers: list[int] = []
    starts: list[int] = []
    for sentence in sentences:
        if not sentence:
            continue
        marks = MARKS.intersection(sentence)
        if marks:
            raise EvaluationError(
                f"A sentence holds {min(marks)!r}, which is a mark of language models", "Give sentences of words alone."
            )
        starts.append(len(numbers))
        numbers += [0, *(known.setdefault(word, len(known)) for word in sentence), 1]
    if not starts:
        raise EvaluationError("There is no sentence with a word to estimate a language model from", "Give transcripts.")
    return list(known), np.array(numbers), np.array(starts)


@dataclass(frozen=True)
class _Counted:
    """N-grams of one order: their keys, their counts, and the place of each without its first word in the order below."""

    keys: np.ndarray
    counts: np.ndarray
    suffixes: np.ndarray

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter((self.keys, self.counts, self.suffixes))


def _counted(size: int, numbers: np.ndarray, starts: np.ndarray, order: int) -> list[_Counted]:
    """All n-grams from order 1 up, with what `kneser_ney` calls a.

    Args:
        size: number of words.
        numbers: of the words of all sentences in a row, shape (k,).
        starts: where each sentence begins, shape (sentences,).
        order: the highest; a lower one where no sentence is as long as that.
    """
    since = np.arange(len(numbers)) - np.repeat(starts, np.diff([*starts, len(numbers)]))
    keys, begins = np.arange(size), np.arange(size) == 0
    at = numbers  # the place of the n-gram that ends at each position, where it does not reach over a sentence's start
    levels = [_Counted(keys, np.bincount(numbers, minlength=size), np.zeros(0, np.int64))]
    for n in range(2, min(order, int(since.max()) + 1) + 1):
        last = np.flatnonzero(since >= n - 1)
        keys, where = np.unique(at[last - 1] * size + numbers[last], return_inverse=True)
        suffixes = np.zeros(len(keys), np.int64)
        suffixes[where] = at[last]
        lower = levels[-1]
        preceding = np.bincount(suffixes, minlength=len(lower.keys))
        levels[-1] = replace(lower, counts=np.where(begins, lower.counts, preceding))
        begins = begins[keys // size]
        levels.append(_Counted(keys, np.bincount(where, minlength=len(keys)), suffixes))
        at = np.full(len(numbers), -1)
        at[last] = where
    levels[0].counts[0] = 0  # a sentence's start is given, never foretold
    return levels
