"""Rule: layers that need no training are frozen."""

from __future__ import annotations

from collections.abc import Sequence

from otoscope.measures.measure import Row
from otoscope.plans.grounds import Grounds, Rule, absent
from otoscope.plans.plan import Evidence
from otoscope.treatments.freeze import Freeze

_MODES = ("rewind", "re-initialise", "re-randomise")


def _act(grounds: Grounds) -> Sequence[str]:
    """Freezes ambient layers, or (`Limits.freeze`) all but the critical ones.

    Evidence: labels of `criticality` under the first of these modes that was taken: weights of an earlier checkpoint, those
    at initialisation, fresh draws.
    """
    labelled = labels(grounds)
    if not labelled:
        return [absent("criticality", "with --initial or --checkpoint, else of re-randomised layers")]
    named = {label: [row for row in labelled if row.label == label] for label in ("ambient", "critical")}
    if grounds.limits.freeze == "all-but-critical":
        if not named["critical"]:
            return ["no layer is critical, so that nothing but the head would be trained"]
        but = ",".join(str(row.layer) for row in named["critical"])
        expected = f"To be fine-tuned: only layers {but} and the head are trained. That this is enough is a guess."
        grounds.prescribe(Freeze("layer.*", f"layer.{but}"), [_evidence(row) for row in labelled], expected)
        return []
    for row in named["ambient"]:
        expected = "To be fine-tuned: no gradient of its weights is computed or kept."
        grounds.prescribe(Freeze(f"layer.{row.layer}"), [_evidence(row)], expected)
    return [] if named["ambient"] else ["no layer is ambient, so that none is frozen"]


def labels(grounds: Grounds) -> list[Row]:
    """The labelled row of each layer that is left, of one mode."""
    rows = [
        row
        for row in grounds.rows("criticality")
        if row.label is not None and row.stream == f"layer.{row.layer}" and row.layer in grounds.sizes.layers_left
    ]
    modes = sorted(
        {row.other or "" for row in rows if (row.other or "").partition(":")[0] in _MODES},
        key=lambda mode: (_MODES.index(mode.partition(":")[0]), mode),
    )
    return [row for row in rows if modes and row.other == modes[0]]


def _evidence(row: Row) -> Evidence:
    note = ", ".join(one for one in (row.label, row.target, row.other) if one)
    return Evidence(row.measure, str(row.stream), row.value or 0.0, row.low, row.high, None, note)


FREEZE_AMBIENT = Rule(
    "freeze-ambient",
    ("training-cost",),
    "Zhang, Bengio and Singer 2022; Zhou et al. 2022 (ambient layers). Thresholds: otoscope's own.",
    _act,
)
