"""Decoders: from log probabilities of tokens to text; the greedy one here, the other in `beam_search`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from otoscope.models.vocabulary import Vocabulary


@runtime_checkable
class Decoder(Protocol):
    """What turns log probabilities into text."""

    def decode(self, log_probabilities: Float[Tensor, "frames tokens"]) -> str:
        """The text, words parted by one space.

        Args:
            log_probabilities: log probabilities of the tokens at every frame, (T, V).
        """

    def check(self, references: Sequence[str], place: str) -> None:
        """Refuses references that it was not made for; called before the first frame is decoded.

        Args:
            references: what was said, in the vocabulary's case.
            place: what errors call them.
        """

    def describe(self) -> dict[str, Any]:
        """What results say of it, fit for JSON: its kind and its settings."""


def best_path(log_probabilities: Float[Tensor, "frames tokens"], blank: int) -> list[int]:
    """Tokens of the most probable alignment (Graves et al. 2006, section 3.2, best path decoding).

    It is the most probable single path of frames, not always the most probable text, which sums over paths.

    Args:
        log_probabilities: log probabilities, or logits, of the tokens at every frame, (T, V).
        blank: number of the blank.

    Returns:
        Numbers of tokens, without repeats that no blank parts, and without blanks.

    >>> import torch
    >>> best_path(torch.eye(3)[[1, 1, 0, 1, 2, 2, 0]], blank=0)
    [1, 1, 2]
    """
    best = log_probabilities.argmax(-1).tolist()
    return [token for k, token in enumerate(best) if token != blank and (k == 0 or token != best[k - 1])]


def greedy_text(log_probabilities: Float[Tensor, "frames tokens"], vocabulary: Vocabulary) -> str:
    """The text of the best path; words parted by one space.

    Args:
        log_probabilities: log probabilities, or logits, of the tokens at every frame, (T, V).
        vocabulary: what the tokens are.
    """
    return vocabulary.decode(best_path(log_probabilities, vocabulary.blank))


@dataclass(frozen=True)
class Greedy:
    """The best token of every frame, repeats merged, blanks dropped; a `Decoder`.

    Attributes:
        vocabulary: what the tokens are.
    """

    vocabulary: Vocabulary

    def decode(self, log_probabilities: Float[Tensor, "frames tokens"]) -> str:
        """See `greedy_text`."""
        return greedy_text(log_probabilities, self.vocabulary)

    def check(self, references: Sequence[str], place: str) -> None:
        """See `Decoder`; there is nothing to refuse."""

    def describe(self) -> dict[str, Any]:
        """See `Decoder`."""
        return {"kind": "greedy"}
