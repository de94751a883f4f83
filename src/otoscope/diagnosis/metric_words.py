"""What metrics and scores are called in words, and the numbers in which readers are told what metrics change by."""

from __future__ import annotations

CALLED = {
    "wer": "WER",
    "cer": "CER",
    "ctc-loss": "CTC loss",
    "reconstruction": "the reconstruction error",
    "probe-mel": "the probe's error on log-mel",
}
UNITS = {
    "ctc-loss": "nats per token",
    "contrastive-loss": "nats per masked frame",
    "masked-prediction-loss": "nats per masked frame",
}

SCORES = {
    "block-influence": "block influence",
    "angular-distance": "angular distance",
    "gradient-norm-relative": "gradient norm, relative",
    "gradient-fisher": "Fisher information",
}
"""Cheap scores of units, in words."""


def called(metric: str) -> str:
    """The name of a metric in a sentence.

    >>> called("wer"), called("masked-prediction-loss"), called("probe-phone")
    ('WER', 'masked prediction loss', 'phone probe accuracy')
    """
    if metric in CALLED:
        return CALLED[metric]
    if metric.startswith("probe-"):
        return f"{metric.removeprefix('probe-').replace('-', ' ')} probe accuracy"
    return metric.replace("-", " ")


def higher_is_better(metric: str) -> bool:
    """Whether a metric rises where the model gets better, by its name: accuracies do, errors and losses do not."""
    return "accuracy" in metric or (metric.startswith("probe-") and metric != "probe-mel")


def unit_of(metric: str) -> tuple[float, str]:
    """What values are multiplied by for readers, and their unit then; empty where a value has none.

    >>> unit_of("wer"), unit_of("ctc-loss"), unit_of("reconstruction")
    ((100.0, 'points'), (1.0, 'nats per token'), (1.0, ''))
    """
    if metric in ("wer", "cer") or higher_is_better(metric):
        return 100.0, "points"
    return 1.0, UNITS.get(metric, "")


def digits_of(metric: str) -> int:
    """Decimals of a change that readers are told."""
    return 1 if unit_of(metric)[1] == "points" else 3


def change_in_words(metric: str, value: float, low: float | None, high: float | None) -> str:
    """What a change does to a metric, as the end of a sentence.

    Args:
        metric: its name.
        value: the metric after the change less before it.
        low: lower end of the 95 % interval of the difference, or None.
        high: upper end.

    >>> change_in_words("wer", -0.008, -0.012, -0.003)
    'improves WER by 0.8 points (95 % 0.3 to 1.2)'
    >>> change_in_words("ctc-loss", 0.05, -0.01, 0.11)
    'changes CTC loss by +0.050 nats per token (95 % -0.010 to +0.110)'
    >>> change_in_words("probe-phone", -0.02, None, None)
    'changes phone probe accuracy by -2.0 points'
    """
    factor, unit = unit_of(metric)
    digits, what = digits_of(metric), called(metric)
    if value == 0 and not low and not high:
        return f"leaves {what} as it is"
    ends = [] if low is None or high is None else [low, high]
    # Beyond zero at both ends there is a word for the direction, and no need of a sign.
    if ends and min(ends) * max(ends) > 0:
        better = (value > 0) == higher_is_better(metric)
        amount, *ends = (factor * abs(end) for end in (value, *ends))
        verb, sign = "improves" if better else "worsens", ""
    else:
        amount, *ends = (factor * end for end in (value, *ends))
        verb, sign = "changes", "+"
    told = f"{verb} {what} by {amount:{sign}.{digits}f}{f' {unit}' if unit else ''}"
    return told + (f" (95 % {min(ends):{sign}.{digits}f} to {max(ends):{sign}.{digits}f})" if ends else "")


def score_name(name: str) -> str:
    """A score in words.

    >>> score_name("gradient-fisher"), score_name("churn-rms (seed:b)"), score_name("importance-loo")
    ('Fisher information', 'churn (rms, seed:b)', 'importance-loo')
    """
    base, detail = split_score(name)
    if base.startswith("churn-"):
        return f"churn ({base.removeprefix('churn-')}{f', {detail}' if detail else ''})"
    return f"{SCORES.get(base, base)}{f' ({detail})' if detail else ''}"


def split_score(name: str) -> tuple[str, str]:
    """A score and what it is of, which stands in brackets behind it where there are several.

    >>> split_score("churn-rms (initial)")
    ('churn-rms', 'initial')
    """
    base, _, detail = name.partition(" (")
    return base, detail.removesuffix(")")
