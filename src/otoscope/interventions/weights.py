"""The size of heads' weights: the l1 norm of their rows of the projections."""

from __future__ import annotations

import torch

from otoscope.measures.measure import Result, Row
from otoscope.models.mapless import is_mapless
from otoscope.models.model import SpeechModel
from otoscope.surgery.heads import head_axes
from otoscope.surgery.units import Parts

NAME = "importance-l1"


def weight_importance(model: SpeechModel) -> Result:
    """Sum of the absolute weights and biases of each head's query, key and value projections.

    Source: Lin, Lee and Tang 2022, "Compressing transformer-based self-supervised models for speech processing" (arXiv
    2211.09949), data-free head pruning; heads with the smallest norm are pruned first. The output projection is left
    out, as it is there, and so are tensors of positions. Heads that have no query and key, since their map is not their
    own, have no such sum.

    Returns:
        A row a head; there is no interval, since no speech is looked at.

    Raises:
        SurgeryError: heads share their keys and values.
    """
    parts = Parts(model.encoder, model.family)
    rows = []
    for layer, heads in enumerate(model.anatomy.head_names, start=1):
        if not heads:
            continue
        head_axes(parts, layer)  # refuses heads that share their keys and values
        attention = parts.attention(layer)
        if is_mapless(attention, model.family):
            continue
        total = torch.zeros(len(heads), dtype=torch.float64)
        for name in model.family.projections[:3]:
            linear = getattr(attention, name)  # whose weight is that which counts, with an adapter folded in
            for tensor in (linear.weight, linear.bias):
                if tensor is not None:
                    total += tensor.detach().double().abs().reshape(len(heads), -1).sum(1).cpu()
        rows += [
            Row(NAME, f"layer.{layer}", layer, head, value=value)
            for head, value in zip(heads, total.tolist(), strict=True)
        ]
    return Result(rows)
