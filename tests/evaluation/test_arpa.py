"""ARPA files: what is written is read, other programs' files are read, and every fault has its line."""

import gzip
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otoscope.errors import EvaluationError, MissingPackageError, ResultError
from otoscope.evaluation.language import (
    KenlmModel,
    kneser_ney,
    read_arpa,
    read_language_model,
    sentence_score,
    write_arpa,
)
from tests.evaluation.test_kneser_ney import ENOUGH, SENTENCES

HAND = """written by hand

\\data\\
ngram 1=4
ngram 2=2

\\1-grams:
-99\t<s>\t-0.5
-1\t</s>
-0.5\ta\t-0.25
-0.75\tb\t0.125

\\2-grams:
-0.2\t<s> a
-0.3\ta b

\\end\\
"""


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "lm.arpa"
        path.write_text(text)
        return path

    return write


def test_back_off_by_hand(file):
    model = read_arpa(file(HAND))
    ten = math.log(10)
    assert model.order == 2
    assert sentence_score(model, ["a", "b"]) == pytest.approx(ten * (-0.2 - 0.3 + 0.125 - 1))
    assert sentence_score(model, ["b", "a"]) == pytest.approx(ten * (-0.5 - 0.75 + 0.125 - 0.5 - 0.25 - 1))
    assert sentence_score(model, ["z", "a"]) == pytest.approx(ten * (-0.5 - 100 - 0.5 - 0.25 - 1))
    assert list(model.words()) == ["a", "b"]
    assert not model.knows("<s>")
    assert model.describe()["ngrams"] == [4, 2]


@given(sentences=SENTENCES, order=st.integers(1, 4), asked=SENTENCES)
def test_round_trip(tmp_path_factory, sentences, order, asked):
    model = kneser_ney(sentences, order)
    path = write_arpa(model, tmp_path_factory.mktemp("lm") / "lm.arpa")
    again = read_arpa(path)
    for one in [*asked, ["zebra"], []]:
        assert sentence_score(again, one) == pytest.approx(sentence_score(model, one), rel=1e-6)
    assert [len(level) for level in again.levels] == [len(level) for level in model.levels]
    assert write_arpa(again, path.with_name("again.arpa")).read_bytes() == path.read_bytes()
    assert not list(path.parent.glob(".*"))


def test_packed_files_and_crossed_orders(tmp_path):
    """A pruned model may hold an n-gram whose last words are none."""
    text = HAND.replace("ngram 2=2", "ngram 2=2\nngram 3=1").replace("\\end\\", "\\3-grams:\n-0.1\t<s> a a\n\n\\end\\")
    path = tmp_path / "lm.arpa.gz"
    path.write_bytes(gzip.compress(text.encode()))
    model, ten = read_language_model(path), math.log(10)
    assert sentence_score(model, ["a", "a"]) == pytest.approx(ten * (-0.2 - 0.1 - 0.25 - 1))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(EvaluationError, match="cannot be read"):
        read_arpa(path)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (HAND, "", "is empty"),
        (HAND, " \n\n", "is empty"),
        (HAND, "no model\n", r"has no line \\data\\"),
        ("ngram 1=4\nngram 2=2\n", "", "Line 4 .* how many 1-grams"),
        ("ngram 2=2", "ngram 3=2", "Line 5 .* not the number of 2-grams"),
        ("ngram 2=2", "ngram 2=two", "Line 5 .* not the number of 2-grams"),
        ("-0.75\tb\t0.125\n", "", "Line 11 .* 4. of 4 1-grams"),
        ("-0.75\tb\t0.125\n", "-0.75\tb\t0.125\n-1\tc\n", r"Line 12 .* should be \\2-grams:"),
        ("-0.75\tb", "-0.75x\tb", "Line 11 .* no number"),
        ("-0.75\tb", "0.75\tb", "Line 11 .* no logarithm of a probability"),
        ("-0.75\tb", "nan\tb", "Line 11 .* no logarithm of a probability"),
        ("-0.3\ta b", "-0.3\ta c", "Line 15 .* 'c', which is no 1-gram"),
        ("-0.3\ta b", "-0.3\ta", "Line 15 .* 2. of 2 2-grams"),
        ("-0.3\ta b", "-0.3\ta b\t-1", "Line 15 .* 2. of 2 2-grams"),
        ("-0.3\ta b", "-0.3\t<s> a", "Line 15 .* was there before"),
        ("\tb\t", "\ta\t", "Line 11 .* was there before"),
        ("\n\\end\\\n", "", r"breaks off after line 15: the next should be \\end\\"),
        ("-99\t<s>", "-99\tx", "no 1-gram"),
    ],
)
def test_faults(file, old, new, told):
    assert old in HAND
    with pytest.raises(EvaluationError, match=told):
        read_arpa(file(HAND.replace(old, new)))


def test_a_model_without_sentences_is_refused(file):
    with pytest.raises(EvaluationError, match="no unigram </s>"):
        read_arpa(file(HAND.replace("</s>", "x")))


def test_first_words_must_be_there(file):
    text = HAND.replace("ngram 2=2", "ngram 2=2\nngram 3=1").replace("\\end\\", "\\3-grams:\n-0.1\tb a b\n\n\\end\\")
    with pytest.raises(EvaluationError, match="Line 19 .* 'b a b', whose first words are no n-gram"):
        read_arpa(file(text))


def test_places_that_cannot_be_read_or_written(tmp_path):
    with pytest.raises(EvaluationError, match=r"nothing\.arpa cannot be read"):
        read_language_model(tmp_path / "nothing.arpa")
    (tmp_path / "bytes.arpa").write_bytes(b"\\data\\\n\xff\xfe")
    with pytest.raises(EvaluationError, match="cannot be read"):
        read_language_model(tmp_path / "bytes.arpa")
    with pytest.raises(ResultError, match="cannot be written"):
        write_arpa(kneser_ney([["a"]], 1), tmp_path / "bytes.arpa" / "lm.arpa")


def test_binary_models_need_the_package(tmp_path, monkeypatch):
    (tmp_path / "lm.bin").write_bytes(b"mmap lm http://kheafield.com/code format version 5\n\0")
    monkeypatch.setitem(__import__("sys").modules, "kenlm", None)
    with pytest.raises(MissingPackageError, match=r"lm\.bin is a binary language model.*otoscope\[kenlm\]"):
        read_language_model(tmp_path / "lm.bin")


def test_kenlm_agrees(tmp_path):
    pytest.importorskip("kenlm")
    path = write_arpa(kneser_ney(ENOUGH, 4), tmp_path / "lm.arpa")
    ours, theirs = read_arpa(path), KenlmModel(path)
    assert theirs.order == 4
    assert theirs.knows("a")
    assert not theirs.knows("zebra")
    for one in [*ENOUGH, ["zebra", "a", "b"], [], list("edcba")]:
        assert sentence_score(theirs, one) == pytest.approx(sentence_score(ours, one), abs=1e-4)
    assert theirs.score(theirs.start(), "a")[1] == theirs.score(theirs.start(), "a")[1]
    broken = tmp_path / "lm.bin"
    broken.write_bytes(b"mmap lm http://kheafield.com/code format version 5\n\0")
    with pytest.raises(EvaluationError, match="cannot be read"):
        read_language_model(broken)
