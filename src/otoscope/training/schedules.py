"""When a training stops before its last step, and which of its weights are kept."""

from __future__ import annotations

from collections.abc import Mapping

from otoscope.errors import TrainingError


def best_step(figures: Mapping[int, float]) -> int:
    """The step with the lowest figure, the earliest of several.

    Args:
        figures: of each evaluation, by step.

    Raises:
        TrainingError: there is no evaluation.

    >>> best_step({10: 0.5, 20: 0.4, 30: 0.4})
    20
    """
    if not figures:
        raise TrainingError("The training was never evaluated", "Evaluate at least once, at the last step.")
    return min(sorted(figures), key=lambda step: figures[step])


def is_over(figures: Mapping[int, float], patience: int) -> bool:
    """Whether as many evaluations as are waited for went by without a lower figure.

    Args:
        figures: of each evaluation, by step.
        patience: evaluations to wait for; 0 waits for ever.

    >>> is_over({10: 0.5, 20: 0.6, 30: 0.5}, 2), is_over({10: 0.5, 20: 0.6, 30: 0.4}, 2)
    (True, False)
    """
    if not patience or not figures:
        return False
    best = best_step(figures)
    return sum(step > best for step in figures) >= patience
