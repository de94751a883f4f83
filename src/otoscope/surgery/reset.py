"""Edits of weights: units set to those of a checkpoint, or drawn anew from the law that they were initialised with."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from otoscope.errors import SurgeryError
from otoscope.models.absent import SHARED_BIAS
from otoscope.models.edits import ADAPTED, ADAPTER, head_names
from otoscope.models.loading import load
from otoscope.models.model import TRAINING_ONLY, SpeechModel
from otoscope.surgery.edit import RECORD, Edit, registered
from otoscope.surgery.heads import head_axes, of_heads, shares_keys
from otoscope.surgery.units import Parts, Unit

BATCH_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")  # what a batch norm holds beside its weights


@registered
@dataclass(frozen=True, eq=False)
class Reset(Edit):
    """Sets units to their weights in a checkpoint: at initialisation, at any step, or before fine-tuning.

    All tensors of a unit are set, statistics of batch norms and both factors of a weight norm among them (Zhang, Bengio
    and Singer 2022: re-initialisation and rewinding).

    Attributes:
        units: what is set; for a head, its rows and columns of the projections.
        checkpoint: a folder, a model, or a state dict of the encoder or of a model around it. Only an edit with a
            folder can be stored.
    """

    kind = "reset"
    structural = False
    checkpoint: str | Path | SpeechModel | Mapping[str, torch.Tensor]

    def __post_init__(self) -> None:
        if isinstance(self.checkpoint, Path):
            object.__setattr__(self, "checkpoint", str(self.checkpoint))

    def __getstate__(self) -> dict[str, Any]:
        # A model cannot be pickled for all that it is; its weights can.
        kept = self.checkpoint
        return vars(self) | {"checkpoint": _encoder_state(kept) if isinstance(kept, SpeechModel) else kept}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Reset) or self.units != other.units:
            return False
        mine, theirs = self.checkpoint, other.checkpoint
        return mine == theirs if isinstance(mine, str) and isinstance(theirs, str) else mine is theirs

    def __hash__(self) -> int:
        return hash((self.units, self.checkpoint if isinstance(self.checkpoint, str) else id(self.checkpoint)))

    def apply(self, parts: Parts) -> None:
        """See `Edit`."""
        values = checkpoint_state(self.checkpoint, parts)
        for unit in parts.find(self.units):
            for path, value in unit_values(parts, unit, values, _called(self.checkpoint)).items():
                parts.replace(path, value)

    def to_dict(self) -> dict[str, Any]:
        """See `Edit`.

        Raises:
            SurgeryError: the checkpoint is in memory only.
        """
        if not isinstance(self.checkpoint, str):
            raise SurgeryError(
                f"A reset of {self.units} to weights in memory cannot be stored", "Name the folder of the checkpoint."
            )
        return super().to_dict()


@registered
@dataclass(frozen=True)
class Redraw(Edit):
    """Draws the weights of units anew from the law by which the library initialises them (re-randomisation).

    A model is built from the configuration under the seed, and the units are taken from it: the library's own
    initialiser does nothing on a model that was loaded. Tensors whose law is a constant, such as biases of zero, may
    come out as they were.

    Attributes:
        units: what is drawn; for a head, its rows and columns of the projections.
        seed: of the draw.
    """

    kind = "redraw"
    structural = False
    seed: int = 0

    def apply(self, parts: Parts) -> None:
        """See `Edit`."""
        units = parts.find(self.units)
        values = fresh_state(parts, self.seed)
        for unit in units:
            written = unit_values(parts, unit, values, "the draw")
            before = parts.encoder.state_dict()
            if all(torch.equal(before[path], value) for path, value in written.items()) and not self._again(parts):
                raise SurgeryError(
                    f"Drawing {unit.name} anew with seed {self.seed} changes none of its tensors",
                    "Draw a unit whose law is not constant, or with a seed that the model was not made with.",
                )
            for path, value in written.items():
                parts.replace(path, value)

    def _again(self, parts: Parts) -> bool:
        """Whether the model has been through this very edit, which then has nothing left to change."""
        return self in getattr(parts.encoder, RECORD, ((), ""))[0]


def _encoder_state(model: SpeechModel) -> Mapping[str, torch.Tensor]:
    return model.family.encoder(model.source).state_dict()


def _called(checkpoint: str | Path | SpeechModel | Mapping[str, torch.Tensor]) -> str:
    if isinstance(checkpoint, str | Path):
        return f"the checkpoint {checkpoint}"
    return f"the checkpoint {checkpoint.name}" if isinstance(checkpoint, SpeechModel) else "the state dict"


def checkpoint_state(
    checkpoint: str | Path | SpeechModel | Mapping[str, torch.Tensor], parts: Parts
) -> Mapping[str, torch.Tensor]:
    """Tensors of a checkpoint by their path within the encoder.

    Args:
        checkpoint: see `Reset`.
        parts: the encoder that they are for.

    Raises:
        SurgeryError: the checkpoint is of another family, or is no state dict of such an encoder.
        CheckpointError: the folder cannot be loaded.
    """
    if isinstance(checkpoint, str | Path):
        checkpoint = load(Path(checkpoint))
    if isinstance(checkpoint, SpeechModel):
        if checkpoint.family != parts.family:
            raise SurgeryError(
                f"The checkpoint {checkpoint.name} is of the family {checkpoint.family.name}, and the model of "
                f"{parts.family.name}",
                "Reset to a checkpoint of the same model.",
            )
        return _encoder_state(checkpoint)
    first = next(name for name in parts.encoder.state_dict() if not name.endswith(TRAINING_ONLY))
    for prefix in ("", *(f"{path}." for path in parts.family.encoder_paths if path)):
        if prefix + first in checkpoint:
            return {name.removeprefix(prefix): value for name, value in checkpoint.items() if name.startswith(prefix)}
    raise SurgeryError(
        f"The state dict has no {first!r}, with or without the prefix of a model around the encoder",
        "Pass the state dict of a model of the same class.",
    )


def fresh_state(parts: Parts, seed: int) -> Mapping[str, torch.Tensor]:
    """Tensors of an encoder that the library builds and initialises under a seed, on the CPU."""
    config = copy.deepcopy(parts.config)
    config._attn_implementation = "eager"
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.manual_seed(seed)
        return type(parts.encoder)(config).state_dict()


def unit_values(parts: Parts, unit: Unit, values: Mapping[str, torch.Tensor], called: str) -> dict[str, torch.Tensor]:
    """New values of a unit's tensors, by path; of heads that were cut, there are none.

    Args:
        parts: the encoder that is changed.
        unit: the unit.
        values: tensors of the original's shapes by path.
        called: what errors call them.

    Raises:
        SurgeryError: a tensor is absent, or of another shape; heads share their keys and values.
    """
    if unit.head is not None and unit.layer is not None:
        head_axes(parts, unit.layer)  # refuses heads that have no tensors of their own
    new: dict[str, torch.Tensor] = {}
    for path, old in parts.tensors(unit).items():
        if path not in values and path.endswith(f".{SHARED_BIAS}.weight"):
            continue  # the original keeps it in a layer that was taken out
        heads = _heads_along(parts, path)
        if ADAPTER in path and path not in values:
            # What an adapter learnt is taken back: its product is zero where either factor is.
            if heads is None or unit.head is None:
                learnt = unit.head is None and ".lora_B." in path
                new |= {path: torch.zeros_like(old)} if learnt else {}
                continue
            mine = of_heads(old, heads[0], len(heads[1]), [heads[1].index(unit.head)])
            new[path] = old.detach().index_fill(heads[0], mine, 0)
            continue
        source = path if path in values else path.replace(f".{ADAPTED}.", ".")
        if source not in values:
            raise SurgeryError(
                f"{called[0].upper()}{called[1:]} has no {path!r}, which {unit.name} consists of",
                "Save the checkpoint with its buffers: statistics of batch norms are set too."
                if path.rpartition(".")[2] in BATCH_STATISTICS
                else "Use a checkpoint of the same model.",
            )
        # A copy, so that later training of either model does not reach the other.
        value = values[source].detach().to(old, copy=True)
        if heads is not None and value.ndim == old.ndim and value.shape[heads[0]] % parts.total_heads == 0:
            axis, kept = heads
            value = value.index_select(axis, of_heads(value, axis, parts.total_heads, list(kept)))
        if value.shape != old.shape:
            raise SurgeryError(
                f"{path!r} has the shape {tuple(values[source].shape)} in {called}, which does not fit {unit.name}",
                "Use a checkpoint of the same sizes.",
            )
        if unit.head is not None:
            if heads is None:
                continue
            mine = of_heads(value, axis, len(kept), [kept.index(unit.head)])
            value = old.detach().index_copy(axis, mine, value.index_select(axis, mine))
        new[path] = value
    return new


def _heads_along(parts: Parts, path: str) -> tuple[int, tuple[int, ...]] | None:
    """The axis of a tensor along which heads lie, and the heads that are left; None where there is no such axis."""
    for layer, attention in parts.attentions().items():
        place = f"{parts.family.layers}.{layer - 1}.{parts.family.attention}."
        if path.startswith(place):
            if shares_keys(attention, parts.family):
                return None
            axis = head_axes(parts, layer).get(path.removeprefix(place))
            return None if axis is None else (axis, head_names(attention, parts.total_heads))
    return None
