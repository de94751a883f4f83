"""Rule: top layers that have lost what the middle ones know begin anew before fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence

from otoscope.measures.measure import Row
from otoscope.plans.grounds import Grounds, Rule, absent
from otoscope.plans.plan import Evidence
from otoscope.treatments.reinitialise import Reinitialise

_CURVES = (("cca-word", None), ("word-similarity", "micro"), ("cca-phone", None))
_ACOUSTIC = ("cca-mel", "cca-intra")
FALLEN = 0.5  # of what a curve gained on the way to its peak


def _act(grounds: Grounds) -> Sequence[str]:
    """Re-initialises the topmost layers whose content has fallen, at most `Limits.top` of them.

    A layer above the peak of the curve has fallen where it has lost at least half of what the curve gained from its
    least layer before the peak on, and the upper end of its interval lies below the peak. n is how many layers from the
    top down have fallen, without a gap. The curve is the first of `cca-word`, `word-similarity` and `cca-phone` that was
    taken; how far the top returns to the spectrum or the input is told beside it. The rule is otoscope's own: Pasad, Chou
    and Livescu (2021) try n = 1, 2, 3 for models of which this curve falls.
    """
    if str(grounds.diagnosis.provenance["model"].get("class", "")).endswith("ForCTC"):
        return ["the model is fine-tuned already, and its top layers with it: diagnose the model before fine-tuning"]
    curves = [(name, _layers(grounds, name, target)) for name, target in _CURVES]
    curves = [(name, rows) for name, rows in curves if len(rows) > 2]
    if not curves:
        return [absent("cca-word,cca-mel")]
    name, rows = curves[0]
    top = fallen(rows)[: grounds.limits.top]
    if not top:
        peak = max(rows, key=lambda row: row.value or 0.0)
        return [
            f"{name} does not fall surely enough towards the top (its peak is {peak.stream}), so no layer begins anew"
        ]
    layers = sorted(row.layer or 0 for row in top)
    units = f"layer.{layers[0]}" if len(layers) == 1 else f"layer.{layers[0]}-{layers[-1]}"
    peak = max(rows, key=lambda row: row.value or 0.0)
    evidence = [
        Evidence(peak.measure, str(peak.stream), peak.value or 0.0, peak.low, peak.high, None, "the peak"),
        *(
            Evidence(row.measure, str(row.stream), row.value or 0.0, row.low, row.high, peak.value)
            for row in reversed(top)
        ),
        *_return(grounds, layers[-1]),
    ]
    expected = (
        "To be fine-tuned: until then the model is of no use. With ten minutes of transcribed speech the word error rate "
        "falls clearly, with more speech by less."
    )
    seed = int(grounds.diagnosis.provenance.get("seed", 0))
    grounds.prescribe(Reinitialise(units, seed), evidence, expected)
    return []


def fallen(rows: Sequence[Row]) -> list[Row]:
    """The topmost layers of a curve that have fallen, from the top down; see the rule.

    Args:
        rows: a value for each layer, from the lowest to the highest.
    """
    peak = max(range(len(rows)), key=lambda k: rows[k].value or 0.0)
    highest = rows[peak].value or 0.0
    gained = highest - min(row.value or 0.0 for row in rows[: peak + 1])
    found = []
    for row in reversed(rows[peak + 1 :]):
        lost = highest - (row.value or 0.0)
        if gained <= 0 or lost < FALLEN * gained or row.high is None or row.high >= highest:
            break
        found.append(row)
    return found


def _layers(grounds: Grounds, measure: str, target: str | None) -> list[Row]:
    rows = [row for row in grounds.rows(measure, target) if row.stream == f"layer.{row.layer}"]
    return sorted(rows, key=lambda row: row.layer or 0)


def _return(grounds: Grounds, top: int) -> list[Evidence]:
    """How near the top is to the spectrum and the input again, and its least before."""
    found = []
    for name in _ACOUSTIC:
        rows = _layers(grounds, name, None)
        least = min(rows, key=lambda row: row.value or 0.0, default=None)
        last = next((row for row in rows if row.layer == top), None)
        if least is not None and last is not None and (least.layer or 0) < top:
            note = f"returns from its least, at {least.stream}"
            found.append(Evidence(name, str(last.stream), last.value or 0.0, last.low, last.high, least.value, note))
    return found


REINITIALISE_TOP = Rule(
    "reinitialise-top",
    ("accuracy",),
    "Pasad, Chou and Livescu 2021, section on fine-tuning; how n is chosen is otoscope's own",
    _act,
)
