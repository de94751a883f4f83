"""An edit that keeps the layers of a Conformer from looking ahead."""

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

_DEPTHWISE = "depthwise_conv"


class CausalConvolution(Replacement):
    """A depthwise convolution of (B, C, T) over the current frame and those before it.

    Args:
        original: a convolution over as many frames on either side; its weights are shared.
    """

    def __init__(self, original: nn.Conv1d) -> None:
        super().__init__()
        self.weight, self.bias = original.weight, original.bias
        self.before, self.groups = original.kernel_size[0] - 1, original.groups
        self.handles: list[Any] = []  # copied and pickled with the attention's hook, so that its number stays taken

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Convolved states, (B, C, T)."""
        return F.conv1d(F.pad(states, (self.before, 0)), self.weight, self.bias, groups=self.groups)

    def description(self) -> tuple[Any, ...]:
        """See `Replacement`."""
        return ("causal",)


@registered
@dataclass(frozen=True)
class Causal(Edit):
    """Keeps layers from looking ahead: a frame attends to itself and those before it, and so do convolutions.

    What comes before the layers is left as it is: subsampling, positional convolutions and the normalisation of
    features over the utterance may still look ahead, and so may batch norm in training and a group norm over time.

    Attributes:
        units: layers, such as "layer.*".
    """

    kind = "causal"

    def apply(self, parts: Parts) -> None:
        """See `Edit`."""
        family = parts.family
        for unit in parts.find(self.units, ("layer",)):
            layer = parts.layers[(unit.layer or 0) - 1]
            place: Any = submodule(layer, family.convolution) if family.convolution is not None else None
            old: Any = getattr(place, _DEPTHWISE, None)
            if isinstance(old, CausalConvolution):
                continue
            if not isinstance(old, nn.Conv1d) or old.padding != ((old.kernel_size[0] - 1) // 2,):
                raise SurgeryError(
                    f"Layer {unit.layer} of this {family.name} model has no convolution over as many frames on either "
                    "side",
                    "Conformers can be made causal: wav2vec2-conformer, parakeet.",
                )
            new = CausalConvolution(old)
            new.handles = [parts.attention(unit.layer or 0).register_forward_pre_hook(hide_future, with_kwargs=True)]
            new.train(old.training)
            setattr(place, _DEPTHWISE, new)


def hide_future(
    attention: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The hook before an attention module: its mask, boolean or additive, with all later frames hidden."""
    states: torch.Tensor = args[0] if args else kwargs["hidden_states"]
    frames = states.shape[1]
    seen = torch.ones(frames, frames, dtype=torch.bool, device=states.device).tril()
    mask = kwargs.get("attention_mask")
    if mask is None:
        mask = seen.expand(len(states), 1, -1, -1)
    elif mask.dtype == torch.bool:
        mask = mask & seen
    else:
        mask = mask.masked_fill(~seen, torch.finfo(mask.dtype).min)
    return args, {**kwargs, "attention_mask": mask}
