"""What measures are given beside the model and the corpus."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from otoscope.errors import TableError
from otoscope.measures.layers.folding import Folding
from otoscope.models.anatomy import Anatomy
from otoscope.speech import Corpus
from otoscope.speech.synthesis.lexicon import semantic_table, syntactic_table
from otoscope.speech.synthesis.similarities import sentence_pairs, word_pairs
from otoscope.speech.tables import WordPair, WordTable

LEXICON = "lexicon"
"""What tables and pairs are called that come of the sentence generator's own lexicon."""

PAIRS = 353
"""Word pairs, and sentence pairs, that are taken of the lexicon at most; as many as WordSim-353 has."""

FEWEST_PAIRS = 11
_TABLES = {"semantic": semantic_table, "syntactic": syntactic_table}

Pair = TypeVar("Pair")


@dataclass(frozen=True)
class Options:
    """Folds, tables and files that measures read.

    Where nothing is given, attributes of words and similarities come of the lexicon.

    Attributes:
        folding: how rows are dealt into folds.
        tables: vectors of words by name, such as "glove"; a measure `cca-NAME` reads each.
        word_pairs: word pairs with similarities by name.
        sentence_pairs: pairs of utterance ids or transcripts with similarities by name.
        other: anatomy and name of another model that the first is compared with.
        checkpoints: whether weights from along the model's training are given.
        wanted: names of the measures that are wanted, where one object yields several.
        corpus: the corpus, whose own words and sentences are paired.
        seed: of the choice of pairs.
    """

    folding: Folding = field(default_factory=Folding)
    tables: Mapping[str, WordTable] = field(default_factory=dict)
    word_pairs: Mapping[str, Sequence[WordPair]] = field(default_factory=dict)
    sentence_pairs: Mapping[str, Sequence[WordPair]] = field(default_factory=dict)
    other: tuple[Anatomy, str] | None = None
    checkpoints: bool = False
    wanted: frozenset[str] = frozenset()
    corpus: Corpus | None = None
    seed: int = 0

    def table(self, name: str) -> WordTable | None:
        """A table that was given, or the lexicon's of that name, or None."""
        return self.tables.get(name) or (_TABLES[name]() if name in _TABLES else None)

    def pairs_of_words(self) -> Mapping[str, Sequence[WordPair]]:
        """Those that were given, or pairs of the corpus' words from the lexicon; none where it knows too few."""
        if self.word_pairs or self.corpus is None:
            return self.word_pairs
        words = corpus_words(self.corpus)
        return _named(_as_many(lambda n: word_pairs(n, self.seed, words=words)))

    def pairs_of_sentences(self) -> Mapping[str, Sequence[WordPair]]:
        """Those that were given, or pairs of the corpus' utterances by the lexicon's similarity."""
        if self.sentence_pairs or self.corpus is None:
            return self.sentence_pairs
        told = sorted((u.id, u.transcript) for u in self.corpus if u.transcript)
        transcripts = [text for _, text in told]
        found = _as_many(lambda n: sentence_pairs(transcripts, n, self.seed))
        return _named([(told[i][0], told[j][0], score) for i, j, score in found])


def corpus_words(corpus: Corpus) -> frozenset[str]:
    """All labels of the tier of words."""
    return frozenset(x.label for u in corpus for x in u.tiers.get("word", ()))


def _as_many(make: Callable[[int], list[Pair]]) -> list[Pair]:
    """As many pairs as there are, up to `PAIRS`, by halves; none below `FEWEST_PAIRS`."""
    n = PAIRS
    while n >= FEWEST_PAIRS:
        try:
            return make(n)
        except TableError:  # there are not so many
            n //= 2
    return []


def _named(pairs: list[WordPair]) -> dict[str, list[WordPair]]:
    return {LEXICON: pairs} if pairs else {}
