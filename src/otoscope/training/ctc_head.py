"""Puts a fresh CTC head on a copy of a model's encoder."""

from __future__ import annotations

import copy
from typing import Any

import transformers
from torch import nn

from otoscope.errors import HeadError
from otoscope.models.edits import described
from otoscope.models.families import submodule
from otoscope.models.model import SpeechModel
from otoscope.models.vocabulary import Vocabulary
from otoscope.surgery.applying import record
from otoscope.training.architectures import seeded
from otoscope.treatments.applying import record_of


def refuse_unrecorded(model: SpeechModel) -> None:
    """Makes sure that what is trained can be stored.

    Raises:
        HeadError: the model is a copy that was edited and not treated.
    """
    done, treatments = record(model.source), record_of(model.source)
    kept = () if treatments is None else treatments.edits
    beyond = [edit for edit in (() if done is None else done[0]) if edit not in kept]
    if beyond and (treatments is not None or described(model.family.encoder(model.source), str)):
        raise HeadError(
            f"{model.name} is an edited copy, and nothing that is stored would tell of {beyond[0]}",
            "Treat the original, by a plan or with `otoscope.treatments.treated`, and train that.",
        )


def with_ctc_head(model: SpeechModel, vocabulary: Vocabulary, seed: int) -> nn.Module:
    """A copy of a model in float32 with a fresh CTC head for a vocabulary.

    The encoder is copied with all that was done to it: what it was edited or treated by goes along.

    Args:
        model: left as it is; a head that it has is left behind.
        vocabulary: sets the number of outputs.
        seed: of the head's weights.

    Raises:
        HeadError: the family has no CTC model, or the model was edited and not treated.
    """
    classes = [name for name in (*model.family.with_head,) if name.endswith("ForCTC")]
    if not classes:
        raise HeadError(f"transformers has no CTC model for the family {model.family.name}", "Use another family.")
    refuse_unrecorded(model)
    made_by = getattr(transformers, classes[0])
    encoder: Any = copy.deepcopy(model.family.encoder(model.source)).float()
    config: Any = copy.deepcopy(model.source.config)
    if not isinstance(config, made_by.config_class):  # an encoder whose configuration is a part of the whole one
        config = made_by.config_class(encoder_config=config.to_dict())
    config.vocab_size, config.pad_token_id = len(vocabulary), vocabulary.blank
    made = seeded(seed, lambda: made_by(config))
    path = next(path for path in model.family.encoder_paths if submodule(made, path) is model.family.encoder(made))
    head, _, name = path.rpartition(".")
    setattr(submodule(made, head), name, encoder)
    encoder.config._name_or_path = ""  # what lies beside the origin is not the vocabulary of this head
    # One configuration for both, so that what is set on the model's is set on the encoder's.
    if isinstance(encoder.config, made_by.config_class):
        encoder.config.vocab_size, encoder.config.pad_token_id = len(vocabulary), vocabulary.blank
        made.config = encoder.config
    else:
        made.config.encoder_config = encoder.config
    return made
