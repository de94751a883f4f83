"""Other weights for a model's units: of a checkpoint, or of fresh draws; read once, set in many variants."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from otoscope.errors import EvaluationError, SurgeryError
from otoscope.models.loading import load
from otoscope.models.model import SpeechModel, take_weights
from otoscope.surgery.reset import Reset, checkpoint_state, fresh_state, unit_values
from otoscope.surgery.units import Parts, Unit

FEWEST_DRAWS = 3

Checkpoint = str | Path | SpeechModel | Mapping[str, torch.Tensor]


@dataclass(frozen=True, eq=False)
class SetWeights(Reset):
    """A reset to weights in memory that are told by what they are, so that runs with it can be kept and gone on with.

    Attributes:
        told: what says which weights these are, as plain values.
    """

    told: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """See `Edit`; for comparison alone: the weights themselves are not among the values."""
        return {"edit": self.kind, "units": self.units, **self.told}


@dataclass(frozen=True)
class Weights:
    """Weights for all units of a model.

    Attributes:
        state: by path within the encoder.
        called: what errors call them, such as "the checkpoint initial".
        told: what says which weights these are.
    """

    state: Mapping[str, torch.Tensor]
    called: str
    told: Mapping[str, Any]

    def edit(self, units: str) -> SetWeights:
        """Sets units to these weights."""
        return SetWeights(units, self.state, self.told)

    def changes(self, parts: Parts, unit: Unit) -> bool:
        """Whether these weights differ from a unit's own in any bit.

        Raises:
            SurgeryError: a tensor is absent here, or of another shape.
        """
        own = parts.tensors(unit)
        values = unit_values(parts, unit, self.state, self.called)
        return any(not torch.equal(own[path], value) for path, value in values.items())


def weights_of(parts: Parts, checkpoint: Checkpoint, name: str) -> Weights:
    """Weights of a checkpoint.

    Args:
        parts: the encoder that they are for.
        checkpoint: a folder, a name that `load` knows, a model or a state dict.
        name: what errors call it, such as "initial".

    Raises:
        SurgeryError: the checkpoint is of another family, or does not fit.
        CheckpointError: it cannot be loaded.
    """
    model = load(checkpoint) if isinstance(checkpoint, str | Path) else checkpoint
    state = checkpoint_state(model, parts)
    digest = hashlib.sha256()
    take_weights(digest, dict(state))
    return Weights(state, f"the checkpoint {name!r}", {"checkpoint": digest.hexdigest()})


def initial_weights(parts: Parts, initial: Checkpoint | None) -> Weights:
    """Weights at initialisation.

    Raises:
        EvaluationError: there is no such checkpoint.
        SurgeryError: see `weights_of`.
        CheckpointError: see `weights_of`.
    """
    if initial is None:
        raise EvaluationError(
            "Nothing is known of the weights that this model had at initialisation",
            "Name its initial checkpoint: `otoscope pretrain` and `otoscope finetune` keep one in the folder 'initial' of "
            "their result, and another model's is saved before its first step, or built anew from its configuration under "
            "the seed of its training. Without one, use the mode re-randomise.",
        )
    return weights_of(parts, initial, "initial")


def drawn_weights(parts: Parts, draws: int, seed: int) -> list[Weights]:
    """Fresh draws from the law by which the library initialises a model, each of a seed that follows from `seed`.

    All units of a draw are of one model, so that what is drawn for a unit is what is drawn for it when all are.

    Raises:
        EvaluationError: there are fewer than three draws, which show no spread.
    """
    if draws < FEWEST_DRAWS:
        raise EvaluationError(f"{draws} draw(s) show no spread", f"Draw {FEWEST_DRAWS} times or more.")
    found = []
    for k in range(draws):
        own = int.from_bytes(hashlib.blake2b(f"{seed}/draw/{k}".encode(), digest_size=4).digest(), "big")
        found.append(Weights(fresh_state(parts, own), f"draw {k + 1}", {"drawn_with_seed": own}))
    return found


def refuse_the_same(parts: Parts, weights: Weights) -> None:
    """Refuses weights that are the model's own throughout: each of its layers would look as if it were not needed.

    Raises:
        SurgeryError: no layer would change.
    """
    if not any(weights.changes(parts, unit) for unit in parts.find("layer.*")):
        called = weights.called
        raise SurgeryError(
            f"{called[0].upper()}{called[1:]} has the weights of the model itself: a reset would change none of its layers",
            "Name the checkpoint of another step.",
        )
