"""Loads a model from a Hub name, a local folder or a live module; never with weights left random."""

import copy
import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoFeatureExtractor

from otoscope.embedded import embedded_model
from otoscope.errors import CheckpointError, ModelError
from otoscope.models.families import Family, family_of
from otoscope.models.frontends import RATE, Bert, Frontend, Mockingjay, Parakeet, Wave, Whisper
from otoscope.models.model import TRAINING_ONLY, SpeechModel

# Who reads folders that transformers cannot read for what they are, by a file that only these hold: rooms above this one,
# named so that they are imported when they are needed.
BUILDERS = {"treatment.json": "otoscope.treatments.folders:read_treated"}


def load(
    model: str | Path | nn.Module,
    *,
    name: str | None = None,
    feature_extractor: Any = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype = torch.float32,
) -> SpeechModel:
    """Loads a speech model for examination.

    Args:
        model: "embedded" or "embedded:NAME" (see `otoscope.embedded.MODELS`), a Hub name, a folder written by
            transformers or holding a treated model, a file of weights that s3prl wrote for a Mockingjay, or a loaded
            transformers model.
        name: what reports call it; the folder's or class's name by default.
        feature_extractor: how the input is prepared; by default what lies beside the weights, else the family's usual.
        device: where it runs; by default where it is (live), or the CPU.
        dtype: type of the weights.

    Raises:
        UnknownFamilyError: no table for this kind of model, or numbers by head would be wrong.
        CheckpointError: no configuration, weights that are missing, left over or of another shape, an unfit
            preprocessor, or an unreachable Hub.
        ModelError: not a transformers model, or no such device.
    """
    beside: Path | None = None
    if isinstance(model, nn.Module):
        family = family_of(_model_type(model))
        source: nn.Module = model
        called = name or getattr(model, "name_or_path", "") or type(model).__name__
    else:
        embedded = embedded_model(str(model))
        place = str(embedded or Path(model).expanduser())
        named = embedded is not None or not Path(place).exists()
        called = name or (str(model) if named else Path(place).resolve().name)
        family, source = _from_place(place, dtype)
        beside = Path(place) if not Path(place).is_file() else None
    if device is not None:
        source = _on_device(source, device, isinstance(model, nn.Module))
    encoder_config = family.encoder(source).config
    extractor = feature_extractor if feature_extractor is not None else _extractor(beside)
    return SpeechModel(source, family, _frontend(family, encoder_config, extractor), called)


def _model_type(model: nn.Module) -> str:
    config = getattr(model, "config", None)
    if config is None or not hasattr(config, "model_type"):
        raise ModelError(
            f"{type(model).__name__} has no transformers configuration",
            "Pass a transformers model, or a folder or Hub name of one.",
        )
    return config.model_type


def _on_device(source: nn.Module, device: str | torch.device, live: bool) -> nn.Module:
    """The model on a device; a live one is copied, since moving it would change it."""
    try:
        wanted = torch.device(device)
        if next(source.parameters()).device == wanted:
            return source
        if wanted.type == "meta":
            raise RuntimeError("a meta device holds no numbers")
        return (copy.deepcopy(source) if live else source).to(wanted)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(
            f"The model cannot be put on device {str(device)!r}: {error}", "Name a device of this machine, such as cpu."
        ) from error


def _from_place(place: str, dtype: torch.dtype) -> tuple[Family, nn.Module]:
    # Makes Mockingjays known to the library; not at the top, since it takes seconds that commands without a model save.
    from otoscope.models.mockingjay.s3prl import read_s3prl

    folder = Path(place)
    local = folder.exists() or place.startswith((".", "/", "~"))
    if folder.is_file():
        read: nn.Module = read_s3prl(folder)
        return family_of("mockingjay"), read.to(dtype)
    if local:
        if not folder.is_dir():
            raise CheckpointError(
                f"There is no model folder {place}", "Name a folder that transformers wrote, or a Hub name."
            )
        if not (folder / "config.json").exists():
            raise CheckpointError(
                f"The folder {place} has no config.json", "Name the folder that `save_pretrained` wrote."
            )
        family = family_of(_stored_type(folder))
        for mark, builder in BUILDERS.items():
            if (folder / mark).exists():
                module, _, function = builder.partition(":")
                return family, getattr(import_module(module), function)(folder, dtype)
    try:
        config = AutoConfig.from_pretrained(place, trust_remote_code=False)
    except Exception as error:  # whatever the library makes of a bad configuration
        raise _unreachable(place, local, error) from error
    family = family_of(config.model_type)
    stored = (getattr(config, "architectures", None) or [family.bare])[0]
    # Any other head than these is left off, so that only the encoder's weights count.
    wanted = stored if stored in (*family.with_head, family.bare) else family.bare
    try:
        loaded, report = family.model_class(wanted).from_pretrained(
            place, output_loading_info=True, dtype=dtype, ignore_mismatched_sizes=False, trust_remote_code=False
        )
    except Exception as error:  # broken weights fail in as many ways as there are formats
        raise _unreachable(place, local, error) from error
    missing = sorted(key for key in report["missing_keys"] if not key.endswith(TRAINING_ONLY))
    if missing:
        shown = ", ".join(missing[:4]) + (f" and {len(missing) - 4} more" if len(missing) > 4 else "")
        raise CheckpointError(
            f"The checkpoint {place} lacks weights of {wanted}: {shown}; they would be random",
            "Use a complete checkpoint, or correct `architectures` in its config.json.",
        )
    left_over = sorted(key for key in report["unexpected_keys"] if f"{family.layers}." in key)
    if left_over and wanted == stored:
        raise CheckpointError(
            f"The checkpoint {place} holds weights that its config.json has no layer for: {left_over[0]}"
            + (f" and {len(left_over) - 1} more" if len(left_over) > 1 else ""),
            "Correct the number of layers in its config.json.",
        )
    return family, loaded


def _stored_type(folder: Path) -> str:
    try:
        stored = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{folder}/config.json cannot be read, or is not JSON ({error})", "Write the folder again."
        ) from error
    if not isinstance(stored, dict) or not isinstance(stored.get("model_type"), str):
        raise CheckpointError(f"{folder}/config.json names no model_type", "Write the folder with `save_pretrained`.")
    return stored["model_type"]


def _unreachable(place: str, local: bool, error: Exception) -> CheckpointError:
    text = " ".join(str(error).split()) or type(error).__name__
    if local:
        return CheckpointError(f"The checkpoint in {place} cannot be loaded: {text}", "Write the folder again.")
    return CheckpointError(
        f"{place!r} is no local folder and cannot be loaded from the Hugging Face Hub: {text}",
        "Check the name and the connection, or download the model and name its folder.",
    )


def _extractor(place: Path | None) -> Any:
    """What lies beside the weights; None where nothing does.

    Raises:
        CheckpointError: there is something, and it cannot be read, or wants another rate than 16 kHz.
    """
    if place is None or (place.exists() and not any((place / name).exists() for name in _PREPROCESSORS)):
        return None
    try:
        found = AutoFeatureExtractor.from_pretrained(str(place), trust_remote_code=False)
    except Exception as error:
        if not place.exists():
            return None  # on the Hub, a model without a preprocessor
        raise CheckpointError(
            f"The preprocessor beside the model in {place} cannot be read: {' '.join(str(error).split())}",
            "Mend preprocessor_config.json, or pass feature_extractor=.",
        ) from error
    if getattr(found, "sampling_rate", RATE) != RATE:
        raise CheckpointError(
            f"The preprocessor beside the model in {place} wants {found.sampling_rate} samples a second",
            "Use a model for 16 kHz speech.",
        )
    return found


_PREPROCESSORS = ("preprocessor_config.json", "processor_config.json")
_KINDS = {
    "wave": ("Wav2Vec2FeatureExtractor",),
    "mel-bert": ("SeamlessM4TFeatureExtractor",),
    "mel-parakeet": ("ParakeetFeatureExtractor",),
    "mel-whisper": ("WhisperFeatureExtractor",),
    "mel-mockingjay": ("MockingjayFeatureExtractor",),
}


def _frontend(family: Family, config: Any, extractor: Any) -> Frontend:
    if extractor is not None and type(extractor).__name__ not in _KINDS[family.frontend]:
        raise CheckpointError(
            f"A {type(extractor).__name__} does not prepare the input of {family.name}",
            f"Pass or store a {_KINDS[family.frontend][0]}.",
        )
    if family.frontend == "wave":
        if extractor is not None:
            return Wave(config, bool(extractor.do_normalize), type(extractor).__name__)
        return Wave(config, True, "the library's default")
    kinds: dict[str, Callable[[Any, Any], Frontend]] = {
        "mel-bert": Bert, "mel-parakeet": Parakeet, "mel-whisper": Whisper, "mel-mockingjay": Mockingjay,
    }  # fmt: skip
    return kinds[family.frontend](config, extractor)
