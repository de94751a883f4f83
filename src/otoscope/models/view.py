"""A view of a model: modules of its own over the same weights, so that the user's model is never touched."""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import nn

from otoscope.models.families import submodule


def view_of(module: nn.Module) -> nn.Module:
    """Copies the module tree and shares every parameter and buffer.

    Hooks, attention functions and replaced sub-modules of the view leave `module` as it is; a change of its weights
    shows in both.
    """
    shared = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    return copy.deepcopy(module, memo=shared)


def expand(module: nn.Module, path: str) -> list[str]:
    """Dotted paths that match `path`, where "*" stands for every index of a module list."""
    if "*" not in path:
        return [path] if submodule(module, path) is not None else []
    head, _, tail = path.partition(".*")
    items = submodule(module, head)
    return [] if items is None else [f"{head}.{k}{tail}" for k in range(len(items))]  # type: ignore[arg-type]


class Alone(nn.Module):
    """Runs a module on each utterance at its own length and pads the results with zeros.

    Convolutions and norms over time would otherwise let the padding of a batch leak into valid frames: with group norm
    a padded batch gives other values than single utterances.

    Args:
        inner: takes (B, n, ...) and gives (B, m, ...) or, with `time_last`, (B, d, m).
        lengths: called at each forward; valid length of each utterance on the input's time axis.
        time_last: whether time is the last axis of the output.
    """

    def __init__(self, inner: nn.Module, lengths: Callable[[], Sequence[int]], time_last: bool) -> None:
        super().__init__()
        self.inner = inner
        self._lengths = lengths
        self._axis = -1 if time_last else 1

    def forward(self, batch: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
        """The same as `inner` on a batch without padding."""
        lengths = self._lengths()
        if all(n == batch.shape[1] for n in lengths):
            return self.inner(batch, *args, **kwargs)
        parts = [self.inner(row[None, :n], *args, **kwargs) for row, n in zip(batch, lengths, strict=True)]
        longest = self.inner_length(parts, batch.shape[1])
        shape = list(parts[0].shape)
        shape[0], shape[self._axis] = len(parts), longest
        out = parts[0].new_zeros(shape)
        for k, part in enumerate(parts):
            out[k].narrow(self._axis if self._axis == -1 else 0, 0, part.shape[self._axis]).copy_(part[0])
        return out

    def inner_length(self, parts: list[torch.Tensor], n: int) -> int:
        """Padded length of the output: that of the longest part, or the input's own where time is kept."""
        longest = max(part.shape[self._axis] for part in parts)
        return longest if self._axis == -1 else max(longest, n)
