"""The attention tap: an attention function, registered with transformers, that also sums what measures ask for.

The context it returns is the fused function's (to float32 rounding). Rows are taken in tiles, so that no map of
frames x frames stands in memory.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import MethodType
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from otoscope.models.reductions import Reduction

NAME = "otoscope"
TILE = 128  # rows a tile: 12 heads x 128 x 750 float32 are 4.6 MB, about what a core's cache holds

_LOWEST = torch.finfo(torch.float32).min / 2  # with room for the rest of a score

Reductions = Sequence[Callable[[], Reduction]]


@dataclass
class Observation:
    """What one forward pass is to observe, and what it observed.

    Attributes:
        frames: valid frames of each utterance: queries whose rows count, and keys that are kept.
        attended: keys that the model attends to, for each utterance; more than `frames` where a model attends to
            silence that it was padded with.
        reductions: makers of the statistics; empty runs the fused attention.
        results: layer (from 1) -> for each utterance the statistics by name.
        outside: layer -> for each utterance the mean attention per head that fell on keys that were cut off.
    """

    frames: tuple[int, ...]
    attended: tuple[int, ...]
    reductions: Reductions = ()
    results: dict[int, list[dict[str, torch.Tensor]]] = field(default_factory=dict)
    outside: dict[int, list[torch.Tensor]] = field(default_factory=dict)


@dataclass
class Tap:
    """Sits on one attention module of a view; `observation` is set for the length of a forward pass."""

    layer: int
    observation: Observation | None = None


def attach(module: nn.Module, layer: int, own_attention: str | None) -> Tap:
    """Puts a tap on an attention module of a view.

    Args:
        module: the attention module.
        layer: its number, from 1.
        own_attention: "wavlm" where the module does not use transformers' registry.
    """
    tap = Tap(layer)
    module._otoscope_tap = tap  # type: ignore[assignment]
    if own_attention == "wavlm":
        module.torch_multi_head_self_attention = MethodType(_wavlm_attention, module)  # type: ignore[assignment]
    return tap


def attend(
    tap: Tap,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bias: Callable[[int, int, int], torch.Tensor | None],
    scaling: float,
) -> torch.Tensor:
    """Attention of a batch, with the statistics of every map.

    Args:
        tap: where the statistics go.
        query: (B, H, T, D).
        key: (B, H, S, D).
        value: (B, H, S, D).
        bias: for utterance b, rows [first, last): what is added to the scores over the attended keys, or None.
        scaling: factor on the product of query and key.

    Returns:
        (B, T, H, D); rows of padding are zero.
    """
    seen = tap.observation
    assert seen is not None
    # In half precision the fused function keeps its scores in float32, and so does this one.
    kept_type = query.dtype
    query, key, value = query.float(), key.float(), value.float()
    context = query.new_zeros(query.shape[0], query.shape[2], query.shape[1], value.shape[-1])
    heads = query.shape[1]
    results = seen.results.setdefault(tap.layer, [])
    outside = seen.outside.setdefault(tap.layer, [])
    for b, (frames, attended) in enumerate(zip(seen.frames, seen.attended, strict=True)):
        rows = query.shape[2] if attended > frames else frames
        keys = (key[b, :, :attended] * scaling).transpose(-1, -2)
        values = value[b, :, :attended]
        sums = [make() for make in seen.reductions]
        for one in sums:
            one.start(heads, frames, query)
        lost = query.new_zeros(heads, dtype=torch.float64)
        for first in range(0, rows, TILE):
            last = min(first + TILE, rows)
            scores = query[b, :, first:last] @ keys
            added = bias(b, first, last)
            if added is not None:
                scores += added
            weights = torch.softmax(scores, -1)
            context[b, first:last] = (weights @ values).transpose(0, 1)
            counted = min(last, frames) - first
            if counted <= 0:
                continue
            if attended > frames:  # the rest of the row is silence that the model was padded with
                weights, scores = weights[:, :counted, :frames], scores[:, :counted, :frames]
                kept = weights.sum(-1, keepdim=True)
                lost += (1 - kept).sum((1, 2), dtype=torch.float64)
                weights = torch.softmax(scores, -1)
            for one in sums:
                one.tile(first, scores, weights)
        results.append({one.name: one.finish() for one in sums})
        outside.append(lost / frames)
    return context.to(kept_type)


def _registered(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    position_bias: torch.Tensor | None = None,
    **other: Any,
) -> tuple[torch.Tensor, None]:
    """What transformers calls; runs its own fused attention where nothing is observed."""
    tap: Tap | None = getattr(module, "_otoscope_tap", None)
    if tap is None or tap.observation is None or not tap.observation.reductions:
        return ALL_ATTENTION_FUNCTIONS["sdpa"](
            module, query, key, value, attention_mask,
            scaling=scaling, dropout=dropout, position_bias=position_bias, **other,
        )  # fmt: skip
    attended = tap.observation.attended
    repeats = query.shape[1] // key.shape[1]
    if repeats > 1:
        key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)

    def bias(b: int, first: int, last: int) -> torch.Tensor | None:
        total = None
        if position_bias is not None:
            total = position_bias[b if position_bias.shape[0] > 1 else 0, :, first:last, : attended[b]].float()
        if attention_mask is not None:
            row = attention_mask[b if attention_mask.shape[0] > 1 else 0]
            # Padding masks hold beyond the attended keys only; what is left of them inside is added.
            part = row[:, first:last, : attended[b]] if row.shape[1] > 1 else row[..., : attended[b]]
            if part.dtype == torch.bool:
                if bool(part.all()):
                    return total
                part = torch.zeros(part.shape, device=part.device).masked_fill(~part, _LOWEST)
            # A score of minus infinity would make 0 * inf in the entropy; this is as far below any other.
            part = part.float().clamp(min=_LOWEST)
            total = part if total is None else total + part
        return total

    factor = query.shape[-1] ** -0.5 if scaling is None else scaling
    return attend(tap, query, key, value, bias, factor), None


def _wavlm_attention(
    module: Any,
    hidden_states: torch.Tensor,
    attention_mask: torch.Tensor | None,
    gated_position_bias: torch.Tensor,
) -> tuple[torch.Tensor, None]:
    """WavLM's attention, head by head; the library's own gives the average over heads as every head's map."""
    batch, frames, width = hidden_states.shape
    query, key, value = (
        project(hidden_states).view(batch, frames, -1, module.head_dim).transpose(1, 2)
        for project in (module.q_proj, module.k_proj, module.v_proj)
    )
    position = gated_position_bias.view(batch, -1, frames, frames)
    tap: Tap = module._otoscope_tap
    if tap.observation is None or not tap.observation.reductions:
        if attention_mask is not None:
            position = position.masked_fill(attention_mask.ne(1)[:, None, None], torch.finfo(query.dtype).min)
        context = nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=position, scale=module.scaling
        ).transpose(1, 2)
    else:
        attended = tap.observation.attended

        def bias(b: int, first: int, last: int) -> torch.Tensor:
            return position[b, :, first:last, : attended[b]].float()

        context = attend(tap, query, key, value, bias, module.scaling)
    return module.out_proj(context.reshape(batch, frames, width)), None


# A function without a mask function of its own would be handed no mask, and padding would be attended to.
AttentionInterface.register(NAME, _registered)
AttentionMaskInterface.register(NAME, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
