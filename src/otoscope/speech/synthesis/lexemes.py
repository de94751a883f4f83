"""What the words of the sentence grammar are: part of speech, base form and meanings, each with its share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from otoscope.speech.synthesis.vocabulary import add_s, gerund, participle, past, plural, vocabulary

Shares = dict[str, float]
"""Names with their shares, which sum to 1; empty where there is none."""

# How often a word of a kind is said, in a thousand words of sentences, measured on 3,000 of them.
_NOUNS = {"person": 60, "animal": 6, "thing": 42, "food": 12, "place": 44, "idea": 18, "unit": 3}
_MASS_NOUNS = {"drink": 5, "stuff": 2, "season": 1.5}
_ADJECTIVES = {
    "adjective_person": 28, "adjective_thing": 16, "adjective_food": 6, "adjective_place": 9, "adjective_idea": 8,
    "weather": 1.6, "ordinal": 1.4,
}  # fmt: skip
_ADVERBS = {"manner": 9, "often": 5, "very": 1}
_VERBS = {
    "verb_thing": 25, "verb_person": 12, "verb_food": 7, "verb_drink": 5, "verb_place": 9, "verb_idea": 12,
    "verb_alone": 15, "verb_motion": 15, "verb_animal": 2, "verb_say": 6, "verb_give": 7, "verb_to": 5, "verb_event": 2,
}  # fmt: skip
# Names, with the class and the group of all of a kind.
_NAMES = {
    "name_man": (16, "noun.person man"), "name_woman": (19, "noun.person woman"), "surname": (12, "noun.person surname"),
    "city": (12, "noun.location name"), "weekday": (6, "noun.time weekday"), "month": (3, "noun.time month"),
}  # fmt: skip
# A name in the possessive ("mary's") is said once where the name is said nineteen times.
_OWNING = 0.05
# The shares of inflections, measured alike.
_PLURALS = {"nn": 0.75, "nns": 0.25}
_TENSES = {"vb": 0.26, "vbp": 0.1, "vbd": 0.37, "vbz": 0.12, "vbg": 0.08, "vbn": 0.07}
_PARTS = {"nn": "noun", "cd": "noun", "vb": "verb", "jj": "adj", "rb": "adv"}
# Where lexicon.txt gives no rate.
_USUAL = 0.5
_FLAT = 5


@dataclass(frozen=True)
class Reading:
    """One way to take a word.

    Attributes:
        tag: part of speech, a tag of the Penn Treebank in lower case.
        lemma: the base form.
        rate: how often the word is said so, in a thousand words.
        groups: classes with a group each, such as "noun.animal bird".
    """

    tag: str
    lemma: str
    rate: float
    groups: tuple[str, ...]


@dataclass(frozen=True)
class Lexeme:
    """A word with all its readings, each weighed by how often it is meant.

    Attributes:
        tags: parts of speech.
        lemmas: base forms, each with its part of speech ("noun.dog").
        classes: semantic classes; empty for words of grammar alone, such as "the".
        groups: groups within the classes.
    """

    tags: Shares
    lemmas: Shares
    classes: Shares
    groups: Shares


@cache
def lexemes() -> dict[str, Lexeme]:
    """Every word that the sentence grammar can say, in alphabetical order."""
    readings: dict[str, list[Reading]] = defaultdict(list)
    for word, reading in _readings():
        readings[word].append(reading)
    return {word: _lexeme(readings[word]) for word in sorted(readings)}


def _lexeme(readings: list[Reading]) -> Lexeme:
    tags = [(one.tag, one.rate) for one in readings]
    lemmas = [(f"{_part(one.tag)}.{one.lemma}", one.rate) for one in readings]
    groups = [(group, one.rate / len(one.groups)) for one in readings for group in one.groups]
    classes = [(group.split()[0], rate) for group, rate in groups]
    return Lexeme(*map(_shares, (tags, lemmas, classes, groups)))


def _shares(rates: list[tuple[str, float]]) -> Shares:
    total = sum(rate for _, rate in rates)
    shares: Shares = {}
    for name, rate in sorted(rates):
        shares[name] = shares.get(name, 0.0) + rate / total
    return shares


def _part(tag: str) -> str:
    """The part of speech of a tag; that of a word of grammar is its tag."""
    return _PARTS.get(tag[:2], tag)


def _readings() -> Iterator[tuple[str, Reading]]:
    meanings, tagged = _listed()

    def reading(tag: str, lemma: str, rate: float, groups: tuple[str, ...] = ()) -> Reading:
        return Reading(tag, lemma, rate, groups or tuple(meanings.get(f"{_part(tag)}.{lemma}", ())))

    for tag, word, lemma, rate in tagged:
        yield word, reading(tag, lemma, rate)
    for kind, rate in _NOUNS.items():
        for forms, share in _entries(kind):
            spoken = {"nn": forms[0], "nns": plural(forms)}
            for tag, part in _PLURALS.items():
                yield spoken[tag], reading(tag, forms[0], rate * share * part)
    for tag, kinds in (("nn", _MASS_NOUNS), ("jj", _ADJECTIVES), ("rb", _ADVERBS)):
        for kind, rate in kinds.items():
            for forms, share in _entries(kind):
                yield forms[0], reading(tag, forms[0], rate * share)
    for kind, rate in _VERBS.items():
        for forms, share in _entries(kind):
            base = forms[0]
            spoken = {"vb": base, "vbp": base, "vbd": past(forms), "vbz": add_s(base)}
            spoken |= {"vbg": gerund(forms), "vbn": participle(forms)}
            for tag, part in _TENSES.items():
                yield spoken[tag], reading(tag, base, rate * share * part)
    for kind, (rate, group) in _NAMES.items():
        for (name, *_), share in _entries(kind):
            yield name, reading("nnp", name, rate * share, (group,))
            if kind == "name_woman":
                yield f"{name}'s", reading("nnp", name, rate * share * _OWNING, (group,))
                yield f"{name}'s", reading("pos", "'s", rate * share * _OWNING)


def _entries(kind: str) -> Iterator[tuple[tuple[str, ...], float]]:
    """The single words of a kind with their shares; those of phrases are listed by their tags."""
    entries = vocabulary()[kind].entries
    # By rank, as Kind draws them.
    weights = [1 / (rank + _FLAT) for rank in range(1, len(entries) + 1)]
    for forms, weight in zip(entries, weights, strict=True):
        if " " not in forms[0]:
            yield forms, weight / sum(weights)


def _listed() -> tuple[dict[str, list[str]], list[tuple[str, str, str, float]]]:
    """What lexicon.txt lists: the groups of base forms ("noun.dog"), and words with tag, base form and rate."""
    meanings: dict[str, list[str]] = defaultdict(list)
    tagged = []
    group = tag = ""
    for line in files("otoscope.speech.synthesis").joinpath("lexicon.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            group, tag = line.strip("[]"), ""
        elif line.startswith("<"):
            group, tag = "", line.strip("<>")
        elif not line.startswith("#"):
            for entry in line.split():
                if group:
                    meanings[f"{group.split('.')[0]}.{entry}"].append(group)
                else:
                    spoken, _, rate = entry.partition(":")
                    word, _, lemma = spoken.partition("=")
                    tagged.append((tag, word, lemma or word, float(rate or _USUAL)))
    return meanings, tagged
