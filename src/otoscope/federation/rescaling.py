"""Outputs of branches that lack units, brought back to the size they have with all of them: in training alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from otoscope.federation.channels import Group
from otoscope.federation.submodels import Submodel
from otoscope.models.families import submodule


def rescale(model: nn.Module, submodel: Submodel, groups: Mapping[str, Group]) -> None:
    """Has a narrowed model multiply by n / k, in training mode, what k of a group's n units add to the residual stream.

    That is 1 / (1 - r) at the rate r that is dropped, as dropout scales (Srivastava et al. 2014) and as HeteroFL's
    scaler does (Diao, Ding and Tarokh 2021): over all choices of k units, what a linear map gives is on average what it
    gives with all of them. It is what enters a branch's last map that is scaled, so that the map's bias, which belongs
    to no unit, stays as it is.

    Args:
        model: the narrowed source; changed in place, and copied with the change.
        submodel: what was left of it.
        groups: of the whole model.
    """
    for name, units in submodel.kept.items():
        group = groups[name]
        if len(units) == group.count:
            continue
        # Units lie along the second axis of what reads from them, and along the first of what makes them.
        readers = {
            path for path, _, kind in (one.tensor.rpartition(".") for one in group.slices if one.axis == 1)
            if kind == "weight"
        }  # fmt: skip
        for path in readers:
            module = submodule(model, path)
            assert module is not None
            module.register_forward_pre_hook(_Scale(group.count / len(units)))


class _Scale:
    """The hook: scales what a module is given."""

    def __init__(self, factor: float) -> None:
        self._factor = factor

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[torch.Tensor, ...] | None:
        return (args[0] * self._factor, *args[1:]) if module.training else None
