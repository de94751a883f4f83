"""What a language model of words is: the log probability of the next word, given the words before it."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any, Protocol, runtime_checkable

START, END, UNKNOWN = "<s>", "</s>", "<unk>"
MARKS = frozenset({START, END, UNKNOWN})
NEVER = -100.0  # log10 of a word that a model has neither an entry nor an unknown word for, as in KenLM


@runtime_checkable
class LanguageModel(Protocol):
    """A language model of words, asked word by word; logarithms are natural.

    A state stands for all that the model remembers of a sentence, and can be a key.
    """

    @property
    def order(self) -> int:
        """How many words the model looks at, the one that it scores among them."""

    def knows(self, word: str) -> bool:
        """Whether the word is one of its own."""

    def words(self) -> Iterable[str] | None:
        """Its words without marks of sentences; None where it cannot list them."""

    def start(self) -> Hashable:
        """The state before the first word of a sentence."""

    def score(self, state: Any, word: str) -> tuple[float, Hashable]:
        """Log probability of a word, and the state after it; a word that it does not know is the unknown word."""

    def end(self, state: Any) -> float:
        """Log probability that the sentence ends."""

    def describe(self) -> dict[str, Any]:
        """Its name, order, number of words and fingerprint, fit for JSON."""


def sentence_score(model: LanguageModel, words: Iterable[str]) -> float:
    """Natural logarithm of the probability of a sentence with its end.

    Args:
        model: the language model.
        words: of the sentence, without marks of its start and end.
    """
    state, total = model.start(), 0.0
    for word in words:
        log, state = model.score(state, word)
        total += log
    return total + model.end(state)
