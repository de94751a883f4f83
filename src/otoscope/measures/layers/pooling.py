"""Streams that are finer than the mel features, averaged down to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch.nn.functional import avg_pool1d

from otoscope.errors import MeasureError
from otoscope.models.anatomy import Grid
from otoscope.models.capture import Transform

MEL_HOP = 160
"""Samples from one mel frame to the next: 10 ms at 16 kHz."""

MEL_FIELD = 400
"""Samples that a mel frame sees: 25 ms at 16 kHz."""


def mel_window(grid: Grid) -> tuple[int, int]:
    """Kernel and stride, in frames, that average a stream down to the mel frames.

    The stride is 160 / hop, and the kernel (400 - field) / hop + 1 (whole, at least 1) lets a window see
    what a mel frame sees. For the convolutions of wav2vec 2.0 this gives (79, 32) (39, 16) (19, 8) (9, 4)
    (4, 2) (2, 1), the values of the released code of Pasad et al. (2021).

    Args:
        grid: hop and receptive field of the stream, in samples.

    Returns:
        Kernel and stride; (1, 1) for streams that are coarser than the mel frames.

    Raises:
        MeasureError: the mel frames do not fall on the stream's frames, nor these on the mel frames.
    """
    if grid.hop > MEL_HOP and grid.hop % MEL_HOP == 0:
        return 1, 1
    if grid.hop < 1 or MEL_HOP % grid.hop:
        raise MeasureError(
            f"Frames every {grid.hop} samples do not line up with mel frames every {MEL_HOP} samples",
            "Leave out cca-mel: it needs a hop that divides 160 samples or is a multiple of them.",
        )
    return max(1, (MEL_FIELD - grid.field) // grid.hop + 1), MEL_HOP // grid.hop


def pool_to_mel(stream: torch.Tensor, grid: Grid, lengths: Sequence[int]) -> tuple[torch.Tensor, Grid, tuple[int, ...]]:
    """Averages a stream down to one frame every 10 ms; a stream that is as coarse already stays as it is.

    A pooled stream stays as it is when it is pooled again. Windows that hold a frame of padding lie beyond
    the lengths that are returned.

    Args:
        stream: frames, shape (B, T, d); as quick where it is a view of shape (B, d, T).
        grid: its hop and receptive field, in samples.
        lengths: valid frames of each utterance.

    Returns:
        Pooled frames, shape (B, T', d); their grid; and their lengths.

    Raises:
        MeasureError: the stream's hop and the mel frames' do not fit together.
    """
    kernel, stride = mel_window(grid)
    if (kernel, stride) == (1, 1):
        return stream, grid, tuple(lengths)
    after = _after(grid, kernel, stride)
    kept = tuple(max(0, (n - kernel) // stride + 1) for n in lengths)
    if stream.shape[1] < kernel:
        return stream[:, :0], after, kept
    return avg_pool1d(stream.transpose(1, 2), kernel, stride).transpose(1, 2), after, kept


def mel_transform(grid: Grid) -> Transform | None:
    """The same as a transform of one utterance's frames, to be done as soon as a stream is computed.

    A stream of every fifth sample is 32 times as long as what is left of it.

    Args:
        grid: hop and receptive field of the stream, in samples.

    Returns:
        The transform, or None where the stream stays as it is.

    Raises:
        MeasureError: the stream's hop and the mel frames' do not fit together.
    """
    kernel, stride = mel_window(grid)
    if (kernel, stride) == (1, 1):
        return None

    def apply(frames: torch.Tensor) -> torch.Tensor:
        return pool_to_mel(frames[None], grid, [frames.shape[0]])[0][0]

    return Transform(apply, _after(grid, kernel, stride))


def _after(grid: Grid, kernel: int, stride: int) -> Grid:
    return replace(grid, hop=grid.hop * stride, field=grid.field + (kernel - 1) * grid.hop)
