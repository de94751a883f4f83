"""Rule: layers at which the loss pulls less are trained more slowly."""

from __future__ import annotations

from collections.abc import Sequence

from otoscope.plans.changes import preferred
from otoscope.plans.grounds import Grounds, Rule, absent
from otoscope.plans.plan import Evidence
from otoscope.treatments.learning_rate import LearningRate

LEAST = 0.01  # what is trained more slowly than this might as well be frozen, which is another rule's to say


def _act(grounds: Grounds) -> Sequence[str]:
    """Gives each layer the factor of its relative gradient norm over the greatest, as Auto-RGN does.

    Evidence: `gradient-norm-relative`. A layer has a factor where its interval lies below that of the layer with the
    greatest; the others, which cannot be told from it, keep the full rate. Auto-RGN takes the factors anew every epoch; a
    plan holds those of the beginning.
    """
    found = grounds.rows("gradient-norm-relative")
    metric = grounds.limits.metric or preferred({row.target for row in found if row.target})
    rows = [row for row in found if row.stream == f"layer.{row.layer}" and row.target == metric]
    if len(rows) < 2:
        return [absent("gradient-norm-relative")]
    greatest = max(rows, key=lambda row: row.value or 0.0)
    slower = [
        row for row in rows if row.high is not None and greatest.low is not None and row.high < greatest.low
    ]  # fmt: skip
    if not slower:
        return ["relative gradient norms of layers cannot be told apart on so little speech"]
    for row in slower:
        factor = max(float(f"{(row.value or 0.0) / (greatest.value or 1.0):.3g}"), LEAST)
        evidence = [
            Evidence(one.measure, str(one.stream), one.value or 0.0, one.low, one.high, None, str(one.target))
            for one in (row, greatest)
        ]
        expected = f"To be fine-tuned: {row.stream} learns {factor:g} times as fast as {greatest.stream}."
        grounds.prescribe(LearningRate(f"layer.{row.layer}", factor), evidence, expected)
    return []


LAYERWISE_RATES = Rule(
    "layerwise-rates", ("accuracy",), "Lee et al. 2023 (surgical fine-tuning, Auto-RGN)", _act
)  # fmt: skip
