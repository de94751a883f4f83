"""How alike words and sentences of the grammar are, by the classes of meaning that they share."""

from __future__ import annotations

import itertools
import random
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from functools import cache
from typing import TypeVar

from otoscope.errors import TableError
from otoscope.speech.synthesis.lexemes import Lexeme, Shares, lexemes
from otoscope.speech.tables import WordPair

SentencePair = tuple[int, int, float]
"""The places of two transcripts in their list, and how alike the transcripts are."""

# What two words have in common, and the points that this gives; together 10, as in WordSim-353.
_TAGS, _CLASSES, _GROUPS, _LEMMAS = 1.0, 3.0, 4.0, 2.0
# The scale of sentence similarity, as in the tasks of semantic textual similarity.
_MOST = 5.0
_AUXILIARY = "verb.stative auxiliary"
_TRIES = 10

Item = TypeVar("Item", str, int)


@cache
def word_similarity(one: str, other: str) -> float:
    """How alike two words of the grammar are, from 0 to 10, by rule.

    For tag, class, group and base form the overlap sum_i min(p_i, q_i) of the two words' shares is taken: 1 point
    for the same part of speech, 3 for the same class ("noun.animal"), 4 for the same group in it ("bird"), 2 for
    the same base form. A word and itself have 10.

    Raises:
        TableError: the lexicon lacks one of them, or has no meaning for it.

    >>> word_similarity("crow", "swan"), word_similarity("crow", "swans"), word_similarity("crow", "sing")
    (8.0, 7.0, 0.0)
    """
    first, second = (_content(word) for word in (one, other))
    points = (
        _TAGS * _overlap(first.tags, second.tags)
        + _CLASSES * _overlap(first.classes, second.classes)
        + _GROUPS * _overlap(first.groups, second.groups)
        + _LEMMAS * _overlap(first.lemmas, second.lemmas)
    )
    return round(points, 4)


def word_pairs(n: int = 353, seed: int = 0, words: Collection[str] | None = None) -> list[WordPair]:
    """Pairs of words with their similarity: a third from one group, a third from one class, a third from anywhere.

    The scores come from `word_similarity`, not from people: they tell whether a measure of word similarity runs and
    ranks, not what words mean to listeners.

    Args:
        n: how many; none comes twice, in either order.
        seed: the same pairs for the same seed.
        words: take pairs of these alone, such as the words of a corpus; None for all. What the lexicon lacks or has
            no meaning for is passed over.

    Returns:
        First word, second word and score from 0 to 10.

    Raises:
        TableError: there are not so many pairs.
    """
    known = lexemes()
    among = [word for word, one in known.items() if one.classes and (words is None or word in words)]
    kin: dict[str, list[str]] = defaultdict(list)
    for word in among:
        for name in (*known[word].groups, *known[word].classes):
            kin[name].append(word)
    draw = random.Random(f"word pairs {seed}")

    def near(first: str, turn: int) -> str:
        names = [known[first].groups, known[first].classes][turn]
        return draw.choice(kin[draw.choice(list(names))])

    pairs = _drawn(n, among, near, draw, "words that the lexicon has a meaning for")
    return [(one, other, word_similarity(one, other)) for one, other in pairs]


def sentence_similarity(one: str, other: str) -> float | None:
    """How alike two transcripts are, from 0 to 5, by rule.

    Each word of one is matched with the most similar word of the other; the mean of these similarities, taken over
    both transcripts in turn, is scaled from `word_similarity`'s 10 to 5. Words that have no meaning in the lexicon
    ("the") and forms of "be", "have" and "do" do not count; a word that the lexicon lacks is like itself only.

    Returns:
        The similarity; None where one of the two has no word that counts.

    >>> sentence_similarity("the dog sleeps", "a dog sleeps"), sentence_similarity("the dog sleeps", "she is in paris")
    (5.0, 0.0)
    """
    first, second = (_content_words(text) for text in (one, other))
    if not first or not second:
        return None
    grid = [[_alike(left, right) for right in second] for left in first]
    there = sum(map(max, grid)) / len(first)
    back = sum(map(max, zip(*grid, strict=True))) / len(second)
    return round(_MOST * (there + back) / 2, 4)


def sentence_pairs(transcripts: Sequence[str], n: int, seed: int = 0) -> list[SentencePair]:
    """Pairs of transcripts with their similarity: two thirds share a group or a class of words.

    Args:
        transcripts: of a corpus. Those without a word that counts (see `sentence_similarity`) are passed over.
        n: how many pairs; none comes twice, in either order.
        seed: the same pairs for the same seed.

    Returns:
        The places of two transcripts in `transcripts`, and their similarity from 0 to 5.

    Raises:
        TableError: there are not so many pairs.
    """
    known = lexemes()
    words = [_content_words(text) for text in transcripts]
    among = [place for place, one in enumerate(words) if one]
    kin: dict[str, list[int]] = defaultdict(list)
    names: list[tuple[list[str], list[str]]] = []
    for place, one in enumerate(words):
        found = [known[word] for word in one if word in known]
        groups = sorted({name for each in found for name in each.groups})
        names.append((groups, sorted({name.split()[0] for name in groups})))
        for name in itertools.chain(*names[-1]):
            kin[name].append(place)
    draw = random.Random(f"sentence pairs {seed}")

    def near(first: int, turn: int) -> int:
        shared = names[first][turn]
        return draw.choice(kin[draw.choice(shared)]) if shared else first

    pairs = _drawn(n, among, near, draw, "transcripts with a word that counts")
    scores = [sentence_similarity(transcripts[one], transcripts[other]) for one, other in pairs]
    return [(one, other, score) for (one, other), score in zip(pairs, scores, strict=True) if score is not None]


def _drawn(
    n: int, among: list[Item], near: Callable[[Item, int], Item], draw: random.Random, what: str
) -> list[tuple[Item, Item]]:
    """Pairs of different items: in turn two that are near by group, by class, and any two."""
    most = len(among) * (len(among) - 1) // 2
    if not 0 < n <= most:
        raise TableError(
            f"{n} pairs are asked for, and {len(among)} {what} make {most}", "Ask for fewer, at least one."
        )
    pairs: dict[tuple[Item, Item], None] = {}
    while len(pairs) < n:
        first, turn = draw.choice(among), len(pairs) % 3
        # Where all that are near were drawn, any two follow.
        tries = (near(first, turn) if turn < 2 else draw.choice(among) for _ in range(_TRIES))
        second = next((one for one in tries if _new(first, one, pairs)), draw.choice(among))
        if _new(first, second, pairs):
            pairs[first, second] = None
    return list(pairs)


def _new(first: Item, second: Item, pairs: Collection[tuple[Item, Item]]) -> bool:
    return first != second and (first, second) not in pairs and (second, first) not in pairs


def _content(word: str) -> Lexeme:
    lexeme = lexemes().get(word)
    if lexeme is None or not lexeme.classes:
        raise TableError(f"The lexicon has no meaning for {word!r}", "Take words of its semantic table.")
    return lexeme


def _content_words(text: str) -> list[str]:
    known = lexemes()
    words = text.lower().split()
    return [word for word in words if word not in known or set(known[word].groups) - {_AUXILIARY}]


def _alike(one: str, other: str) -> float:
    if one == other:
        return 1.0
    known = lexemes()
    return word_similarity(one, other) / 10 if one in known and other in known else 0.0


def _overlap(one: Shares, other: Shares) -> float:
    return sum(min(share, other.get(name, 0.0)) for name, share in one.items())
