"""Which decoder is asked for, as commands and verbs name it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from otoscope.errors import EvaluationError
from otoscope.evaluation.beam_search import ALPHA, BETA, PRUNE, WIDTH, BeamSearch, check_search
from otoscope.evaluation.decoding import Decoder, Greedy
from otoscope.evaluation.language.model import LanguageModel
from otoscope.evaluation.language.reading import read_language_model
from otoscope.models.vocabulary import Vocabulary

KINDS = ("greedy", "beam")


@dataclass(frozen=True)
class DecoderSettings:
    """A decoder before the vocabulary is known.

    Attributes:
        kind: "greedy" or "beam".
        lm: a language model or its file, ARPA or KenLM's; of a beam search.
        alpha: see `BeamSearch`.
        beta: see `BeamSearch`.
        width: see `BeamSearch`.
        prune: see `BeamSearch`.

    Raises:
        EvaluationError: there is no such kind, a setting means nothing, or greedy decoding is to use a language model.
    """

    kind: str = "greedy"
    lm: LanguageModel | str | Path | None = None
    alpha: float = ALPHA
    beta: float = BETA
    width: int = WIDTH
    prune: float = PRUNE

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise EvaluationError(f"There is no decoder {self.kind!r}", f"The decoders are {', '.join(KINDS)}.")
        if self.kind == "greedy" and self.lm is not None:
            raise EvaluationError("Greedy decoding uses no language model", "Ask for the decoder beam.")
        check_search(self.alpha, self.beta, self.width, self.prune)

    def decoder(self, vocabulary: Vocabulary) -> Decoder:
        """The decoder for a vocabulary; reads the language model.

        Raises:
            EvaluationError: the language model cannot be read.
            MissingPackageError: it is KenLM's, and the package kenlm is not installed.
            VocabularyError: it is of another vocabulary.
        """
        if self.kind == "greedy":
            return Greedy(vocabulary)
        lm = read_language_model(self.lm) if self.lm is not None else None
        return BeamSearch(vocabulary, lm, self.alpha, self.beta, self.width, self.prune)
