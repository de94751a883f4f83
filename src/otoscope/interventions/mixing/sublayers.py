"""The attention of each layer, taken apart: maps, what every frame hands on through every head, residual and norm."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from otoscope.errors import CaptureError, MeasureError
from otoscope.models import tap
from otoscope.models.absent import attention_of
from otoscope.models.edits import head_edits
from otoscope.models.families import submodule
from otoscope.models.model import SpeechModel
from otoscope.models.reductions import WholeMap
from otoscope.speech.utterance import Utterance

MAX_FRAMES = 1500
"""Frames that a map may have: 30 s at 20 ms a frame. One layer's maps of 16 heads then take 144 MB."""


@dataclass(frozen=True, eq=False)
class Sublayer:
    """The attention of one layer in one utterance, with what its layer makes of it.

    T are the frames that the layer computes on: those of the utterance, and behind them the silence that a model of
    fixed input length (Whisper) attends to.

    Attributes:
        layer: number of the layer, from 1.
        frames: frames of the utterance, at most T.
        maps: (H, T, T), rows are queries and sum to one.
        transformed: (T, H, d), what frame j hands on through head h where it is fully attended to:
            f^h(x_j) = (x_j W_V^h + b_V^h) W_O^h (Kobayashi et al. 2020).
        bias: (d,), of the output projection.
        output: (T, d), what the attention module gives: the sum over h and j of maps times transformed, and the bias.
        residual: (T, d), what it is added to.
        norm: the norm that follows the addition, None where the sum goes on as it is (pre-LN, Conformer).
    """

    layer: int
    frames: int
    maps: torch.Tensor
    transformed: torch.Tensor
    bias: torch.Tensor
    output: torch.Tensor
    residual: torch.Tensor
    norm: nn.LayerNorm | None
    _module: nn.Module = field(repr=False)
    _attention: nn.Module = field(repr=False)
    _call: _Call = field(repr=False)
    _given: Any = field(repr=False)
    _last: nn.Module | None = field(repr=False)

    @property
    def dtype(self) -> torch.dtype:
        """What the layer computes in."""
        return self._call.states.dtype

    def rerun(self, outputs: torch.Tensor) -> torch.Tensor:
        """What the layer gives where its attention module gave something else, all the rest as it was.

        The layer's own forward pass is run. What the last layer gives is taken after the norm that follows it. Silence
        behind the utterance takes no part: where there is any (Whisper), attention alone mixes frames.

        Args:
            outputs: (n, frames, d), in place of `output[:frames]`.

        Returns:
            (n, frames, d), float32.
        """
        states = self._call.states[:, : outputs.shape[1]].expand(len(outputs), -1, -1)
        given = outputs.to(states.dtype)
        answer = (given, *self._given[1:]) if isinstance(self._given, tuple) else given
        own = vars(self._attention).get("forward")
        self._attention.forward = lambda *args, **kwargs: answer
        try:
            with torch.inference_mode():
                found = _first(self._call.run(self._module, states))
                return (found if self._last is None else self._last(found)).float()
        finally:
            if own is None:
                del self._attention.forward
            else:
                self._attention.forward = own


@dataclass(frozen=True, eq=False)
class _Call:
    """How a layer was called."""

    states: torch.Tensor  # (1, T, d)
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def run(self, module: nn.Module, states: torch.Tensor) -> Any:
        """Calls the module likewise, with other states."""
        if self.args:
            return module(states, *self.args[1:], **self.kwargs)
        return module(**{**self.kwargs, "hidden_states": states})


def attention_sublayers(
    model: SpeechModel, utterance: Utterance, *, max_frames: int = MAX_FRAMES
) -> Iterator[Sublayer]:
    """Takes attention apart, one layer that has it at a time; the utterance passes through the model by itself.

    The encoder is run once to see what enters each layer, and each layer once more when its turn comes. At most the
    maps of one layer (heads x T x T float32) and what enters every layer stand in memory.

    Args:
        model: left as it is.
        utterance: the speech.
        max_frames: the longest utterance that is taken, in frames.

    Raises:
        AudioError: the utterance is too short or too long for the model.
        MeasureError: it has more frames than `max_frames`; heads were edited in a way that their values do not tell;
            or the layer does not add attention to a residual stream in a way that is known.
    """
    samples = utterance.read()
    model.frontend.check(len(samples), f"Utterance {utterance.id!r}")
    frames, attended = model.frontend.frames(len(samples)), model.frontend.attended(len(samples))
    if attended > max_frames:
        size = max(model.anatomy.heads) * attended**2 * 4 / 1e6
        raise MeasureError(
            f"Utterance {utterance.id!r} gives maps of {attended} x {attended} frames ({size:.0f} MB a layer), and "
            f"max_frames is {max_frames}",
            "Cut the utterance into parts, or give a greater max_frames.",
        )
    # A view of its own, so that whoever runs the model between two layers does not come in between.
    own = SpeechModel(model.source, model.family, model.frontend, model.name)
    layers = list(submodule(own.encoder, own.family.layers).children())  # type: ignore[union-attr]
    calls = _calls(own, layers, samples)
    has_last, last = own.family.has_norm_last(own.config), own.anatomy.layers[-1]
    for number, (layer, call) in enumerate(zip(layers, calls, strict=True), start=1):
        if attention_of(layer, own.family) is None:
            continue
        final = submodule(own.encoder, own.family.norm_last or "") if has_last and number == last else None
        yield _taken_apart(own, layer, number, call, frames, final)


def _calls(model: SpeechModel, layers: list[nn.Module], samples: Any) -> list[_Call]:
    """How each layer is called when the utterance passes through."""
    seen: dict[int, list[_Call]] = {}

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.setdefault(id(module), []).append(_Call(args[0] if args else kwargs["hidden_states"], args, dict(kwargs)))

    with contextlib.ExitStack() as stack, torch.inference_mode():
        for layer in layers:
            stack.callback(layer.register_forward_pre_hook(note, with_kwargs=True).remove)
        model.encode([samples])
    found = [seen.get(id(layer), []) for layer in layers]
    for number, calls in enumerate(found, start=1):
        if len(calls) != 1:
            raise CaptureError(
                f"Layer {number} of {model.name} was run {len(calls)} times in one pass",
                "Pass a model in the form its library builds it.",
            )
    return [calls[0] for calls in found]


def _taken_apart(
    model: SpeechModel, layer: nn.Module, number: int, call: _Call, frames: int, final: nn.Module | None
) -> Sublayer:
    """Runs one layer and looks at its attention."""
    attention: Any = submodule(layer, model.family.attention)
    _, _, value_name, out_name = model.family.projections
    value, out = getattr(attention, value_name), getattr(attention, out_name)
    edits = head_edits(attention)
    if edits is not None and edits.map == "layer":
        raise MeasureError(
            f"Layer {number} of {model.name} uses another layer's attention map, so it cannot be run by itself",
            "Look at the model before that edit.",
        )
    seen: dict[str, Any] = {}
    norms: list[tuple[nn.LayerNorm, torch.Tensor, torch.Tensor]] = []

    def at_attention(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], given: Any) -> None:
        seen["input"], seen["given"] = args[0] if args else kwargs["hidden_states"], given

    def at_value(module: nn.Module, args: tuple[Any, ...], given: torch.Tensor) -> None:
        seen["values"] = given

    def at_norm(module: Any, args: tuple[Any, ...], given: torch.Tensor) -> None:
        norms.append((module, args[0], given))

    watch: tap.Tap = attention._otoscope_tap
    attended = call.states.shape[1]
    watch.observation = tap.Observation((attended,), (attended,), [WholeMap])
    inside = set(attention.modules())
    with contextlib.ExitStack() as stack, torch.inference_mode():
        stack.callback(setattr, watch, "observation", None)
        stack.callback(attention.register_forward_hook(at_attention, with_kwargs=True).remove)
        stack.callback(value.register_forward_hook(at_value).remove)
        for module in layer.modules():
            if isinstance(module, nn.LayerNorm) and module not in inside:
                stack.callback(module.register_forward_hook(at_norm).remove)
        call.run(layer, call.states)
        maps = watch.observation.results[watch.layer][0][WholeMap.name].float()
        output = _first(seen["given"])[0].float()
        transformed = _transformed(seen.get("values"), out, len(maps), output)
        if edits is not None:
            transformed = transformed * edits.gate.float()[:, None]
        bias = torch.zeros_like(output[0]) if out.bias is None else out.bias.detach().float()
        _check_sum(model, number, maps, transformed, bias, output)
        residual, norm = _residual(model, number, call, seen["input"], output, norms)
    return Sublayer(
        number, frames, maps, transformed, bias, output, residual, norm,
        layer, attention, call, seen["given"], final,
    )  # fmt: skip


def _transformed(values: torch.Tensor | None, out: Any, heads: int, output: torch.Tensor) -> torch.Tensor:
    """Values of each frame, head by head, through the output projection; (T, H, d)."""
    if not heads or values is None:
        return output.new_zeros(len(output), 0, output.shape[-1])
    size = out.in_features // heads
    by_head = values[0].float().view(len(output), -1, size)
    by_head = by_head.repeat_interleave(heads // by_head.shape[1], 1)  # heads may share values
    return torch.einsum("jhk,dhk->jhd", by_head, out.weight.float().view(-1, heads, size))


def _check_sum(
    model: SpeechModel, number: int, maps: torch.Tensor, transformed: torch.Tensor, bias: torch.Tensor, output: Any
) -> None:
    """Refuses attention that is not the sum of what its frames hand on."""
    total = bias.expand_as(output).clone()
    for weights, handed in zip(maps, transformed.unbind(1), strict=True):
        total += weights @ handed
    off = float((total - output).norm() / output.norm().clamp(min=1e-12))
    if not off < _tolerance(model):
        raise MeasureError(
            f"The attention of layer {number} of {model.name} is off by {off:.2g} from what its values and maps sum up "
            "to: heads were replaced by their means, or spans cut after the softmax",
            "Look at the model before these edits.",
        )


def _residual(
    model: SpeechModel,
    number: int,
    call: _Call,
    given: torch.Tensor,
    output: torch.Tensor,
    norms: list[tuple[nn.LayerNorm, torch.Tensor, torch.Tensor]],
) -> tuple[torch.Tensor, nn.LayerNorm | None]:
    """What attention is added to, and the norm that the sum goes through at once (post-LN), found by what passed.

    Post-LN layers attend to the residual stream itself; others to what a norm makes of it.
    """
    after_norm = [entered for _, entered, left in norms if left is given]
    post = given is call.states
    if post or after_norm:
        residual = (given if post else after_norm[0])[0].float()
        summed = residual + output
        tolerance = _tolerance(model) * float(summed.abs().max())
        for norm, entered, _ in norms:
            if entered.shape[1:] == summed.shape and float((entered[0].float() - summed).abs().max()) <= tolerance:
                return residual, norm if post else None
    raise MeasureError(
        f"Layer {number} of {model.name} does not add its attention to a residual stream that a norm takes up, so "
        "there is no telling what a frame keeps of itself",
        "Use a model of another family, or one whose attention is not edited.",
    )


def _tolerance(model: SpeechModel) -> float:
    """How far off, relatively, rounding may leave what a layer computes; half precision has three digits."""
    return 1e-3 if next(model.encoder.parameters()).dtype == torch.float32 else 3e-2


def _first(given: Any) -> torch.Tensor:
    """Hidden states of what a module gives."""
    return given[0] if isinstance(given, tuple) else given
