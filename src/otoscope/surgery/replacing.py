"""Replacing the attention of layers by a network on each frame, or by a convolution over frames nearby."""

from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import torch
from torch import nn

from otoscope.errors import SurgeryError
from otoscope.models.absent import POSITION_BIAS, Absent
from otoscope.models.edits import Replacement
from otoscope.models.families import submodule
from otoscope.surgery.causality import CausalConvolution
from otoscope.surgery.edit import Edit, frames, registered
from otoscope.surgery.removal import hand_on_bias
from otoscope.surgery.units import Parts

BY = ("feed-forward", "convolution")


class AttentionStandIn(Replacement):
    """What stands in place of an attention module: it takes and returns what the family's layer expects of that.

    The last map is zero at first, so that a new model begins as if the attention were bypassed; the other weights are
    drawn uniformly from +- 1 / sqrt(inputs), and a stand-in learns as soon as its last map has left zero.

    Args:
        edit: what it was made by.
        biased: position biases are handed on, as WavLM's layers do.
    """

    def __init__(self, edit: "ReplaceAttention", biased: bool) -> None:
        super().__init__()
        self.made_by, self.biased = (edit.by, edit.width, edit.seed), biased

    def change(self, states: torch.Tensor, valid: torch.Tensor | None) -> torch.Tensor:
        """What is added to the residual stream, (B, T, d).

        Args:
            states: (B, T, d).
            valid: (B, T), which frames are no padding; None is all.
        """
        raise NotImplementedError

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, *args: Any, **kwargs: Any
    ) -> tuple[Any, ...]:
        """States (B, T, d), no weights, and the position bias where the family hands it on."""
        given = self.change(hidden_states, valid_frames(attention_mask))
        return (given, None, kwargs.get(POSITION_BIAS)) if self.biased else (given, None)

    def description(self) -> tuple[Any, ...]:
        """See `Replacement`."""
        return ("stand-in", *self.made_by)


class FeedForwardStandIn(AttentionStandIn):
    """A network of one hidden layer on each frame: W2 GELU(W1 x + b1) + b2.

    Source: Zhang, Loweimi, Bell and Renals 2021 (arXiv 2005.13895 and 2011.04906), who take the self-attention out of
    upper layers and leave feed-forward networks.

    Args:
        edit: see `AttentionStandIn`.
        biased: see `AttentionStandIn`.
        width: d.
        hidden: units of the hidden layer.
    """

    def __init__(self, edit: "ReplaceAttention", biased: bool, width: int, hidden: int) -> None:
        super().__init__(edit, biased)
        self.intermediate = nn.utils.skip_init(nn.Linear, width, hidden)
        self.output = nn.utils.skip_init(nn.Linear, hidden, width)

    def change(self, states: torch.Tensor, valid: torch.Tensor | None) -> torch.Tensor:
        """See `AttentionStandIn`."""
        return self.output(nn.functional.gelu(self.intermediate(states)))


class ConvolutionStandIn(AttentionStandIn):
    """A depthwise-separable convolution: W2 (k * GLU(W1 x + b1)) + b2, with padding and what is outside as zeros.

    Source: Wu, Fan, Baevski, Dauphin and Auli 2019 (arXiv 1901.10430, section 3), who put such modules in place of
    self-attention; the kernel k is one for each channel, as in their depthwise convolution, and is not normalised.

    Args:
        edit: see `AttentionStandIn`.
        biased: see `AttentionStandIn`.
        width: d.
    """

    def __init__(self, edit: "ReplaceAttention", biased: bool, width: int) -> None:
        super().__init__(edit, biased)
        kernel = 2 * edit.width + 1
        self.gated = nn.utils.skip_init(nn.Linear, width, 2 * width)
        self.depthwise = nn.utils.skip_init(nn.Conv1d, width, width, kernel, padding=edit.width, groups=width)
        self.output = nn.utils.skip_init(nn.Linear, width, width)

    def change(self, states: torch.Tensor, valid: torch.Tensor | None) -> torch.Tensor:
        """See `AttentionStandIn`."""
        gated = nn.functional.glu(self.gated(states), -1)
        if valid is not None:
            gated = gated.masked_fill(~valid[..., None], 0)
        return self.output(self.depthwise(gated.transpose(1, 2)).transpose(1, 2))


def valid_frames(mask: torch.Tensor | None) -> torch.Tensor | None:
    """Which frames are no padding, (B, T), from an attention mask; None where all are.

    Args:
        mask: in any form in which transformers hands it to an attention module: (B, T), true or 1 for frames;
            (B, 1, rows, T), true for what is attended to, or added to scores; or None.

    Raises:
        SurgeryError: it is none of these.
    """
    if mask is None:
        return None
    if not isinstance(mask, torch.Tensor) or mask.ndim not in (2, 4):
        raise SurgeryError(
            f"An attention mask of the kind {type(mask).__name__} does not tell what is padding",
            "Run the model with the attention function 'sdpa' or 'eager'.",
        )
    if mask.is_floating_point():
        mask = mask > torch.finfo(mask.dtype).min / 2
    return mask.bool() if mask.ndim == 2 else mask.bool().any(-2).any(1)


@registered
@dataclass(frozen=True)
class ReplaceAttention(Edit):
    """Replaces the attention of layers by a module of other weights, which has to be trained.

    At first what stands in its place adds nothing, as a bypass would. It has no more parameters than the attention. The
    layers have no heads and no maps any more; their other parts stay.

    In a WavLM one layer holds the position embedding of all: it is handed on to the next layer that has attention, and
    LayerDrop, which might skip that one, is turned off.

    Attributes:
        units: layers or attention modules.
        by: "feed-forward", a network on each frame alone; "convolution", over frames at most `width` away.
        width: frames on either side, for "convolution".
        seed: of the weights.
    """

    kind = "replace_attention"
    by: str
    width: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        frames(self.width, "The width of a convolution")
        if self.by not in BY:
            raise SurgeryError(f"No module is called {self.by!r}", f"Attention is replaced by {' or '.join(BY)}.")
        if self.by == "convolution" and self.width < 1:
            raise SurgeryError(
                "A convolution of width 0 sees one frame only",
                "Give it a width of 1 or more frames on either side, or replace attention by feed-forward.",
            )
        if isinstance(self.seed, bool) or not isinstance(self.seed, int):
            raise SurgeryError(f"{self.seed!r} is no seed", "Give a whole number.")

    def apply(self, parts: Parts) -> None:
        """See `Edit`."""
        head, _, name = parts.family.attention.rpartition(".")
        found = False
        for layer in sorted({unit.layer or 0 for unit in parts.find(self.units, ("layer", "attention"))}):
            place: Any = submodule(parts.layers[layer - 1], head)
            old = getattr(place, name, None)
            if old is None or isinstance(old, Absent):
                continue
            found = True
            if not isinstance(old, AttentionStandIn) or old.made_by != (self.by, self.width, self.seed):
                new = self._made(parts, layer, old.training)
                hand_on_bias(parts, layer)
                setattr(place, name, new)
        if not found and not parts.repeated:
            raise SurgeryError(f"{self.units!r} names layers without attention", "Name a layer that has attention.")
        parts.reread()

    def _made(self, parts: Parts, layer: int, training: bool) -> AttentionStandIn:
        """The module for a layer, with its first weights."""
        biased, width = parts.family.own_attention == "wavlm", getattr(parts.config, parts.family.size_names[0])
        heads = parts.total_heads
        shared = (getattr(parts.config, "num_key_value_heads", None) or heads) / heads  # below 1 where keys are shared
        new: AttentionStandIn
        if self.by == "feed-forward":
            new = FeedForwardStandIn(self, biased, width, int(width * (1 + shared)))
        else:
            self._check(parts, layer, width, shared)
            new = ConvolutionStandIn(self, biased, width)
        seed = int.from_bytes(blake2b(f"{self.seed}/layer.{layer}".encode(), digest_size=8).digest(), "big") >> 1
        draw = torch.Generator().manual_seed(seed)
        for path, value in new.named_parameters():
            first: Any = submodule(new, path.rpartition(".")[0])
            bound = 0.0 if path.startswith("output.") else first.weight[0].numel() ** -0.5
            value.uniform_(-bound, bound, generator=draw)
        like = next(parts.encoder.parameters())
        return new.to(like.device, like.dtype).train(training)

    def _check(self, parts: Parts, layer: int, width: int, shared: float) -> None:
        """Refuses a convolution that is larger than the attention, or looks ahead where the model may not."""
        # Attention has 2 d^2 (1 + shared) weights and 3 d biases or more, the convolution 3 d^2 + (2 width + 5) d.
        widest = int(width * (2 * shared - 1) - 2) // 2
        if self.width > widest:
            raise SurgeryError(
                f"A convolution over {self.width} frames on either side has more parameters than the attention of width "
                f"{width} in whose place it would stand",
                f"Give a width of {widest} frames at most."
                if widest > 0
                else "Replace attention by feed-forward, since its heads share keys and values.",
            )
        if any(isinstance(one, CausalConvolution) for one in parts.layers[layer - 1].modules()):
            raise SurgeryError(
                f"Layer {layer} was made causal, and a convolution in place of its attention would look ahead",
                "Replace its attention by feed-forward.",
            )
