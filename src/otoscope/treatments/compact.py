"""Models that lost whole layers, as transformers expresses them: with fewer layers, numbered anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from otoscope.errors import CheckpointError
from otoscope.models.absent import POSITION_BIAS, Absent, AbsentLayer
from otoscope.models.families import Family, submodule
from otoscope.models.view import view_of


def compacted(module: nn.Module, family: Family) -> nn.Module:
    """A view of a model without the places of layers that were taken out.

    Args:
        module: a transformers model; left as it is.
        family: its family's table.
    """
    made = view_of(module)
    place, name = _list_of(made, family)
    left = [layer for layer in getattr(place, name) if not isinstance(layer, Absent)]
    setattr(place, name, nn.ModuleList(left))
    _count(made, family, len(left))
    return made


def expanded(module: nn.Module, family: Family, numbers: Sequence[int], total: int) -> nn.Module:
    """Puts the layers of a model back to the numbers that they have in the original.

    Args:
        module: a transformers model; it is changed.
        family: its family's table.
        numbers: of its layers in the original, from 1.
        total: layers of the original.

    Raises:
        CheckpointError: these are no numbers of its layers.
    """
    place, name = _list_of(module, family)
    layers = list(getattr(place, name))
    if (
        len(layers) != len(numbers)
        or sorted(set(numbers)) != list(numbers)
        or not 1 <= numbers[0] <= numbers[-1] <= total
    ):
        raise CheckpointError(
            f"A model of {len(layers)} layers cannot have the layers {list(numbers)} of {total}", "Write it again."
        )
    there = dict(zip(numbers, layers, strict=True))
    biased = POSITION_BIAS if family.own_attention == "wavlm" else None
    every = [there[number] if number in there else AbsentLayer(biased) for number in range(1, total + 1)]
    setattr(place, name, nn.ModuleList(every))
    _count(module, family, total)
    return module


def _list_of(module: nn.Module, family: Family) -> tuple[Any, str]:
    """The module that holds the list of layers, and the list's name in it."""
    head, _, name = family.layers.rpartition(".")
    return submodule(family.encoder(module), head), name


def _count(module: nn.Module, family: Family, layers: int) -> None:
    """Sets the number of layers in every configuration of a model that tells it."""
    whole: Any = module.config
    encoder: Any = family.encoder(module).config
    for config in (whole, getattr(whole, "encoder_config", None), encoder):
        if config is not None and hasattr(config, family.size_names[2]):
            setattr(config, family.size_names[2], layers)
