"""What a reset changes a metric by: its interval, its share of what a reset of all layers does, its spread over draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from otoscope.evaluation.bootstrap import allow_for_unseen, block_bootstrap
from otoscope.evaluation.paired import paired_bootstrap
from otoscope.evaluation.scores import Scores


@dataclass(frozen=True)
class Change:
    """A number with its 95 % interval.

    Attributes:
        value: the number.
        low: lower end; None where there is no interval.
        high: upper end; None where there is no interval.
        n: utterances that it rests on.
    """

    value: float
    low: float | None
    high: float | None
    n: int


def mean_scores(draws: Sequence[Scores]) -> Scores:
    """Scores of which each utterance has the mean over draws, on the utterances that all draws were scored on.

    Args:
        draws: of the same metric; one or more.
    """
    there = set(draws[0].ids).intersection(*(other.ids for other in draws[1:]))
    ids = tuple(one for one in draws[0].ids if one in there)
    columns = [one.subset(ids) for one in draws]
    mean = np.mean([one.numerator for one in columns], axis=0)
    return replace(columns[0], numerator=mean, parts={}, texts={})


def change(before: Scores, after: Scores, seed: int) -> Change:
    """A metric after a reset less that before it, with the paired interval.

    Args:
        before: of the unedited model.
        after: on the same utterances, or on some of them.
        seed: of the bootstrap.

    Raises:
        EvaluationError: see `paired_bootstrap`.
    """
    there = before.subset(after.ids)
    found = paired_bootstrap(there, after, seed=seed)
    counted = there.counts and after.counts
    if np.isnan(found.low) and not counted and (there.numerator == after.numerator).all():
        return Change(0.0, 0.0, 0.0, found.utterances)  # a loss that is the same to the bit for every utterance
    return Change(found.value, *_ends(found.low, found.high), found.utterances)


def share(before: Scores, after: Scores, together: Scores, seed: int) -> Change | None:
    """A change as a share of that under a reset of all layers together: N_u, a ratio of sums; the same blocks are drawn.

    Where all blocks have the same share, as where both resets leave no word right, draws show no spread. Of rates the
    interval is then that of `allow_for_unseen`, with shares of 0 and 1 as the furthest that a speaker can be off. Of losses
    the share is exactly 0 or 1 where the unit's reset is no change at all, or the only one; otherwise there is none.

    Args:
        before: of the unedited model.
        after: with a unit reset.
        together: with all layers reset.
        seed: of the bootstrap.

    Returns:
        None where a reset of all layers does not surely make things worse, so that there is nothing to take a share of.

    Raises:
        EvaluationError: see `paired_bootstrap`.
    """
    known = set(together.ids)
    both = tuple(one for one in after.ids if one in known)
    there, one, whole = (scores.subset(both) for scores in (before, after, together))
    most = change(there, whole, seed)
    worse = -1.0 if before.higher_is_better else 1.0
    if worse * most.value <= 0 or (most.low is not None and most.high is not None and most.low <= 0 <= most.high):
        return None
    blocks = there.blocks
    # Turned so that worse is more, which leaves the ratio as it is.
    sums = worse * np.stack(
        [blocks.sums(one.numerator - there.numerator), blocks.sums(whole.numerator - there.numerator)]
    )
    found = block_bootstrap(sums, lambda total: total[0] / total[1], blocks.by, seed=seed).estimate
    counted = there.counts and one.counts and whole.counts
    if not counted and any((one.numerator == same.numerator).all() for same in (there, whole)):
        return Change(found.value, found.value, found.value, len(both))
    found = allow_for_unseen(found, sums, (0.0, 1.0) if counted else None)
    return Change(found.value, *_ends(found.low, found.high), len(both))


def spread(before: Scores, draws: Sequence[Scores]) -> tuple[float, float, float]:
    """Standard deviation (divisor K - 1), least and greatest of the changes of K draws.

    Args:
        before: of the unedited model.
        draws: of the model with a unit drawn anew; two or more.
    """
    values = [change_value(before, one) for one in draws]
    return float(np.std(values, ddof=1)), min(values), max(values)


def change_value(before: Scores, after: Scores) -> float:
    """A metric after a reset less that before it, on the utterances that were scored after it."""
    there = before.subset(after.ids)
    return float((after.numerator - there.numerator).sum() / there.denominator.sum())


def _ends(low: float, high: float) -> tuple[float | None, float | None]:
    return (None, None) if np.isnan(low) or np.isnan(high) else (low, high)
