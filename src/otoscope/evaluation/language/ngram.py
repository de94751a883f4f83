"""A back-off model of n-grams, held as one sorted array of numbers for each order."""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from otoscope.errors import EvaluationError
from otoscope.evaluation.language.model import END, MARKS, NEVER, START, UNKNOWN

_LN10 = math.log(10)
State = tuple[int, ...]


@dataclass(frozen=True)
class Level:
    """All n-grams of one order, in order of their keys.

    The key of an n-gram is the place of its first n - 1 words in the order below, times the number of unigrams, plus
    the number of its last word; a unigram's key is its word's number, and is its place.

    Attributes:
        keys: int64, shape (k,), strictly increasing.
        log10: of the probability of the last word after the others, shape (k,).
        backoff: log10 of the weight of what the order below gives to words that were not seen after this n-gram, (k,).
    """

    keys: np.ndarray
    log10: np.ndarray
    backoff: np.ndarray

    def __len__(self) -> int:
        return len(self.keys)


class NGram:
    """A back-off model, read from an ARPA file or estimated; a `LanguageModel`.

    The probability of a word after a context is that of the n-gram where it is there, else the context's back-off weight
    times the probability after the context without its first word (Katz 1987, "Estimation of probabilities from sparse
    data", in the form of ARPA files).

    Args:
        vocabulary: the words of the unigrams, marks among them, in the order of their numbers.
        levels: the n-grams of order 1, 2 ...
        name: what results call it.
        fingerprint: SHA-256 (hex) of its file; that of words and numbers where it comes from none.

    Raises:
        EvaluationError: the marks of a sentence's start or end are no words of it.
    """

    def __init__(
        self, vocabulary: Sequence[str], levels: Sequence[Level], name: str = "n-gram", fingerprint: str | None = None
    ) -> None:
        self.vocabulary, self.levels, self.name = tuple(vocabulary), tuple(levels), name
        self._given = fingerprint
        self._numbers = {word: k for k, word in enumerate(self.vocabulary)}
        for mark in (START, END):
            if mark not in self._numbers:
                raise EvaluationError(
                    f"The language model {name} has no unigram {mark}, so sentences neither start nor end",
                    "Use a model of sentences, with <s> and </s> among its words.",
                )
        # Views of the arrays give plain numbers one at a time far sooner than the arrays do.
        self._keys = [level.keys.data for level in self.levels]
        self._log = [(level.log10 * _LN10).data for level in self.levels]
        self._backoff = [(level.backoff * _LN10).data for level in self.levels]
        self._unknown = self._numbers.get(UNKNOWN, -1)

    @property
    def order(self) -> int:
        """See `LanguageModel`."""
        return len(self.levels)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the file, or of words and numbers where there is none."""
        if self._given is not None:
            return self._given
        digest = hashlib.sha256("\n".join(self.vocabulary).encode())
        for level in self.levels:
            for array in (level.keys, level.log10, level.backoff):
                digest.update(array.tobytes())
        return digest.hexdigest()

    def knows(self, word: str) -> bool:
        """See `LanguageModel`."""
        return word in self._numbers and word not in MARKS

    def words(self) -> Iterable[str]:
        """See `LanguageModel`."""
        return [word for word in self.vocabulary if word not in MARKS]

    def start(self) -> State:
        """See `LanguageModel`."""
        return (self._numbers[START],) if self.order > 1 else ()

    def score(self, state: State, word: str) -> tuple[float, State]:
        """See `LanguageModel`; the state holds the place of the last word, of the last two, and so on."""
        number = self._numbers.get(word, self._unknown)
        if number < 0 or word in MARKS:
            number = self._unknown
        return self._after(state, number)

    def end(self, state: State) -> float:
        """See `LanguageModel`."""
        return self._after(state, self._numbers[END])[0]

    def describe(self) -> dict[str, Any]:
        """See `LanguageModel`."""
        words = len(self.vocabulary) - len(MARKS & self._numbers.keys())
        return {
            "name": self.name, "order": self.order, "words": words, "ngrams": [len(level) for level in self.levels],
            "sha256": self.fingerprint,
        }  # fmt: skip

    def ngrams(self, order: int) -> Iterator[tuple[str, ...]]:
        """The n-grams of an order as words, in the order of their keys."""
        size, rows = len(self.vocabulary), self.levels[order - 1].keys
        columns = []
        for level in reversed(self.levels[: order - 1]):
            columns.append(rows % size)
            rows = level.keys[rows // size]
        columns.append(rows)
        for row in np.stack(columns[::-1], 1).tolist():
            yield tuple(self.vocabulary[k] for k in row)

    def _after(self, state: State, number: int) -> tuple[float, State]:
        """Log probability of a word's number after a state, and the state after it.

        From the shortest context to the longest, each n-gram that is there replaces what the shorter ones gave, and each
        that is not multiplies it by the context's back-off weight.
        """
        if number < 0:  # a word without an entry, in a model without an unknown word
            lost = sum(self._backoff[k][place] for k, place in enumerate(state) if place >= 0)
            return NEVER * _LN10 + lost, ()
        log, places, size = self._log[0][number], [number], len(self.vocabulary)
        for k, place in enumerate(state):
            if place < 0:
                places.append(-1)
                continue
            keys, key = self._keys[k + 1], place * size + number
            at = bisect_left(keys, key)
            if at < len(keys) and keys[at] == key:
                log = self._log[k + 1][at]
                places.append(at)
            else:
                log += self._backoff[k][place]
                places.append(-1)
        del places[self.order - 1 :]
        while places and places[-1] < 0:
            places.pop()
        return log, tuple(places)
