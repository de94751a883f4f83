"""Overviews: averages over squares of frames, whatever the tiles they come in, and one byte a cell."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from otoscope.reporting.viewer.overview import (
    CELLS,
    Overview,
    cell_frames,
    coarser,
    quantised,
    restored,
)


def attention(heads: int, frames: int, seed: int = 0, sharp: float = 3.0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.softmax(sharp * torch.randn(heads, frames, frames, generator=draw), -1)


def tiled(maps: torch.Tensor, tile: int) -> np.ndarray:
    reduction = Overview()
    reduction.start(maps.shape[0], maps.shape[1], maps)
    for first in range(0, maps.shape[1], tile):
        reduction.tile(first, maps[:, first : first + tile].log(), maps[:, first : first + tile])
    return reduction.finish().numpy()


def averaged(maps: np.ndarray, span: int) -> np.ndarray:
    """The definition: the mean of each square."""
    starts = range(0, maps.shape[-1], span)
    return np.array([[[m[a : a + span, b : b + span].mean() for b in starts] for a in starts] for m in maps])


@pytest.mark.parametrize("frames", [2, CELLS, CELLS + 1, 600, 777])
@pytest.mark.parametrize("tile", [50, 128, 1000])
def test_cells_are_means_over_squares_of_frames(frames, tile):
    maps = attention(2, frames)
    span = -(-frames // CELLS)
    found = tiled(maps, tile)
    assert found.shape[-1] <= CELLS
    np.testing.assert_allclose(found, averaged(maps.double().numpy(), span), rtol=1e-5)


def test_a_short_map_is_its_own_overview():
    maps = attention(3, 40)
    np.testing.assert_array_equal(tiled(maps, 16), maps.numpy())


@given(st.integers(1, 60), st.integers(1, 4), st.integers(1, 5))
def test_coarser_cells_are_means_over_frames_and_not_over_cells(frames, span, times):
    maps = attention(2, frames, seed=frames).numpy()
    fine = averaged(maps, span).astype(np.float32)
    np.testing.assert_allclose(coarser(fine, frames, span, times), averaged(maps, span * times), rtol=1e-5, atol=1e-9)


@given(st.integers(1, 10_000), st.sampled_from([64, 256]))
def test_a_cell_spans_the_fewest_frames_that_fit(frames, cells):
    span = cell_frames(frames, cells)
    assert -(-frames // span) <= cells
    assert span == 1 or -(-frames // (span - 1)) > cells


def test_bytes_are_right_to_within_their_rounding():
    maps = attention(4, 60, sharp=6).numpy()
    cells, largest = quantised(maps)
    found = restored(cells, largest)
    np.testing.assert_array_equal(largest, maps.max((1, 2)))
    assert (abs(found - maps) <= largest[:, None, None] / 255).all()
    # Half a step of the root, 0.5 / 255, is twice the root times that of the value: small weights keep their digits.
    step = largest[:, None, None] * (np.sqrt(maps / largest[:, None, None]) / 255 + 1 / 510**2)
    assert (abs(found - maps) <= step * 1.001).all()
    assert cells.max((1, 2)).tolist() == [255] * 4


def test_maps_of_zeros_stay_zeros():
    cells, largest = quantised(np.zeros((2, 3, 3), np.float32))
    assert not cells.any()
    assert not restored(cells, largest).any()
