"""Relation maps as pure functions: definition, invariants, the short-cut by shares, runs, means, errors."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from otoscope.errors import MeasureError
from otoscope.measures.heads.relation import concentration, relation_map, relative_relation


def attention(t, seed=0, heads=(), sharpness=2.0):
    logits = np.random.default_rng(seed).normal(size=(*heads, t, t)) * sharpness
    maps = np.exp(logits)
    return maps / maps.sum(-1, keepdims=True)


def slow(maps, labels, n, exclude_run=False):
    """The definition, pair by pair."""
    t = len(labels)
    p, uniform = np.zeros((n, n)), np.zeros((n, n))
    for q in range(t):
        for k in range(t):
            if labels[q] < 0 or labels[k] < 0:
                continue
            between = labels[min(q, k) : max(q, k) + 1]
            if exclude_run and all(x == labels[q] for x in between):
                continue
            p[labels[q], labels[k]] += maps[q, k] / t
            uniform[labels[q], labels[k]] += 1 / t**2
    return p, uniform


@given(st.lists(st.integers(-1, 3), min_size=1, max_size=14), st.integers(0, 9999), st.booleans())
def test_equals_the_definition(labels, seed, exclude_run):
    maps = attention(len(labels), seed)
    found = relation_map(maps, np.array(labels), 4, exclude_run)
    for one, expected in zip(found, slow(maps, labels, 4, exclude_run), strict=True):
        assert np.allclose(one, expected, rtol=0, atol=1e-14)
        assert ((one == 0) == (expected == 0)).all()  # nothing that rounding leaves


@given(st.integers(1, 30), st.integers(1, 5), st.integers(0, 9999))
def test_both_maps_sum_to_one_and_queries_weigh_what_they_last(t, n, seed):
    labels = np.random.default_rng(seed).integers(0, n, t)
    p, uniform = relation_map(attention(t, seed), labels, n)
    assert p.sum() == pytest.approx(1, abs=1e-12)
    assert uniform.sum() == pytest.approx(1, abs=1e-12)
    counts = np.bincount(labels, minlength=n) / t
    assert np.allclose(p.sum(-1), counts, atol=1e-12)
    assert np.allclose(uniform, np.outer(counts, counts), atol=1e-12)


@given(st.integers(1, 6), st.integers(0, 9999))
def test_invariants_of_the_means_over_utterances(utterances, seed):
    draw = np.random.default_rng(seed)
    found = []
    for _ in range(utterances):
        t = int(draw.integers(2, 25))
        found.append(relation_map(attention(t, int(draw.integers(1000)), (3,)), draw.integers(0, 4, t), 4))
    p, uniform = (np.mean([one[k] for one in found], axis=0) for k in (0, 1))
    relative = relative_relation(p, uniform)
    known = relative[~np.isnan(relative)]
    assert (known >= -1).all()
    assert (np.isnan(relative) == (uniform == 0)).all()
    # Attention and its baseline have the same queries.
    assert np.allclose(np.where(uniform > 0, uniform * relative, 0).sum(-1), 0, atol=1e-12)


@pytest.mark.parametrize("exclude_run", [False, True])
def test_uniform_attention_relates_nothing(exclude_run):
    labels = np.array([0, 0, 1, 2, 2, 0, 1])
    p, uniform = relation_map(np.full((7, 7), 1 / 7), labels, 3, exclude_run)
    relative = relative_relation(p, uniform)
    alone = np.zeros((3, 3), bool)
    alone[2, 2] = exclude_run  # label 2 has a single run
    assert (np.isnan(relative) == alone).all()
    assert np.allclose(relative[~alone], 0, atol=1e-12)
    assert np.allclose(concentration(relative), 0, atol=1e-12)


@pytest.mark.parametrize("times", [2, 3])
def test_shares_of_frames_equal_the_map_that_was_repeated_to_the_rate_of_labels(times):
    draw = np.random.default_rng(times)
    fine = np.sort(draw.integers(0, 5, 11 * times))[draw.permutation(11 * times)]
    coarse = attention(11, times, (2,))
    repeated = np.repeat(np.repeat(coarse, times, -1), times, -2)
    repeated /= repeated.sum(-1, keepdims=True)
    expected = relation_map(repeated, fine, 5)
    shares = (fine.reshape(11, times, 1) == np.arange(5)).mean(1)
    for one, other in zip(relation_map(coarse, shares, 5), expected, strict=True):
        assert np.abs(one - other).max() < 1e-12
    # Without bringing rows back to one, sums would be `times` as large.
    assert np.allclose(times * expected[0].sum((-2, -1)), times, atol=1e-12)


def test_a_head_that_looks_at_one_label_only():
    labels = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2, 2])
    maps = np.tile((labels == 1) / 2, (10, 1))
    relative = relative_relation(*relation_map(maps, labels, 3))
    assert np.allclose(relative, [[-1, 4, -1]] * 3, atol=1e-12)  # label 1 holds a fifth of the time
    assert np.allclose(concentration(relative), [-1, 4, -1], atol=1e-12)


def test_attention_within_runs_is_all_that_is_left_out():
    labels = np.array([0, 0, 1, 0, 0, 0, 1])
    run = np.array([0, 0, 1, 2, 2, 2, 3])
    inside = (run[:, None] == run) / (run[:, None] == run).sum(-1, keepdims=True)
    p, uniform = relation_map(inside, labels, 2, exclude_run=True)
    assert not p.any()
    assert np.allclose(uniform * 49, [[12, 10], [10, 2]], atol=1e-12)  # 2 * 2 * 3 pairs of label 0 across runs
    across, _ = relation_map(np.eye(7)[[3, 4, 6, 0, 1, 0, 2]], labels, 2, exclude_run=True)
    assert np.allclose(across, np.diag([5, 2]) / 7, atol=1e-12)


def test_a_frame_without_a_label_breaks_a_run():
    maps = np.full((3, 3), 1 / 3)
    assert relation_map(maps, np.array([0, 0, 0]), 1, exclude_run=True)[0][0, 0] == 0
    assert relation_map(maps, np.array([0, -1, 0]), 1, exclude_run=True)[0][0, 0] == pytest.approx(2 / 9)


def test_the_mean_over_utterances_is_neither_that_of_pooled_frames_nor_of_ratios():
    short = (attention(4, 0), np.array([0, 0, 1, 1]))
    long = (attention(12, 1), np.array([0] * 9 + [1] * 3))
    found = [relation_map(*one, 2) for one in (short, long)]
    p, uniform = (np.mean([one[k] for one in found], axis=0) for k in (0, 1))
    relative = relative_relation(p, uniform)
    pooled = [(4 * a + 12 * b) / 16 for a, b in zip(*found, strict=True)]
    assert np.abs(relative - relative_relation(*pooled)).max() > 0.01
    assert np.abs(relative - np.mean([relative_relation(*one) for one in found], axis=0)).max() > 0.01
    # By hand: each utterance weighs the same.
    labels = [one[1] for one in (short, long)]
    by_hand = np.mean([slow(m, y, 2)[0] for m, y in (short, long)], axis=0)
    base = np.mean([np.outer(np.bincount(y), np.bincount(y)) / len(y) ** 2 for y in labels], axis=0)
    assert np.allclose(relative, by_hand / base - 1, atol=1e-12)


def test_labels_of_queries_weigh_the_same_in_concentrations():
    p = np.array([[0.0, 2.0], [4.0, -1.0]])
    assert concentration(p).tolist() == [2.0, 0.5]
    stacked = np.stack([p, -p])
    stacked[1, 0, 0] = np.nan
    stacked[1, :, 1] = np.nan
    assert concentration(stacked)[0].tolist() == [2.0, 0.5]
    assert concentration(stacked)[1, 0] == -4.0
    assert np.isnan(concentration(stacked)[1, 1])


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_torch_and_leading_dimensions(kind):
    maps, labels = attention(9, 3, (2, 3)), np.array([0, 1, 1, 2, 2, 2, 0, -1, 1])
    expected = relation_map(maps, labels, 3)
    given_maps = torch.tensor(maps, dtype=kind)
    for y in (labels, torch.tensor(labels)):
        p, uniform = relation_map(given_maps, y, 3)
        assert p.dtype == uniform.dtype == kind
        assert p.shape == (2, 3, 3, 3)
        assert np.allclose(p.numpy(), expected[0], atol=1e-6)
        assert np.allclose(uniform.numpy(), expected[1], atol=1e-6)
    relative = relative_relation(p, uniform)
    assert np.allclose(relative.numpy(), relative_relation(*expected), atol=1e-4)
    assert np.allclose(concentration(relative).numpy(), concentration(relative_relation(*expected)), atol=1e-4)
    for head in np.ndindex(2, 3):
        assert np.allclose(relation_map(maps[head], labels, 3)[0], expected[0][head], atol=1e-14)


def test_gradients_flow():
    maps = torch.softmax(torch.randn(2, 6, 6, dtype=torch.float64), -1).requires_grad_()
    concentration(relative_relation(*relation_map(maps, [0, 0, 1, 1, 2, 2], 3)))[:, 1].sum().backward()
    assert torch.isfinite(maps.grad).all()
    assert maps.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([0, 1, 0], r"shape \(3,\).*4 frames"),
        ([0, 1, 2, 0], "run from 0 to 2"),
        ([0, 1, -2, 0], "run from -2 to 1"),
        ([0.0, 1.0, 1.0, 0.0], "float64"),
        (["a", "b", "a", "b"], "type"),
        (np.full((4, 2), 0.6), "sum to 1.2"),
        (np.array([[1, 0], [1, 0], [2, -1], [0, 1]]), "negative"),
        (np.full((4, 2), np.nan), "not finite"),
        (np.full((4, 3), 0.1), r"shape \(4, 3\)"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels, said):
    with pytest.raises(MeasureError, match=said):
        relation_map(np.full((4, 4), 0.25), labels, 2)


def test_what_is_no_attention_and_no_relation_is_refused():
    for maps in (np.ones((4, 4)), np.eye(4) * np.nan, [[1.0]]):
        with pytest.raises(MeasureError):
            relation_map(maps, [0, 0, 1, 1], 2)
    with pytest.raises(MeasureError, match="0 labels"):
        relation_map(np.eye(4), [0, 0, 1, 1], 0)
    with pytest.raises(MeasureError, match="Runs"):
        relation_map(np.eye(4), np.full((4, 2), 0.5), 2, exclude_run=True)
    p = np.full((3, 2, 2), 0.25)
    for bad, uniform, said in (
        (p, np.full((3, 3), 1 / 9), "no baseline"),
        (p, np.full((2, 2, 2), 0.25), "no baseline"),
        (-p, np.full((2, 2), 0.25), "negative"),
        (p * np.nan, np.full((2, 2), 0.25), "not finite"),
        (p, np.diag([0.5, 0.5]), "never come together"),
        (p[0, 0], np.full((2, 2), 0.25), "shape"),
        (p.astype(int), np.full((2, 2), 0.25), "type"),
        ([[0.25]], np.full((1, 1), 1.0), "list"),
    ):
        with pytest.raises(MeasureError, match=said):
            relative_relation(bad, uniform)
    with pytest.raises(MeasureError, match="shape"):
        concentration(np.zeros(3))
