"""Applies edits to copies of models, and takes them back from the original."""

import copy
import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from otoscope.errors import SurgeryError, UnknownFamilyError
from otoscope.models import tap
from otoscope.models.edits import described, head_edits
from otoscope.models.families import Family, family_of
from otoscope.models.model import TRAINING_ONLY, SpeechModel, take_weights
from otoscope.models.view import view_of
from otoscope.surgery.attention import check_maps
from otoscope.surgery.edit import RECORD, Edit
from otoscope.surgery.units import Parts


def edited(module: nn.Module, edits: Sequence[Edit], *, share: bool = False, applied: Sequence[Edit] = ()) -> nn.Module:
    """An edited copy of a transformers model, which runs, trains, copies and pickles as the original does.

    Args:
        module: the model, bare or with a head; left as it is.
        edits: what is changed, in order.
        share: the copy shares all weights that no edit sets with the original, so that it costs no memory; training it
            would train the original too. Running statistics of batch norms are the copy's own.
        applied: edits that went through once, in whatever order: they may name what others among them take out.

    Raises:
        SurgeryError: an edit names what is not there, or does not fit; there is no copy then.
        UnknownFamilyError: otoscope does not know the model.
    """
    family = _family(module)
    made = _sharing(module) if share else copy.deepcopy(module)
    if not edits:
        return made
    encoder = family.encoder(made)
    before = record(module)
    original = fingerprint(module) if before is None else before[1]
    parts = Parts(encoder, family)
    done = [] if before is None else list(before[0])
    with torch.no_grad():
        for edit in edits:
            parts.repeated = edit in done or edit in applied
            edit.apply(parts)
            # What an edit sets it sets whatever went before, so that only its last turn counts.
            done = [*(one for one in done if one != edit), edit]
            setattr(encoder, RECORD, (tuple(done), original))
    check_maps(parts)
    return made


def _sharing(module: nn.Module) -> nn.Module:
    """A view whose batch norms keep statistics of their own: a pass in training mode moves them, weights or not."""
    made = view_of(module)
    for one in made.modules():
        if getattr(one, "track_running_stats", False):
            for name, buffer in one.named_buffers(recurse=False):
                setattr(one, name, buffer.clone())
    return made


def apply(model: SpeechModel, edits: Sequence[Edit], *, share: bool = False, name: str | None = None) -> SpeechModel:
    """An edited copy of a model; see `edited`.

    Args:
        model: left as it is.
        edits: what is changed, in order.
        share: see `edited`.
        name: what reports call it; by default the name of the original, with a note that it was edited.
    """
    called = name or (f"{model.name} (edited)" if edits and record(model.source) is None else model.name)
    return SpeechModel(edited(model.source, edits, share=share), model.family, model.frontend, called)


def prepared(model: SpeechModel) -> SpeechModel:
    """A view of a model that many edited copies can be made from: `apply` need not read all its weights each time.

    Its attention goes through otoscope's function already, as that of a copy with an edited head does, so that copies
    differ from it by their edits alone and not by the rounding of another attention function.

    Args:
        model: left as it is; the view shares its weights.
    """
    source = _sharing(model.source)
    encoder: Any = model.family.encoder(source)
    if record(source) is None:
        setattr(encoder, RECORD, ((), fingerprint(model.source)))
    if model.family.own_attention is not None:
        parts = Parts(encoder, model.family)
        for attention in parts.attentions().values():
            tap.by_head(attention)
    elif encoder.config._attn_implementation != tap.NAME:
        encoder.set_attn_implementation(tap.NAME)
    return SpeechModel(source, model.family, model.frontend, model.name)


def undo(model: SpeechModel, original: SpeechModel, edits: Sequence[Edit] | None = None) -> SpeechModel:
    """Takes edits back: a copy of the original with those that are left, bit for bit.

    What training did to the edited model is taken back with them.

    Args:
        model: an edited model.
        original: what it was made from.
        edits: those to take back; None is all.

    Raises:
        SurgeryError: the model was not edited, or not so, or was made from another original.
    """
    found = record(model.source)
    if found is None:
        raise SurgeryError(f"{model.name} was not edited", "Pass a model that `apply` made.")
    done, fingerprint_then = found
    if fingerprint(original.source) != fingerprint_then:
        raise SurgeryError(
            f"{model.name} was not made from {original.name}: their fingerprints differ",
            "Pass the model that the edits were applied to, with the same weights and head.",
        )
    strange = [edit for edit in edits or () if edit not in done]
    if strange:
        raise SurgeryError(
            f"{model.name} has not been through {strange[0]}", f"Its edits are {', '.join(map(str, done))}."
        )
    left = [] if edits is None else [edit for edit in done if edit not in edits]
    made = edited(original.source, left, applied=left)
    return SpeechModel(made, original.family, original.frontend, model.name if left else original.name)


def record(module: nn.Module) -> tuple[tuple[Edit, ...], str] | None:
    """The edits of a transformers model and the fingerprint of its original; None where it was not edited."""
    return getattr(_family(module).encoder(module), RECORD, None)


def fingerprint(module: nn.Module) -> str:
    """SHA-256 over a transformers model's class, weights and edits, its head's among them, as hexadecimal digits."""
    encoder = _family(module).encoder(module)
    digest = hashlib.sha256(repr([type(module).__name__, *described(encoder, str)]).encode())
    state = module.state_dict()
    take_weights(digest, {name: value for name, value in state.items() if not name.endswith(TRAINING_ONLY)})
    return digest.hexdigest()


def gates(module: nn.Module) -> dict[int, torch.Tensor]:
    """The gates of an edited model's heads, by layer, for those layers whose attention was edited.

    They are the tensors that the forward pass multiplies by: with `requires_grad_()` they receive gradients, which is
    the head importance of Michel, Levy and Neubig (2019, equation 2) for gates of one.

    Returns:
        layer -> (heads left,).
    """
    family = _family(module)
    parts = Parts(family.encoder(module), family)
    found = {layer: head_edits(attention) for layer, attention in parts.attentions().items()}
    return {layer: edits.gate for layer, edits in found.items() if edits is not None}


def units(model: SpeechModel) -> tuple[str, ...]:
    """Names of all parts of a model that edits can name, in the order of the signal."""
    return tuple(Parts(model.family.encoder(model.source), model.family).units)


def _family(module: nn.Module) -> Family:
    config: Any = getattr(module, "config", None)
    if not hasattr(config, "model_type"):
        raise UnknownFamilyError(f"{type(module).__name__} is not a transformers model", "Pass a transformers model.")
    return family_of(config.model_type)
