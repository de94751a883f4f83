"""Treatment: layers are trained through low-rank adapters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from otoscope.errors import TreatmentError
from otoscope.models.edits import ADAPTED, ADAPTER
from otoscope.models.model import SpeechModel
from otoscope.surgery.edit import RECORD as EDITS
from otoscope.surgery.edit import Edit
from otoscope.surgery.low_rank import KINDS, TARGETS, merged_module, target_names
from otoscope.surgery.low_rank import LowRank as LowRankEdit
from otoscope.surgery.units import Parts
from otoscope.treatments.applying import RECORD, TreatmentRecord, record_of, set_record, training_of
from otoscope.treatments.freeze import parameters
from otoscope.treatments.sizes import Sizes
from otoscope.treatments.treatment import Training, Treatment, registered

ATTENTION = TARGETS[:4]


@registered
@dataclass(frozen=True)
class LowRank(Treatment):
    """Puts low-rank adapters beside linear maps, and keeps the units' own weights from being trained.

    The model gives what it gave until the adapters are trained. Source: Hu et al. 2022 (LoRA), by the package PEFT.

    Attributes:
        units: layers, attention modules or feed-forward branches.
        rank: of the change that can be learnt.
        alpha: factor on the change, times the rank.
        targets: which linear maps, with commas between them: "query", "key", "value" and "output" of the attention, and
            "feed_forward", all of the feed-forward branches.
        dropout: probability that an input of an adapter is dropped in training.
        seed: of the adapters' first weights.
    """

    kind = "low-rank"
    rank: int = 8
    alpha: float = 16.0
    targets: str = "query,value"
    dropout: float = 0.0
    seed: int = 0

    def edits(self) -> tuple[Edit, ...]:
        """See `Treatment`."""
        return (LowRankEdit(self.units, self.rank, self.alpha, self.targets, self.dropout, self.seed),)

    def training(self, parts: Parts) -> Training:
        """See `Treatment`."""
        return Training(frozenset(name for name in parameters(parts, self.units) if ADAPTER not in name))

    def check(self, sizes: Sizes) -> None:
        """See `Treatment`."""
        units, wanted = sizes.find(self.units, KINDS), target_names(self.targets)
        attends = {
            unit.layer or 0 for unit in units if unit.kind != "feed_forward" and sizes.heads[(unit.layer or 0) - 1]
        }
        projected = {layer for layer in attends if set(wanted) & set(there_are(layer, sizes))}
        feeds = {unit.name for unit in units if unit.kind != "attention"}
        if not projected and not (feeds and "feed_forward" in wanted):
            raise TreatmentError(
                f"{self.units!r} has no linear map called {' or '.join(wanted)}",
                "Name a unit that has, or other targets.",
            )
        for layer in sorted(projected):
            inner = sizes.heads[layer - 1] * (sizes.width // sizes.total_heads)
            if self.rank > min(inner, sizes.width):
                raise TreatmentError(
                    f"Rank {self.rank} is more than the projections of layer {layer} have, between {sizes.width} and "
                    f"{inner} units",
                    f"Give a rank of {min(inner, sizes.width)} at most.",
                )


def there_are(layer: int, sizes: Sizes) -> tuple[str, ...]:
    """The projections of attention that a layer with heads has: none for a map where the map is not its own."""
    return ATTENTION[2:] if layer in sizes.mapless else ATTENTION


def merged(model: SpeechModel) -> SpeechModel:
    """A copy of a treated model whose low-rank adapters are folded into the weights that they stand beside.

    It gives what the model gives when it is not trained, to rounding, and is trained as a whole. Where nothing else was
    done to it, it is stored by `save_pretrained` as any model is.

    Args:
        model: left as it is.

    Raises:
        TreatmentError: the model has no adapters.
    """
    record = record_of(model.source)
    if record is None or not any(isinstance(one, LowRank) for one in record.treatments):
        raise TreatmentError(f"{model.name} has no low-rank adapters", "Pass a model that has.")
    made = merged_module(model.source)
    encoder: Any = model.family.encoder(made)
    left = tuple(one for one in record.treatments if not isinstance(one, LowRank))
    if left:
        edits = tuple(one for one in getattr(encoder, EDITS)[0] if not isinstance(one, LowRankEdit))
        setattr(encoder, EDITS, (edits, record.fingerprint))
        set_record(made, TreatmentRecord(left, record.fingerprint, record.name))
    else:
        delattr(encoder, EDITS)
        delattr(encoder, RECORD)
    opened = {name.replace(f".{ADAPTED}", "") for name in training_of(model.source).frozen} - training_of(made).frozen
    for name, parameter in made.named_parameters():
        if name in opened:  # a training may have kept it from being trained
            parameter.requires_grad_(True)
    return SpeechModel(made, model.family, model.frontend, model.name)
