"""Masks and negatives of self-supervised training: counts, bounds, and every other frame alike often."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from otoscope.errors import EvaluationError
from otoscope.evaluation.masking import check_mask, draw_negatives, span_mask


def _runs(mask: np.ndarray) -> list[int]:
    """Lengths of the runs of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(int), [0]])))
    return (edges[1::2] - edges[::2]).tolist()


@given(st.integers(2, 400), st.floats(0.01, 1.0), st.integers(2, 20), st.integers(0, 2**32 - 1))
def test_masks_are_spans_and_no_more_than_the_share(frames, share, span, seed):
    mask = span_mask(frames, share, np.random.default_rng(seed), span)
    own = max(2, min(span, frames // 2))
    assert mask.shape == (frames,)
    assert mask.sum() >= 2
    assert all(run >= own for run in _runs(mask))
    assert mask.sum() <= max(1, share * frames / own + 1) * own


def test_the_number_of_spans_is_as_asked_on_average():
    # With a span of 2 over 1000 frames and a share of 0.05, spans hardly overlap: 25 starts are 50 frames.
    draw = np.random.default_rng(0)
    masked = [span_mask(1000, 0.05, draw, 2).sum() for _ in range(400)]
    starts = 25.5  # int(25 + u) is 25, and never 26; overlaps take a little away
    assert 2 * 24 < np.mean(masked) <= 2 * starts
    fractional = [span_mask(1000, 0.051, draw, 2).sum() for _ in range(400)]  # int(25.5 + u): 25 or 26
    assert np.mean(fractional) - np.mean(masked) == pytest.approx(1, abs=0.35)


def test_the_share_that_is_left_after_overlaps_follows_from_the_share_asked_for():
    # n starts of s frames over T places leave about (1 - n/T)^s frames free.
    masked = np.mean([span_mask(1500, 0.65, np.random.default_rng(k)).mean() for k in range(300)])
    assert masked == pytest.approx(1 - (1 - 0.065) ** 10, abs=0.01)


def test_every_frame_in_the_middle_is_masked_alike_often():
    draw = np.random.default_rng(0)
    counts = sum(span_mask(60, 0.4, draw, 5).astype(int) for _ in range(4000))
    middle = counts[5:-5] / 4000
    assert np.abs(middle - middle.mean()).max() < 0.05


@pytest.mark.parametrize("frames", [2, 3, 4, 5])
def test_short_utterances_are_masked_by_halves(frames):
    for seed in range(20):
        mask = span_mask(frames, 0.65, np.random.default_rng(seed))
        assert 2 <= mask.sum() <= frames


def test_the_same_chances_give_the_same_mask():
    one, other = (span_mask(200, 0.65, np.random.default_rng(9)) for _ in range(2))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("share", "span"), [(0.0, 10), (1.01, 10), (float("nan"), 10), (-0.5, 10), (0.65, 1), (0.65, 0)]
)
def test_masks_that_cannot_be_drawn_are_refused(share, span):
    with pytest.raises(EvaluationError, match="cannot be drawn"):
        check_mask(share, span)


@given(st.integers(2, 60), st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_a_negative_is_another_masked_frame(masked, count, seed):
    drawn = draw_negatives(masked, count, np.random.default_rng(seed))
    assert drawn.shape == (masked, count)
    assert ((drawn >= 0) & (drawn < masked)).all()
    assert (drawn != np.arange(masked)[:, None]).all()


@pytest.mark.parametrize("row", [0, 3, 6])
def test_all_others_are_drawn_alike_often(row):
    drawn = draw_negatives(7, 20000, np.random.default_rng(0))[row]
    counts = np.bincount(drawn, minlength=7)
    assert counts[row] == 0
    assert chisquare(np.delete(counts, row)).pvalue > 1e-3
