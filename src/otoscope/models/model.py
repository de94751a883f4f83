"""A speech model with its anatomy: runs batches and hands on streams and sums over attention."""

import contextlib
import copy
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from otoscope.errors import CaptureError, ModelError, NotFiniteError
from otoscope.models import tap
from otoscope.models.absent import (
    Absent,
    attention_of,
    borrowed_maps,
    fixed_maps,
    kept_heads,
    removed_units,
    replaced_attention,
)
from otoscope.models.anatomy import Anatomy, Grid
from otoscope.models.capture import Capture, Collector, Transform
from otoscope.models.edits import described
from otoscope.models.families import Family, submodule
from otoscope.models.frontends import RATE, Frontend, Wave
from otoscope.models.view import Alone, expand, view_of
from otoscope.speech.utterance import Utterance

# Used in training only: absent from many published checkpoints, and without effect on what is examined.
TRAINING_ONLY = ("masked_spec_embed",)


class SpeechModel:
    """A transformers model made ready for examination; the model that was passed in is never changed.

    Args:
        source: the transformers model, bare or with a head.
        family: its family's table.
        frontend: prepares its input.
        name: what reports call it.

    Attributes:
        anatomy: streams, widths, grids, heads.
        source: the model that was passed in.
    """

    def __init__(self, source: nn.Module, family: Family, frontend: Frontend, name: str) -> None:
        self.source, self.family, self.frontend, self.name = source, family, frontend, name
        encoder = view_of(family.encoder(source)).eval()
        self.config: Any = encoder.config
        self._layers = _listed(encoder, family.layers)
        if not self._layers:
            raise ModelError(f"{name} has no layers", "Pass a model with at least one transformer layer.")
        self._convs = _listed(encoder, family.conv_layers)
        self._norm = submodule(encoder, family.norm_last) if family.has_norm_last(self.config) else None  # type: ignore[arg-type]
        if family.own_attention is None:
            encoder.set_attn_implementation(tap.NAME)  # type: ignore[operator]
        self._taps = [self._tapped(layer, k) for k, layer in enumerate(self._layers, start=1)]
        self._n_samples: tuple[int, ...] = ()
        for pattern in family.alone:
            for path in expand(encoder, pattern):
                if submodule(encoder, path) is not None:
                    self._run_alone(encoder, path)
        self._encoder = encoder
        self.anatomy = self._anatomy()

    def __str__(self) -> str:
        anatomy = self.anatomy
        left, total = len(anatomy.layers), anatomy.n_layers
        return (
            f"{self.name}: {anatomy.family}, {total if left == total else f'{left} of {total}'} layers x "
            f"{max(anatomy.heads)} heads, width {anatomy.widths['input']}, {self.parameters / 1e6:.1f} million parameters, "
            f"a frame every {anatomy.grid.hop / RATE * 1000:g} ms"
        )

    @property
    def encoder(self) -> nn.Module:
        """The view that is run: modules of its own over the weights of `source`."""
        return self._encoder

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self._encoder.parameters()).device

    @property
    def parameters(self) -> int:
        """Number of parameters of the encoder."""
        return sum(parameter.numel() for parameter in self._encoder.parameters())

    def _tapped(self, layer: nn.Module, number: int) -> tap.Tap:
        """The tap of a layer; where there is no attention it sees a map of no heads."""
        attention = attention_of(layer, self.family)
        if attention is None:
            return tap.attach_headless(submodule(layer, self.family.attention) or layer, number)
        return tap.attach(attention, number, self.family.own_attention)

    def _run_alone(self, encoder: nn.Module, path: str) -> None:
        on_samples = path == "feature_extractor"

        def lengths() -> Sequence[int]:
            return self._n_samples if on_samples else [self.frontend.frames(n) for n in self._n_samples]

        head, _, name = path.rpartition(".")
        parent = submodule(encoder, head)
        setattr(parent, name, Alone(getattr(parent, name), lengths, time_last=on_samples))

    def _anatomy(self) -> Anatomy:
        width_name, heads_name, _ = self.family.size_names
        width, heads = getattr(self.config, width_name), getattr(self.config, heads_name)
        convs = [f"conv.{k}" for k in range(1, len(self._convs) + 1)]
        layers = [f"layer.{k}" for k, layer in enumerate(self._layers, start=1) if not isinstance(layer, Absent)]
        later = ["input", *layers, *(["final_norm"] if self._norm is not None else [])]
        widths = dict.fromkeys(later, width)
        grids: dict[str, Grid] = dict.fromkeys(later, self.frontend.grid)
        if isinstance(self.frontend, Wave):
            widths |= dict(zip(convs, self.config.conv_dim, strict=True))
            grids |= dict(zip(convs, self.frontend.grids, strict=True))
        names = kept_heads(self._layers, self.family, heads)
        return Anatomy(
            self.family.name, (*convs, *later), widths, grids, tuple(len(kept) for kept in names), names,
            tuple(removed_units(self._layers, self.family)), borrowed_maps(self._layers, self.family),
            fixed_maps(self._layers, self.family), replaced_attention(self._layers, self.family),
        )  # fmt: skip

    def capture(
        self,
        utterances: Sequence[Utterance],
        samples: Sequence[np.ndarray],
        streams: Sequence[str] | None = None,
        reductions: tap.Reductions = (),
        transforms: Mapping[str, Transform] | None = None,
    ) -> Capture:
        """Runs a batch once.

        Args:
            utterances: what the samples belong to.
            samples: float32 at 16 kHz, one array (n,) an utterance.
            streams: names of the streams to hand on; None is all of them.
            reductions: makers of the statistics to be summed over every layer's attention.
            transforms: stream -> what is done to it as it comes.

        Raises:
            AudioError: an utterance is too short or too long for this model.
            CaptureError: a stream is unknown, or the pass gave other shapes than the anatomy promises.
        """
        wanted = self.anatomy.streams if streams is None else tuple(streams)
        unknown = sorted(set(wanted) - set(self.anatomy.streams))
        if unknown:
            raise CaptureError(
                f"{self.name} has no stream {unknown[0]!r}",
                f"Its streams are {', '.join(self.anatomy.streams)}.",
            )
        lengths = [len(one) for one in samples]
        for one, n in zip(utterances, lengths, strict=True):
            self.frontend.check(n, f"Utterance {one.id!r}")
        frames = tuple(self.frontend.frames(n) for n in lengths)
        observation = tap.Observation(
            frames, tuple(self.frontend.attended(n) for n in lengths), reductions, tuple(utterances), self.anatomy.grid
        )
        transforms = transforms or {}
        collectors = {
            name: Collector(
                name,
                None if name.startswith("conv.") else frames,
                transforms.get(name),
                name.startswith("conv."),
            )
            for name in wanted
        }
        with contextlib.ExitStack() as stack, torch.inference_mode():
            stack.enter_context(self._hooked(collectors))
            for one_tap in self._taps:
                one_tap.observation = observation
            stack.callback(self._clear)
            finite = bool(torch.isfinite(self.encode(samples)).all())
        gathered = {name: collector.stream(len(lengths)) for name, collector in collectors.items()}
        if not finite:
            first = next(
                (
                    f", first in stream {name} of utterance {utterances[k].id!r}"
                    for name, (stream, counts) in gathered.items()
                    for k, n in enumerate(counts)
                    if not torch.isfinite(stream[k, :n]).all()
                ),
                "",
            )
            raise NotFiniteError(
                f"{self.name} gives values that are not finite for a batch with {utterances[0].id!r}{first}",
                "Load the model in float32, and check its weights and the recording.",
            )
        if reductions:
            self._check_attention(observation, len(lengths))
        grids = {name: transforms[name].grid if name in transforms else self.anatomy.grids[name] for name in wanted}
        return Capture(
            tuple(utterances), tuple(samples), {name: stream for name, (stream, _) in gathered.items()},
            {name: counts for name, (_, counts) in gathered.items()}, grids, observation.results, observation.outside,
        )  # fmt: skip

    def encode(self, samples: Sequence[np.ndarray]) -> torch.Tensor:
        """Runs a batch without looking inside; gradients flow unless the caller turns them off.

        Args:
            samples: float32 at 16 kHz, one array (n,) an utterance.

        Returns:
            What the encoder hands to a head, (B, T, d); frames beyond an utterance's own are padding.
        """
        self.expect([len(one) for one in samples])
        inputs = {name: value.to(self.device) for name, value in self._inputs(samples).items()}
        return self._encoder(**inputs).last_hidden_state

    @property
    def expected(self) -> tuple[int, ...]:
        """Samples of each utterance of the pass at hand, or of the last one."""
        return self._n_samples

    def expect(self, n_samples: Sequence[int]) -> None:
        """Says how many samples each utterance of the next pass has; for those who run `encoder` themselves.

        Modules that see each utterance by itself go by it; `encode` says it on its own.
        """
        self._n_samples = tuple(n_samples)

    def _inputs(self, samples: Sequence[np.ndarray]) -> dict[str, torch.Tensor]:
        """The encoder's input, in the type of its weights."""
        weights = next(self._encoder.parameters()).dtype
        inputs = self.frontend.inputs(samples)
        return {k: v.to(weights) if v.is_floating_point() else v for k, v in inputs.items()}

    def _clear(self) -> None:
        for one in self._taps:
            one.observation = None

    def _check_attention(self, observation: tap.Observation, batch: int) -> None:
        for layer in range(1, self.anatomy.n_layers + 1):
            if len(observation.results.get(layer, ())) != batch:
                raise CaptureError(
                    f"The attention of layer {layer} was seen {len(observation.results.get(layer, ()))} times "
                    f"for a batch of {batch}",
                    "The model does not call its attention once a layer; it cannot be examined head by head.",
                )

    @contextlib.contextmanager
    def _hooked(self, collectors: Mapping[str, Collector]) -> Iterator[None]:
        """Hooks on the view's modules for the length of a forward pass."""
        handles = []

        def after(collector: Collector) -> Callable[..., None]:
            return lambda module, args, out: collector.take(out[0] if isinstance(out, tuple) else out)

        def before(collector: Collector) -> Callable[..., None]:
            return lambda module, args, kwargs: collector.take(args[0] if args else kwargs["hidden_states"])

        places = {f"conv.{k}": module for k, module in enumerate(self._convs, start=1)}
        places |= {f"layer.{k}": module for k, module in enumerate(self._layers, start=1)}
        if self._norm is not None:
            places["final_norm"] = self._norm
        for name, collector in collectors.items():
            if name == "input":
                handles.append(self._layers[0].register_forward_pre_hook(before(collector), with_kwargs=True))
            else:
                handles.append(places[name].register_forward_hook(after(collector)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def fingerprint(self) -> str:
        """SHA-256 over the encoder's weights, its sizes, edits and how its input is prepared, as hexadecimal digits."""
        # A stored copy of a model states what the original left to defaults: whence a setting was read is left out.
        prepared = sorted(self.frontend.settings.items())
        sizes = [self.anatomy.family, self.anatomy.heads, self.anatomy.grid.hop, prepared]
        edits = described(self._encoder, _unwrapped)
        digest = hashlib.sha256(repr([*sizes, *([edits] if edits else [])]).encode())
        state = {_unwrapped(name): value for name, value in self._encoder.state_dict().items()}
        take_weights(digest, {name: value for name, value in state.items() if not name.endswith(TRAINING_ONLY)})
        return digest.hexdigest()

    def macs_per_second(self) -> int | None:
        """Multiply-accumulates for a second of speech, averaged over an utterance of 10 s or of the fixed input.

        Counted on a copy without data by PyTorch's own counter: convolutions, linear maps and attention.
        None where the counter cannot follow the model.
        """
        seconds = self.frontend.usual_seconds
        samples = np.zeros(int(seconds * RATE), np.float32)
        try:
            blank = copy.deepcopy(self._encoder).to("meta")
            self._n_samples = (len(samples),)
            inputs = {name: value.to("meta") for name, value in self._inputs([samples]).items()}
            inputs.pop("attention_mask", None)
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                blank(**inputs)
        except RuntimeError:
            return None
        return int(counter.get_total_flops() / 2 / seconds)

    def describe(self) -> dict[str, Any]:
        """Sizes and settings that a diagnosis keeps, as plain values."""
        anatomy = self.anatomy
        return {
            "name": self.name,
            "family": anatomy.family,
            "class": type(self.source).__name__,
            "layers": anatomy.n_layers,
            "heads": list(anatomy.heads),
            "head_names": [list(names) for names in anatomy.head_names],
            "original_heads": getattr(self.config, self.family.size_names[1]),
            "removed": list(anatomy.removed),
            "borrowed_maps": {str(layer): source for layer, source in anatomy.borrowed.items()},
            "fixed_maps": list(anatomy.fixed),
            "replaced_attention": list(anatomy.replaced),
            "width": anatomy.widths["input"],
            "streams": list(anatomy.streams),
            "widths": dict(anatomy.widths),
            "parameters": self.parameters,
            "macs_per_second": self.macs_per_second(),
            "hop_ms": anatomy.grid.hop / RATE * 1000,
            "receptive_field_ms": anatomy.grid.field / RATE * 1000,
            "preprocessing": dict(self.frontend.description),
            "dtype": str(next(self._encoder.parameters()).dtype).removeprefix("torch."),
            "fingerprint": self.fingerprint(),
        }


def take_weights(digest: Any, state: Mapping[str, torch.Tensor]) -> None:
    """Adds tensors to a digest of hashlib's: names, shapes, types and values, in order of name."""
    for name in sorted(state):
        array = state[name].detach().cpu().contiguous()
        digest.update(f"{name}{tuple(array.shape)}{array.dtype}".encode())
        digest.update(array.reshape(-1).view(torch.uint8).numpy().tobytes())


def _unwrapped(name: str) -> str:
    """A module's or tensor's path without the step that a wrapped module carries, which is not the model's."""
    return name.replace(".inner.", ".")


def _listed(encoder: nn.Module, path: str | None) -> list[nn.Module]:
    """The modules of a module list, or none."""
    found = submodule(encoder, path) if path is not None else None
    return [] if found is None else list(found.children())
