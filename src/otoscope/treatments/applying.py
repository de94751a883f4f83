"""Treats copies of models, and takes treatments back from the original."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from otoscope.errors import SurgeryError, TreatmentError
from otoscope.models.families import Family, family_of
from otoscope.models.model import SpeechModel
from otoscope.surgery.applying import edited, fingerprint
from otoscope.surgery.edit import Edit
from otoscope.surgery.units import Parts
from otoscope.treatments.sizes import Sizes
from otoscope.treatments.treatment import Training, Treatment, fit

RECORD = "otoscope_treatments"  # on a treated encoder


@dataclass(frozen=True)
class TreatmentRecord:
    """What a treated model keeps of its treatment.

    Attributes:
        treatments: in order.
        fingerprint: of the original, see `surgery.fingerprint`.
        name: of the original.
    """

    treatments: tuple[Treatment, ...]
    fingerprint: str
    name: str

    @property
    def edits(self) -> tuple[Edit, ...]:
        """The edits that the treatments stand for, in order."""
        return tuple(edit for treatment in self.treatments for edit in treatment.edits())

    def __deepcopy__(self, memo: dict[int, Any]) -> TreatmentRecord:
        return self  # nothing of it can change


def treated(model: SpeechModel, treatments: Sequence[Treatment], name: str | None = None) -> SpeechModel:
    """A treated copy of a model.

    Args:
        model: left as it is; it may have been treated before.
        treatments: in order; none give a copy that is equal bit for bit.
        name: what reports call it; by default the name of the original, with a note that it was treated.

    Raises:
        SurgeryError: a treatment names what the model does not have.
        TreatmentError: a treatment does not fit the model, or what was done to it before.
    """
    first = bool(treatments) and record_of(model.source) is None
    called = name or (f"{model.name} (treated)" if first else model.name)
    made = treated_module(model.source, treatments, model.name)
    return SpeechModel(made, model.family, model.frontend, called)


def treated_module(
    module: nn.Module, treatments: Sequence[Treatment], name: str, *, applied: bool = False
) -> nn.Module:
    """A treated copy of a transformers model, which runs, trains, copies and pickles as the original does.

    Args:
        module: left as it is.
        treatments: in order.
        name: of the original, for the record.
        applied: the treatments went through together once, in whatever order: they may name what others take out.

    Raises:
        SurgeryError: a treatment names what the model does not have.
        TreatmentError: a treatment does not fit the model, or what was done to it before.
    """
    family = _family(module)
    before = record_of(module)
    done = () if before is None else before.treatments
    fit(treatments, Sizes.of_parts(Parts(family.encoder(module), family)), treatments if applied else done)
    edits = [edit for treatment in treatments for edit in treatment.edits()]
    made = edited(module, edits, applied=edits if applied else ())
    if treatments:
        original = fingerprint(module) if before is None else before.fingerprint
        kept = last_turns((*done, *treatments))
        set_record(made, TreatmentRecord(kept, original, name if before is None else before.name))
        new = [one for one in treatments if one not in done]
        _check_training(new, Parts(family.encoder(module), family), Parts(family.encoder(made), family))
    return made


def last_turns(treatments: Sequence[Treatment]) -> tuple[Treatment, ...]:
    """Every treatment once, in the order of their last turns: what one sets it sets whatever went before."""
    return tuple(dict.fromkeys(reversed(treatments)))[::-1]


def _check_training(treatments: Sequence[Treatment], before: Parts, after: Parts) -> None:
    """Makes sure that there are, or were before others took them out, the parameters that treatments name.

    Raises:
        SurgeryError: there never were.
    """
    for treatment in treatments:
        try:
            treatment.training(after)
        except SurgeryError:
            treatment.training(before)


def treated_config(
    config: Any, treatments: Sequence[Treatment], seed: int = 0, model_class: type[nn.Module] | None = None
) -> nn.Module:
    """A model to be trained from scratch: built from a configuration with random weights, then treated.

    Args:
        config: transformers' configuration of the model before its treatment.
        treatments: in order.
        seed: of the weights.
        model_class: the class that is built; by default the one that the configuration names, else the bare encoder.

    Raises:
        UnknownFamilyError: otoscope has no table for this kind of configuration.
        SurgeryError: a treatment names what the model does not have.
        TreatmentError: a treatment does not fit the model, or what was done to it before.
    """
    family = family_of(config.model_type)
    wanted = (getattr(config, "architectures", None) or [family.bare])[0]
    known = wanted if wanted in (*family.with_head, family.bare) else family.bare
    build = model_class if model_class is not None else family.model_class(known)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = build(copy.deepcopy(config))
    return treated_module(module, treatments, f"{build.__name__} with random weights of seed {seed}")


def undone(model: SpeechModel, original: SpeechModel, treatments: Sequence[Treatment] | None = None) -> SpeechModel:
    """Takes treatments back: a copy of the original with those that are left, bit for bit.

    What training did to the treated model is taken back with them.

    Args:
        model: a treated model.
        original: what it was made from.
        treatments: those to take back; None is all.

    Raises:
        TreatmentError: the model was not treated, or not so, or was made from another original.
    """
    record = record_of(model.source)
    if record is None:
        raise TreatmentError(f"{model.name} was not treated", "Pass a treated model.")
    if fingerprint(original.source) != record.fingerprint:
        raise TreatmentError(
            f"{model.name} was not made from {original.name}: their fingerprints differ",
            f"Pass the model that was treated, {record.name}, with the same weights and head.",
        )
    strange = [one for one in treatments or () if one not in record.treatments]
    if strange:
        raise TreatmentError(
            f"{model.name} has not been through the treatment: {strange[0]}",
            f"It has been through: {'; '.join(map(str, record.treatments))}.",
        )
    left = [] if treatments is None else [one for one in record.treatments if one not in treatments]
    made = treated_module(original.source, left, original.name, applied=True)
    return SpeechModel(made, original.family, original.frontend, model.name if left else original.name)


def record_of(module: nn.Module) -> TreatmentRecord | None:
    """The treatments of a transformers model and the fingerprint of its original; None where it was not treated."""
    return getattr(_family(module).encoder(module), RECORD, None)


def set_record(module: nn.Module, record: TreatmentRecord) -> None:
    """Puts the record of its treatment on a transformers model."""
    setattr(_family(module).encoder(module), RECORD, record)


def training_of(module: nn.Module) -> Training:
    """What the treatments of a transformers model ask of its training.

    Returns:
        Names of parameters as in `module.named_parameters()`; nothing for a model that was not treated.
    """
    family, record = _family(module), record_of(module)
    encoder = family.encoder(module)
    asked = Training()
    if record is None:
        return asked
    parts = Parts(encoder, family)
    parts.repeated = True  # what was named may have been taken out since
    for treatment in record.treatments:
        asked = asked.then(treatment.training(parts))
    within = {id(one): name for name, one in module.named_parameters()}
    names = {path: within[id(one)] for path, one in encoder.named_parameters()}
    frozen = frozenset(names[path] for path in asked.frozen)
    return Training(frozen, {names[path]: factor for path, factor in asked.rates.items()})


def _family(module: nn.Module) -> Family:
    config: Any = getattr(module, "config", None)
    if not hasattr(config, "model_type"):
        raise TreatmentError(f"{type(module).__name__} is not a transformers model", "Pass a transformers model.")
    return family_of(config.model_type)
