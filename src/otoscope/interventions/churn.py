"""Churn: how far training moved the weights of every unit, and how far two trainings lie apart."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch.func import functional_call
from torch.nn.utils.parametrize import ParametrizationList

from otoscope.errors import EvaluationError, SurgeryError
from otoscope.interventions.criticality.weights import Checkpoint, Weights, weights_of
from otoscope.measures.measure import Result, Row
from otoscope.models.families import submodule
from otoscope.models.model import TRAINING_ONLY, SpeechModel
from otoscope.surgery.reset import unit_values
from otoscope.surgery.units import Parts, Unit, units_of

NAME = "churn"
INITIAL = "initial"
SEED = "seed:"
DISTANCES = ("rms", "relative", "angular", "largest")
PATH = "path"


def churn(
    model: SpeechModel,
    initial: Checkpoint | None = None,
    granularity: str | Sequence[str] = "block",
    layers: Sequence[int] | None = None,
    *,
    checkpoints: Mapping[str, Checkpoint] | None = None,
    twins: Mapping[str, Checkpoint] | None = None,
) -> Result:
    """Distances between a unit's m weights theta_T and those that it has elsewhere, theta_0; all in float64.

        rms       |theta_T - theta_0| / sqrt(m)
        relative  |theta_T - theta_0| / |theta_0|
        angular   arccos(cos(theta_T, theta_0)) / pi
        largest   max |theta_T - theta_0|
        path      sum_t |theta_t - theta_(t-1)| / sqrt(m), from the initial weights over the checkpoints to the model's

    Zhang, Bengio and Singer 2022 (arXiv 1902.01996) find layers that training hardly changes, and Zhou et al. 2022 (arXiv
    2110.04267) relate criticality to updates of weights; by which distance either goes is not known to us. A unit that was
    never trained gives exactly 0, and stands in the notes as unchanged. Where theta_0 is all zeros and theta_T is not, there
    is no relative and no angular distance.

    Weights that are kept as factors (weight norms) are compared as what the model computes with, for the factors are not
    determined by it; a factor that is named as a unit itself is compared as it is. Buffers, such as the statistics of
    batch norms, are not counted; the notes list them. Weights are compared in the type that the model has them in.

    Args:
        model: theta_T; left as it is.
        initial: its weights at initialisation, or whatever else it started from: a folder, a model or a state dict.
        granularity: see `units_of`.
        layers: see `units_of`.
        checkpoints: weights along the training, in order, by name; distances are taken from each.
        twins: models of the same training under another seed, by name.

    Returns:
        Rows of `churn`: stream is the unit, target the distance, other what it is from ("initial", the name of a
        checkpoint, or "seed:NAME"), n the number of weights.

    Raises:
        EvaluationError: there is nothing to compare with, a checkpoint is called "initial" or "seed:...", or weights are
            not finite.
        SurgeryError: a unit does not exist or has no weights, or a checkpoint is of another family or shape, or lacks
            weights.
        CheckpointError: a checkpoint cannot be loaded.
    """
    along, apart = dict(checkpoints or {}), dict(twins or {})
    _check(initial, along, apart)
    parts = Parts(model.family.encoder(model.source), model.family)
    whole = units_of(parts, granularity, layers)
    units = [_weights_of_unit(parts, unit) for unit in whole]
    own = Weights(parts.encoder.state_dict(), "the model", {})
    rows: list[Row] = []
    unchanged: dict[str, list[str]] = {}
    lengths = dict.fromkeys((unit.name for unit in units), 0.0)
    started = {**({INITIAL: initial} if initial is not None else {}), **along}
    before: Weights | None = None
    for name, place in [*started.items(), *((f"{SEED}{name}", place) for name, place in apart.items())]:
        there = weights_of(parts, place, name)
        for unit in units:
            mine, theirs = _vector(parts, unit, own), _vector(parts, unit, there)
            found = _distances(mine, theirs)
            rows += [
                Row(NAME, unit.name, unit.layer, target=kind, other=name, value=found[kind], n=len(mine))
                for kind in DISTANCES
            ]
            if found["largest"] == 0:
                unchanged.setdefault(name, []).append(unit.name)
            if name in started and before is not None:
                lengths[unit.name] += _step(_vector(parts, unit, before), theirs)
        if name in started:
            before = there
    has_path = initial is not None and bool(along)
    if has_path and before is not None:
        for unit in units:
            mine = _vector(parts, unit, own)
            length = lengths[unit.name] + _step(_vector(parts, unit, before), mine)
            rows.append(Row(NAME, unit.name, unit.layer, target=PATH, other=INITIAL, value=length, n=len(mine)))
    counted = {path for unit in units for path in parts.tensors(unit)}
    notes = {
        "against": [*started, *(f"{SEED}{name}" for name in apart)],
        "path_over": list(started) if has_path else [],
        "unchanged": unchanged,
        "not_counted": sorted({path for unit in whole for path in parts.tensors(unit)} - counted),
    }
    return Result(rows, {}, {NAME: notes})


def _check(initial: Checkpoint | None, along: Mapping[str, Checkpoint], apart: Mapping[str, Checkpoint]) -> None:
    if initial is None and not along and not apart:
        raise EvaluationError(
            "There are no other weights to compare the model's with",
            "Name its initial checkpoint (`otoscope pretrain` and `otoscope finetune` keep one in the folder 'initial' of "
            "their result), checkpoints along its training, or models trained under other seeds.",
        )
    taken = [name for name in along if name == INITIAL or name.startswith(SEED) or not name.strip()]
    if taken:
        raise EvaluationError(f"A checkpoint is called {taken[0]!r}", f"Call it neither {INITIAL!r} nor {SEED!r}....")


def _weights_of_unit(parts: Parts, unit: Unit) -> Unit:
    """The unit without its buffers."""
    if unit.head is not None:
        raise SurgeryError(f"{unit.name} is a part of tensors, and has none whole", "Name layers, modules or tensors.")
    trained = {path for path, _ in parts.encoder.named_parameters() if not path.endswith(TRAINING_ONLY)}
    found = tuple(path for path in parts.tensors(unit) if path in trained)
    if not found:
        raise SurgeryError(f"{unit.name} has no weights", "Name a unit with weights.")
    return replace(unit, kind="weights", paths=found)


def _vector(parts: Parts, unit: Unit, weights: Weights) -> torch.Tensor:
    """A unit's weights as one vector (m,), float64, on the CPU."""
    values = unit_values(parts, unit, weights.state, weights.called)
    doubled = {path: value.double().cpu() for path, value in values.items()}
    vector = torch.cat([one.flatten() for one in _effective(parts, doubled)])
    if not bool(torch.isfinite(vector).all()):
        raise EvaluationError(
            f"Weights of {unit.name} in {weights.called} are not finite", "Use the checkpoint of an earlier step."
        )
    return vector


def _effective(parts: Parts, values: Mapping[str, torch.Tensor]) -> Iterator[torch.Tensor]:
    """The tensors, with the factors of one put together where all of them are there."""
    factors: dict[str, dict[str, torch.Tensor]] = {}
    for path, value in values.items():
        place, _, name = path.rpartition(".")
        if isinstance(submodule(parts.encoder, place), ParametrizationList):
            factors.setdefault(place, {})[name] = value
        else:
            yield value
    for place, held in factors.items():
        module: Any = submodule(parts.encoder, place)
        if held.keys() == dict(module.named_parameters()).keys():
            yield functional_call(module, held, ())
        else:
            yield from held.values()


def _distances(mine: torch.Tensor, theirs: torch.Tensor) -> dict[str, float | None]:
    """The four distances between two vectors; None where there is none."""
    apart = mine - theirs
    length, before = float(apart.norm()), float(theirs.norm())
    return {
        "rms": length / math.sqrt(len(mine)),
        "relative": length / before if before else None if length else 0.0,
        "angular": _angle(mine, theirs),
        "largest": float(apart.abs().max()),
    }


def _angle(mine: torch.Tensor, theirs: torch.Tensor) -> float | None:
    """The angle over pi, 0 to 1, exact near 0: 2 atan2(|u - v|, |u + v|) for the directions u and v (Kahan)."""
    if torch.equal(mine, theirs):
        return 0.0
    lengths = float(mine.norm()), float(theirs.norm())
    if 0 in lengths:
        return None
    u, v = mine / lengths[0], theirs / lengths[1]
    return 2 * math.atan2(float((u - v).norm()), float((u + v).norm())) / math.pi


def _step(before: torch.Tensor, after: torch.Tensor) -> float:
    """Length of one step, over the root of the number of weights."""
    return float((after - before).norm()) / math.sqrt(len(after))
