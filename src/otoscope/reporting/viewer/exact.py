"""Whole attention maps, one layer at a time, computed when they are asked for and kept while there is room."""

import threading
from collections import OrderedDict

import numpy as np
import torch
from jaxtyping import Float32

from otoscope.errors import CaptureError
from otoscope.models.model import SpeechModel
from otoscope.models.reductions import Reduction
from otoscope.speech.utterance import Utterance

ROOM = 512 * 2**20
"""Bytes of maps that are kept; the layer at hand is kept whatever its size."""

_ONE_PASS = threading.Lock()  # a model holds what it is asked for while it runs, and two may be the same object


class _ReachedError(Exception):
    """The layer is there; what comes after it need not be computed."""


class _Nothing(Reduction):
    """Of the layers before the one that is asked for."""

    name = "nothing"

    def start(self, heads: int, frames: int, like: torch.Tensor) -> None:
        """See `Reduction`."""

    def tile(self, first: int, scores: torch.Tensor, weights: torch.Tensor) -> None:
        """See `Reduction`."""

    def finish(self) -> torch.Tensor:
        """See `Reduction`."""
        return torch.zeros(())


class _Wanted(Reduction):
    """The maps of the layer that is asked for, written where they stay; ends the pass."""

    name = "wanted"

    def start(self, heads: int, frames: int, like: torch.Tensor) -> None:
        """See `Reduction`."""
        self.maps = np.empty((heads, frames, frames), np.float32)

    def tile(self, first: int, scores: torch.Tensor, weights: torch.Tensor) -> None:
        """See `Reduction`."""
        self.maps[:, first : first + weights.shape[1]] = weights.cpu().numpy()

    def finish(self) -> torch.Tensor:
        """See `Reduction`."""
        raise _ReachedError


class ExactMaps:
    """The exact maps of one utterance in one model, in float32.

    A layer is computed by a pass up to it; the maps of the layers asked for last are kept. Safe to use from several
    threads: they wait for each other.

    Args:
        model: the model.
        utterance: what is heard.
        samples: its samples.
        room: bytes that are kept.
    """

    def __init__(self, model: SpeechModel, utterance: Utterance, samples: np.ndarray, room: int = ROOM) -> None:
        self.model, self.utterance, self.samples, self.room = model, utterance, samples, room
        self._kept: OrderedDict[int, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def layer_bytes(self) -> int:
        """Bytes of the largest layer's maps."""
        return max(self.model.anatomy.heads) * self.model.frontend.frames(len(self.samples)) ** 2 * 4

    @property
    def most_bytes(self) -> int:
        """The most bytes that are kept."""
        return max(self.layer_bytes, min(self.room, self.layer_bytes * self.model.anatomy.n_layers))

    def layer(self, layer: int) -> Float32[np.ndarray, "heads t t"]:
        """The maps of all heads of a layer, in the order of the tensors.

        Args:
            layer: its number, from 1.

        Raises:
            CaptureError: the model has no such layer.
        """
        if not 1 <= layer <= self.model.anatomy.n_layers:
            raise CaptureError(
                f"{self.model.name} has no layer {layer}", f"Its layers are 1 to {self.model.anatomy.n_layers}."
            )
        with self._lock:
            if layer not in self._kept:
                self._make_room()
                self._kept[layer] = self._compute(layer)
            self._kept.move_to_end(layer)
            return self._kept[layer]

    def _make_room(self) -> None:
        """Drops the layers that were asked for longest ago, before the next one is computed."""
        while self._kept and sum(maps.nbytes for maps in self._kept.values()) + self.layer_bytes > self.room:
            self._kept.popitem(last=False)

    def _compute(self, layer: int) -> np.ndarray:
        made: list[Reduction] = []

        def make() -> Reduction:  # called once a layer, in their order
            made.append(_Wanted() if len(made) + 1 == layer else _Nothing())
            return made[-1]

        try:
            with _ONE_PASS:
                self.model.capture([self.utterance], [self.samples], (), (make,))
        except _ReachedError:
            last = made[-1]
            assert isinstance(last, _Wanted)
            return last.maps
        raise CaptureError(
            f"{self.model.name} did not reach layer {layer}",
            "Pass a model that calls its layers in their order.",
        )
