"""Which parameters are trained, and how fast, as the treatments of a model ask for."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from torch import nn

from otoscope.treatments.applying import training_of


def hold_frozen(model: nn.Module) -> Mapping[str, float]:
    """Keeps the parameters that a treated model's record names from being trained.

    Args:
        model: changed in place; left as it is where it was not treated.

    Returns:
        Factors on the learning rate by name of a parameter; those that are absent have 1.
    """
    asked = training_of(model)
    for name, parameter in model.named_parameters():
        if name in asked.frozen:
            parameter.requires_grad_(False)
    return asked.rates


def parameter_groups(
    named: Iterable[tuple[str, nn.Parameter]],
    decayed: Collection[str],
    weight_decay: float,
    learning_rate: float,
    factors: Mapping[str, float],
) -> list[dict[str, Any]]:
    """Groups of an optimiser: parameters of equal learning rate and decay together.

    Args:
        named: parameters by name; those that are not trained are left out.
        decayed: names of those with weight decay.
        weight_decay: of these.
        learning_rate: where the factor is 1.
        factors: on the learning rate, by name.

    Returns:
        Groups with "params", "weight_decay" and "lr"; the parameters whose rate is the run's come first, since the
        Trainer tells the rate of the first group.
    """
    found: dict[tuple[bool, float, bool], list[nn.Parameter]] = {}
    for name, parameter in named:
        if parameter.requires_grad:
            factor = factors.get(name, 1.0)
            found.setdefault((factor != 1, factor, name not in decayed), []).append(parameter)
    return [
        {"params": found[key], "weight_decay": 0.0 if key[2] else weight_decay, "lr": learning_rate * key[1]}
        for key in sorted(found)
    ]
