"""Rule: attention that is local anyway is kept to a span."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from otoscope.plans.changes import Change, note_of
from otoscope.plans.grounds import Grounds, Rule, absent
from otoscope.plans.plan import Evidence
from otoscope.plans.rules.avoid_harmful_blocks import local_width
from otoscope.treatments.limit_span import LimitSpan


@dataclass(frozen=True)
class _Span:
    """A span that a layer may be kept to; `change` is None where what it costs was not measured."""

    layer: int
    radius: int
    change: Change | None
    evidence: tuple[Evidence, ...]


def _act(grounds: Grounds) -> Sequence[str]:
    """Keeps whole layers to the shortest span that surely costs little, as long as the margin lasts.

    Evidence: `block-intervention` "local", which is the very treatment; or `span-layer`, taken after the softmax, at a
    radius within which `Limits.mass` of the attention lies, so that before and after the softmax are nearly the same. Where
    neither was taken and guesses are allowed, that share of `relative-profile` alone. Single heads are left: a layer is
    no quicker than its widest head.
    """
    measured = _measured(grounds)
    spans = sorted(measured, key=lambda one: (one.radius, one.change.cost if one.change else 0.0, one.layer))
    taken = False
    for one in spans:
        free = grounds.attends(one.layer) and not grounds.touched(one.layer, "limit-span", "replace-attention")
        if free and one.change is not None and grounds.affordable(one.change):
            grounds.prescribe(
                LimitSpan(f"layer.{one.layer}", one.radius), one.evidence, _expected(one), changes=[one.change]
            )
            taken = True
    if measured:
        return [] if taken else ["no layer can be kept to a span without harm that is not excluded"]
    shaped = _shaped(grounds) if grounds.limits.guesses else []
    for one in shaped:
        if grounds.attends(one.layer) and not grounds.touched(one.layer, "limit-span", "replace-attention"):
            grounds.prescribe(LimitSpan(f"layer.{one.layer}", one.radius), one.evidence, _expected(one))
    if shaped:
        return ["a guess by the shape of attention; to go by what it costs take `otoscope diagnose --measures "
                "block-intervention`"]  # fmt: skip
    if not grounds.rows("relative-profile"):
        return [absent("block-intervention", "or span-layer,relative-profile")]
    return [f"no layer has {grounds.limits.mass:.0%} of its attention within the frames that its profile tells"]


def _measured(grounds: Grounds) -> list[_Span]:
    """Spans of layers of which it is known what they cost."""
    width = local_width(grounds)
    found = [
        _Span(one.row.layer or 0, width, one, (one.evidence,)) for one in grounds.changes("block-intervention", "local")
    ]
    reach = {one.layer: one for one in _shaped(grounds)}
    for one in grounds.changes("span-layer-change"):
        layer, radius = one.row.layer or 0, int(one.row.other or 0)
        form = note_of(grounds.diagnosis, f"span-layer on {one.row.target}").get("form", "literal")
        if form == "banded":
            found.append(_Span(layer, radius, one, (one.evidence,)))
        elif layer in reach and radius >= reach[layer].radius:
            found.append(_Span(layer, radius, one, (one.evidence, *reach[layer].evidence)))
    return found


def _shaped(grounds: Grounds) -> list[_Span]:
    """For each layer the shortest span within which enough of its mean attention lies."""
    profiles: dict[int, dict[int, float]] = {}
    for row in grounds.rows("relative-profile"):
        if row.target is not None and row.target.lstrip("-").isdigit():
            profiles.setdefault(row.layer or 0, {})[int(row.target)] = row.value or 0.0
    found = []
    for layer, profile in sorted(profiles.items()):
        within = 0.0
        for radius in range(max(profile) + 1):
            within += math.fsum(profile.get(offset, 0.0) for offset in {radius, -radius})
            if within >= grounds.limits.mass:
                note = f"share of attention within {radius} frames"
                share = Evidence("relative-profile", f"layer.{layer}", within, threshold=grounds.limits.mass, note=note)
                found.append(_Span(layer, radius, None, (share,)))
                break
    return found


def _expected(span: _Span) -> str:
    if span.change is None:
        return (
            "A guess: hardly any attention lies outside the span, and what the model loses without it was not measured. "
            "Time is saved where utterances are long against the span."
        )
    return f"{span.change.words}; time is saved where utterances are long against the span."


LIMIT_SPANS = Rule(
    "limit-spans",
    ("speed",),
    "Yang, Liu and Lee 2020, section 7.2; Alastruey et al. 2022 (windows by layer). Threshold: otoscope's own.",
    _act,
)
