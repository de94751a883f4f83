"""Attention without queries and keys: of layers whose map is another layer's, or the same whatever is heard."""

from functools import partial
from typing import Any

import torch
from torch import nn

from otoscope.models import tap
from otoscope.models.absent import POSITION_BIAS
from otoscope.models.edits import HEADS, Ingredients, head_edits
from otoscope.models.families import Family


def is_mapless(attention: nn.Module, family: Family) -> bool:
    """Whether an attention module has no queries and keys to make a map of its own from."""
    return getattr(attention, family.projections[0], None) is None


def map_parts(attention: nn.Module, family: Family) -> tuple[str, ...]:
    """Names of the sub-modules and parameters of an attention module that serve its map alone.

    These are all that have weights but the value and the output projection: queries, keys, and whatever positions are
    told by.
    """
    kept = (*family.projections[2:], HEADS)
    modules = [name for name, one in attention.named_children() if any(True for _ in one.parameters())]
    tensors = [name for name, _ in attention.named_parameters(recurse=False)]
    return tuple(name for name in (*modules, *tensors) if name not in kept)


def drop_map(attention: Any, family: Family) -> None:
    """Takes what serves the map out of an attention module whose edits replace the map; it is changed in place."""
    for name in map_parts(attention, family):
        delattr(attention, name)
    attention.forward = partial(_forward, attention, family.projections[2:], family.own_attention == "wavlm")


def _forward(
    module: Any,
    projections: tuple[str, str],
    biased: bool,
    hidden_states: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    *args: Any,
    **kwargs: Any,
) -> tuple[Any, ...]:
    """The forward pass: (B, T, d) to (B, T, d), no weights, and the position bias where the family hands it on."""
    edits = head_edits(module)
    assert edits is not None
    project, out = (getattr(module, name) for name in projections)
    batch, frames, _ = hidden_states.shape
    if not edits.kept:
        tap.see_no_heads(module, hidden_states)
        context = hidden_states[..., :0]
    else:
        values = project(hidden_states).view(batch, frames, -1, edits.means.shape[1]).transpose(1, 2)
        if edits.map == "layer":
            made = edits.borrowed()
        else:  # scores of nothing, which the map is put in place of
            nothing = hidden_states.new_zeros(batch, len(edits.kept), frames, 1)
            made = Ingredients(nothing, nothing, _for_heads(attention_mask), None, 1.0)
        context = tap.context_of(module, edits, made, values, _dropout(module), is_causal=False)
        context = context.reshape(batch, frames, -1)
    given = out(context)
    return (given, None, kwargs.get(POSITION_BIAS)) if biased else (given, None)


def _for_heads(mask: torch.Tensor | None) -> torch.Tensor | None:
    """A mask of frames (B, T) as one of queries and keys; others are as attention functions take them."""
    return mask.bool()[:, None, None] if mask is not None and mask.ndim == 2 else mask


def _dropout(module: Any) -> float:
    """Probability that a weight of attention is dropped, wherever the library keeps it."""
    if not module.training:
        return 0.0
    found = getattr(module, "dropout", getattr(module, "attention_dropout", None))
    if isinstance(found, nn.Dropout):
        return found.p
    return float(module.config.attention_dropout if found is None else found)
