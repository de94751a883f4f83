"""Word tables given by path: embeddings, attributes of words, and pairs of words with their similarity."""

from __future__ import annotations

import codecs
import csv
import gzip
import itertools
import json
import math
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from otoscope.errors import TableError

WordPair = tuple[str, str, float]
"""Two words and how alike people (or a rule) find them."""

_TABLE_CURE = (
    "Give GloVe's format (a word and its numbers on each line, with or without a first line of names or of word2vec's "
    "two counts), QVEC's (a word, a tab, a JSON object of numbers), or a .npy with its vocabulary beside it."
)
_PAIRS_CURE = "Give two words and a number on each line, separated by tabs, commas, semicolons or spaces."
_SCORES = ("human (mean)", "simlex999", "simlex", "similarity", "sim", "relatedness", "score", "rating", "mean", "gold")


@dataclass(frozen=True, eq=False)
class WordTable:
    """Words with a vector each.

    Attributes:
        words: the words, each once.
        values: one row a word, shape (n, d).
        columns: names of the d columns; empty where they have none.
    """

    words: tuple[str, ...]
    values: Float64[np.ndarray, "n d"]
    columns: tuple[str, ...] = ()


def read_embeddings(
    path: str | Path, words: Collection[str] | None = None, vocabulary: str | Path | None = None
) -> WordTable:
    """Reads a table of word vectors; what it is shows by itself. Text may be packed by gzip (".gz").

    - GloVe's and word2vec's text: a word and its numbers on each line, separated by spaces (or by tabs or commas);
      a first line of two counts, as word2vec and fastText write, is checked against the file. A word may hold
      spaces, as some of GloVe's do.
    - the same with a first line that names the columns.
    - QVEC's oracles (Tsvetkov et al. 2015): a word, a tab, and a JSON object of attributes and their numbers; an
      attribute that a word lacks is 0, and columns are sorted by name.
    - ".npy": an array of shape (n, d), with the words in `NAME.vocab.txt` beside it, one on each line.

    Text is read as a stream: of a file of any length only `words` are kept. Of lines that are not kept only the
    width is checked. A word that comes twice with the same vector is kept once.

    Args:
        path: the file.
        words: the words to keep, as they are written in the table; None for all.
        vocabulary: the words of a ".npy"; None for `NAME.vocab.txt`.

    Returns:
        The table, in the order of the file. Words that the file lacks are missing there, too.

    Raises:
        TableError: there is no such file, it is empty or not text, a line has another width than the first, a
            field is no finite number, a word comes twice with different vectors, the counts of a header or of a
            vocabulary are wrong, or none of `words` is there.
    """
    path = Path(path)
    wanted = None if words is None else {word.encode() for word in words}
    if path.suffix == ".npy":
        rows = _npy_rows(path, Path(vocabulary) if vocabulary else path.with_suffix(".vocab.txt"), wanted)
        names: tuple[str, ...] = ()
    elif vocabulary is not None:
        raise TableError(f"{path} is text and has its words in it", "Leave the vocabulary out.")
    else:
        rows, names = _text_rows(path, wanted)
    if not rows:
        raise TableError(f"{path} has none of the {len(wanted or ())} words", "Check their spelling: case counts.")
    return WordTable(tuple(rows), np.stack(list(rows.values())), names)


def read_word_pairs(path: str | Path, column: str | int | None = None) -> list[WordPair]:
    """Reads pairs of words with their similarity, as in WordSim-353, SimLex-999, MEN and their like.

    The separator (tab, comma, semicolon or space) and whether a first line names the columns show by themselves.
    Lines that are empty or start with "#" are passed over. Pairs that come twice stay: WordSim-353 has one that was
    judged twice.

    Args:
        path: the file.
        column: where the score is: the name of a column, or its number from 0. None for a column with one of the
            usual names, else the third.

    Returns:
        First word, second word and score, in the order of the file.

    Raises:
        TableError: there is no such file, it holds no pairs, a line has too few fields, a score is no finite
            number, or no column has the name.
    """
    path = Path(path)
    lines = [(n, text) for n, text in _text_lines(path) if text and not text.startswith("#")]
    if not lines:
        raise TableError(f"{path} holds no pairs of words", _PAIRS_CURE)
    separator = next((mark for mark in "\t;," if mark in lines[0][1]), " ")
    rows = [(n, _pair_fields(text, separator)) for n, text in lines]
    place, named = _score_place(path, rows[0][1], column)
    if named and len(rows[0][1]) < 3:
        raise TableError(f"{path}, line {rows[0][0]}: {len(rows[0][1])} fields where 3 are needed", _PAIRS_CURE)
    pairs = []
    for n, fields in rows[named:]:
        if len(fields) <= max(place, 1) or not fields[0] or not fields[1]:
            raise TableError(
                f"{path}, line {n}: {len(fields)} fields where {max(place, 1) + 1} are needed", _PAIRS_CURE
            )
        score = _number(fields[place])
        if score is None or not math.isfinite(score):
            raise TableError(
                f"{path}, line {n}: the score is {fields[place]!r}, which is no finite number",
                "Name the column of the scores with `column`, or correct the line.",
            )
        pairs.append((fields[0], fields[1], score))
    if not pairs:
        raise TableError(f"{path} holds a header and no pairs of words", _PAIRS_CURE)
    return pairs


class _Rows:
    """Vectors by word; a word that comes again must come with the same vector."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.by_word: dict[str, np.ndarray] = {}

    def add(self, line: int, word: bytes, vector: Sequence[float] | np.ndarray) -> None:
        row = np.asarray(vector, dtype=np.float64)
        where = f"{self.path}, line {line}"
        try:
            text = word.decode()
        except UnicodeDecodeError as error:
            raise TableError(f"{where}: the word {word!r} is not UTF-8", "Convert the file to UTF-8.") from error
        if not text:
            raise TableError(f"{where}: there is no word before the numbers", _TABLE_CURE)
        if not np.isfinite(row).all():
            place = int(np.flatnonzero(~np.isfinite(row))[0])
            raise TableError(f"{where}: {text!r} has {row[place]} at place {place + 1}", "Leave the word out.")
        if not np.array_equal(self.by_word.setdefault(text, row), row):
            raise TableError(f"{where}: {text!r} came before with other numbers", "Keep one of the two lines.")


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Lines that are not empty, counted from 1, cut at line feeds only: GloVe has words that hold other breaks."""
    opened = gzip.open if path.suffix == ".gz" else Path.open
    try:
        with opened(path, "rb") as file:
            for n, line in enumerate(file, start=1):
                line = line.rstrip(b" \t\r\n")
                if b"\0" in line:
                    raise TableError(f"{path} is not text: line {n} holds a zero byte", _TABLE_CURE)
                if line:
                    yield n, line
    except (OSError, EOFError, zlib.error) as error:
        raise TableError(f"{path} cannot be read ({error})", "Give the path of a table of words, whole.") from error


def _text_lines(path: Path) -> Iterator[tuple[int, str]]:
    for n, line in _lines(path):
        try:
            yield n, line.decode("utf-8-sig" if n == 1 else "utf-8").strip()
        except UnicodeDecodeError as error:
            raise TableError(f"{path}, line {n} is not UTF-8", "Convert the file to UTF-8.") from error


def _text_rows(path: Path, wanted: Collection[bytes] | None) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    lines = _lines(path)
    first = next(lines, None)
    if first is None:
        raise TableError(f"{path} is empty", _TABLE_CURE)
    first = first[0], first[1].removeprefix(codecs.BOM_UTF8)
    if b"\t{" in first[1]:
        return _qvec_rows(path, itertools.chain([first], lines), wanted)
    return _dense_rows(path, first, lines, wanted)


def _dense_rows(
    path: Path, first: tuple[int, bytes], lines: Iterator[tuple[int, bytes]], wanted: Collection[bytes] | None
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    ahead, between = [first], _separator(first[1])
    start = first[1].split(between)
    names: tuple[str, ...] = ()
    width, promised = len(start) - 1, None
    if len(start) == 2 and start[0].isdigit() and start[1].isdigit():
        ahead += itertools.islice(lines, 1)
        # A table of one column may start with a number for a word; after word2vec's counts the lines are wider.
        if len(ahead) == 2 and ahead[1][1].count(_separator(ahead[1][1])) >= min(int(start[1]), 2):
            promised, width, between = int(start[0]), int(start[1]), _separator(ahead[1][1])
            del ahead[0]
    elif all(_number(field) is None for field in start[1:]):
        names, ahead = tuple(field.decode(errors="replace").strip() for field in start[1:]), []
    if width < 1:
        raise TableError(f"{path}, line {first[0]}: there are no numbers after {first[1][:40]!r}", _TABLE_CURE)
    rows, seen = _Rows(path), 0
    for n, line in itertools.chain(ahead, lines):
        seen += 1
        # From the right, for a word may hold spaces.
        word, *fields = line.rsplit(between, width)
        if len(fields) < width or any(_number(extra) is not None for extra in word.split(between)[1:]):
            raise TableError(
                f"{path}, line {n}: {line.count(between)} numbers where the table has {width}", _TABLE_CURE
            )
        if wanted is None or word in wanted:
            rows.add(n, word, [_value(field, path, n) for field in fields])
    if promised not in (None, seen):
        raise TableError(f"{path} promises {promised} words in its first line and has {seen}", "Fetch it again.")
    if not seen:
        raise TableError(f"{path} has a header and no words", _TABLE_CURE)
    return rows.by_word, names


def _qvec_rows(
    path: Path, lines: Iterable[tuple[int, bytes]], wanted: Collection[bytes] | None
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    kept: list[tuple[int, bytes, dict[str, float]]] = []
    names: set[str] = set()
    for n, line in lines:
        word, _, text = line.partition(b"\t")
        try:
            attributes = json.loads(text)
        except ValueError as error:
            raise TableError(
                f"{path}, line {n}: no JSON object stands after {word!r} and a tab", _TABLE_CURE
            ) from error
        numbers = isinstance(attributes, dict) and all(type(value) in (int, float) for value in attributes.values())
        if not numbers:
            raise TableError(f"{path}, line {n}: {text[:60]!r} is no object of attributes and numbers", _TABLE_CURE)
        names.update(attributes)
        if wanted is None or word in wanted:
            kept.append((n, word, attributes))
    if not names:
        raise TableError(f"{path} has no attributes", _TABLE_CURE)
    rows, columns = _Rows(path), tuple(sorted(names))
    for n, word, attributes in kept:
        rows.add(n, word, [attributes.get(name, 0.0) for name in columns])
    return rows.by_word, columns


def _npy_rows(path: Path, vocabulary: Path, wanted: Collection[bytes] | None) -> dict[str, np.ndarray]:
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise TableError(f"{path} cannot be read ({error})", "Give the path of an array, whole.") from error
    except (ValueError, EOFError) as error:
        raise TableError(f"{path} is no array of numbers that numpy wrote", "Write it with numpy.save.") from error
    if values.ndim != 2 or values.dtype.kind not in "fiu" or not values.size:
        raise TableError(f"{path} has shape {values.shape} and type {values.dtype}", "Give numbers of shape (n, d).")
    if not vocabulary.is_file():
        raise TableError(
            f"{path} has no words: there is no {vocabulary}",
            "Write them there, one on each line, or name their file with `vocabulary`.",
        )
    # Every line is a word: an empty one would shift all that follow.
    words = vocabulary.read_bytes().removesuffix(b"\n").split(b"\n")
    if len(words) != len(values):
        raise TableError(f"{path} has {len(values)} rows and {vocabulary} {len(words)} words", "Give one word a row.")
    rows = _Rows(vocabulary)
    for n, word in enumerate(words):
        word = word.removesuffix(b"\r")
        if wanted is None or word in wanted:
            rows.add(n + 1, word, values[n])
    return rows.by_word


def _separator(line: bytes) -> bytes:
    if b"\t" in line:
        return b"\t"
    return b"," if line.count(b",") >= max(line.count(b" "), 1) else b" "


def _number(field: bytes | str) -> float | None:
    try:
        return float(field)
    except ValueError:
        return None


def _value(field: bytes, path: Path, line: int) -> float:
    value = _number(field)
    if value is None:
        raise TableError(f"{path}, line {line}: {field[:40].decode(errors='replace')!r} is no number", _TABLE_CURE)
    return value


def _pair_fields(text: str, separator: str) -> list[str]:
    if separator == " ":
        return text.split()
    fields = text.split(separator) if separator == "\t" else next(csv.reader([text], delimiter=separator))
    return [field.strip() for field in fields]


def _score_place(path: Path, first: Sequence[str], column: str | int | None) -> tuple[int, bool]:
    """The place of the score, and whether the first line names the columns."""
    names = [field.lower() for field in first]
    if isinstance(column, str):
        if column.lower() not in names:
            raise TableError(f"{path} has no column {column!r}", f"It has {', '.join(first)}.")
        return names.index(column.lower()), True
    usual = [place for place, name in enumerate(names) if place > 1 and name in _SCORES]
    named = bool(usual) or not any(_number(field) is not None for field in first[2:])
    if column is not None:
        return column, named
    return usual[0] if usual else 2, named
