"""What stands where a layer or a branch was taken out: modules without weights that cost nothing."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from otoscope.models.edits import HeadEdits, Replacement, head_edits, head_names
from otoscope.models.families import Family, submodule

POSITION_BIAS = "position_bias"  # what WavLM's layers hand on beside the hidden states
SHARED_BIAS = "rel_attn_embed"  # what one layer of a WavLM makes it from


class Absent(Replacement):
    """A place where something was taken out."""

    def description(self) -> tuple[Any, ...]:
        """See `Replacement`."""
        return ("absent",)


class AbsentLayer(Absent):
    """Hands on what it is given, in the form in which the family's encoder takes it from a layer.

    Args:
        hands_on: what layers of the family return beside the hidden states, and are given by that name; None is nothing.
    """

    def __init__(self, hands_on: str | None = None) -> None:
        super().__init__()
        self.hands_on = hands_on

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """The hidden states, (B, T, d)."""
        return hidden_states if self.hands_on is None else (hidden_states, kwargs.get(self.hands_on))


class AbsentBranch(Absent):
    """Gives zeros, so that nothing is added to the residual stream.

    Args:
        returns: "states"; "attention", states and no weights; or "biased attention", which hands on the position bias
            as well.
        width: of the states that it gives; None is that of those it is given.
    """

    def __init__(self, returns: str = "states", width: int | None = None) -> None:
        super().__init__()
        self.returns, self.width = returns, width

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Zeros, (B, T, width)."""
        width = hidden_states.shape[-1] if self.width is None else self.width
        zeros = hidden_states.new_zeros((*hidden_states.shape[:-1], width))
        if self.returns == "states":
            return zeros
        return (zeros, None) if self.returns == "attention" else (zeros, None, kwargs.get(POSITION_BIAS))


def attention_of(layer: nn.Module, family: Family) -> Any:
    """The attention module of a layer; None where it, or the whole layer, was taken out or replaced by something else."""
    found = None if isinstance(layer, Absent) else submodule(layer, family.attention)
    return None if isinstance(found, Replacement) else found


def shared_bias(layer: nn.Module, family: Family) -> nn.Module | None:
    """The position embedding that one layer of a WavLM holds for all of them; None in other layers and families."""
    attention = attention_of(layer, family)
    return None if attention is None else getattr(attention, SHARED_BIAS, None)


def branch_names(family: Family) -> list[tuple[str, str]]:
    """The branches of a layer of a family, and the norms between them: name within the layer and kind."""
    branches = [("attention", "attention")]
    for k in range(1, len(family.feed_forwards) + 1):
        branches.append(("feed_forward" if len(family.feed_forwards) == 1 else f"feed_forward.{k}", "feed_forward"))
    if family.convolution is not None:
        branches.append(("convolution", "convolution"))
    return [*branches, ("norms", "norms")]


def branch_modules(family: Family) -> dict[str, tuple[str, ...]]:
    """The modules that each branch of a layer of a family consists of, by the branch's name within the layer."""
    single = [] if family.convolution is None else [(family.convolution,)]
    modules = [(family.attention,), *family.feed_forwards, *single]
    return {name: paths for (name, _), paths in zip(branch_names(family), modules, strict=False)}


def removed_units(layers: Sequence[nn.Module], family: Family) -> list[str]:
    """Names of the layers and branches that were taken out of a model."""
    gone = []
    for number, layer in enumerate(layers, start=1):
        if isinstance(layer, Absent):
            gone.append(f"layer.{number}")
            continue
        for name, paths in branch_modules(family).items():
            if isinstance(submodule(layer, paths[-1]), Absent):
                gone.append(f"layer.{number}.{name}")
    return gone


def kept_heads(layers: Sequence[nn.Module], family: Family, total: int) -> tuple[tuple[int, ...], ...]:
    """Original numbers of the heads that each layer has, of `total` in the original; none where there is no attention."""
    attentions = [attention_of(layer, family) for layer in layers]
    return tuple(() if one is None else head_names(one, total) for one in attentions)


def borrowed_maps(layers: Sequence[nn.Module], family: Family) -> dict[int, int]:
    """The layers that use an earlier layer's attention map, and which one."""
    return {number: one.source for number, one in _edits(layers, family).items() if one.map == "layer"}


def fixed_maps(layers: Sequence[nn.Module], family: Family) -> tuple[int, ...]:
    """The layers whose attention map is the same whatever is heard."""
    return tuple(number for number, one in _edits(layers, family).items() if one.fixed)


def replaced_attention(layers: Sequence[nn.Module], family: Family) -> tuple[int, ...]:
    """The layers where a module of another kind stands in place of attention."""
    places = {
        number: submodule(layer, family.attention)
        for number, layer in enumerate(layers, start=1)
        if not isinstance(layer, Absent)
    }
    return tuple(k for k, one in places.items() if isinstance(one, Replacement) and not isinstance(one, Absent))


def _edits(layers: Sequence[nn.Module], family: Family) -> dict[int, HeadEdits]:
    """The changes of the attention of layers, where there are any."""
    attentions = {number: attention_of(layer, family) for number, layer in enumerate(layers, start=1)}
    found = {number: None if one is None else head_edits(one) for number, one in attentions.items()}
    return {number: one for number, one in found.items() if one is not None}
