"""ARPA files of n-gram models: read strictly, written whole or not at all."""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import re
import zlib
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from otoscope.errors import EvaluationError, ResultError
from otoscope.evaluation.language.ngram import Level, NGram

_CURE = "Name an ARPA file, as `otoscope lm`, KenLM or SRILM write it."
_COUNT = re.compile(r"ngram (\d+)\s*=\s*(\d+)")


def write_arpa(model: NGram, path: str | Path) -> Path:
    """Writes a model: log10 of probabilities and back-off weights to eight digits, n-grams in the order of their keys.

    Raises:
        ResultError: it cannot be written.
    """
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with unfinished.open("w", encoding="utf-8", newline="\n") as file:
                for line in _lines(model):
                    file.write(line + "\n")
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise ResultError(
            f"The language model cannot be written to {path}: {error}",
            "Name a file that you may write to and that has room.",
        ) from error
    return path


def _lines(model: NGram) -> Iterator[str]:
    yield "\\data\\"
    for n, level in enumerate(model.levels, 1):
        yield f"ngram {n}={len(level)}"
    for n, level in enumerate(model.levels, 1):
        yield from ("", f"\\{n}-grams:")
        rows = zip(model.ngrams(n), level.log10.tolist(), level.backoff.tolist(), strict=True)
        for words, log10, backoff in rows:
            weight = f"\t{backoff:.8g}" if n < model.order else ""
            yield f"{log10:.8g}\t{' '.join(words)}{weight}"
    yield from ("", "\\end\\")


def read_arpa(path: str | Path) -> NGram:
    """Reads a model, packed by gzip or not.

    Raises:
        EvaluationError: it cannot be read, is empty, or breaks off, or a line is not what it should be; with its number.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            fingerprint = hashlib.file_digest(file, "sha256").hexdigest()
        with gzip.open(path, "rt", encoding="utf-8") if packed else path.open(encoding="utf-8") as lines:
            return _Reader(path, lines).model(fingerprint)
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise EvaluationError(f"The language model {path} cannot be read: {error}", _CURE) from error


class _Reader:
    """An ARPA file line by line; every error names the line."""

    def __init__(self, path: Path, lines: Iterable[str]) -> None:
        self._path, self._lines, self._at = path, iter(lines), 0
        self._line: str | None = None  # the line that is read next, None after the last
        self._next()

    def model(self, fingerprint: str) -> NGram:
        """All of it."""
        counts = self._counts()
        vocabulary: dict[str, int] = {}
        levels: list[Level] = []
        for n, count in enumerate(counts, 1):
            self._expect(f"\\{n}-grams:")
            first = self._at
            words, log10, backoff = self._section(n, count, n < len(counts), vocabulary)
            keys = self._keys(words, list(vocabulary), levels, first)
            order = np.argsort(keys, kind="stable")
            twice = np.flatnonzero(np.diff(keys[order]) == 0)
            if len(twice):
                raise self._broken("holds an n-gram that was there before", first + int(order[twice[0] + 1]))
            levels.append(Level(keys[order], log10[order], backoff[order]))
        self._expect("\\end\\")
        return NGram(list(vocabulary), levels, self._path.name, fingerprint)

    def _next(self) -> None:
        line = next(self._lines, None)
        self._line, self._at = line, self._at + 1

    def _counts(self) -> list[int]:
        """The numbers of n-grams that the head of the file promises."""
        empty = True
        while self._line is not None and self._line.strip() != "\\data\\":  # what stands above is a comment
            empty = empty and not self._line.strip()
            self._next()
        if self._line is None:
            told = "is empty" if empty else "has no line \\data\\"
            raise EvaluationError(f"The language model {self._path} {told}", _CURE)
        self._next()
        counts: list[int] = []
        while self._line is not None and self._line.startswith("ngram"):
            found = _COUNT.fullmatch(self._line.strip())
            if found is None or int(found[1]) != len(counts) + 1:
                raise self._broken(f"is {self._line.strip()!r}, not the number of {len(counts) + 1}-grams")
            counts.append(int(found[2]))
            self._next()
        if not counts or not counts[0]:
            raise self._broken("should say how many 1-grams there are, one or more")
        return counts

    def _section(
        self, n: int, count: int, weighted: bool, vocabulary: dict[str, int]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """N-grams of one order: numbers of their words, log10 of probabilities and of back-off weights.

        Numbers are given to the words of 1-grams here.
        """
        words, logs = array("q"), array("d")
        for k in range(count):
            line = self._line or ""
            fields = line.split()
            if len(fields) not in ((n + 1, n + 2) if weighted else (n + 1,)):
                raise self._broken(f"is {line.strip()[:60]!r}, and should be the {k + 1}. of {count} {n}-grams")
            try:
                log10, backoff = float(fields[0]), float(fields[n + 1]) if len(fields) == n + 2 else 0.0
            except ValueError as error:
                raise self._broken(f"holds what is no number: {line.strip()[:60]!r}") from error
            if not (log10 <= 0 and math.isfinite(log10) and math.isfinite(backoff)):
                raise self._broken(f"holds no logarithm of a probability: {line.strip()[:60]!r}")
            for word in fields[1 : n + 1]:
                if n > 1 and word not in vocabulary:
                    raise self._broken(f"holds {word!r}, which is no 1-gram")
                words.append(vocabulary.setdefault(word, len(vocabulary)))
            logs.extend((log10, backoff))
            self._next()
        held = np.array(logs).reshape(count, 2)
        return np.array(words, np.int64).reshape(count, n), held[:, 0].copy(), held[:, 1].copy()

    def _keys(self, words: np.ndarray, vocabulary: list[str], levels: list[Level], first: int) -> np.ndarray:
        """The key of each n-gram, see `Level`; numbers of words have the shape (k, n)."""
        size, places = len(vocabulary), words[:, 0]
        for level, column in zip(levels, words.T[1:], strict=True):
            if level is not levels[0]:
                places = self._places(level.keys, places, words, vocabulary, first)
            places = places * size + column
        return places

    def _places(
        self, held: np.ndarray, keys: np.ndarray, words: np.ndarray, vocabulary: list[str], first: int
    ) -> np.ndarray:
        """Where keys are among those of an order."""
        places = np.minimum(np.searchsorted(held, keys), max(len(held) - 1, 0))
        absent = np.flatnonzero(held[places] != keys) if len(held) else np.arange(len(keys))
        if len(absent):
            told = " ".join(vocabulary[word] for word in words[absent[0]])
            raise self._broken(f"holds {told!r}, whose first words are no n-gram", first + int(absent[0]))
        return places

    def _expect(self, wanted: str) -> None:
        """Goes past empty lines, and past a line that must follow them."""
        while self._line is not None and not self._line.strip():
            self._next()
        if self._line is None or self._line.strip() != wanted:
            raise self._broken(f"should be {wanted}")
        self._next()

    def _broken(self, told: str, line: int | None = None) -> EvaluationError:
        if line is None and self._line is None:
            return EvaluationError(
                f"The language model {self._path} breaks off after line {self._at - 1}: the next {told}", _CURE
            )
        return EvaluationError(f"Line {line or self._at} of the language model {self._path} {told}", _CURE)
