"""Counts of errors against kaldialign's and jiwer's own totals."""

import jiwer
import kaldialign
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otoscope.errors import EvaluationError
from otoscope.evaluation.error_rates import error_counts, wer

TEXTS = st.lists(st.sampled_from(["a", "b", "c", "dd", " "]), max_size=9)


@given(reference=TEXTS, hypothesis=TEXTS)
def test_errors_are_the_edit_distance(reference, hypothesis):
    wrong, more, less = error_counts(reference, hypothesis)
    assert wrong + more + less == kaldialign.edit_distance(reference, hypothesis)["total"]
    assert len(reference) - less + more == len(hypothesis)
    assert wrong + less <= len(reference)


@pytest.mark.parametrize(
    ("said", "heard", "counts"),
    [
        ("a b c", "a b c", (0, 0, 0)),
        ("a b c", "a x c", (1, 0, 0)),
        ("a b c", "a c", (0, 0, 1)),
        ("a b", "a x b", (0, 1, 0)),
        ("", "a b", (0, 2, 0)),
        ("a b", "", (0, 0, 2)),
        ("", "", (0, 0, 0)),
    ],
)
def test_kinds(said, heard, counts):
    assert error_counts(said.split(), heard.split()) == counts


def test_spaces_count_as_characters():
    assert error_counts(list("ab cd"), list("abcd")) == (0, 0, 1)
    assert error_counts(list("abcd"), list("ab cd")) == (0, 1, 0)


LINES = st.lists(st.tuples(*[st.lists(st.sampled_from("abc"), min_size=1, max_size=6)] * 2), min_size=1, max_size=5)


@given(pairs=LINES)
def test_rate_of_a_corpus_is_jiwers(pairs):
    said, heard = [" ".join(a) for a, _ in pairs], [" ".join(b) for _, b in pairs]
    assert wer(said, heard) == pytest.approx(jiwer.wer(said, heard))


def test_what_has_no_rate_is_refused():
    assert wer(["", "a"], ["x", "a"]) == 1.0
    with pytest.raises(EvaluationError, match="hold no word"):
        wer(["", " "], ["a", ""])
    with pytest.raises(EvaluationError, match="2 references and 1 hypotheses"):
        wer(["a", "b"], ["a"])
