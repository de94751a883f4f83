"""Greedy decoding: the best token of every frame, repeats merged, blanks dropped."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from otoscope.models.vocabulary import Vocabulary


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
