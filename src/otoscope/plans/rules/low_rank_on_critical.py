"""Rule: critical layers are trained through low-rank adapters."""

from __future__ import annotations

from collections.abc import Sequence

from otoscope.plans.grounds import Grounds, Rule, absent
from otoscope.plans.plan import Evidence
from otoscope.plans.rules.freeze_ambient import labels
from otoscope.treatments.treatment import from_dict


def _act(grounds: Grounds) -> Sequence[str]:
    """Puts adapters of `Limits.rank` on critical layers, whose own weights are then frozen; by request only.

    Evidence: labels of `criticality`. That a change of low rank is enough is what adapters assume, and is not measured.
    """
    rank = grounds.limits.rank
    if not rank:
        return ["adapters are put on critical layers where a rank is given (--rank 8)"]
    labelled = labels(grounds)
    if not labelled:
        return [absent("criticality", "with --initial or --checkpoint, else of re-randomised layers")]
    critical = [row for row in labelled if row.label == "critical" and grounds.attends(row.layer or 0)]
    for row in critical:
        note = ", ".join(one for one in (row.label, row.target, row.other) if one)
        evidence = Evidence(row.measure, str(row.stream), row.value or 0.0, row.low, row.high, None, note)
        expected = (
            f"To be fine-tuned: the layer changes by products of rank {rank} only. That this is enough is a guess."
        )
        treatment = from_dict({"treatment": "low-rank", "units": f"layer.{row.layer}", "rank": rank})
        grounds.prescribe(treatment, [evidence], expected)
    return [] if critical else ["no layer is critical, so that none needs an adapter"]


LOW_RANK_ON_CRITICAL = Rule(
    "low-rank-on-critical", ("training-cost",), "Hu et al. 2022 (LoRA); where it is put is otoscope's own", _act
)  # fmt: skip
