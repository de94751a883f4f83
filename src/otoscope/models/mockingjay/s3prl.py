"""Reads Mockingjay checkpoints of s3prl, which are pickles, without running what a pickle may hold."""

from __future__ import annotations

import argparse
import collections
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from otoscope.errors import CheckpointError
from otoscope.models.mockingjay.configuration import MockingjayConfig
from otoscope.models.mockingjay.modelling import MockingjayForPreTraining, MockingjayModel

# Beside tensors and plain values: how s3prl keeps its command line and its optimiser's state.
ALLOWED = (argparse.Namespace, collections.OrderedDict, collections.defaultdict, dict, list)

_ENCODERS = ("Transformer", "Mockingjay")
_SECTIONS = ("transformer", "mockingjay")
_HEAD = "SpecHead"
# Names of s3prl's modules, which are those of BERT, and ours.
_RENAMED = (
    (r"input_representations\.spec_transform\.", "input_projection."),
    (r"input_representations\.LayerNorm\.", "layer_norm."),
    (r"encoder\.layer\.(\d+)\.attention\.self\.(query|key|value)\.", r"layers.\1.attention.\2."),
    (r"encoder\.layer\.(\d+)\.attention\.output\.dense\.", r"layers.\1.attention.out_proj."),
    (r"encoder\.layer\.(\d+)\.attention\.output\.LayerNorm\.", r"layers.\1.layer_norm."),
    (r"encoder\.layer\.(\d+)\.intermediate\.dense\.", r"layers.\1.feed_forward.intermediate_dense."),
    (r"encoder\.layer\.(\d+)\.output\.dense\.", r"layers.\1.feed_forward.output_dense."),
    (r"encoder\.layer\.(\d+)\.output\.LayerNorm\.", r"layers.\1.final_layer_norm."),
    (r"^LayerNorm\.", "layer_norm."),
)
# How PyTorch's unpickler says that a file asks for something else.
_FORBIDDEN = r"(?i:unsupported (?:global: )?)GLOBAL ([\w.]+)"
_PROJECTIONS = {"query": "q_proj", "key": "k_proj", "value": "v_proj"}


def read_s3prl(place: Path) -> MockingjayModel | MockingjayForPreTraining:
    """The model in a checkpoint of s3prl, with its head where the file has one.

    The file is read with PyTorch's restricted unpickler: tensors, plain values and the few classes of `ALLOWED`; a file
    that names anything else is refused before anything of it is run.

    Args:
        place: the file, such as states-500000.ckpt.

    Raises:
        CheckpointError: the file is no such checkpoint, names something that is not allowed, lacks weights, or is of a
            variant of the model that otoscope does not compute.
    """
    states = _states(place)
    name = next((name for name in _ENCODERS if isinstance(states.get(name), Mapping)), None)
    if name is None:
        raise CheckpointError(
            f"{place} holds no encoder under {' or '.join(_ENCODERS)}; it holds {', '.join(map(str, states)) or 'nothing'}",
            "Name a checkpoint that s3prl wrote when it pre-trained a Mockingjay.",
        )
    encoder = _renamed(states[name])
    head = _renamed(states[_HEAD]) if isinstance(states.get(_HEAD), Mapping) else None
    config = _config(place, _section(place, states), encoder, head)
    if head is None:
        return _filled(place, MockingjayModel(config), encoder)
    whole = {f"mockingjay.{name}": value for name, value in encoder.items()}
    whole |= {f"reconstruction_head.{name}": value for name, value in head.items()}
    return _filled(place, MockingjayForPreTraining(config), whole)


def _states(place: Path) -> Mapping[str, Any]:
    try:
        with torch.serialization.safe_globals(list(ALLOWED)):
            states = torch.load(place, map_location="cpu", weights_only=True)
    except Exception as error:  # broken files fail in as many ways as there are bytes
        # What precedes this mark is advice to unpickle without restrictions.
        text = " ".join(str(error).rpartition("WeightsUnpickler error:")[2].split())
        forbidden = re.search(_FORBIDDEN, str(error))
        if forbidden is not None:
            raise CheckpointError(
                f"The checkpoint {place} asks for {forbidden.group(1)}, which is neither a tensor "
                "nor a plain value; unpickling it could run any code, so it is refused",
                "If you trust where it comes from, load it there with s3prl and save only its keys Transformer, "
                "SpecHead and Settings (or Upstream_Config) again.",
            ) from None
        raise CheckpointError(
            f"The file {place} cannot be read as a checkpoint of weights: {text[:200] or type(error).__name__}",
            "Name a folder that transformers wrote, a Hub name, or a checkpoint of s3prl's Mockingjay.",
        ) from error
    if not isinstance(states, Mapping):
        raise CheckpointError(
            f"The file {place} holds a {type(states).__name__}, no states by name", "Name a checkpoint of s3prl."
        )
    return states


def _section(place: Path, states: Mapping[str, Any]) -> Mapping[str, Any]:
    """The model's part of the configuration that the checkpoint carries; its place has moved with the years."""
    settings = states.get("Settings")
    places = [
        states.get("Upstream_Config"),
        settings.get("Config") if isinstance(settings, Mapping) else None,
        states.get("Config"),
    ]
    for found in places:
        if not isinstance(found, Mapping):
            continue
        for name in _SECTIONS:
            if isinstance(found.get(name), Mapping):
                _refuse_other_features(place, found.get("audio"))
                return found[name]
    raise CheckpointError(
        f"The checkpoint {place} tells no sizes of its model: neither Settings, Config nor Upstream_Config has a part "
        "transformer or mockingjay",
        "Name a checkpoint as s3prl wrote it.",
    )


def _refuse_other_features(place: Path, audio: Any) -> None:
    """Refuses a model of features that are computed in another way than those of 2020.

    Raises:
        CheckpointError: it is one.
    """
    if audio is None:
        return
    kind = "Kaldi's filter banks" if isinstance(audio, Mapping) and "kaldi" in audio else "torchaudio's mel features"
    raise CheckpointError(
        f"The model in {place} was trained on {kind}, which otoscope does not compute",
        "Use a Mockingjay of pre-computed mel features (80 mel bands with deltas, 160 features a frame).",
    )


def _renamed(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights by our names; names that are no Mockingjay's stay as they are."""
    found = {}
    for name, value in state.items():
        name = name.removeprefix("module.").replace("gamma", "weight").replace("beta", "bias")
        for old, new in _RENAMED:
            name = re.sub(old, new, name)
        for old, new in _PROJECTIONS.items():
            name = name.replace(f".attention.{old}.", f".attention.{new}.")
        found[name] = value
    return found


def _config(
    place: Path,
    section: Mapping[str, Any],
    encoder: Mapping[str, torch.Tensor],
    head: Mapping[str, torch.Tensor] | None,
) -> MockingjayConfig:
    """Sizes as the checkpoint tells them; those of the features follow from its weights."""
    for variant, told in (
        ("pre_layer_norm", "norms before its branches"),
        ("share_layer", "one layer used many times"),
    ):
        if section.get(variant):
            raise CheckpointError(
                f"The model in {place} has {told} ({variant}), which Mockingjay has not", "Use a post-norm Mockingjay."
            )
    try:
        stack = int(section.get("downsample_rate", 1))
        inputs = int(encoder["input_projection.weight"].shape[1]) // stack
        outputs = inputs if head is None else int(head["output.weight"].shape[0]) // stack
        config = MockingjayConfig(
            input_size=inputs, output_size=outputs, frame_stack=stack,
            hidden_size=int(section["hidden_size"]), num_hidden_layers=int(section["num_hidden_layers"]),
            num_attention_heads=int(section["num_attention_heads"]),
            intermediate_size=int(section["intermediate_size"]), hidden_act=str(section["hidden_act"]),
            hidden_dropout=float(section["hidden_dropout_prob"]),
            attention_dropout=float(section["attention_probs_dropout_prob"]),
            initializer_range=float(section["initializer_range"]), layer_norm_eps=float(section["layer_norm_eps"]),
        )  # fmt: skip
    except KeyError as error:
        raise CheckpointError(
            f"The checkpoint {place} lacks {error.args[0]!r}", "Name a checkpoint as s3prl wrote it."
        ) from error
    except (TypeError, ValueError, ZeroDivisionError, IndexError, AttributeError) as error:
        raise CheckpointError(
            f"The checkpoint {place} tells sizes that are no numbers ({error})", "Name a checkpoint as s3prl wrote it."
        ) from error
    if config.hidden_act not in ("gelu", "relu", "swish"):
        raise CheckpointError(
            f"The model in {place} has the activation {config.hidden_act!r}", "Use gelu, relu or swish."
        )
    if inputs not in (80, 160, 240):
        raise CheckpointError(
            f"The model in {place} takes {inputs} features a frame, and otoscope computes 80 mel bands with deltas "
            "(160) or deltas of these too (240)",
            "Use a Mockingjay of mel features.",
        )
    return config


def _filled(place: Path, model: Any, state: Mapping[str, torch.Tensor]) -> Any:
    """The model with these weights and no others.

    Raises:
        CheckpointError: some are missing, left over, or of another shape.
    """
    wanted = model.state_dict()
    missing, left_over = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    shapes = [name for name in wanted.keys() & state.keys() if wanted[name].shape != state[name].shape]
    for names, told in (
        (missing, "lacks"),
        (left_over, "has, beyond its configuration,"),
        (shapes, "has another shape of"),
    ):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise CheckpointError(
                f"The checkpoint {place} {told} {', '.join(names[:3])}{more}", "Name a checkpoint as s3prl wrote it."
            )
    model.load_state_dict(dict(state))
    return model.eval()
