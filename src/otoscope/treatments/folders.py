"""Treated models on disk: written whole or not at all, and read with the names of the original."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from otoscope._version import __version__
from otoscope.errors import CheckpointError, OtoscopeError, TreatmentError
from otoscope.models.absent import kept_heads, removed_units
from otoscope.models.families import family_of
from otoscope.models.frontends import Frontend, write_frontend
from otoscope.models.model import SpeechModel
from otoscope.surgery.applying import edited
from otoscope.surgery.applying import record as edits_of
from otoscope.surgery.dropping import DropMap
from otoscope.surgery.edit import RECORD as EDITS
from otoscope.surgery.removal import Remove
from otoscope.surgery.units import Parts
from otoscope.treatments.applying import TreatmentRecord, record_of, set_record
from otoscope.treatments.compact import compacted, expanded
from otoscope.treatments.files import carry_tokenizer, digest_of, put_whole
from otoscope.treatments.treatment import from_dict

NOTE = "treatment.json"
STOCK, OWN = "model.safetensors", "treated.safetensors"
FORMAT = 1


def save_treated(
    model: SpeechModel | nn.Module,
    folder: str | Path,
    *,
    frontend: Frontend | None = None,
    extra: Mapping[str, Callable[[Path], None]] | None = None,
) -> None:
    """Stores a treated model so that `load` gives it back; no file of it needs pickle.

    Where transformers' own classes can express it (layers taken out, other weights, other training), the folder is one
    that their `from_pretrained` reads too, with layers numbered anew. Otherwise the weights are in a file of another
    name, so that `from_pretrained` refuses rather than running a model that was not treated.

    Args:
        model: a treated model.
        folder: where it goes; an earlier model there is replaced once the new one is written whole.
        frontend: how its input is prepared; by default that of the `SpeechModel`. A tokenizer is carried along from where
            the model came.
        extra: file name -> writes that file beside the model.

    Raises:
        TreatmentError: the model was not treated, or was edited beside; or the folder cannot be written.
    """
    source, called = (model.source, model.name) if isinstance(model, SpeechModel) else (model, type(model).__name__)
    frontend = model.frontend if isinstance(model, SpeechModel) and frontend is None else frontend
    record = record_of(source)
    if record is None:
        raise TreatmentError(f"{called} was not treated", "Store it with `save_pretrained`.")
    edits = edits_of(source)
    strange = [edit for edit in (() if edits is None else edits[0]) if edit not in record.edits]
    if strange:
        raise TreatmentError(
            f"{called} was changed by the edit {strange[0].kind!r} of {strange[0].units}, which no treatment stands for",
            "Treat the original, and leave the edit out, or store the edit beside the original.",
        )
    stored = record

    def write(place: Path) -> None:
        if frontend is not None:
            write_frontend(frontend, place)
        _write(source, stored, place)
        carry_tokenizer(str(getattr(source.config, "_name_or_path", "")), place)
        for name, write_file in (extra or {}).items():
            write_file(place / name)

    put_whole(write, Path(folder))


def has_record(module: nn.Module) -> bool:
    """Whether a transformers model was treated."""
    return record_of(module) is not None


def _write(source: nn.Module, record: TreatmentRecord, place: Path) -> None:
    family = family_of(source.config.model_type)  # type: ignore[union-attr, arg-type]
    encoder = family.encoder(source)
    # Without its preprocessor a model would be given other input than it was trained on, and nothing would show it.
    beside = sorted(path.name for path in place.iterdir())
    layers = Parts(encoder, family).layers
    gone = removed_units(layers, family)
    stock = all(not edit.structural or isinstance(edit, Remove) for edit in record.edits)
    stock &= all(name.count(".") == 1 for name in gone)
    weights = STOCK if stock else OWN
    made: Any = compacted(source, family) if stock else source
    save_file(_own_tensors(made), place / weights, metadata={"format": "pt"})
    config = copy.deepcopy(made.config)
    config.architectures = [type(source).__name__]
    config.dtype = str(next(source.parameters()).dtype).removeprefix("torch.")
    config.save_pretrained(place)
    if getattr(source, "generation_config", None) is not None:
        source.generation_config.save_pretrained(place)  # type: ignore[union-attr, operator]
    total = getattr(encoder.config, family.size_names[1])
    left = [number for number in range(1, len(layers) + 1) if f"layer.{number}" not in gone]
    note = {
        "format": FORMAT,
        "otoscope": __version__,
        "class": type(source).__name__,
        "original": {"name": record.name, "fingerprint": record.fingerprint, "layers": len(layers)},
        "layers": left if stock else list(range(1, len(layers) + 1)),
        "heads": [list(kept) for kept in kept_heads(layers, family, total)],
        "treatments": [treatment.to_dict() for treatment in record.treatments],
        "sha256": {name: digest_of(place / name) for name in (weights, "config.json", *beside)},
    }
    (place / NOTE).write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")


def read_treated(folder: Path, dtype: torch.dtype) -> nn.Module:
    """The treated transformers model of a folder, in eval mode, with its record and the names of the original.

    Args:
        folder: what `save_treated` wrote.
        dtype: type of the weights.

    Raises:
        CheckpointError: the folder is not whole, or not as it was written.
    """
    note = _read_note(folder)
    try:
        treatments = tuple(from_dict(one) for one in note["treatments"])
        original = note["original"]
        record = TreatmentRecord(treatments, str(original["fingerprint"]), str(original["name"]))
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        family = family_of(config.model_type)
        build = family.model_class(note["class"])
        if not (isinstance(build, type) and issubclass(build, PreTrainedModel)):
            raise CheckpointError(
                f"{note['class']!r} in {folder / NOTE} is no class of models", "Write the folder again."
            )
        module = _read_weights(folder, build, config, record, OWN not in note["sha256"])
        if OWN not in note["sha256"]:
            expanded(module, family, list(note["layers"]), int(original["layers"]))
        parts = Parts(family.encoder(module), family)
        found = [list(kept) for kept in kept_heads(parts.layers, family, parts.total_heads)]
        if found != note["heads"]:
            raise CheckpointError(f"The heads of the model in {folder} are not those in {NOTE}", "Write it again.")
    except CheckpointError:
        raise
    except Exception as error:  # broken folders fail in as many ways as there are libraries that read them
        text = error.problem if isinstance(error, OtoscopeError) else " ".join(str(error).split())
        raise CheckpointError(
            f"The treated model in {folder} cannot be read: {text or type(error).__name__}",
            "Treat the original again, and write the folder anew.",
        ) from error
    setattr(family.encoder(module), EDITS, (tuple(dict.fromkeys(record.edits)), record.fingerprint))
    set_record(module, record)
    module.config._name_or_path = str(folder)  # type: ignore[union-attr]
    return module.to(dtype).eval()


def _read_note(folder: Path) -> dict[str, Any]:
    """What is written about the treatment, checked against the files that it speaks of."""
    cure = "Treat the original again, and write the folder anew."
    try:
        note = dict(json.loads((folder / NOTE).read_text(encoding="utf-8")))
        form, digests = note["format"], dict(note["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{folder / NOTE} cannot be read, or is no note of a treatment ({error})", cure
        ) from error
    if form != FORMAT:
        raise CheckpointError(
            f"{folder / NOTE} has the format {form!r}, and this otoscope reads {FORMAT}", "Update otoscope."
        )
    for name, digest in digests.items():
        if not (folder / name).is_file():
            raise CheckpointError(f"The treated model in {folder} lacks its {name}", cure)
        if digest_of(folder / name) != digest:
            raise CheckpointError(f"{folder / name} is not what was written there: its SHA-256 differs", cure)
    if not {STOCK, OWN} & set(digests):
        raise CheckpointError(f"{folder / NOTE} names no file of weights", cure)
    return note


def _read_weights(folder: Path, build: Any, config: Any, record: TreatmentRecord, stock: bool) -> nn.Module:
    """A model with the weights of a folder; where only otoscope can express it, its structure is made anew first."""
    with torch.random.fork_rng(devices=[]), no_init_weights():
        blank = build(config)
        blank.tie_weights()
    state = load_file(folder / (STOCK if stock else OWN))
    edits = () if stock else tuple(edit for edit in record.edits if edit.structural)
    module = edited(blank, edits, share=True, applied=edits) if edits else blank
    drops = [edit for edit in edits if isinstance(edit, DropMap)]
    if drops and set(state) - set(module.state_dict()):
        # Written with the queries and keys of replaced maps, which are read where they were, and then dropped.
        whole = edited(blank, [edit for edit in edits if edit not in drops], share=True, applied=edits)
        return edited(_filled(whole, state, folder), drops, share=True, applied=edits)
    return _filled(module, state, folder)


def _filled(module: nn.Module, state: Mapping[str, torch.Tensor], folder: Path) -> nn.Module:
    """A module with the tensors of a folder, of which there must be all and no others."""
    there, aliases = module.state_dict(), _aliases(module)
    strange = sorted((set(there) - aliases) ^ set(state))
    strange += [name for name, value in state.items() if name in there and there[name].shape != value.shape]
    if strange:
        raise CheckpointError(
            f"The weights in {folder} do not fit its config.json and treatments: {strange[0]}",
            "Write the folder again.",
        )
    module.load_state_dict(state, strict=False)  # a tensor that stands there twice was stored once
    return module


def _own_tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """The tensors of a state dict; of those that are one and the same, the first."""
    aliases = _aliases(module)
    return {name: value.contiguous() for name, value in module.state_dict().items() if name not in aliases}


def _aliases(module: nn.Module) -> set[str]:
    """Names of parameters that are another parameter's as well."""
    first = {name for name, _ in module.named_parameters()}
    return {name for name, _ in module.named_parameters(remove_duplicate=False)} - first
