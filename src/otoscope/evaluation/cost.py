"""What a model costs: parameters, multiply-accumulates, bytes on disk and in memory."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from otoscope.models.model import SpeechModel
from otoscope.models.recogniser import Recogniser, ctc_head
from otoscope.speech.utterance import RATE


@dataclass(frozen=True)
class Cost:
    """What a model costs; a head that is no CTC head is not counted.

    Attributes:
        parameters: of the encoder, and of the CTC head where the model is a recogniser.
        macs_per_second: multiply-accumulates of the encoder for a second of speech, averaged over an utterance of 10 s
            or of the fixed input; None where they cannot be counted.
        head_macs_per_second: multiply-accumulates of the CTC head for a second of speech, beside the encoder's; None
            where the model is no recogniser.
        bytes_float32: of the weights in a file, in float32.
        bytes_float16: of the weights in a file, in float16.
        peak_bytes: the most memory that weights and results of operations hold at once while the model runs on one
            utterance of `peak_seconds`; see `peak_memory`.
        peak_seconds: length of that utterance.
        device: where `peak_bytes` was taken.
    """

    parameters: int
    macs_per_second: int | None
    bytes_float32: int
    bytes_float16: int
    peak_bytes: int
    peak_seconds: float
    device: str
    head_macs_per_second: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        return asdict(self)


def cost_of(model: SpeechModel | Recogniser) -> Cost:
    """Counts what a model costs; time is compared by `compare_time`, since it means little alone.

    Peak memory is taken on an utterance of noise of 10 s, or of the fixed length that the encoder takes.
    """
    speech_model = model.model if isinstance(model, Recogniser) else model
    seconds = speech_model.frontend.usual_seconds
    noise = np.random.default_rng(0).standard_normal(int(seconds * RATE)).astype(np.float32) * 0.1
    encoder = speech_model.family.encoder(speech_model.source)
    modules = (encoder, ctc_head(speech_model)) if isinstance(model, Recogniser) else (encoder,)
    run = runner(model)
    return Cost(
        model.parameters,
        speech_model.macs_per_second(),
        stored_bytes(modules, 4),
        stored_bytes(modules, 2),
        peak_memory(modules, lambda: run([noise]), speech_model.device),
        seconds,
        str(speech_model.device),
        model.head_macs_per_second if isinstance(model, Recogniser) else None,
    )


def runner(model: SpeechModel | Recogniser) -> Callable[[Sequence[np.ndarray]], object]:
    """What runs a batch of samples: to log probabilities where the model is a recogniser, else to hidden states."""
    if isinstance(model, Recogniser):
        return model.log_probabilities
    encode = model.encode

    def run(samples: Sequence[np.ndarray]) -> object:
        with torch.inference_mode():
            return encode(samples)

    return run


def stored_bytes(modules: Sequence[nn.Module], width: int) -> int:
    """Bytes of all parameters and buffers that are saved, each once; those that are not floating keep their own width.

    Args:
        modules: what is saved together.
        width: bytes of a floating-point number.
    """
    tensors = {tensor.data_ptr(): tensor for module in modules for tensor in module.state_dict().values()}
    return sum(
        tensor.numel() * (width if tensor.is_floating_point() else tensor.element_size()) for tensor in tensors.values()
    )


def peak_memory(modules: Sequence[nn.Module], run: Callable[[], object], device: torch.device) -> int:
    """The most bytes that are held at once while something runs: weights, inputs and results of operations.

    On CUDA it is the allocator's own peak. Elsewhere the storages that operations return are followed from the
    operation to their release, which gives the same number on every run and machine; what an operation needs for itself
    while it runs is not seen, nor what the allocator keeps in reserve.

    Args:
        modules: whose weights count.
        run: a forward pass.
        device: where it runs.
    """
    weights = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
        for module in modules
        for tensor in (*module.parameters(), *module.buffers())
    }
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        torch.cuda.synchronize(device)
        return sum(weights.values()) + torch.cuda.max_memory_allocated(device) - before
    with _Held(set(weights)) as held:
        run()
    return sum(weights.values()) + held.most


class _Held(TorchDispatchMode):
    """Follows storages that operations return, from the operation to their release."""

    def __init__(self, known: set[int]) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known = known  # of weights, which are counted elsewhere
        self._open: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, torch.Tensor):
                self._follow(tensor.untyped_storage())
        return out

    def _follow(self, storage: torch.UntypedStorage) -> None:
        place, size = storage.data_ptr(), storage.nbytes()
        if not size or place in self._known or place in self._open:
            return
        self._open.add(place)
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._release, place, size)

    def _release(self, place: int, size: int) -> None:
        self._open.discard(place)
        self.now -= size
