"""Contributions by the norm of what frames hand on, rather than by attention weights alone (Kobayashi et al.)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from otoscope.errors import MeasureError
from otoscope.interventions.mixing.sublayers import Sublayer

THROUGH = ("attention", "residual", "norm")
_CHUNK = 64  # keys whose weighted products are held at once


def contribution_norms(maps: Any, transformed: Any) -> Any:
    """Length of what each frame j hands to each frame i through all heads (Kobayashi et al. 2020).

        || sum_h A^h[i, j] f^h(x_j) ||

    The sum stands inside the norm, so that heads may work against each other. No vector for each pair of frames is made:
    the squared length is a quadratic form in the heads' weights, with the products of j's vectors.

    Args:
        maps: (H, T, S), torch or numpy; rows are queries.
        transformed: (S, H, d), what frame j hands on through each head.

    Returns:
        (T, S), of the input's kind.

    Raises:
        MeasureError: the shapes disagree.
    """
    weights, handed = torch.as_tensor(maps), torch.as_tensor(transformed)
    if weights.ndim != 3 or handed.ndim != 3 or (len(weights), weights.shape[2]) != (handed.shape[1], len(handed)):
        raise MeasureError(
            f"Maps of shape {tuple(weights.shape)} do not fit vectors of shape {tuple(handed.shape)}",
            "Give maps (heads, queries, keys) and vectors (keys, heads, width).",
        )
    found = weights.new_empty(weights.shape[1:])
    for first in range(0, len(handed), _CHUNK):
        part = handed[first : first + _CHUNK].double()
        of_key = weights[:, :, first : first + _CHUNK].permute(2, 1, 0).double()  # (keys, queries, heads)
        squares = ((of_key @ (part @ part.transpose(1, 2))) * of_key).sum(-1)
        found[:, first : first + _CHUNK] = squares.clamp(min=0).sqrt().T.to(found.dtype)
    return found.numpy() if isinstance(maps, np.ndarray) else found


def head_contribution_norms(maps: Any, transformed: Any) -> Any:
    """Length of what each frame hands on through each head: || A^h[i, j] f^h(x_j) ||.

    Args, result (H, T, S) and source are those of `contribution_norms`, head by head.
    """
    lengths = torch.linalg.vector_norm(torch.as_tensor(transformed), dim=-1).T[:, None]  # (H, 1, S)
    found = torch.as_tensor(maps).abs() * lengths
    return found.numpy() if isinstance(maps, np.ndarray) else found


def norms_of(sublayer: Sublayer, through: str | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Contributions of frames to frames in one layer, and how much of each frame's own is left.

    Args:
        sublayer: the layer's attention.
        through: "attention" stops at what the heads hand on (Kobayashi et al. 2020); "residual" adds each frame's own
            state on the diagonal; "norm" also passes all vectors through the norm that follows, linearised with the
            standard deviation of the actual sum, g(v) = (v - mean(v)) / std * gamma (Kobayashi et al. 2021). Biases of
            the output projection and the norm belong to no frame and are left out. None goes as far as the layer does.

    Returns:
        Lengths (frames, T), rows are queries; and the mixing ratio (frames,): the length of the sum over all other
        frames, over that plus the length of a frame's own vector (Kobayashi et al. 2021).

    Raises:
        MeasureError: `through` is unknown, or a norm is asked for where none follows.
    """
    if through is not None and through not in THROUGH:
        raise MeasureError(f"Contributions cannot go through {through!r}", f"Name one of {', '.join(THROUGH)}.")
    if through == "norm" and sublayer.norm is None:
        raise MeasureError(
            f"No norm follows the attention of layer {sublayer.layer} at once: its sum goes on along the residual "
            "stream (pre-LN or Conformer)",
            'Stop at through="residual".',
        )
    through = through or ("residual" if sublayer.norm is None else "norm")
    frames, norm = sublayer.frames, sublayer.norm
    maps, handed, own = sublayer.maps[:, :frames], sublayer.transformed, sublayer.residual[:frames]
    scale = torch.ones_like(own[:, :1])
    if through == "norm" and norm is not None:
        summed = sublayer.residual[:frames] + sublayer.output[:frames]
        scale = 1 / torch.sqrt(summed.var(-1, unbiased=False, keepdim=True) + norm.eps)
        gain = torch.ones_like(own[0]) if norm.weight is None else norm.weight.detach().float()
        handed, own = ((x - x.mean(-1, keepdim=True)) * gain for x in (handed, own))
    if through == "attention":
        own = torch.zeros_like(own)
    kept = torch.einsum("hi,ihd->id", maps.diagonal(dim1=1, dim2=2), handed[:frames]) + own
    total = own.clone()
    for weights, vectors in zip(maps, handed.unbind(1), strict=True):
        total += weights @ vectors
    lengths = contribution_norms(maps, handed) * scale
    kept_length = torch.linalg.vector_norm(kept, dim=-1)
    lengths.diagonal()[:] = kept_length * scale[:, 0]
    mixed_length = torch.linalg.vector_norm(total - kept, dim=-1)
    both = mixed_length + kept_length
    return lengths, torch.where(both > 0, mixed_length / both, torch.zeros_like(both))
