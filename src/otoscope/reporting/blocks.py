"""The relative profile of every block: attention mass by the offset of the key from the query."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from otoscope.reporting.figures import BLUE, GREY, VERMILLION, Figure, Trace, band, rgba
from otoscope.reporting.values import Row, number

LOWEST_MASS = 1e-6
"""Below this, mass is drawn at the lower edge of a logarithmic axis."""


@dataclass(frozen=True)
class Profile:
    """The relative profile of one block.

    Attributes:
        layer: from 1.
        offsets: key minus query in frames, rising.
        mass: mean share of attention at each offset, in [0, 1], None where unknown.
        low: lower ends of the intervals.
        high: upper ends of the intervals.
        uniform: the same share where attention is uniform.
        before: mass further back than the first offset.
        after: mass further on than the last offset.
    """

    layer: int
    offsets: tuple[int, ...]
    mass: tuple[float | None, ...]
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]
    uniform: tuple[float | None, ...]
    before: float | None
    after: float | None

    def peak(self) -> tuple[int, float] | None:
        """Offset and mass of the highest point, or None where no mass is known."""
        known = [(mass, offset) for mass, offset in zip(self.mass, self.offsets, strict=True) if mass is not None]
        if not known:
            return None
        mass, offset = max(known, key=lambda pair: (pair[0], -abs(pair[1])))
        return offset, mass


def profiles(rows: Mapping[str, Sequence[Row]]) -> list[Profile]:
    """The profiles in the rows of `relative-profile`, by layer, without rows whose target is no offset."""
    by_layer: dict[int, tuple[dict[int, Row], dict[str, Row]]] = {}
    for row in rows.get("relative-profile", ()):
        if row["layer"] is None or row["target"] is None:
            continue
        inside, tails = by_layer.setdefault(int(row["layer"]), ({}, {}))
        target = str(row["target"])
        if target[:1] in ("<", ">"):
            tails[target[0]] = row
            continue
        try:
            inside[int(target)] = row
        except ValueError:
            continue
    found = []
    for layer, (inside, tails) in sorted(by_layer.items()):
        offsets = tuple(sorted(inside))
        columns = {
            name: tuple(inside[offset][name] for offset in offsets) for name in ("value", "low", "high", "floor")
        }
        if not any(value is not None for value in columns["value"]):
            continue
        before, after = (tails[side]["value"] if side in tails else None for side in ("<", ">"))
        found.append(
            Profile(
                layer,
                offsets,
                columns["value"],
                columns["low"],
                columns["high"],
                columns["floor"],
                before,
                after,
            )
        )
    return found


def unit_of(hop_ms: float | None) -> tuple[float, str]:
    """What one frame is on the axis of offsets, and the unit: frames where the hop is unknown."""
    return (hop_ms, "ms") if hop_ms else (1.0, "frames")


def profile_figures(rows: Mapping[str, Sequence[Row]], hop_ms: float | None) -> list[Figure]:
    """One small figure a block, all with the same axes; empty where there are no profiles.

    Args:
        rows: the table by measure.
        hop_ms: milliseconds between frames; None draws offsets in frames.
    """
    found = profiles(rows)
    if not found:
        return []
    known = [
        value
        for profile in found
        for value in (*profile.mass, *profile.high, *profile.uniform)
        if value is not None and value > LOWEST_MASS
    ]
    high = max(known, default=1.0)
    low = max(min(known, default=LOWEST_MASS), LOWEST_MASS)
    logarithmic = [math.log10(low) - 0.15, math.log10(high) + 0.15]
    linear = [-0.05 * high, 1.06 * high]
    return [_profile_figure(profile, hop_ms, logarithmic, linear) for profile in found]


def _profile_figure(profile: Profile, hop_ms: float | None, logarithmic: list[float], linear: list[float]) -> Figure:
    scale, unit = unit_of(hop_ms)
    x = [round(offset * scale, 6) for offset in profile.offsets]
    bottom = 10 ** logarithmic[0]

    def drawn(values: Sequence[float | None]) -> list[float | None]:
        return [None if value is None else max(value, bottom) for value in values]

    data: list[Trace] = [
        band(x, drawn(profile.low), drawn(profile.high), BLUE),
        {
            "type": "scatter",
            "mode": "lines",
            "x": x,
            "y": drawn(profile.uniform),
            "line": {"color": GREY, "width": 1.4, "dash": "dash"},
            "hoverinfo": "skip",
            "showlegend": False,
        },
        {
            "type": "scatter",
            "mode": "lines",
            "x": x,
            "y": drawn(profile.mass),
            "line": {"color": BLUE, "width": 1.8},
            "hovertext": [
                f"<b>{number(place, 0)} {unit}</b><br>{_mass(profile, index)}" for index, place in enumerate(x)
            ],
            "hoverinfo": "text",
            "showlegend": False,
        },
    ]
    layout: dict[str, Any] = {
        "xaxis": {
            "title": {"text": f"key − query ({unit})", "standoff": 4},
            "range": [x[0], x[-1]],
            "zeroline": True,
            "nticks": 6,
        },
        "yaxis": {
            "title": {"text": "mass at offset", "standoff": 2},
            "type": "log",
            "range": logarithmic,
            "dtick": 1,
            "zeroline": False,
            "tickformat": "~%",
        },
        "meta": {"log": logarithmic, "linear": linear},
        "margin": {"l": 58, "r": 20, "t": 6, "b": 40},
        "hovermode": "closest",
        "font": {"size": 11},
    }
    return Figure(
        id=f"figure-block-{profile.layer}",
        label=f"Relative profile of layer {profile.layer}",
        data=data,
        layout=layout,
        height=196,
        title=f"Layer {profile.layer}",
        note=_note(profile, scale, unit),
    )


def _mass(profile: Profile, index: int) -> str:
    value, low, high = profile.mass[index], profile.low[index], profile.high[index]
    text = f"mass {number(value, 4)}"
    if low is not None and high is not None:
        text += f" [{number(low, 4)}, {number(high, 4)}]"
    uniform = profile.uniform[index]
    if uniform is not None:
        text += f"<br>uniform {number(uniform, 4)}"
        if value is not None and uniform > 0:
            text += f"<br>{number(value / uniform, 1)} times uniform"
    return text


def _note(profile: Profile, scale: float, unit: str) -> str:
    parts = []
    peak = profile.peak()
    if peak is not None:
        sign = "+" if peak[0] > 0 else ""
        parts.append(f"peak {sign}{number(peak[0] * scale, 0)} {unit}")
    if profile.before is not None and profile.after is not None:
        parts.append(f"{100 * (profile.before + profile.after):.0f} % outside")
    return " · ".join(parts)


def lift_figure(rows: Mapping[str, Sequence[Row]], hop_ms: float | None) -> Figure | None:
    """All blocks in one heat map: the logarithm to base 2 of attention mass over its uniform baseline.

    Returns:
        The figure, or None where no block has both a mass and a baseline.
    """
    found = [profile for profile in profiles(rows) if any(value for value in profile.uniform)]
    if not found:
        return None
    scale, unit = unit_of(hop_ms)
    offsets = sorted({offset for profile in found for offset in profile.offsets})
    values: list[list[float | None]] = []
    text: list[list[str | None]] = []
    for profile in found:
        index = {offset: place for place, offset in enumerate(profile.offsets)}
        values.append([_lift(profile, index.get(offset)) for offset in offsets])
        text.append(
            [
                f"<b>layer {profile.layer}, {number(offset * scale, 0)} {unit}</b><br>" + _mass(profile, index[offset])
                if offset in index
                else None
                for offset in offsets
            ]
        )
    limit = max((abs(value) for line in values for value in line if value is not None), default=1.0)
    limit = min(max(limit, 1.0), 6.0)
    ticks = list(range(-math.floor(limit), math.floor(limit) + 1, 1 if limit < 4 else 2))
    layers = [profile.layer for profile in found]
    data: list[Trace] = [
        {
            "type": "heatmap",
            "x": [round(offset * scale, 6) for offset in offsets],
            "y": layers,
            "z": values,
            "zmin": -limit,
            "zmax": limit,
            "colorscale": [
                [0, VERMILLION],
                [0.25, rgba(VERMILLION, 0.5)],
                [0.5, rgba(GREY, 0.05)],
                [0.75, rgba(BLUE, 0.5)],
                [1, BLUE],
            ],
            "hovertext": text,
            "hoverinfo": "text",
            "hoverongaps": False,
            "ygap": 1,
            "colorbar": {
                "thickness": 12,
                "outlinewidth": 0,
                "x": 1.01,
                "xpad": 6,
                "len": 1,
                "tickvals": ticks,
                "ticktext": [_times(tick) for tick in ticks],
                "title": {"text": "mass over uniform", "side": "right", "font": {"size": 11}},
                "tickfont": {"size": 11},
            },
        }
    ]
    layout = {
        "xaxis": {"title": {"text": f"key − query ({unit})"}, "showgrid": False, "zeroline": False},
        "yaxis": {
            "title": {"text": "layer"},
            "tickmode": "array",
            "tickvals": layers,
            "range": [max(layers) + 0.5, min(layers) - 0.5],
            "showgrid": False,
            "zeroline": False,
        },
        "margin": {"l": 56, "r": 84, "t": 8, "b": 48},
        "hovermode": "closest",
    }
    return Figure(
        id="figure-lift",
        label="Attention mass over its uniform baseline by layer and offset",
        data=data,
        layout=layout,
        height=max(180, 64 + (24 if len(layers) <= 16 else 17) * (max(layers) - min(layers) + 1)),
    )


def _lift(profile: Profile, place: int | None) -> float | None:
    if place is None:
        return None
    mass, uniform = profile.mass[place], profile.uniform[place]
    if mass is None or not uniform or uniform <= 0:
        return None
    return math.log2(max(mass, LOWEST_MASS) / uniform)


def _times(power: int) -> str:
    return f"{2**power} ×" if power >= 0 else f"1/{2**-power} ×"
