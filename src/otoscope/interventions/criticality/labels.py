"""Ambient, intermediate, critical: the rule, its thresholds, and the metric that it goes by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from otoscope.errors import EvaluationError
from otoscope.evaluation.ctc_loss import CTCLoss
from otoscope.evaluation.error_rates import CharacterErrorRate, WordErrorRate
from otoscope.evaluation.metric import Metric
from otoscope.speech.corpus import Corpus

AMBIENT, INTERMEDIATE, CRITICAL = LABELS = ("ambient", "intermediate", "critical")
RELATIVE = 0.02  # of the unedited model's value
POINT = 0.001  # 0.1 point of an error rate
OF_ALL = 0.01  # of what a loss changes by when all units are reset together
CRITICAL_SHARE = 0.5  # of the same
FEWEST_WORDS = 3000  # of which 0.1 point is three words

_ERROR_RATES = (WordErrorRate.name, CharacterErrorRate.name)


@dataclass(frozen=True)
class Thresholds:
    """What a unit's change is held against.

    Attributes:
        ambient: the change for the worse that still counts as none, in the metric's unit; None is that of `tolerance`.
        critical: the share of the change under a reset of all units together beyond which a unit is critical.

    Raises:
        EvaluationError: a threshold is negative or not a number.
    """

    ambient: float | None = None
    critical: float = CRITICAL_SHARE

    def __post_init__(self) -> None:
        for name, value in (("ambient", self.ambient), ("critical", self.critical)):
            if value is not None and not 0 <= value < float("inf"):
                raise EvaluationError(f"The threshold {name!r} is {value}", "Give a finite number, zero or more.")


def tolerance(metric: str, base: float, ceiling: float | None = None) -> float:
    """The change for the worse that counts as none; otoscope's own definition.

    Of an error rate it is 2 % of its value before the change, or 0.1 point where that is more. Of a loss or a score it is
    2 % of its value before the change, or 1 % of what a reset of all units changes it by where that is known and is
    more: a loss has no natural point, and 2 % of a loss near zero is nothing.

    Args:
        metric: name of the metric, such as "wer".
        base: its value before the change.
        ceiling: of a loss or a score, what a reset of all units together changes it by, either way.

    >>> tolerance("wer", 0.2), tolerance("wer", 0.01), tolerance("ctc-loss", 0.01, ceiling=3.0)
    (0.004, 0.001, 0.03)
    """
    if metric in _ERROR_RATES:
        return max(POINT, RELATIVE * base)
    return max(RELATIVE * abs(base), OF_ALL * abs(ceiling or 0.0))


def label(
    change: tuple[float | None, float | None],
    share: tuple[float | None, float | None],
    ambient: float,
    critical: float = CRITICAL_SHARE,
    *,
    higher_is_better: bool = False,
) -> str:
    """Sorts a unit by the ends of its intervals; what is neither surely small nor surely large is intermediate.

    The rule is otoscope's own: what Zhang, Bengio and Singer (2022) and Zhou et al. (2022) sort layers by is not known to
    us.

    Args:
        change: interval of the metric after the reset less before it.
        share: interval of that change over the change under a reset of all units; None where that makes nothing worse.
        ambient: see `Thresholds`.
        critical: see `Thresholds`.
        higher_is_better: the metric falls where things get worse.

    Returns:
        "ambient" where the change for the worse is below `ambient` to the upper end of its interval, "critical" where
        the share is above `critical` from its lower end on, else "intermediate".
    """
    low, high = change
    worst = (None if low is None else -low) if higher_is_better else high
    if worst is not None and worst < ambient:
        return AMBIENT
    # A share is positive for the worse whichever way the metric runs: both of its terms turn.
    if share[0] is not None and share[0] > critical:
        return CRITICAL
    return INTERMEDIATE


def labelling_metric(corpus: Corpus, metrics: Sequence[Metric]) -> Metric:
    """The metric that units are sorted by: the first, or the CTC loss where there are too few words for an error rate.

    0.1 point of the word error rate is less than three words on a corpus of fewer than 3000, so that an interval could
    hardly lie below it.

    Args:
        corpus: the speech, with transcripts where the first metric is an error rate.
        metrics: what is taken.

    Raises:
        EvaluationError: there is no metric.
    """
    if not metrics:
        raise EvaluationError("There is no metric", "Give one metric or more.")
    if metrics[0].name not in _ERROR_RATES:
        return metrics[0]
    words = sum(len((utterance.transcript or "").split()) for utterance in corpus)
    losses = [metric for metric in metrics if metric.name == CTCLoss.name]
    return losses[0] if words < FEWEST_WORDS and losses else metrics[0]
