"""Perplexity: how unforeseen a language model finds what was said."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from otoscope.errors import EvaluationError
from otoscope.evaluation.language.model import LanguageModel
from otoscope.evaluation.language.spelling import Spelling


@dataclass(frozen=True)
class Perplexity:
    """Perplexity of sentences, ends of sentences counted as words.

    Attributes:
        value: over the words that the model knows and the ends: what stands beside a count of unknown words.
        with_unknown: over all words and ends; unknown words have the probability of the model's unknown word.
        words: number of words.
        unknown: how many of them the model does not know.
        sentences: number of sentences.
    """

    value: float
    with_unknown: float
    words: int
    unknown: int
    sentences: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        share = self.unknown / self.words if self.words else 0.0
        return (
            f"perplexity {self.value:.4g} over {self.sentences} sentences of {self.words} words, "
            f"{self.unknown} of them unknown ({share:.1%}); {self.with_unknown:.4g} with these"
        )


def perplexity_of(model: LanguageModel, texts: Iterable[str]) -> Perplexity:
    """Perplexity: e to the mean negative log probability of words and ends of sentences.

    Jelinek et al. 1977, "Perplexity - a measure of the difficulty of speech recognition tasks".

    Words that follow an unknown one are scored after what the model makes of it.

    Args:
        model: the language model.
        texts: sentences, words parted by spaces, in any case (see `Spelling`).

    Raises:
        EvaluationError: there is no sentence.
    """
    spelling = Spelling(model)
    known = lost = 0.0
    words = unknown = sentences = 0
    for text in texts:
        state = model.start()
        for word in text.split():
            log, state = model.score(state, spelling.form(word))
            if spelling.knows(word):
                known += log
            else:
                lost, unknown = lost + log, unknown + 1
            words += 1
        known += model.end(state)
        sentences += 1
    if not sentences:
        raise EvaluationError("There is no sentence to take a perplexity of", "Give transcripts.")
    counted = words + sentences
    return Perplexity(
        math.exp(-known / (counted - unknown)), _exp(-(known + lost) / counted), words, unknown, sentences
    )


def _exp(x: float) -> float:
    """exp, infinite where no float is as large."""
    try:
        return math.exp(x)
    except OverflowError:
        return math.inf
