"""One forward pass over a batch: streams with their frame counts, and sums over attention."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from otoscope.errors import CaptureError
from otoscope.models.anatomy import Grid
from otoscope.speech.utterance import Utterance


@dataclass(frozen=True)
class Transform:
    """What is done to a stream as soon as it is computed, so that a long stream is never kept whole.

    Attributes:
        apply: from valid frames (T, d) of one utterance to (T', d).
        grid: grid of the result.
    """

    apply: Callable[[torch.Tensor], torch.Tensor]
    grid: Grid


@dataclass(frozen=True)
class Capture:
    """What a batch gave.

    Attributes:
        utterances: the batch, in order.
        samples: float32 samples at 16 kHz of each utterance.
        streams: name -> (B, T, d); frames from `lengths` on are padding.
        lengths: name -> valid frames of each utterance.
        grids: name -> grid; that of a transformed stream is the transformed one.
        attention: layer (from 1) -> for each utterance the statistics that were asked for, by name.
        outside: layer -> for each utterance the attention per head, (heads,), on frames of padding that a model of
            fixed input length attends to; zeros elsewhere.
        other: what the same batch gave in another model that this one is compared with.
    """

    utterances: tuple[Utterance, ...]
    samples: tuple[np.ndarray, ...]
    streams: Mapping[str, torch.Tensor]
    lengths: Mapping[str, tuple[int, ...]]
    grids: Mapping[str, Grid]
    attention: Mapping[int, list[dict[str, torch.Tensor]]]
    outside: Mapping[int, list[torch.Tensor]]
    other: "Capture | None" = None

    def frames(self, stream: str, k: int) -> torch.Tensor:
        """Valid frames of utterance k, shape (T_k, d)."""
        return self.streams[stream][k, : self.lengths[stream][k]]


class Collector:
    """Gathers one stream from a hook that fires once a batch or once an utterance.

    Args:
        name: the stream's name.
        lengths: valid frames of each utterance, or None where rows always come without padding.
        transform: see `Transform`.
        time_last: whether rows come as (d, T).
    """

    def __init__(
        self, name: str, lengths: Sequence[int] | None, transform: Transform | None, time_last: bool = False
    ) -> None:
        self.name = name
        self._lengths = lengths
        self._transform = transform
        self._time_last = time_last
        self._parts: list[torch.Tensor] = []  # (b, T, d) each
        self._rows = 0

    def take(self, out: torch.Tensor) -> None:
        """One hook call: (b, T, d), or (b, d, T) where time is last."""
        rows = out.detach().transpose(1, 2) if self._time_last else out.detach()
        first, self._rows = self._rows, self._rows + len(rows)
        if self._transform is None:
            self._parts.append(rows)
            return
        for k, row in enumerate(rows):
            # More calls than utterances are refused in `stream`; here they only must not fail.
            n = row.shape[0] if self._lengths is None else self._lengths[min(first + k, len(self._lengths) - 1)]
            self._parts.append(self._transform.apply(row[:n])[None])

    def stream(self, batch: int) -> tuple[torch.Tensor, tuple[int, ...]]:
        """The stream of the whole batch, padded with zeros, and its valid frames.

        Raises:
            CaptureError: rows are missing, or came twice.
        """
        if self._rows != batch:
            raise CaptureError(
                f"Stream {self.name!r} gave {self._rows} rows for a batch of {batch} utterances",
                "The forward pass skips or repeats this layer: pass a model in the form its library builds it.",
            )
        own = [part.shape[1] for part in self._parts for _ in range(part.shape[0])]
        lengths = tuple(own) if self._lengths is None or self._transform else tuple(self._lengths)
        if len(self._parts) == 1:
            return self._parts[0], lengths
        out = self._parts[0].new_zeros(batch, max(own), self._parts[0].shape[2])
        k = 0
        for part in self._parts:
            out[k : k + len(part), : part.shape[1]] = part
            k += len(part)
        return out, lengths
