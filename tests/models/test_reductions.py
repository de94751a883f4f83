"""Sums over attention maps beside the whole map, and what they are handed."""

import pytest
import torch

from otoscope.models.reductions import (
    ColumnMean,
    LargestWeight,
    OffsetMean,
    PeakMean,
    Reduction,
    RelativeDistance,
    RowEntropy,
    WholeMap,
)
from otoscope.models.tap import TILE, Observation, Tap, attend

SUMS = (RowEntropy, PeakMean, LargestWeight, ColumnMean, OffsetMean, RelativeDistance, WholeMap)
LENGTHS = (1, 2, TILE - 1, TILE, TILE + 1, 2 * TILE + 22)


def tapped(frames, reductions, attended=None):
    draw = torch.Generator().manual_seed(sum(frames))
    longest = max(attended or frames)
    query, key, value = (2 * torch.randn(len(frames), 3, longest, 8, generator=draw) for _ in range(3))
    seen = Observation(tuple(frames), tuple(attended or frames), reductions)
    attend(Tap(1, seen), query, key, value, lambda b, first, last: None, 0.35)
    return seen.results[1]


@pytest.mark.parametrize("attended", [None, [2 * TILE + 50] * len(LENGTHS)], ids=["own frames", "silence behind"])
def test_sums_equal_those_of_the_whole_map(attended):
    for t, found in zip(LENGTHS, tapped(LENGTHS, SUMS, attended), strict=True):
        maps = found["whole-map"].double()
        assert maps.shape == (3, t, t)
        place = torch.arange(t)
        distance = (place[:, None] - place).abs()
        farthest = torch.maximum(place, t - 1 - place).clamp(min=1)[:, None]
        offsets = [maps.diagonal(d, 1, 2).sum(-1) / t for d in range(1 - t, t)]
        expected = {
            "row-entropy": torch.special.entr(maps).sum(-1).mean(-1),
            "peak-mean": maps.amax(-1).mean(-1),
            "largest-weight": maps.amax((1, 2)),
            "column-mean": maps.mean(1),
            "offset-mean": torch.stack(offsets, -1),
            "relative-distance": (maps * distance / farthest).sum(-1).mean(-1),
        }
        assert set(expected) | {"whole-map"} == set(found)
        for name, value in expected.items():
            assert found[name].dtype == torch.float64
            assert torch.allclose(found[name], value, atol=3e-6), (name, t)


def test_entropy_and_peaks_far_from_zero():
    """Scores of a hundred and differences of a thousand: one key takes all, and nothing overflows."""
    key = torch.eye(5)[None, None]
    query = torch.full((1, 1, 5, 5), 100.0)
    query[0, 0, 0, 3] = 1100
    seen = Observation((5,), (5,), (RowEntropy, PeakMean, LargestWeight))
    attend(Tap(1, seen), query, key, key, lambda b, first, last: None, 1.0)
    found = seen.results[1][0]
    assert float(found["row-entropy"]) == pytest.approx(0.8 * torch.tensor(5.0).log().item(), abs=1e-4)
    assert float(found["peak-mean"]) == pytest.approx(0.2 + 0.8 * 0.2, abs=1e-6)
    assert float(found["largest-weight"]) == 1


class Handed(Reduction):
    """Notes what it is handed."""

    name = "handed"
    reads_peaks = True

    def start(self, heads, frames, like):
        self.calls = []

    def peaks(self, scores, weights):
        self.calls.append(("peaks", scores, weights))

    def tile(self, first, scores, weights):
        self.calls.append((first, scores, weights))

    def finish(self):
        assert [call[0] for call in self.calls] == ["peaks", 0, "peaks", TILE, "peaks", 2 * TILE]
        for (_, score, weight), (_, scores, weights) in zip(self.calls[::2], self.calls[1::2], strict=True):
            assert torch.equal(score, scores.amax(-1))
            assert torch.equal(weight, weights.amax(-1))
        return torch.zeros(3)


class Unasked(Handed):
    """The same without peaks."""

    name = "unasked"
    reads_peaks = False

    def finish(self):
        assert [call[0] for call in self.calls] == [0, TILE, 2 * TILE]
        return torch.zeros(3)


def test_peaks_come_before_their_rows_and_only_where_they_are_read():
    found = tapped((2 * TILE + 22,), (Handed, Unasked))
    assert set(found[0]) == {"handed", "unasked"}
    assert set(tapped((2 * TILE + 22,), (Unasked,))[0]) == {"unasked"}
