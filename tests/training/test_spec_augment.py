"""SpecAugment on features: where masks lie, how wide they are, and how much they hide."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from otoscope.training.spec_augment import masks_for, spec_augment


def _runs(mask):
    """Lengths of the runs of a boolean vector."""
    edges = np.flatnonzero(np.diff(np.r_[0, np.asarray(mask, int), 0]))
    return (edges[1::2] - edges[::2]).tolist()


@given(
    frames=st.integers(1, 60), bands=st.integers(1, 20), time=st.integers(0, 30), band=st.integers(0, 12),
    longest=st.floats(0, 1), seed=st.integers(0, 99),
)  # fmt: skip
def test_one_mask_of_each_kind_hides_whole_frames_and_whole_bands(frames, bands, time, band, longest, seed):
    features = torch.arange(1.0, frames * bands + 1).reshape(frames, bands)
    before = features.clone()
    draw = np.random.default_rng(seed)
    made = spec_augment(features, draw, time_masks=1, time_width=time, band_masks=1, band_width=band, longest=longest)
    assert torch.equal(features, before)
    hidden = (made == 0).numpy()
    rows, columns = hidden.all(1), hidden.all(0)
    np.testing.assert_array_equal(hidden, rows[:, None] | columns[None])
    assert torch.equal(made[~hidden], features[~hidden])
    if not columns.all():
        assert sum(_runs(rows)) <= min(time, int(longest * frames))
        assert len(_runs(rows)) <= 1
    if not rows.all():
        assert sum(_runs(columns)) <= min(band, bands)
        assert len(_runs(columns)) <= 1


def test_widths_and_starts_are_drawn_evenly():
    """A mask of width f is drawn with chance 1 / (F + 1), and starts at each of the places that it has equally often."""
    bands, widest, times = 6, 3, 12000
    counts = np.zeros((widest + 1, bands))
    draw = np.random.default_rng(0)
    for _ in range(times):
        made = spec_augment(torch.ones(1, bands), draw, band_masks=1, band_width=widest)
        hidden = np.flatnonzero(made[0].numpy() == 0)
        counts[len(hidden), hidden[0] if len(hidden) else 0] += 1
    for width in range(widest + 1):
        places = bands - width + 1 if width else 1
        expected = times / (widest + 1) / places
        np.testing.assert_allclose(counts[width, :places], expected, rtol=0, atol=5 * expected**0.5)
        assert counts[width, places:].sum() == 0


@pytest.mark.parametrize(("length", "share", "span"), [(100, 0.3, 7), (80, 0.05, 10), (499, 0.65, 10), (40, 0.0, 5)])
def test_the_share_holds_on_average(length, share, span):
    draw = np.random.default_rng(0)
    counts = [masks_for(length, share, span, draw) for _ in range(4000)]
    wanted = share * length / span
    assert set(counts) <= {int(wanted), int(wanted) + 1}
    assert np.mean(counts) == pytest.approx(wanted, abs=0.03)
