"""What can be left out of a model without touching the width of its residual stream, and the tensors that travel."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from otoscope.errors import FederationError
from otoscope.models.edits import head_names
from otoscope.models.model import SpeechModel
from otoscope.surgery.causality import CausalConvolution
from otoscope.surgery.heads import head_axes, shares_keys
from otoscope.surgery.narrowing import KINDS as NARROWED
from otoscope.surgery.narrowing import inner_units
from otoscope.surgery.patterns import nearest
from otoscope.surgery.units import Parts

HEADS, ROWS, CHANNELS = "heads", "rows", "channels"
STATISTICS = ("running_mean", "running_var")  # of batch norms: they travel, and are no parameters

_ORDER = ("feed_forward.1", "attention", "convolution", "feed_forward", "feed_forward.2")  # within a layer
_KINDS = {"attention": HEADS, "feed_forward": ROWS, "convolution": CHANNELS}


@dataclass(frozen=True)
class Slice:
    """Where the units of a group lie in a tensor: unit i has the indices offset + i size to offset + (i + 1) size - 1.

    Attributes:
        tensor: its name in the state dict of the model's source.
        axis: along which the units lie.
        size: indices of one unit.
        offset: index of the first unit's first.
    """

    tensor: str
    axis: int
    size: int = 1
    offset: int = 0


@dataclass(frozen=True)
class Group:
    """Units of one branch, of which any number but none can be left out.

    Attributes:
        name: of the branch, such as "layer.3.attention", "layer.3.feed_forward.1" or "layer.3.convolution".
        layer: from 1.
        kind: "heads" of an attention, "rows" of a feed-forward or "channels" of a convolution module.
        count: how many there are.
        slices: where they lie; those of one tensor follow one another, in ascending order.
        elements: elements of tensors that all of them hold together, statistics of batch norms among them. Each unit
            holds as many as any other.
    """

    name: str
    layer: int
    kind: str
    count: int
    slices: tuple[Slice, ...]
    elements: int


def groups_of(model: SpeechModel) -> dict[str, Group]:
    """The groups of a model, by name, in the order of the signal.

    Of a Conformer's layer that is: first feed-forward, attention, convolution, second feed-forward. Heads are whole:
    their rows of query, key and value, their columns of the output projection, and what positions need for each of
    them. What several layers share, such as WavLM's table of relative positions, belongs to no group. Attention has no
    group where its heads share keys and values, or where layers share a map and so must have the same heads; nor has
    anything that was taken out or replaced.

    Args:
        model: any model; one whose heads were cut or whose branches were narrowed has groups of what is left.
    """
    prefix, parts = _prefix(model), Parts(model.family.encoder(model.source), model.family)
    state = model.source.state_dict()
    found: dict[str, Group] = {}
    for layer in range(1, len(parts.layers) + 1):
        for branch in _ORDER:
            unit = parts.units.get(f"layer.{layer}.{branch}")
            if unit is None:
                continue
            if unit.kind in NARROWED:
                inner = inner_units(parts, unit)
                count, axes = len(inner.kept), inner.axes
            else:
                count, axes = _heads(parts, model, layer)
            named = {f"{prefix}{path}": where for path, where in axes.items()}
            if count:
                slices = tuple(_slices(named, state, count))
                elements = sum(state[name].numel() for name in named)
                found[unit.name] = Group(unit.name, layer, _KINDS[unit.kind], count, slices, elements)
    return found


def _prefix(model: SpeechModel) -> str:
    """What stands before an encoder's names in those of the model around it."""
    encoder = model.family.encoder(model.source)
    path = next(name for name, module in model.source.named_modules() if module is encoder)
    return f"{path}." if path else ""


def _heads(parts: Parts, model: SpeechModel, layer: int) -> tuple[int, dict[str, tuple[int, int]]]:
    """Heads of a layer that can be left out, and their axes; none where they cannot."""
    attention = parts.attentions().get(layer)
    shared = {*model.anatomy.borrowed, *model.anatomy.borrowed.values()}
    if attention is None or layer in shared or shares_keys(attention, model.family):
        return 0, {}
    place = f"{model.family.layers}.{layer - 1}.{model.family.attention}"
    axes = {f"{place}.{name}": (axis, 1) for name, axis in head_axes(parts, layer).items()}
    return len(head_names(attention, parts.total_heads)), axes


def _slices(
    axes: Mapping[str, tuple[int, int]], state: Mapping[str, torch.Tensor], count: int
) -> Iterator[Slice]:  # fmt: skip
    for name, (axis, blocks) in axes.items():
        size = state[name].shape[axis] // (count * blocks)
        for block in range(blocks):
            yield Slice(name, axis, size, block * count * size)


def exchanged(model: SpeechModel) -> dict[str, torch.Tensor]:
    """The tensors that travel between server and clients, by their names in the source's state dict and in its order.

    These are all parameters and the running statistics of batch norms. Counts of batches are integers, and other buffers
    follow from the configuration; neither travels. A tensor that stands under two names travels under the first.

    Returns:
        The model's own tensors, without gradient; they are not copies.
    """
    parameters = dict(model.source.named_parameters())  # one name each
    state = model.source.state_dict()
    return {name: value for name, value in state.items() if name in parameters or is_statistic(name)}


def is_statistic(name: str) -> bool:
    """Whether a tensor that travels is a running statistic of a batch norm, and no parameter."""
    return name.rpartition(".")[2] in STATISTICS


def variables_of(model: SpeechModel) -> dict[str, int]:
    """The variables of a model that can be frozen as a whole, with their elements.

    These are the weights of the linear maps and convolutions within the layers. Norms, biases, embeddings, the
    front-end and the head are not among them. Which variables may be frozen is otoscope's own choice.
    """
    layers = f"{_prefix(model)}{model.family.layers}."
    weighing = (nn.Linear, nn.Conv1d, CausalConvolution)
    weights = {f"{path}.weight" for path, one in model.source.named_modules() if isinstance(one, weighing)}
    return {
        name: value.numel() for name, value in exchanged(model).items() if name in weights and name.startswith(layers)
    }


def known(names: Mapping[str, object], groups: Mapping[str, Group]) -> None:
    """Makes sure that names are those of groups.

    Raises:
        FederationError: one is not.
    """
    strange = [name for name in names if name not in groups]
    if strange:
        raise FederationError(
            f"{strange[0]!r} is no group of units of this model that can be left out", nearest(strange[0], groups)
        )
