"""Blocks that attend abnormally, and what becomes of the model when the attention of a block is changed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from otoscope.diagnosis.block_sentences import notes_of
from otoscope.diagnosis.metric_words import called, higher_is_better, unit_of
from otoscope.reporting.block_scalars import SUMMARY, scalar_figures
from otoscope.reporting.facts import part
from otoscope.reporting.figures import GREEN, GREY, ORANGE, SKY, VERMILLION, YELLOW, Figure
from otoscope.reporting.forest import Mark, Scale, change, forest
from otoscope.reporting.values import Row, finite, interval, number

VERDICT_COLOURS = {
    "normal": GREY,
    "abnormal": ORANGE,
    "harmful": VERMILLION,
    "dispensable": SKY,
    "needed": GREEN,
    "undecided": YELLOW,
}
VERDICT_SYMBOLS = {"harmful": "x", "dispensable": "square", "needed": "diamond", "undecided": "triangle-up"}

INTERVENTIONS = {
    "bypass": "without its attention",
    "uniform": "uniform attention",
    "local": "a local window",
    "neighbour": "its neighbour's map",
}
"""What is done to a block, in words."""

ANY = "any"


@dataclass(frozen=True)
class BlockLine:
    """What is said of one block.

    Attributes:
        layer: from 1.
        pattern: "normal" or "abnormal", or an en dash where it was not tested.
        reasons: why it is abnormal; empty where it is not.
        p: the corrected p-value, as text.
        deviation: divergence from its neighbours, with its interval.
        residual: the number of the block that lies farthest from the trend of the others.
        verdicts: verdicts and the metrics that they are by.
        decided: what was done and what it changed, one a metric.
    """

    layer: int
    pattern: str
    reasons: str
    p: str
    deviation: str
    residual: str
    verdicts: tuple[tuple[str, tuple[str, ...]], ...] = ()
    decided: tuple[str, ...] = ()


@dataclass(frozen=True)
class Changes:
    """What one metric changes by under every intervention.

    Attributes:
        title: the metric in words, with its unit.
        figures: one forest plot an intervention.
        columns: names of the interventions.
        lines: layer, verdict, and the change under each intervention as text.
        control: what the same rule says of normal blocks; empty where it was not asked.
    """

    title: str
    figures: list[Figure]
    columns: list[str]
    lines: list[tuple[int, str, list[str]]]
    control: str


@dataclass(frozen=True)
class AbnormalPanel:
    """What the report says of abnormal blocks.

    Attributes:
        lines: one a block.
        scalars: numbers of the blocks over depth.
        changes: one a metric.
    """

    lines: list[BlockLine] = field(default_factory=list)
    scalars: list[Figure] = field(default_factory=list)
    changes: list[Changes] = field(default_factory=list)

    @property
    def figures(self) -> list[Figure]:
        """All figures that the page draws."""
        return [*self.scalars, *(figure for one in self.changes for figure in one.figures)]

    @property
    def patterns(self) -> dict[int, str]:
        """The first verdict of every layer, or its pattern where it has none."""
        return {line.layer: line.verdicts[0][0] if line.verdicts else line.pattern for line in self.lines}


def abnormal_panel(rows: Mapping[str, Sequence[Row]], notes: Mapping[str, Any]) -> AbnormalPanel | None:
    """What there is of abnormal blocks in a diagnosis; None where there is nothing.

    Args:
        rows: the table by measure.
        notes: of the diagnosis' provenance; margins and the words of the control are read.
    """
    lines = block_lines(rows)
    abnormal = [line.layer for line in lines if line.pattern == "abnormal"]
    panel = AbnormalPanel(lines, scalar_figures(rows, abnormal), _changes(rows, notes))
    return panel if panel.lines or panel.figures else None


def block_lines(rows: Mapping[str, Sequence[Row]]) -> list[BlockLine]:
    """What is said of every block whose pattern was tested or whose attention was changed."""
    patterns = {int(row["layer"]): row for row in rows.get("abnormality", ()) if row["layer"] is not None}
    deviations = {int(row["layer"]): row for row in rows.get("neighbour-deviation", ()) if row["layer"] is not None}
    residuals: dict[int, Row] = {}
    for row in rows.get("trend-residual", ()):
        if row["layer"] is not None and row["value"] is not None:
            known = residuals.get(int(row["layer"]))
            if known is None or abs(row["value"]) > abs(known["value"]):
                residuals[int(row["layer"])] = row
    verdicts: dict[int, list[Row]] = {}
    for row in rows.get("block-verdict", ()):
        if row["layer"] is not None:
            verdicts.setdefault(int(row["layer"]), []).append(row)
    return [
        _line(layer, patterns.get(layer), deviations.get(layer), residuals.get(layer), verdicts.get(layer, []))
        for layer in sorted({*patterns, *verdicts})
    ]


def _line(
    layer: int, pattern: Row | None, deviation: Row | None, residual: Row | None, verdicts: Sequence[Row]
) -> BlockLine:
    name = SUMMARY.get(residual["target"], (residual["target"],))[0] if residual is not None else ""
    words: dict[str, list[str]] = {}
    for row in verdicts:
        words.setdefault(row["label"] or "–", []).append(called(row["target"]))
    return BlockLine(
        layer,
        (pattern["label"] or "–") if pattern is not None else "–",
        (pattern["target"] or "") if pattern is not None else "",
        p_value(pattern["value"]) if pattern is not None else "–",
        interval(deviation, 4) if deviation is not None else "–",
        f"{name}, z = {interval(residual, 1)}" if residual is not None else "–",
        tuple((word, tuple(metrics)) for word, metrics in words.items()),
        tuple(_decided(row) for row in verdicts),
    )


def p_value(value: float | None) -> str:
    """A p-value to three decimals.

    >>> p_value(0.0004), p_value(0.031), p_value(None)
    ('< 0.001', '0.031', '–')
    """
    return "< 0.001" if value is not None and value < 0.001 else number(value)


def _decided(row: Row) -> str:
    if row["other"] is None or row["value"] is None:
        return ""
    unit = unit_of(row["target"])[1]
    return f"{INTERVENTIONS.get(row['other'], row['other'])}: {change(row, row['target'])}{f' {unit}' if unit else ''}"


def _changes(rows: Mapping[str, Sequence[Row]], notes: Mapping[str, Any]) -> list[Changes]:
    by_metric: dict[str, dict[str, dict[int, Row]]] = {}
    for row in rows.get("block-intervention", ()):
        if row["layer"] is not None and row["value"] is not None:
            by_metric.setdefault(row["target"], {}).setdefault(row["other"], {})[int(row["layer"])] = row
    verdicts = {
        (row["target"], int(row["layer"])): row["label"] or "–"
        for row in rows.get("block-verdict", ())
        if row["layer"] is not None
    }
    controls = {row["target"]: row for row in rows.get("block-control", ()) if row["other"] == ANY}
    found = []
    for metric, by_other in by_metric.items():
        order = sorted(by_other, key=lambda other: list(INTERVENTIONS).index(other) if other in INTERVENTIONS else 99)
        layers = sorted({layer for own in by_other.values() for layer in own})
        scale = Scale.of(metric, [row for own in by_other.values() for row in own.values()])
        unit = unit_of(metric)[1]
        criterion = part(part(part(notes_of(notes, "block-intervention"), "metrics"), metric), "criterion")
        margin = finite(criterion.get("margin"))
        worse = [] if margin is None else [-margin if higher_is_better(metric) else margin]
        found.append(
            Changes(
                f"{called(metric)}{f', {unit}' if unit else ''}",
                [_forest(metric, other, by_other[other], layers, verdicts, scale, worse) for other in order],
                [INTERVENTIONS.get(other, other) for other in order],
                [
                    (
                        layer,
                        verdicts.get((metric, layer), "–"),
                        [change(by_other[o][layer], metric) if layer in by_other[o] else "–" for o in order],
                    )
                    for layer in layers
                ],
                str(part(notes_of(notes, "block-control"), "says").get(metric) or _control(controls.get(metric))),
            )
        )
    return found


def _forest(
    metric: str,
    other: str,
    own: Mapping[int, Row],
    layers: Sequence[int],
    verdicts: Mapping[tuple[str, int], str],
    scale: Scale,
    margins: Sequence[float],
) -> Figure:
    name = INTERVENTIONS.get(other, other)
    marks = []
    for place, layer in enumerate(layers):
        verdict = verdicts.get((metric, layer), "normal")
        if layer in own:
            marks.append(
                Mark(
                    place,
                    own[layer],
                    f"layer {layer}, {name}",
                    VERDICT_COLOURS.get(verdict, GREY),
                    VERDICT_SYMBOLS.get(verdict, "circle"),
                    (verdict,) if (metric, layer) in verdicts else (),
                )
            )
    return forest(
        f"figure-block-change-{metric}-{other}", f"Change of {called(metric)}, {name}, block by block",
        marks, [str(layer) for layer in layers], scale, title=name, thresholds=margins,
    )  # fmt: skip


def _control(row: Row | None) -> str:
    if row is None or row["value"] is None:
        return ""
    shares = {name: None if row[name] is None else 100 * row[name] for name in ("value", "low", "high")}
    return (
        f"Of {row['n']} normal blocks the same rule would call {interval(shares, 0)} % harmful or dispensable. "
        "Where that is as much as of the abnormal ones, an abnormal pattern tells nothing of harm."
    )
