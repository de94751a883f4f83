"""Reads a language model by what its file holds."""

from __future__ import annotations

from pathlib import Path

from otoscope.errors import EvaluationError
from otoscope.evaluation.language.arpa import read_arpa
from otoscope.evaluation.language.kenlm_model import KenlmModel
from otoscope.evaluation.language.model import LanguageModel

_BINARY = b"mmap lm "  # how every binary file of KenLM begins


def read_language_model(model: str | Path | LanguageModel) -> LanguageModel:
    """Reads an ARPA file, packed by gzip or not, or a binary file of KenLM.

    Args:
        model: the file; a model that is read already is given back.

    Raises:
        EvaluationError: the file cannot be read or is broken.
        MissingPackageError: it is KenLM's, and the package kenlm is not installed.
    """
    if isinstance(model, LanguageModel):
        return model
    path = Path(model).expanduser()
    try:
        with path.open("rb") as file:
            begins = file.read(len(_BINARY))
    except OSError as error:
        raise EvaluationError(
            f"The language model {path} cannot be read: {error.strerror or error}",
            "Name an ARPA file, or a binary file of KenLM.",
        ) from error
    return KenlmModel(path) if begins == _BINARY else read_arpa(path)
