"""Attention with the same weight on every frame, or on every frame nearby: means of values, for which no map is made."""

import torch


def attend(values: torch.Tensor, width: int | None = None, attended: torch.Tensor | None = None) -> torch.Tensor:
    """Means of the values that each frame attends to.

    Time grows with the frames alone: means nearby are differences of running sums, which are taken in float64.

    Args:
        values: (B, H, T, D).
        width: frames on either side; None is all frames.
        attended: (B or 1, 1, T), which frames are attended to; None is all.

    Returns:
        (B, T, H, D); zero where a frame attends to nothing, as frames deep in the padding do.
    """
    weights = values.new_ones(1, 1, values.shape[2]) if attended is None else attended.to(values.dtype)
    weights = weights[..., None]
    if width is None:
        sums, counts = (values * weights).sum(2, keepdim=True), weights.sum(2, keepdim=True)
    else:
        sums, counts = (_nearby(one.double(), width) for one in (values * weights, weights))
    means = (sums / counts.clamp(min=1)).to(values.dtype)
    return means.expand(values.shape).transpose(1, 2)


def _nearby(rows: torch.Tensor, width: int) -> torch.Tensor:
    """Sums over the frames at most `width` away, (B, H, T, D)."""
    frames = rows.shape[2]
    running = torch.nn.functional.pad(rows.cumsum(2), (0, 0, 1, 0))
    at = torch.arange(frames, device=rows.device)
    return running[:, :, (at + width + 1).clamp(max=frames)] - running[:, :, (at - width).clamp(min=0)]
