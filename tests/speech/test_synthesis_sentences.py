"""Sentences of the grammar: many words, none twice, forms that agree."""

import random
import re
import subprocess
import sys
from collections import Counter

import pytest

from otoscope.speech.synthesis.numbers import amount, clock, digits, spell, year
from otoscope.speech.synthesis.phrases import Phrases, Subject
from otoscope.speech.synthesis.sentences import Sentences
from otoscope.speech.synthesis.vocabulary import Kind, add_s, article, gerund, participle, past, plural, vocabulary


@pytest.fixture(scope="module")
def sentences():
    # In a process without the checks of annotations, which take far longer than the grammar.
    code = (
        "from otoscope.speech.synthesis.sentences import Sentences; one = Sentences(0)\n"
        "for _ in range(20_000): print(one.new())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_no_sentence_comes_twice(sentences):
    assert len(set(sentences)) == len(sentences)


def test_more_than_1500_words_are_said_few_often_and_many_seldom(sentences):
    counts = Counter(word for text in sentences for word in text.split())
    assert len(counts) >= 3000
    base = {form for kind in vocabulary().values() for entry in kind.entries for form in entry[0].split()}
    assert len(base & set(counts)) >= 1500
    often = sum(n for _, n in counts.most_common(100)) / counts.total()
    assert 0.4 < often < 0.75
    assert max(counts.values()) < 0.12 * counts.total()


def test_sentences_have_3_to_12_words_of_letters(sentences):
    lengths = [len(text.split()) for text in sentences]
    assert set(lengths) == set(range(3, 13))
    assert 6 < sum(lengths) / len(lengths) < 8
    assert all(re.fullmatch(r"[a-z]+('[a-z]+)?( [a-z]+('[a-z]+)?)*", text) for text in sentences)
    assert sum("'" in text for text in sentences) < 0.1 * len(sentences)


def test_the_seed_decides():
    one, same, other = Sentences(3), Sentences(3), Sentences(4)
    said = [one.new() for _ in range(50)]
    assert said == [same.new() for _ in range(50)]
    assert len(set(said) & {other.new() for _ in range(50)}) < 5


def test_articles_and_auxiliaries_agree(sentences):
    for text in sentences:
        assert not re.search(r"\ba ([aeio]|u[^ns]|un[^i])(?!ne\b|nce\b|uro)", text), text
        assert not re.search(r"\ban [^aeiouh]", text), text
        assert not re.match(r"(i (is|are|has|does|were)|(he|she) (are|am|have|do|were)|they (is|was|has|does))\b", text)


@pytest.mark.parametrize(
    ("who", "expected"),
    [(Subject("i", "i"), {"walk", "am walking", "was walking", "have walked"}),
     (Subject("the boys", "many"), {"walk", "are walking", "were walking", "have walked"}),
     (Subject("she", "one"), {"walks", "is walking", "was walking", "has walked"})],
)  # fmt: skip
def test_verbs_agree_with_their_subjects(who, expected):
    parts = Phrases(random.Random(0))
    seen = {parts.verb(who, ("walk",), tense) for tense in ("present", "now", "then", "perfect") for _ in range(200)}
    assert expected <= seen
    wrong = {"i": "walks|is|are|has|does", "many": "walks|is|was|has|does|am", "one": "are|were|have|do|am"}[who.number]
    assert not [text for text in seen if re.search(rf"\b({wrong})\b", text)]


def test_states_do_not_go_on():
    parts = Phrases(random.Random(0))
    she, know = Subject("she", "one"), ("know", "knew", "known")
    said = {parts.verb(she, know, tense) for tense in ("now", "then") for _ in range(99)}
    assert not any("knowing" in text for text in said)


def test_every_form_of_the_vocabulary_is_a_word():
    for name, kind in vocabulary().items():
        first = [entry[0] for entry in kind.entries]
        assert len(set(first)) == len(first), name
        for entry in kind.entries:
            forms = [*entry]
            if name.startswith("verb"):
                assert len(entry) in (1, 3, 4), entry
                forms += [past(entry), participle(entry), gerund(entry), add_s(entry[0])]
            elif name in ("person", "animal", "thing", "food", "place", "idea"):
                forms.append(plural(entry))
            assert all(re.fullmatch(r"[a-z]+( [a-z]+)*", form) for form in forms), entry


@pytest.mark.parametrize(
    ("entry", "expected"),
    [("stop", "stopped stopped stopping stops"), ("visit", "visited visited visiting visits"),
     ("dance", "danced danced dancing dances"), ("agree", "agreed agreed agreeing agrees"),
     ("try", "tried tried trying tries"), ("play", "played played playing plays"), ("fix", "fixed fixed fixing fixes"),
     ("begin/began/begun/beginning", "began begun beginning begins"), ("run/ran/run", "ran run running runs"),
     ("travel/travelled/travelled", "travelled travelled travelling travels"), ("tie", "tied tied tying ties")],
)  # fmt: skip
def test_verb_forms(entry, expected):
    forms = Kind([entry]).entries[0]
    assert " ".join((past(forms), participle(forms), gerund(forms), add_s(forms[0]))) == expected


def test_words_are_drawn_by_rank():
    kind, draw = Kind([f"w{k}" for k in range(20)]), random.Random(0)
    counts = Counter(kind.word(draw) for _ in range(20_000))
    total = sum(1 / (rank + 5) for rank in range(1, 21))
    for rank in (1, 5, 20):
        assert counts[f"w{rank - 1}"] / 20_000 == pytest.approx(1 / (rank + 5) / total, abs=0.008)


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [("owl", "an"), ("one day", "a"), ("university", "a"), ("uncle", "an"), ("hour", "an"), ("house", "a"),
     ("useful tool", "a"), ("onion", "an")],
)  # fmt: skip
def test_articles_go_by_sound(phrase, expected):
    assert article(phrase).split()[0] == expected


def _value(words):
    """The number that words spell, by the usual rules of reading."""
    units = {word: n for n, word in enumerate("zero one two three four five six seven eight nine ten eleven twelve thirteen "
                                              "fourteen fifteen sixteen seventeen eighteen nineteen".split())}  # fmt: skip
    tens = {w: 10 * n for n, w in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), 2)}
    total = here = 0
    for word in words.split():
        if word == "hundred":
            here *= 100
        elif word == "thousand":
            total, here = total + here * 1000, 0
        elif word != "and":
            here += units.get(word, tens.get(word, 0))
    return total + here


def test_numbers_are_spelt_as_they_are_read():
    assert all(_value(spell(n)) == n for n in [*range(2100), 12_345, 100_001, 999_999])
    assert spell(105) == "one hundred and five"


def test_times_years_and_counts_are_words():
    draw = random.Random(0)
    for say in (digits, year, clock):
        assert all(re.fullmatch(r"[a-z' ]+", say(draw)) for _ in range(200))
    assert all(2 <= amount(draw) <= 40_000 for _ in range(500))
