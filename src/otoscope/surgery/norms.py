"""Edits of the norms in convolution modules: group norm, or none, in place of batch norm."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from otoscope.errors import SurgeryError
from otoscope.models.edits import Replacement
from otoscope.models.families import submodule
from otoscope.surgery.edit import Edit, registered
from otoscope.surgery.units import Parts

OVER = ("time", "frame")


class GroupNormOverValid(Replacement):
    """Group norm of (B, C, T) whose statistics leave padding out.

    y = weight (x - mean) / sqrt(var + eps) + bias, with mean and biased variance over the channels of a group and the
    valid frames of an utterance ("time"; Wu and He 2018), or over the channels of a group within one frame ("frame"),
    which sees neither the future nor padding.

    Args:
        channels: C.
        groups: groups of adjacent channels.
        over: "time" or "frame".
        eps: is added to the variance.
        like: a tensor for device and type.
    """

    def __init__(self, channels: int, groups: int, over: str, eps: float, like: torch.Tensor) -> None:
        super().__init__()
        self.groups, self.over, self.eps = groups, over, eps
        self.weight, self.bias = nn.Parameter(like.new_ones(channels)), nn.Parameter(like.new_zeros(channels))
        self._valid: torch.Tensor | None = None
        self.handles: list[Any] = []  # copied and pickled with the hooks, so that their numbers stay taken

    def hook(self, layer: nn.Module) -> None:
        """Reads the layer's attention mask, which says what is padding; the convolution module need not get one."""
        self.handles = [
            layer.register_forward_pre_hook(self.note_padding, with_kwargs=True),
            layer.register_forward_hook(self.forget_padding),
        ]

    def note_padding(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """The hook before the layer: frames that some frame attends to, (B, 1, T)."""
        mask: torch.Tensor | None = kwargs.get("attention_mask")
        if mask is not None:
            mask = (mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2).any(-2)
        self._valid = mask

    def forget_padding(self, *passed: object) -> None:
        """The hook after the layer."""
        self._valid = None

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Normed states, (B, C, T); those of padding are of no use."""
        valid = self._valid
        if valid is not None and (len(valid), valid.shape[-1]) != (len(states), states.shape[-1]):
            if len(states) > 1:
                raise SurgeryError(
                    f"A group norm is handed {len(states)} utterances of {states.shape[-1]} frames, and its layer's mask "
                    f"is of {len(valid)} of {valid.shape[-1]}, so what is padding is not known",
                    "Run the layer as a whole, with the attention mask of the batch.",
                )
            valid = None  # the utterance is run without the others of its batch, at its own length
        if self.over == "time" and valid is None:
            return F.group_norm(states, self.groups, self.weight, self.bias, self.eps)
        grouped = states.unflatten(1, (self.groups, -1))  # (B, G, C / G, T)
        if self.over == "frame":
            variance, mean = torch.var_mean(grouped, 2, correction=0, keepdim=True)
        else:
            assert valid is not None
            counted = valid[:, None].to(states.dtype)
            number = counted.sum(-1, keepdim=True) * grouped.shape[2]
            mean = (grouped * counted).sum((2, 3), keepdim=True) / number
            variance = ((grouped - mean).square() * counted).sum((2, 3), keepdim=True) / number
        normed = ((grouped - mean) * torch.rsqrt(variance + self.eps)).flatten(1, 2)
        return normed * self.weight[:, None] + self.bias[:, None]

    def description(self) -> tuple[Any, ...]:
        """See `Replacement`."""
        return ("group-norm", self.groups, self.over, self.eps)


class ChannelAffine(Replacement):
    """A factor and a shift of every channel of (B, C, T): what is left of a batch norm without its statistics.

    Args:
        channels: C.
        like: a tensor for device and type.
    """

    def __init__(self, channels: int, like: torch.Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(like.new_ones(channels)), nn.Parameter(like.new_zeros(channels))

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """States with factor and shift, (B, C, T)."""
        return states * self.weight[:, None] + self.bias[:, None]

    def description(self) -> tuple[Any, ...]:
        """See `Replacement`."""
        return ("no-norm",)


@registered
@dataclass(frozen=True)
class GroupNorm(Edit):
    """Replaces the batch norms of convolution modules by group norms that begin near them.

    A batch norm in use is y = a (x - m) / s + b, with running mean m, deviation s = sqrt(running variance + eps), factor
    a and shift b of each channel. A group norm divides by statistics of the utterance. Where these are those that the
    running ones let expect, M = mean of m over the group and V = mean of (s^2 - eps + m^2) - M^2, it gives the same with
    a' = a sqrt(V + eps) / s and b' = b + a (M - m) / s, which are its factor and shift here. Within one frame the mean
    over a group of n channels varies too, and V is smaller by the mean of (s^2 - eps) / n if channels are uncorrelated.
    This start is otoscope's own definition.

    Attributes:
        units: layers or convolution modules, such as "layer.*".
        groups: groups of adjacent channels.
        over: what statistics are over, see `GroupNormOverValid`: "time", or "frame" for models that may not look ahead.
    """

    kind = "group_norm"
    groups: int = 8
    over: str = "time"

    def __post_init__(self) -> None:
        if isinstance(self.groups, bool) or not isinstance(self.groups, int) or self.groups < 1:
            raise SurgeryError(f"{self.groups!r} is no number of groups", "Give a whole number, one or more.")
        if self.over not in OVER:
            raise SurgeryError(f"A group norm has no statistics over {self.over!r}", "They are over time or frame.")

    def apply(self, parts: Parts) -> None:
        """See `Edit`."""
        for layer, place, name in _norms(parts, self.units):
            old: Any = submodule(place, name)
            if isinstance(old, GroupNormOverValid) and (old.groups, old.over) == (self.groups, self.over):
                continue
            mean, variance, factor, shift = _statistics(old, layer)
            channels = len(mean)
            each = channels // self.groups
            if channels % self.groups or (self.over == "frame" and each == 1):
                fit = [k for k in range(1, channels + 1) if channels % k == 0 and (self.over == "time" or k < channels)]
                raise SurgeryError(
                    f"The {channels} channels of the convolution module of layer {layer} cannot be normed in "
                    f"{self.groups} groups over {self.over}",
                    f"Give one of these numbers of groups: {', '.join(map(str, fit))}.",
                )
            means, variances = mean.view(self.groups, each), variance.view(self.groups, each)
            centre = means.mean(1, keepdim=True)
            spread = (variances + means.square()).mean(1, keepdim=True) - centre.square()
            if self.over == "frame":
                spread = spread - variances.mean(1, keepdim=True) / each
            deviation = (variance + old.eps).sqrt()
            new = GroupNormOverValid(channels, self.groups, self.over, old.eps, mean)
            new.weight.copy_(factor * (spread + old.eps).sqrt().expand(-1, each).reshape(-1) / deviation)
            new.bias.copy_(shift + factor * (centre.expand(-1, each).reshape(-1) - mean) / deviation)
            new.train(old.training)
            new.hook(parts.layers[layer - 1])
            setattr(place, name, new)


@registered
@dataclass(frozen=True)
class NoNorm(Edit):
    """Replaces the batch norms of convolution modules by the factor and shift that they are when not training.

    What the model gives in evaluation stays as it was; in training no statistics are taken any more.

    Attributes:
        units: layers or convolution modules, such as "layer.*".
    """

    kind = "no_norm"

    def apply(self, parts: Parts) -> None:
        """See `Edit`."""
        for layer, place, name in _norms(parts, self.units):
            old: Any = submodule(place, name)
            if isinstance(old, ChannelAffine):
                continue
            mean, variance, factor, shift = _statistics(old, layer)
            new = ChannelAffine(len(mean), mean)
            new.weight.copy_(factor / (variance + old.eps).sqrt())
            new.bias.copy_(shift - new.weight * mean)
            new.train(old.training)
            setattr(place, name, new)


def _norms(parts: Parts, units: str) -> list[tuple[int, nn.Module, str]]:
    """The batch norms, or what stands in their place, of named layers: the layer, the convolution module, the name.

    Raises:
        SurgeryError: there is no convolution module, or no batch norm in it.
    """
    family = parts.family
    layers = sorted({unit.layer or 0 for unit in parts.find(units, ("layer", "convolution"))})
    if family.convolution is None:
        raise SurgeryError(
            f"The layers of a {family.name} model have no convolution module, and so no batch norm to replace",
            "Norms are replaced in Conformers: wav2vec2-conformer, parakeet.",
        )
    found = []
    for layer in layers:
        place: Any = submodule(parts.layers[layer - 1], family.convolution)
        names = [
            key
            for key, one in place.named_children()
            if isinstance(one, nn.BatchNorm1d | GroupNormOverValid | ChannelAffine)
        ]
        if not names:
            raise SurgeryError(
                f"The convolution module of layer {layer} of this {family.name} model has no batch norm",
                "Norms are replaced in Conformers with batch norm: wav2vec2-conformer, parakeet.",
            )
        found.append((layer, place, names[0]))
    return found


def _statistics(norm: nn.Module, layer: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Running mean and variance, factor and shift of a batch norm, (C,) each.

    Raises:
        SurgeryError: it was replaced already, or keeps no running statistics, or they are not finite.
    """
    if not isinstance(norm, nn.BatchNorm1d):
        raise SurgeryError(
            f"The batch norm of layer {layer} was replaced already, and its statistics are gone",
            "Apply the edit to the original model.",
        )
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or variance is None:
        raise SurgeryError(
            f"The batch norm of layer {layer} keeps no running statistics (track_running_stats=False), which the new "
            "norm's start is taken from",
            "Use a checkpoint whose batch norms keep them.",
        )
    if not bool(torch.isfinite(mean).all() and torch.isfinite(variance).all()):
        raise SurgeryError(
            f"The running statistics of the batch norm of layer {layer} are not finite", "Use an intact checkpoint."
        )
    factor = torch.ones_like(mean) if norm.weight is None else norm.weight.detach()
    shift = torch.zeros_like(mean) if norm.bias is None else norm.bias.detach()
    return mean, variance, factor, shift
