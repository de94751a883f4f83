import pytest
import torch

from otoscope.errors import MeasureError
from otoscope.measures.layers.pooling import mel_transform, mel_window, pool_to_mel
from otoscope.models.anatomy import Grid, conv_grids

WAV2VEC2 = conv_grids((10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2))


def test_windows_of_wav2vec2_are_those_of_the_released_code():
    expected = [(79, 32), (39, 16), (19, 8), (9, 4), (4, 2), (2, 1), (1, 1)]
    assert [mel_window(grid) for grid in WAV2VEC2] == expected


@pytest.mark.parametrize("grid", WAV2VEC2)
@pytest.mark.parametrize("time_last", [False, True])
def test_frames_are_means_of_their_windows(grid, time_last):
    kernel, stride = mel_window(grid)
    samples = [16000, 9000, 1000]
    lengths = [(n - grid.field) // grid.hop + 1 for n in samples]
    stream = torch.randn(3, max(lengths), 4, generator=torch.Generator().manual_seed(0))
    if time_last:
        stream = stream.transpose(1, 2).contiguous().transpose(1, 2)
    found, after, kept = pool_to_mel(stream, grid, lengths)
    assert after.hop == max(160, grid.hop)
    assert after.field == 400
    for b, n in enumerate(lengths):
        assert kept[b] == (n - kernel) // stride + 1
        for t in {0, 1, kept[b] - 1}:
            window = stream[b, t * stride : t * stride + kernel]
            assert len(window) == kernel
            assert t * stride + kernel <= n
            torch.testing.assert_close(found[b, t], window.mean(0))
    again = pool_to_mel(found, after, kept)
    assert again[0] is found
    assert again[1:] == (after, kept)


def test_the_transform_pools_single_utterances_alike():
    stream = torch.randn(1, 3199, 4, generator=torch.Generator().manual_seed(1))
    transform = mel_transform(WAV2VEC2[0])
    found, after, kept = pool_to_mel(stream, WAV2VEC2[0], [3199])
    assert transform is not None
    assert transform.grid == after
    torch.testing.assert_close(transform.apply(stream[0]), found[0], rtol=0, atol=0)
    assert len(found[0]) == kept[0]
    assert mel_transform(WAV2VEC2[-1]) is None


def test_too_short_for_a_window_is_empty():
    found, _, kept = pool_to_mel(torch.zeros(1, 50, 4), WAV2VEC2[0], [50])
    assert found.shape == (1, 0, 4)
    assert kept == (0,)


@pytest.mark.parametrize("hop", [0, 7, 200, 479])
def test_hops_that_do_not_line_up_are_refused(hop):
    with pytest.raises(MeasureError, match=f"every {hop} samples"):
        mel_window(Grid(hop, 400))


@pytest.mark.parametrize("hop", [320, 480, 640, 1280])
def test_coarser_streams_stay(hop):
    assert mel_window(Grid(hop, 999)) == (1, 1)
