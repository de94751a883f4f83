"""The size of heads' weights: the l1 norm of their rows of the projections."""

from __future__ import annotations

import torch

from otoscope.measures.measure import Result, Row
from otoscope.models.model import SpeechModel
from otoscope.surgery.heads import head_axes
from otoscope.surgery.units import Parts

NAME = "importance-l1"


def weight_importance(model: SpeechModel) -> Result:
    """Sum of the absolute weights and biases of each head's query, key and value projections.

    Source: Lin, Lee and Tang 2022, "Compressing transformer-based self-supervised models for speech processing" (arXiv
    2211.09949), data-free head pruning; heads with the smallest norm are pruned first. The output projection is left
    out, as it is there, and so are tensors of positions.

    Returns:
        A row a head; there is no interval, since no speech is looked at.

    Raises:
        SurgeryError: heads share their keys and values.
    """
    parts = Parts(model.encoder, model.family)
    kinds = {f"{name}.{kind}" for name in model.family.projections[:3] for kind in ("weight", "bias")}
    rows = []
    for layer, heads in enumerate(model.anatomy.head_names, start=1):
        tensors = dict(parts.attention(layer).named_parameters())
        total = torch.zeros(len(heads), dtype=torch.float64)
        for name, axis in head_axes(parts, layer).items():
            if name in kinds:
                values = tensors[name].detach().double().abs().movedim(axis, 0)
                total += values.reshape(len(heads), -1).sum(1).cpu() if len(heads) else 0
        rows += [
            Row(NAME, f"layer.{layer}", layer, head, value=value)
            for head, value in zip(heads, total.tolist(), strict=True)
        ]
    return Result(rows)
