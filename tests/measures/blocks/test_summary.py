"""Numbers of a block's map: closed forms, and the tap's sums beside whole maps."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon

from otoscope.errors import MeasureError
from otoscope.measures.blocks.summary import (
    PARTS,
    REDUCTIONS,
    SHAPES,
    SUMMARY,
    block_observation,
    block_summary,
    observed,
    part,
    uniform_observation,
)
from otoscope.models.reductions import BlockMap, WholeMap
from otoscope.models.tap import TILE, Observation, Tap, attend
from tests.measures.heads.given_maps import drawn_maps, sums

T = 10
UNIFORM, IDENTITY, COLUMN = np.full((T, T), 1 / T), np.eye(T), np.eye(T)[[0] * T]
LN = math.log(T)
MIXED = -0.55 * math.log(0.55) - 0.45 * math.log(0.05)


def block(*heads):
    return np.stack(heads)


# globalness, verticality, diagonality, information, disagreement, self, local, offset;
# dependence, spread, outside of the mean row, share of disagreement
CLOSED = {
    "uniform": (block(UNIFORM, UNIFORM), (1, -1, -0.33, 0, 0, 0.1, 0.8, 0), (0, 1, 0, 0)),
    "identity": (block(IDENTITY, IDENTITY), (0, -1, 0, LN, 0, 1, 1, 0), (1, 0, 0.9, 0)),
    "one column": (block(COLUMN, COLUMN), (0, 0, -0.45, 0, 0, 0.1, 0.6, -4.5), (0, 0, 0, 0)),
    # Rows of the mean have 1.1 / 2 on the query and 0.1 / 2 elsewhere.
    "uniform and identity": (
        block(UNIFORM, IDENTITY),
        (MIXED / LN, -1, -0.165, LN - MIXED, MIXED - LN / 2, 0.55, 0.9, 0),
        (0.5, 0.5, 0.225 / 0.325, 1 - LN / 2 / MIXED),
    ),
    # Opposite heads: each row of the mean is even on the query and its mirror image.
    "identity and its mirror": (
        block(IDENTITY, IDENTITY[::-1]),
        (math.log(2) / LN, -1, -0.25, LN - math.log(2), math.log(2), 0.5, 0.8, 0),
        (1, 0, 0.8, 1),
    ),
}


@pytest.mark.parametrize("case", CLOSED)
def test_closed_forms_by_maps_and_by_sums(case):
    maps, summary, shapes = CLOSED[case]
    expected = dict(zip((*SUMMARY, *SHAPES), (*summary, *shapes), strict=True))
    assert block_summary(maps) == pytest.approx(expected, abs=1e-6)
    found = observed(sums(maps, REDUCTIONS))
    assert part("summary", found) == pytest.approx(summary, abs=1e-5)
    assert part("shapes", found) == pytest.approx(shapes, abs=1e-5)


@pytest.mark.parametrize("frames", [2, 3, 37, TILE, TILE + 1, 150])
@pytest.mark.parametrize("heads", [1, 3])
def test_sums_of_the_tap_give_what_whole_maps_give(frames, heads):
    maps = drawn_maps(frames, frames, heads)
    found = observed(sums(maps, REDUCTIONS))
    assert found.shape == (sum(PARTS.values()),)
    assert np.allclose(found, block_observation(maps), atol=2e-5)
    assert part("profile", found).sum() == pytest.approx(1, abs=1e-5)
    assert part("position", found).sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("frames", [2, 10, 77])
def test_uniform_attention_in_closed_form(frames):
    maps = np.full((2, frames, frames), 1 / frames)
    assert np.allclose(uniform_observation(frames), block_observation(maps), atol=1e-12)


def test_disagreement_is_the_divergence_of_two_heads():
    maps = drawn_maps(1, 20, heads=2)
    by_row = jensenshannon(maps[0], maps[1], axis=1) ** 2
    assert block_summary(maps)["head-disagreement"] == pytest.approx(by_row.mean())


def test_torch_gives_what_numpy_gives():
    maps = drawn_maps(4, 12, heads=3)
    assert block_summary(torch.tensor(maps)) == pytest.approx(block_summary(maps), abs=1e-12)
    assert np.allclose(block_observation(torch.tensor(maps)), block_observation(maps), atol=1e-12)


def test_a_single_frame_is_refused():
    with pytest.raises(MeasureError, match="1 frame "):
        block_summary(np.ones((2, 1, 1)))


@pytest.mark.parametrize("attended", [None, 2 * TILE + 50], ids=["own frames", "silence behind"])
@pytest.mark.parametrize("frames", [1, TILE, 2 * TILE + 22])
def test_the_block_map_is_summed_over_valid_frames(frames, attended):
    draw = torch.Generator().manual_seed(frames)
    query, key, value = (2 * torch.randn(1, 3, attended or frames, 8, generator=draw) for _ in range(3))
    seen = Observation((frames,), (attended or frames,), (BlockMap, WholeMap))
    attend(Tap(1, seen), query, key, value, lambda b, first, last: None, 0.35)
    found = seen.results[1][0]
    rows = found["whole-map"].double().mean(0)
    expected = torch.stack([torch.special.entr(rows).sum(-1).mean(), rows.square().sum(-1).mean()])
    assert torch.allclose(found["block-map"], expected, atol=3e-6)
    assert found["block-map"].dtype == torch.float64


def test_a_block_without_heads_has_zeros():
    nothing = torch.zeros(1, 0, 5, 1)
    seen = Observation((5,), (5,), (BlockMap,))
    attend(Tap(1, seen), nothing, nothing, nothing, lambda b, first, last: None, 1.0)
    assert seen.results[1][0]["block-map"].tolist() == [0, 0]
