"""Models in KenLM's own binary form, read by its package."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

from otoscope.errors import EvaluationError, MissingPackageError
from otoscope.evaluation.language.model import MARKS

_LN10 = math.log(10)


class KenlmModel:
    """A model that KenLM reads, binary or ARPA; a `LanguageModel` that cannot list its words.

    Args:
        path: the file.

    Raises:
        MissingPackageError: the package kenlm is not installed.
        EvaluationError: KenLM cannot read the file.
    """

    def __init__(self, path: str | Path) -> None:
        try:
            import kenlm
        except ImportError as error:
            raise MissingPackageError(
                f"{path} is a binary language model, and the package kenlm, which reads them, is not installed",
                "Install otoscope[kenlm], or name the model's ARPA file.",
            ) from error
        self._new, self._path = kenlm.State, Path(path)
        try:
            self._model = kenlm.Model(str(path))
            with self._path.open("rb") as file:
                self._fingerprint = hashlib.file_digest(file, "sha256").hexdigest()
        except (OSError, RuntimeError) as error:
            raise EvaluationError(
                f"The language model {path} cannot be read: {' '.join(str(error).split())[:200]}",
                "Name a binary file that KenLM wrote, or an ARPA file.",
            ) from error

    @property
    def order(self) -> int:
        """See `LanguageModel`."""
        return int(self._model.order)

    def knows(self, word: str) -> bool:
        """See `LanguageModel`."""
        return word in self._model and word not in MARKS

    def words(self) -> None:
        """See `LanguageModel`; none, since KenLM does not tell."""

    def start(self) -> Any:
        """See `LanguageModel`."""
        state = self._new()
        self._model.BeginSentenceWrite(state)
        return state

    def score(self, state: Any, word: str) -> tuple[float, Any]:
        """See `LanguageModel`."""
        after = self._new()
        return self._model.BaseScore(state, "<unk>" if word in MARKS else word, after) * _LN10, after

    def end(self, state: Any) -> float:
        """See `LanguageModel`."""
        return float(self._model.BaseScore(state, "</s>", self._new()) * _LN10)

    def describe(self) -> dict[str, Any]:
        """See `LanguageModel`."""
        return {
            "name": self._path.name,
            "order": self.order,
            "words": None,
            "ngrams": None,
            "sha256": self._fingerprint,
        }
