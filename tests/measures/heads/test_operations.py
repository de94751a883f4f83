"""Operations of heads whose attention is built to do one thing."""

import numpy as np
import pytest

from otoscope.measures.heads.operations import DIAGONAL, KINDS, NONE_SEEN, SEEN, head_operations
from otoscope.measures.heads.relation import relation_map

LABELS = ("aa", "b", "s", "sh", "t", "sil")
SIL = 5


def speech(seed, runs=60):
    draw = np.random.default_rng(seed)
    order = [SIL, *draw.integers(0, 6, runs), SIL]
    return np.repeat(order, draw.integers(2, 6, len(order)))


def likes(labels, weight):
    """Attention in proportion to weight(query label, key label), everywhere in the utterance."""
    maps = np.array([[weight(q, k) for k in labels] for q in labels], dtype=float)
    return maps / maps.sum(-1, keepdims=True)


def near(labels):
    maps = np.abs(np.subtract.outer(np.arange(len(labels)), np.arange(len(labels)))) < 3
    return maps / maps.sum(-1, keepdims=True)


HEADS = {
    "attends silence": lambda q, k: 3 if k == SIL else 1,
    "not silence": lambda q, k: 0.2 if k == SIL else 1,
    "silence to silence, speech to speech": lambda q, k: 3 if (q == SIL) == (k == SIL) else 1,
    "silence to speech, speech to silence": lambda q, k: 3 if (q == SIL) != (k == SIL) else 1,
    "same phone": lambda q, k: 4 if q == k != SIL else 1,
    "not the same phone": lambda q, k: 0.2 if q == k != SIL else 1,
    "attends s, sh": lambda q, k: {2: 5, 3: 4.5}.get(k, 1),
    "not sh, s": lambda q, k: {2: 0.2, 3: 0.1}.get(k, 1),
    NONE_SEEN: lambda q, k: 1.1 if q == k else 1,
}


def found(make, lots=6, share_near=0.1):
    """The operation of one head over several utterances, with labels of another utterance as the permuted ones."""
    p, uniform, chance, chance_uniform = [], [], [], []
    for seed in range(lots):
        labels, others = speech(seed), speech(seed + 100)
        t = min(len(labels), len(others))
        labels, others = labels[:t], others[:t]
        for kept, kept_uniform, y in ((p, uniform, labels), (chance, chance_uniform, others)):
            one = relation_map(make(labels), y, 6)
            kept.append(one[0])
            kept_uniform.append(one[1])
    means = [np.mean(x, axis=0) for x in (p, uniform, chance, chance_uniform)]
    return head_operations(means[0][None], means[1], means[2][None], means[3], np.array([share_near]), LABELS, "phone")


@pytest.mark.parametrize("name", HEADS)
def test_heads_that_do_one_thing_are_named(name):
    one = found(lambda labels: likes(labels, HEADS[name]))
    assert one.names == (name,)
    assert (one.kinds[0] >= 0) == (one.margins[0] >= 0) == (name != NONE_SEEN)


def test_a_head_that_stays_near_does_nothing_with_labels():
    # Permuted labels say the same of it, as its own segment has one label whatever that is.
    assert found(near).names == ("own segment",)
    one = found(near, share_near=0.6)
    assert one.names == (DIAGONAL,)
    assert np.isnan(one.margins[0])


def test_the_threshold_is_one_and_a_half_times_uniform():
    """P' in closed form: labels of equal share, keys of label 0 get `more` times what uniform attention gives them."""
    n, labels = 4, ("a", "b", "c", "d")
    uniform = np.full((n, n), 1 / n**2)
    for more, seen in ((1.49, False), (1.51, True)):
        p = uniform * np.array([more, *[(n - more) / (n - 1)] * (n - 1)])
        one = head_operations(p[None], uniform, uniform[None], uniform, np.zeros(1), labels)
        assert one.names == (("attends a",) if seen else (NONE_SEEN,))
        second = -np.log((n - more) / (n - 1))
        assert one.margins[0] == pytest.approx(np.log(more) - max(SEEN, second))
        # What permuted labels show as well does not count.
        assert head_operations(p[None], uniform, p[None], uniform, np.zeros(1), labels).names == (NONE_SEEN,)


def test_three_quarters_of_the_other_labels_must_agree():
    n, labels = 9, tuple("abcdefghi")
    uniform = np.full((n, n), 1 / n**2)
    for agreeing, seen in ((5, False), (6, True)):  # of the eight others
        p = uniform.copy()
        p[1 : 1 + agreeing, 0] *= 2
        one = head_operations(p[None], uniform, uniform[None], uniform, np.zeros(1), labels)
        assert one.names == (("attends a",) if seen else (NONE_SEEN,))


def test_attention_that_goes_to_some_labels_is_no_neglect_of_others():
    one = found(lambda labels: likes(labels, lambda q, k: {0: 8, 1: 0.05}.get(k, 1)))
    assert one.names == ("attends aa",)


def test_silence_is_no_label_among_the_others():
    one = found(lambda labels: likes(labels, lambda q, k: 4 if q != SIL == k else 1))
    assert one.names == (NONE_SEEN,)  # speech attends silence, silence attends everything


def test_what_silence_does_not_take_is_no_sameness():
    """Silence holds half of the time and gets nothing, so any other label gets twice its share."""
    share = np.array([1, 1, 1, 3]) / 6
    uniform = np.outer(share, share)
    p = uniform * np.array([2, 2, 2, 0])
    one = head_operations(p[None], uniform, uniform[None], uniform, np.zeros(1), ("a", "b", "c", "sil"))
    assert one.names == ("not silence",)


def test_labels_that_never_come_together_say_nothing():
    uniform = np.array([[0.5, 0, 0], [0, 0.25, 0], [0, 0, 0.25]])
    one = head_operations(uniform[None], uniform, uniform[None], uniform, np.zeros(1), ("a", "b", "c"))
    assert one.names == (NONE_SEEN,)
    assert np.isfinite(one.margins).all()
    assert len(KINDS) == 9
