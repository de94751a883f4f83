"""The head of masked prediction and its clusters, as they are stored beside an encoder."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from otoscope.errors import CheckpointError
from otoscope.evaluation.clusters import Clusters

FILE = "masked_prediction.safetensors"


def write_prediction_head(head: nn.Linear, clusters: Clusters, folder: Path) -> None:
    """Stores head and clusters in a model's folder.

    Args:
        head: from the encoder's width to the clusters.
        clusters: what the labels are.
        folder: where the encoder is.
    """
    tensors = {f"head.{name}": value.detach().cpu().contiguous() for name, value in head.state_dict().items()}
    for name in ("centres", "mean", "scale"):
        tensors[name] = torch.from_numpy(getattr(clusters, name)).contiguous()
    save_file(tensors, folder / FILE, metadata={"source": json.dumps(clusters.source)})


def read_prediction_head(folder: Path) -> tuple[nn.Linear, Clusters]:
    """Reads what `write_prediction_head` stored.

    Raises:
        CheckpointError: there is none, or it cannot be read.
    """
    place = folder / FILE
    if not place.exists():
        raise CheckpointError(
            f"{folder} holds no head for masked prediction ({FILE})",
            "Name a folder that `otoscope pretrain --objective clusters` wrote.",
        )
    try:
        with safe_open(place, "pt") as stored:
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - not a mapping
            source = json.loads(stored.metadata()["source"])
        weight = tensors["head.weight"].float()
        head = nn.Linear(weight.shape[1], weight.shape[0])
        head.load_state_dict({"weight": weight, "bias": tensors["head.bias"].float()})
        centres, mean, scale = (tensors[name].float().numpy() for name in ("centres", "mean", "scale"))
    except Exception as error:  # broken files fail in as many ways as there are bytes
        raise CheckpointError(f"{place} cannot be read: {' '.join(str(error).split())}", "Pre-train again.") from error
    return head, Clusters(centres, mean, scale, source)
