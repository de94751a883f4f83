"""The attention tap: an attention function, registered with transformers, that also sums what measures ask for.

The context it returns is the fused function's (to float32 rounding). Rows are taken in tiles, so that no map of
frames x frames stands in memory.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from otoscope.models.anatomy import Grid
from otoscope.models.edits import HeadEdits, Ingredients, head_edits
from otoscope.models.reductions import Reduction
from otoscope.speech.utterance import Utterance

NAME = "otoscope"
TILE = 64  # rows a tile: 12 heads x 64 x 750 float32 are 2.3 MB, so that sums find it in the cache

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
        utterances: what the batch consists of.
        grid: of the frames, where utterances are given.
        results: layer (from 1) -> for each utterance the statistics by name.
        outside: layer -> for each utterance the mean attention per head that fell on keys that were cut off.
    """

    frames: tuple[int, ...]
    attended: tuple[int, ...]
    reductions: Reductions = ()
    utterances: tuple[Utterance, ...] = ()
    grid: Grid | None = None
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
        by_head(module)
    return tap


def attach_headless(module: nn.Module, layer: int) -> Tap:
    """Puts a tap on a module of a view that stands where there is no attention: it sees a map of no heads.

    Args:
        module: is called once a pass, with the hidden states.
        layer: its number, from 1.
    """
    tap = Tap(layer)
    module._otoscope_tap = tap  # type: ignore[assignment]
    module.register_forward_pre_hook(_before_headless, with_kwargs=True)
    return tap


def _before_headless(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    see_no_heads(module, args[0] if args else kwargs["hidden_states"])


def see_no_heads(module: nn.Module, hidden_states: torch.Tensor) -> None:
    """Hands a map of no heads to the tap of a module, where it has one that observes."""
    nothing = hidden_states.new_zeros(hidden_states.shape[0], 0, hidden_states.shape[1], 1)
    tap: Tap | None = getattr(module, "_otoscope_tap", None)
    if tap is not None and tap.observation is not None and tap.observation.reductions:
        _observed(tap, nothing, nothing, nothing, None, None, None, None)


def by_head(module: nn.Module) -> None:
    """Gives a WavLM attention module an attention that keeps its heads apart."""
    # A partial, unlike a bound method, can be pickled with the module.
    module.torch_multi_head_self_attention = partial(_wavlm_attention, module)  # type: ignore[assignment]


def attend(
    tap: Tap,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bias: Callable[[int, int, int], torch.Tensor | None],
    scaling: float,
    edits: HeadEdits | None = None,
) -> torch.Tensor:
    """Attention of a batch, with the statistics of every map.

    What the statistics see are rows that sum to one: where part of a row lies on padding that is cut off, or outside a
    span that is cut after the softmax, they see the rest of the row brought back to one. What lies on padding is told
    apart.

    Args:
        tap: where the statistics go.
        query: (B, H, T, D).
        key: (B, H, S, D).
        value: (B, H, S, D).
        bias: for utterance b, rows [first, last): what is added to the scores over the attended keys, or None.
        scaling: factor on the product of query and key.
        edits: changes of the map.

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
        reading = [one for one in sums if one.reads_peaks]
        for one in sums:
            if seen.grid is not None:
                one.meet(seen.utterances[b], seen.grid)
            one.start(heads, frames, query)
        lost = query.new_zeros(heads, dtype=torch.float64)
        for first in range(0, rows, TILE):
            last = min(first + TILE, rows)
            scores = query[b, :, first:last] @ keys
            added = bias(b, first, last)
            if added is not None:
                scores += added
            if edits is not None:
                scores = edits.replace(scores, first, _LOWEST)
                if (
                    added is not None and edits.reshapes
                ):  # a replaced map has lost what the mask hides, as in causal models
                    scores = scores.masked_fill(added <= _LOWEST / 2, _LOWEST)
            weights = torch.softmax(scores, -1)
            used = weights if edits is None else edits.shorten(weights, first)
            context[b, first:last] = (used @ values).transpose(0, 1)
            counted = min(last, frames) - first
            if counted <= 0:
                continue
            if attended > frames or used is not weights:  # the rest of the row is silence, or outside the span
                if edits is not None:
                    scores = edits.within(scores, first, _LOWEST)
                scores = scores[:, :counted, :frames]
                lost += used[:, :counted, frames:].sum((1, 2), dtype=torch.float64)
                weights = torch.softmax(scores, -1)
            if reading:
                peaks = scores.amax(-1), weights.amax(-1)
                for one in reading:
                    one.peaks(*peaks)
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
    """What transformers calls."""
    made, edits = Ingredients(query, key, attention_mask, position_bias, scaling), head_edits(module)
    if edits is not None:
        made = edits.ingredients(made)
    return context_of(module, edits, made, value, dropout, **other), None


def context_of(
    module: nn.Module, edits: HeadEdits | None, made: Ingredients, value: torch.Tensor, dropout: float, **other: Any
) -> torch.Tensor:
    """What an attention module hands to its output projection.

    transformers' own fused attention is run where nothing is observed and no map is changed.

    Args:
        module: the attention module.
        edits: its changes.
        made: what its scores are made of.
        value: (B, H or fewer, S, D).
        dropout: probability that a weight is dropped.
        other: what the fused attention takes beside these.

    Returns:
        (B, T, H, D).
    """
    query, key = made.query, made.key
    tap: Tap | None = getattr(module, "_otoscope_tap", None)
    if tap is not None and tap.observation is not None and tap.observation.reductions:
        context = _observed(tap, query, key, value, made.mask, made.scaling, made.position_bias, edits)
    elif edits is not None and edits.reshapes:
        context = edits.attend(made, value, dropout)
    else:
        context, _ = ALL_ATTENTION_FUNCTIONS["sdpa"](
            module, query, key, value, made.mask,
            scaling=made.scaling, dropout=dropout, position_bias=made.position_bias, **other,
        )  # fmt: skip
    return context if edits is None else edits.finish(context)


def _observed(
    tap: Tap,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None,
    position_bias: torch.Tensor | None,
    edits: HeadEdits | None,
) -> torch.Tensor:
    """Attention with its statistics; masks and biases in the forms that transformers gives them."""
    assert tap.observation is not None
    attended = tap.observation.attended
    if key.shape[1] < query.shape[1]:  # queries share keys
        key = key.repeat_interleave(query.shape[1] // key.shape[1], 1)
    if value.shape[1] < query.shape[1]:
        value = value.repeat_interleave(query.shape[1] // value.shape[1], 1)

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
    return attend(tap, query, key, value, bias, factor, edits)


def _wavlm_attention(
    module: Any,
    hidden_states: torch.Tensor,
    attention_mask: torch.Tensor | None,
    gated_position_bias: torch.Tensor,
) -> tuple[torch.Tensor, None]:
    """WavLM's attention, head by head; the library's own gives the average over heads as every head's map."""
    batch, frames, _ = hidden_states.shape
    heads = module.q_proj.out_features // module.head_dim
    query, key, value = (
        project(hidden_states).view(batch, frames, heads, module.head_dim).transpose(1, 2)
        for project in (module.q_proj, module.k_proj, module.v_proj)
    )
    context, _ = _registered(
        module, query, key, value,
        None if attention_mask is None else attention_mask.eq(1)[:, None, None],
        scaling=module.scaling,
        dropout=module.dropout if module.training else 0.0,
        position_bias=gated_position_bias.view(batch, heads, frames, frames),
        is_causal=False,
    )  # fmt: skip
    return module.out_proj(context.reshape(batch, frames, heads * module.head_dim)), None


def cut_heads(module: nn.Module, own_attention: str | None, out_projection: str) -> None:
    """Gives an attention module whose projections have lost heads a forward pass that fits them.

    Args:
        module: the attention module; its `HeadEdits` say which heads are left.
        own_attention: "wavlm" where position biases are computed for all heads and shared by all layers.
        out_projection: name of its output projection.
    """
    edits = head_edits(module)
    assert edits is not None
    if own_attention == "wavlm":
        module.forward = partial(_wavlm_forward, module)
    elif not edits.kept:
        module.forward = partial(_headless_forward, module, out_projection)


def _wavlm_forward(
    module: Any,
    hidden_states: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    position_bias: torch.Tensor | None = None,
    index: int = 0,
    **other: Any,
) -> tuple[torch.Tensor, None, torch.Tensor]:
    """WavLMAttention's forward pass for some of the heads; the bias that is handed on to other layers is whole."""
    edits = head_edits(module)
    assert edits is not None
    kept = list(edits.kept)
    batch, frames, _ = hidden_states.shape
    if position_bias is None:
        bias = module.compute_bias(frames, frames)
        position_bias = bias[None].repeat(batch, 1, 1, 1).view(-1, frames, frames)
    chunks = hidden_states.view(batch, frames, edits.total, -1)[:, :, kept].transpose(1, 2)
    projected = module.gru_rel_pos_linear(chunks).view(batch, len(kept), frames, 2, 4).sum(-1)
    gate_a, gate_b = torch.sigmoid(projected).chunk(2, -1)
    gate = gate_a * (gate_b * module.gru_rel_pos_const - 1.0) + 2.0
    gated = gate * position_bias.view(batch, -1, frames, frames)[:, kept]
    out, _ = module.torch_multi_head_self_attention(hidden_states, attention_mask, gated)
    return out, None, position_bias


def _headless_forward(
    module: Any, out_projection: str, hidden_states: torch.Tensor, *args: Any, **kwargs: Any
) -> tuple[torch.Tensor, None]:
    """Attention without heads: the bias of the output projection; the tap sees a map of no heads."""
    see_no_heads(module, hidden_states)
    return getattr(module, out_projection)(hidden_states[..., :0]), None


# A function without a mask function of its own would be handed no mask, and padding would be attended to.
AttentionInterface.register(NAME, _registered)
AttentionMaskInterface.register(NAME, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
