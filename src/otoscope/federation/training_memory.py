"""The memory that a training step needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class StepMemory:
    """Bytes that are held during a training step; whatever shares a storage counts once.

    Attributes:
        weights: of parameters and buffers.
        gradients: of parameters after the step's backward pass.
        moments: of what the optimiser keeps.
        activations: what the forward pass keeps for the backward pass, the batch among it as far as it is kept.
        peak: the most that is held at once. On a GPU it is measured, working memory of single operations included, and
            what the process holds there beside the model is taken off. Elsewhere it is the sum of the four, which no step
            exceeds but for that working memory.
    """

    weights: int
    gradients: int
    moments: int
    activations: int
    peak: int


def training_memory(model: nn.Module, optimiser: torch.optim.Optimizer, step: Callable[[], None]) -> StepMemory:
    """Runs a training step and takes its memory; the step does what it does without.

    Args:
        model: what is trained.
        optimiser: what it is trained with.
        step: forward pass, backward pass and update; gradients from before are cleared first.
    """
    optimiser.zero_grad(set_to_none=True)
    weights = _storages([*model.parameters(), *model.buffers()])
    device = next(model.parameters()).device
    on_gpu = device.type == "cuda"
    before = _total(_storages(_moments(optimiser)))
    if on_gpu:
        torch.cuda.synchronize(device)
        other = torch.cuda.memory_allocated(device) - _total(weights) - before
        torch.cuda.reset_peak_memory_stats(device)
    kept: dict[tuple[str, int], int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        for place, size in _storages([tensor]).items():
            # Memory of a part of the graph that was dropped may be taken again for another.
            kept[place] = max(size, kept.get(place, 0))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        step()
    activations = sum(size for place, size in kept.items() if place not in weights)
    gradients = _total(_storages(one.grad for one in model.parameters() if one.grad is not None))
    moments = _total(_storages(_moments(optimiser)))
    peak = _total(weights) + gradients + moments + activations
    if on_gpu:
        # An optimiser's first step makes its moments after the peak, and every later one has them before.
        peak = torch.cuda.max_memory_allocated(device) - other + moments - before
    return StepMemory(_total(weights), gradients, moments, activations, peak)


def _moments(optimiser: torch.optim.Optimizer) -> list[torch.Tensor]:
    """Tensors that an optimiser keeps, but for counts of steps."""
    states = optimiser.state.values()
    return [one for state in states for one in state.values() if isinstance(one, torch.Tensor) and one.ndim]


def _storages(tensors: Iterable[torch.Tensor]) -> dict[tuple[str, int], int]:
    """Bytes by storage, of those that lie in memory."""
    found = [(str(one.device), one.untyped_storage()) for one in tensors if one.layout == torch.strided]
    return {(device, one.data_ptr()): one.nbytes() for device, one in found if one.nbytes()}


def _total(storages: dict[tuple[str, int], int]) -> int:
    return sum(storages.values())
