"""Loads a model from a Hub name, a local folder or a live module; never with weights left random."""

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoFeatureExtractor

from otoscope.errors import CheckpointError, ModelError
from otoscope.models.families import Family, family_of
from otoscope.models.frontends import Bert, Frontend, Parakeet, Wave, Whisper
from otoscope.models.model import SpeechModel

# Used in training only: absent from many published checkpoints, and without effect on what is examined.
_TRAINING_ONLY = ("masked_spec_embed",)


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
        model: "embedded", a Hub name, a folder written by transformers, or a loaded transformers model.
        name: what reports call it; the folder's or class's name by default.
        feature_extractor: how the input is prepared; by default what lies beside the weights, else the family's usual.
        device: where it runs; by default where it is (live), or the CPU.
        dtype: type of the weights.

    Raises:
        UnknownFamilyError: no table for this kind of model, or numbers by head would be wrong.
        CheckpointError: no configuration, missing weights, weights of another shape, or an unreachable Hub.
    """
    if isinstance(model, nn.Module):
        family = family_of(_model_type(model))
        source: nn.Module = model
        called = name or getattr(model, "name_or_path", "") or type(model).__name__
        beside = None
    else:
        from otoscope.embedded import MODEL

        place = str(MODEL) if str(model) == "embedded" else str(model)
        called = name or (
            str(model) if str(model) == "embedded" or not Path(place).exists() else Path(place).resolve().name
        )
        family, source = _from_place(place, dtype)
        beside = place
    if device is not None and next(source.parameters()).device != torch.device(device):
        source = source.to(device) if not isinstance(model, nn.Module) else _copied_to(source, device)
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


def _copied_to(source: nn.Module, device: str | torch.device) -> nn.Module:
    import copy

    return copy.deepcopy(source).to(device)


def _from_place(place: str, dtype: torch.dtype) -> tuple[Family, nn.Module]:
    folder = Path(place)
    local = folder.exists() or place.startswith((".", "/", "~"))
    if local:
        if not folder.is_dir():
            raise CheckpointError(
                f"There is no model folder {place}", "Name a folder that transformers wrote, or a Hub name."
            )
        if not (folder / "config.json").exists():
            raise CheckpointError(
                f"The folder {place} has no config.json", "Name the folder that `save_pretrained` wrote."
            )
        try:
            json.loads((folder / "config.json").read_text())
        except ValueError as error:
            raise CheckpointError(f"{place}/config.json is not JSON ({error})", "Write the folder again.") from error
    try:
        config = AutoConfig.from_pretrained(place)
    except (OSError, ValueError, KeyError) as error:
        raise _unreachable(place, local, error) from error
    family = family_of(config.model_type)
    stored = (getattr(config, "architectures", None) or [family.bare])[0]
    # Any other head than these is left off, so that only the encoder's weights count.
    wanted = stored if stored in (*family.with_head, family.bare) else family.bare
    try:
        loaded, report = getattr(transformers, wanted).from_pretrained(
            place, output_loading_info=True, dtype=dtype, ignore_mismatched_sizes=False
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise _unreachable(place, local, error) from error
    missing = sorted(key for key in report["missing_keys"] if not key.endswith(_TRAINING_ONLY))
    if missing:
        shown = ", ".join(missing[:4]) + (f" and {len(missing) - 4} more" if len(missing) > 4 else "")
        raise CheckpointError(
            f"The checkpoint {place} lacks weights of {wanted}: {shown}; they would be random",
            "Use a complete checkpoint, or correct `architectures` in its config.json.",
        )
    return family, loaded


def _unreachable(place: str, local: bool, error: Exception) -> CheckpointError:
    text = " ".join(str(error).split())
    if local:
        return CheckpointError(f"The checkpoint in {place} cannot be loaded: {text}", "Write the folder again.")
    return CheckpointError(
        f"{place!r} is no local folder and cannot be loaded from the Hugging Face Hub: {text}",
        "Check the name and the connection, or download the model and name its folder.",
    )


def _extractor(place: str | None) -> Any:
    """What lies beside the weights, or None."""
    if place is None or not (not Path(place).exists() or _has_preprocessor(Path(place))):
        return None
    try:
        return AutoFeatureExtractor.from_pretrained(place)
    except (OSError, ValueError, KeyError):
        return None


def _has_preprocessor(folder: Path) -> bool:
    return any((folder / name).exists() for name in ("preprocessor_config.json", "processor_config.json"))


def _frontend(family: Family, config: Any, extractor: Any) -> Frontend:
    if family.frontend == "wave":
        if extractor is not None and hasattr(extractor, "do_normalize"):
            return Wave(config, bool(extractor.do_normalize), type(extractor).__name__)
        return Wave(config, True, "the library's default")
    kinds = {"mel-bert": Bert, "mel-parakeet": Parakeet, "mel-whisper": Whisper}
    return kinds[family.frontend](config, extractor)
