"""Kneser-Ney against its formulas written out with dictionaries, word by word."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otoscope.errors import EvaluationError
from otoscope.evaluation.language import kneser_ney, sentence_score
from otoscope.evaluation.language.kneser_ney import FALLBACK, discounts

SENTENCES = st.lists(st.lists(st.sampled_from("abcde"), min_size=1, max_size=6), min_size=1, max_size=12)
ENOUGH = [list(text) for text in ("abcab", "abcd", "bcab", "aab", "abba", "cabac", "deabc", "a", "b", "abcabcab")] * 2


class Naive:
    """The recursion of Chen and Goodman 1999 as it is printed, asked for one probability at a time."""

    def __init__(self, sentences, order):
        self.order = order
        marked = [("<s>", *sentence, "</s>") for sentence in sentences]
        self.words = [*sorted({word for sentence in marked for word in sentence} - {"<s>"}), "<unk>"]
        raw = {
            n: Counter(one[k : k + n] for one in marked for k in range(len(one) - n + 1)) for n in range(1, order + 1)
        }
        self.order = max(n for n in raw if raw[n])
        self.counts = {}
        for n in range(1, self.order + 1):
            if n == self.order:
                self.counts[n] = dict(raw[n])
            else:
                before = {}
                for gram in raw[n + 1]:
                    before.setdefault(gram[1:], set()).add(gram[0])
                self.counts[n] = {g: c if g[0] == "<s>" else len(before[g]) for g, c in raw[n].items()}
        self.counts[1].pop(("<s>",), None)
        self.discounts = {n: self._discounts(list(self.counts[n].values())) for n in self.counts}

    @staticmethod
    def _discounts(counts):
        t = {k: counts.count(k) for k in (1, 2, 3, 4)}
        if 0 in t.values():
            return FALLBACK
        y = t[1] / (t[1] + 2 * t[2])
        found = tuple(k - (k + 1) * y * t[k + 1] / t[k] for k in (1, 2, 3))
        return found if all(0 < d < k for k, d in enumerate(found, 1)) else FALLBACK

    def probability(self, context, word):
        context = tuple(context)[-(self.order - 1) :] if self.order > 1 else ()
        return self._probability(context, word)

    def _probability(self, context, word):
        n = len(context) + 1
        after = {g: c for g, c in self.counts[n].items() if g[:-1] == context}
        lower = self._probability(context[1:], word) if context else 1 / len(self.words)
        if not after:
            return lower
        total, own = sum(after.values()), after.get((*context, word), 0)
        taken = {g: self.discounts[n][min(c, 3) - 1] for g, c in after.items()}
        return (own - taken.get((*context, word), 0)) / total + sum(taken.values()) / total * lower


def log_of(model, context, word):
    """After a context from the start of a sentence where it begins with <s>, from nowhere otherwise."""
    state = model.start() if context and context[0] == "<s>" else ()
    for one in context[1:] if context and context[0] == "<s>" else context:
        _, state = model.score(state, one)
    return model.end(state) if word == "</s>" else model.score(state, word)[0]


@given(sentences=SENTENCES, order=st.integers(1, 4))
def test_it_is_the_recursion(sentences, order):
    model, naive = kneser_ney(sentences, order), Naive(sentences, order)
    assert model.order == naive.order
    contexts = {tuple(("<s>", *one)[k : k + n]) for one in sentences for n in range(5) for k in range(len(one) + 1)}
    for context in sorted(contexts)[:20]:
        found = {word: math.exp(log_of(model, context, word)) for word in naive.words}
        assert sum(found.values()) == pytest.approx(1, abs=1e-10)
        for word, chance in found.items():
            assert chance == pytest.approx(naive.probability(context, word), rel=1e-9)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_counts_of_counts_give_the_discounts(order):
    naive = Naive(ENOUGH, order)
    model = kneser_ney(ENOUGH, order)
    for word in naive.words:
        for context in ((), ("<s>",), ("a", "b"), ("a", "b", "c"), ("e", "e")):
            expected = naive.probability(context, word)
            assert math.exp(log_of(model, context, word)) == pytest.approx(expected, rel=1e-9)


def test_the_words_of_a_sentence_and_its_end_are_multiplied():
    model, naive = kneser_ney(ENOUGH, 3), Naive(ENOUGH, 3)
    words = ["<s>", "a", "b", "z", "a", "</s>"]
    expected = sum(
        math.log(naive.probability(words[:k], word if word != "z" else "<unk>")) for k, word in enumerate(words) if k
    )
    assert sentence_score(model, words[1:-1]) == pytest.approx(expected, rel=1e-9)


def test_discounts():
    assert discounts(np.repeat([1, 2, 3, 4], [60, 20, 10, 5])) == pytest.approx((0.6, 1.1, 1.8))
    assert discounts(np.array([1, 1, 2, 3])) == FALLBACK  # nothing is seen four times
    assert discounts(np.repeat([1, 2, 3, 4], [10, 4, 1, 9])) == FALLBACK  # what they give is below zero
    assert discounts(np.zeros(0, np.int64)) == FALLBACK


def test_a_word_that_follows_many_is_likelier_than_one_that_follows_one():
    sentences = [["new", "york"]] * 9 + [[one, "cat"] for one in ("a", "the", "my", "one")]
    model = kneser_ney(sentences, 2)
    assert log_of(model, ("else",), "cat") > log_of(model, ("else",), "york")


def test_no_order_is_higher_than_a_sentence_is_long():
    model = kneser_ney([["a"], ["b"]], 4)
    assert model.order == 3
    assert [len(level) for level in model.levels] == [5, 4, 2]


def test_what_is_no_text_is_refused():
    for order in (0, -1, 11):
        with pytest.raises(EvaluationError, match=f"order {order}"):
            kneser_ney([["a"]], order)
    for sentences in ([], [[]]):
        with pytest.raises(EvaluationError, match="no sentence with a word"):
            kneser_ney(sentences, 2)
    with pytest.raises(EvaluationError, match="'</s>', which is a mark"):
        kneser_ney([["a", "</s>"]], 2)
