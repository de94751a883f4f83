"""Which part of every tensor belongs to a head, and cutting heads out of a model."""

from dataclasses import dataclass
from typing import Any

import torch

from otoscope.errors import SurgeryError
from otoscope.models import tap
from otoscope.models.edits import ADAPTED, head_names
from otoscope.models.families import Family, submodule
from otoscope.models.mapless import is_mapless
from otoscope.surgery.edit import Edit, registered
from otoscope.surgery.units import Parts


def head_axes(parts: Parts, layer: int) -> dict[str, int]:
    """Tensors of an attention module that hold something for every head, with the axis along which heads lie.

    Raises:
        SurgeryError: several heads share their keys and values, so that none has tensors of its own.
    """
    attention = parts.attention(layer)
    query, key, value, out = parts.family.projections
    if shares_keys(attention, parts.family):
        raise SurgeryError(
            f"Heads of layer {layer} share keys and values (grouped-query attention), and cannot be taken apart",
            "Gate them.",
        )
    tensors = ("weight", "bias", f"{ADAPTED}.weight", f"{ADAPTED}.bias")
    axes = {f"{name}.{kind}": 0 for name in (query, key, value) for kind in (*tensors, "lora_B.default.weight")}
    axes |= {f"{out}.{kind}": 1 for kind in ("weight", f"{ADAPTED}.weight", "lora_A.default.weight")}
    axes |= dict(parts.family.position_tensors)
    there = dict(attention.named_parameters())
    return {name: axis for name, axis in axes.items() if name in there}


def shares_keys(attention: Any, family: Family) -> bool:
    """Whether several heads share their keys and values."""
    value, out = (getattr(attention, name) for name in family.projections[2:])
    return bool(value.out_features != out.in_features)


def of_heads(tensor: torch.Tensor, axis: int, count: int, positions: list[int]) -> torch.Tensor:
    """Which indices along an axis belong to heads.

    Args:
        tensor: holds equally much for each of `count` heads along `axis`.
        axis: where heads lie one after another.
        count: number of heads.
        positions: heads that are asked for.

    Returns:
        Indices, (len(positions) * size of a head,).
    """
    size = tensor.shape[axis] // count
    start = torch.tensor(positions, dtype=torch.long)[:, None] * size
    return (start + torch.arange(size)).flatten().to(tensor.device)


@registered
@dataclass(frozen=True)
class CutHeads(Edit):
    """Takes heads out of a model: rows of query, key and value projections, columns of the output projection.

    What positions need for each head goes with it; the output projection's bias stays, and is all that attention gives
    where every head of a layer is cut. Layers may be left with different numbers of heads, and those that are left keep
    their names. Up to rounding the result is that of gating the same heads with zero.

    Attributes:
        units: heads, or layers or attention modules for all of their heads; those that were cut before may be named.
    """

    kind = "cut"

    def apply(self, parts: Parts) -> None:
        """See `Edit`."""
        chosen: dict[int, set[int]] = {}
        for unit in parts.find(self.units, ("head", "attention", "layer"), lost=True):
            assert unit.layer is not None
            chosen.setdefault(unit.layer, set()).update(range(parts.total_heads) if unit.head is None else [unit.head])
        there = parts.attentions()
        if chosen and not parts.repeated and not set(chosen) & set(there):
            raise SurgeryError(f"{self.units!r} names layers without attention", "Name a layer that has attention.")
        for layer, heads in chosen.items():
            if layer not in there:  # the heads went with the attention
                continue
            names = head_names(there[layer], parts.total_heads)
            positions = [k for k, name in enumerate(names) if name not in heads]
            if len(positions) < len(names):
                _cut(parts, layer, positions)
        for head in [name for name, unit in parts.units.items() if unit.head in chosen.get(unit.layer or 0, ())]:
            parts.lost[head] = parts.units.pop(head)


def _cut(parts: Parts, layer: int, positions: list[int]) -> None:
    """Leaves only the heads at these positions in a layer."""
    axes = head_axes(parts, layer)
    edits = parts.edits_of(layer)
    attention: Any = parts.attention(layer)
    path = f"{parts.family.layers}.{layer - 1}.{parts.family.attention}"
    state = dict(attention.named_parameters())
    count = len(edits.kept)
    for name, axis in axes.items():
        tensor = state[name].detach()
        parts.replace(f"{path}.{name}", tensor.index_select(axis, of_heads(tensor, axis, count, positions)))
    edits.keep(positions)
    mapless = is_mapless(attention, parts.family)
    there = parts.family.projections[2 if mapless else 0 :]
    for name in {name.rpartition(".")[0] for name in axes if "." in name} | set(there):
        linear: Any = submodule(attention, name)
        linear.out_features, linear.in_features = linear.weight.shape
    if hasattr(attention, "num_heads"):
        # Rotary positions turn the input in chunks of a head's size, before the projections, and need all of them.
        if getattr(attention, "position_embeddings_type", None) != "rotary":
            attention.num_heads = len(positions)
    else:
        config = parts.own_config(attention)
        config.num_attention_heads = config.num_key_value_heads = len(positions)
    if not mapless:
        tap.cut_heads(attention, parts.family.own_attention, parts.family.projections[3])
