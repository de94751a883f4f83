"""What each layer, branch and head of a model costs, so that savings can be told from sizes alone."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from otoscope.errors import SurgeryError
from otoscope.models.absent import shared_bias
from otoscope.models.edits import head_edits
from otoscope.models.families import submodule
from otoscope.models.mapless import map_parts
from otoscope.models.model import SpeechModel
from otoscope.speech.utterance import RATE
from otoscope.surgery.heads import head_axes
from otoscope.surgery.units import Parts


def part_costs(model: SpeechModel) -> dict[str, Any]:
    """Parameters and multiply-accumulates of the parts of a model, as plain values that JSON can hold.

    Multiply-accumulates are of a second of speech, as `SpeechModel.macs_per_second` counts them. Those of a head are its
    share of its layer's attention, all of which grows with the number of heads.

    Returns:
        "layers": for each layer, by name of the branch within it ("layer" for all of it, "head" for one of its heads),
        {"parameters": int, "macs_per_second": float or None}; parts that were taken out are absent. "maps": for each layer
        what goes where its map is replaced, nothing where it has no heads; see `_map`. "shared": parameters that one
        layer holds for all and hands on where it is taken out (the position embedding of a WavLM), which are counted
        nowhere else.
    """
    parts = Parts(model.encoder, model.family)
    counted = _counted(model)
    shared = 0
    layers: list[dict[str, dict[str, float | None]]] = []
    maps: list[dict[str, float | None]] = []
    attentions = parts.attentions()
    for number, layer in enumerate(parts.layers, start=1):
        embedding = shared_bias(layer, model.family)
        kept = 0 if embedding is None else _size(embedding)
        shared += kept
        found: dict[str, dict[str, float | None]] = {}
        for unit in parts.units.values():
            if unit.layer != number or unit.kind not in ("layer", "attention", "feed_forward", "convolution"):
                continue
            modules = [submodule(parts.encoder, path) for path in unit.paths]
            parameters = sum(_size(module) for module in modules if module is not None)
            key = unit.name.removeprefix(f"layer.{number}.") if unit.kind != "layer" else "layer"
            found[key] = {
                "parameters": parameters - (kept if unit.kind in ("layer", "attention") else 0),
                "macs_per_second": None if counted is None else sum(counted.get(path, 0.0) for path in unit.paths),
            }
        heads = model.anatomy.heads[number - 1]
        if number in attentions and heads:
            found |= _head(parts, number, heads, found["attention"]["macs_per_second"])
        layers.append(found)
        maps.append(_map(model, parts, number, kept, counted) if number in attentions and heads else {})
    return {"layers": layers, "maps": maps, "shared": shared}


def _head(parts: Parts, layer: int, heads: int, macs: float | None) -> dict[str, dict[str, float | None]]:
    """The share of one head; none where heads share their keys and values."""
    try:
        axes = head_axes(parts, layer)
    except SurgeryError:
        return {}
    tensors = dict(parts.attentions()[layer].named_parameters())
    return {
        "head": {
            "parameters": sum(tensors[name].numel() for name in axes) // heads,
            "macs_per_second": None if macs is None else macs / heads,
        }
    }


def _map(
    model: SpeechModel, parts: Parts, layer: int, shared: int, counted: dict[str, float] | None
) -> dict[str, float | None]:
    """What a layer spends on a map of its own.

    Returns:
        "parameters": of queries, keys and positions; "head_parameters": one head's share of them, None where heads share
        their keys and values; "macs_per_second": of making them; "scores_macs_per_second": of comparing queries with
        keys and taking sums of values, which a map that is the same whatever is heard does without. None where it is not
        known: what cannot be counted, and scores within a limited span.
    """
    attention, family = parts.attentions()[layer], model.family
    names, heads = map_parts(attention, family), model.anatomy.heads[layer - 1]
    tensors = dict(attention.named_parameters())
    mine = {name: one.numel() for name, one in tensors.items() if name.partition(".")[0] in names}
    try:
        of_heads: float | None = sum(mine.get(name, 0) for name in head_axes(parts, layer)) // heads
    except SurgeryError:
        of_heads = None
    found: dict[str, float | None] = {
        "parameters": sum(mine.values()) - shared, "head_parameters": of_heads, "macs_per_second": None,
        "scores_macs_per_second": None,
    }  # fmt: skip
    edits = head_edits(attention)
    if counted is None or (edits is not None and edits.limited):
        return found
    place = f"{family.layers}.{layer - 1}.{family.attention}"
    inner: Any = getattr(attention, family.projections[3])
    scores = _scores(model, heads, inner.in_features // heads)
    kept = sum(counted.get(f"{place}.{name}", 0.0) for name in family.projections[2:])
    kept += scores if edits is None or not edits.fixed else 0.0
    return found | {"macs_per_second": counted.get(place, 0.0) - kept, "scores_macs_per_second": scores}


def _scores(model: SpeechModel, heads: int, size: int) -> float:
    """Multiply-accumulates a second of attention between queries, keys and values that are there already."""
    seconds = model.frontend.usual_seconds
    states = torch.empty(1, heads, model.frontend.attended(int(seconds * RATE)), size, device="meta")
    with FlopCounterMode(display=False) as counter:
        nn.functional.scaled_dot_product_attention(states, states, states)
    return counter.get_total_flops() / 2 / seconds


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _counted(model: SpeechModel) -> dict[str, float] | None:
    """Multiply-accumulates a second by path of the module; None where PyTorch's counter cannot follow the model."""
    seconds = model.frontend.usual_seconds
    samples = np.zeros(int(seconds * RATE), np.float32)
    try:
        blank = copy.deepcopy(model.encoder).to("meta")
        model.expect((len(samples),))
        inputs = {name: value.to("meta") for name, value in model.frontend.inputs([samples]).items()}
        inputs.pop("attention_mask", None)
        weights = next(blank.parameters()).dtype
        inputs = {name: one.to(weights) if one.is_floating_point() else one for name, one in inputs.items()}
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            blank(**inputs)
    except RuntimeError:
        return None
    root = f"{type(blank).__name__}."
    return {
        name.removeprefix(root): sum(operations.values()) / 2 / seconds
        for name, operations in counter.get_flop_counts().items()
        if name.startswith(root)
    }
