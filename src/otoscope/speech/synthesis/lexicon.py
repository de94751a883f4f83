"""Tables of the words of the sentence grammar: meanings, parts of speech, vectors made from them, and their files."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

import numpy as np

from otoscope.errors import TableError
from otoscope.speech.synthesis.lexemes import Shares, lexemes
from otoscope.speech.synthesis.similarities import word_pairs
from otoscope.speech.tables import WordTable

FILES = {
    "embeddings": "embeddings.txt",
    "semantic": "semantic.qvec",
    "syntactic": "syntactic.qvec",
    "word pairs": "wordsim.tsv",
}
"""What `write_lexicon` writes, by name."""

# How much of a vector is what a word shares with others, and how much its own.
_WEIGHTS = {"classes": 1.0, "groups": 1.0, "tags": 0.5, "lemmas": 0.7}
_OWN = 0.3
# GloVe's own files have as many.
_DECIMALS = 5


@cache
def semantic_table() -> WordTable:
    """Semantic classes of every word that has one, as QVEC's table of SemCor's supersenses has them.

    One row a spoken form, one column a class ("noun.animal", "verb.motion", "adj.colour"): how often the word is
    said with the meaning, by the grammar's own frequencies. Rows sum to 1.
    """
    return _attributes({word: lexeme.classes for word, lexeme in lexemes().items() if lexeme.classes})


@cache
def syntactic_table() -> WordTable:
    """Parts of speech of every word, as QVEC's table of the Penn Treebank has them.

    One row a spoken form, one column a tag ("ptb.nn"): how often the word is said with the tag, by the grammar's
    own frequencies. Rows sum to 1.
    """
    return _attributes(
        {word: {f"ptb.{tag}": share for tag, share in lexeme.tags.items()} for word, lexeme in lexemes().items()}
    )


@cache
def embedding_table(width: int = 50, seed: int = 0) -> WordTable:
    """Vectors made by rule from the classes of words; they are not learned from text.

    A word's vector is the sum of random vectors of its classes, its groups, its parts of speech (half), its base
    forms (0.7) and its own (0.3), the former four weighted by its shares. So words of one group are nearer than words of
    one class, and these nearer than others, as in learned embeddings; nothing else about language is in it.

    Args:
        width: numbers a word.
        seed: the same vectors for the same seed; a word's vector does not depend on the other words.

    Raises:
        TableError: the width is less than 1.
    """
    if width < 1:
        raise TableError(f"Vectors of {width} numbers cannot be made", "Give a width of 1 or more.")
    known = lexemes()
    own = _directions("word", known, width, seed)
    values = _OWN * np.stack([own[word] for word in known])
    for kind, weight in _WEIGHTS.items():
        shares: list[Shares] = [getattr(lexeme, kind) for lexeme in known.values()]
        directions = _directions(kind, {name for one in shares for name in one}, width, seed)
        for row, one in zip(values, shares, strict=True):
            for name, share in one.items():
                row += weight * share * directions[name]
    return _table(tuple(known), np.round(values, _DECIMALS))


def write_lexicon(folder: str | Path, width: int = 50, pairs: int = 353, seed: int = 0) -> Path:
    """Writes the tables in the formats that are in use, under the names in `FILES`.

    `embeddings.txt` is in GloVe's format, `semantic.qvec` and `syntactic.qvec` are in QVEC's, `wordsim.tsv` is laid
    out like WordSim-353. `read_embeddings` and `read_word_pairs` read them back, equal to the last digit. The folder is
    written under a temporary name and then renamed: it is whole or not there.

    Args:
        folder: must not exist, or be empty.
        width: numbers a word in `embeddings.txt`.
        pairs: pairs of words in `wordsim.tsv`.
        seed: of the vectors and the pairs.

    Returns:
        The folder.

    Raises:
        TableError: the folder exists and is not empty, or the width or the number of pairs cannot be had.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise TableError(f"{folder} exists and is not empty", "Choose another folder, or remove it first.")
    table = embedding_table(width, seed)
    texts = {
        "embeddings": [
            " ".join([word, *(f"{value:.{_DECIMALS}f}" for value in row)])
            for word, row in zip(table.words, table.values, strict=True)
        ],
        "semantic": _qvec_lines(semantic_table()),
        "syntactic": _qvec_lines(syntactic_table()),
        "word pairs": ["Word 1\tWord 2\tHuman (mean)"]
        + [f"{one}\t{other}\t{score}" for one, other, score in word_pairs(pairs, seed)],
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".partial", dir=folder.parent))
    try:
        # mkdtemp makes folders that only their owner can open; the one within gets the usual rights.
        inner = partial / folder.name
        inner.mkdir()
        for name, lines in texts.items():
            (inner / FILES[name]).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        if folder.exists():
            folder.rmdir()
        inner.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _attributes(shares: Mapping[str, Shares]) -> WordTable:
    columns = sorted({name for one in shares.values() for name in one})
    place = {name: i for i, name in enumerate(columns)}
    values = np.zeros((len(shares), len(columns)))
    for row, one in zip(values, shares.values(), strict=True):
        for name, share in one.items():
            row[place[name]] = share
    return _table(tuple(shares), values, tuple(columns))


def _table(words: tuple[str, ...], values: np.ndarray, columns: tuple[str, ...] = ()) -> WordTable:
    # Callers share what is cached.
    values.flags.writeable = False
    return WordTable(words, values, columns)


def _qvec_lines(table: WordTable) -> list[str]:
    return [
        f"{word}\t{json.dumps({name: float(value) for name, value in zip(table.columns, row, strict=True) if value})}"
        for word, row in zip(table.words, table.values, strict=True)
    ]


def _directions(kind: str, names: Iterable[str], width: int, seed: int) -> dict[str, np.ndarray]:
    """A random vector for each name, which depends on the seed, the kind and the name alone."""
    seeds = {name: hashlib.blake2b(f"{kind} {name}".encode(), digest_size=8).digest() for name in names}
    return {
        name: np.random.default_rng([seed, int.from_bytes(one)]).standard_normal(width) for name, one in seeds.items()
    }
