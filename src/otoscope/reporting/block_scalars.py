"""The numbers of every block: in words beside its picture, and along the depth of the model."""

from collections.abc import Collection, Mapping, Sequence

from otoscope.reporting.figures import BLUE, GREY, ORANGE, Figure, Trace, band
from otoscope.reporting.values import Row, interval, number

SUMMARY = {
    "globalness-normalised": ("entropy", 2, ""),
    "verticality-normalised": ("verticality", 2, ""),
    "diagonality": ("diagonality", 2, ""),
    "head-information": ("information", 2, "nat"),
    "head-disagreement": ("heads differ by", 2, "nat"),
    "self-mass": ("own frame", 0, "%"),
    "local-mass": ("near", 0, "%"),
    "mean-offset": ("mean offset", 1, "frames"),
    "between-utterance-variance": ("utterances vary by", 5, ""),
}
"""Numbers of a block in words, with their decimals and units."""


def summaries(rows: Mapping[str, Sequence[Row]]) -> dict[int, list[tuple[str, str]]]:
    """The numbers of `block-summary` as names and values in words, by layer; unknown ones are left away."""
    found: dict[int, dict[str, tuple[str, str]]] = {}
    for row in rows.get("block-summary", ()):
        if row["layer"] is not None and row["value"] is not None and row["target"] in SUMMARY:
            name, digits, unit = SUMMARY[row["target"]]
            value = number(100 * row["value"] if unit == "%" else row["value"], digits)
            found.setdefault(int(row["layer"]), {})[row["target"]] = name, f"{value} {unit}".strip()
    return {layer: [own[target] for target in SUMMARY if target in own] for layer, own in sorted(found.items())}


def scalar_figures(rows: Mapping[str, Sequence[Row]], abnormal: Collection[int] = ()) -> list[Figure]:
    """One small figure a number: its course over the layers, with bands.

    Args:
        rows: the table by measure.
        abnormal: layers that are marked.
    """
    residuals = {
        (row["layer"], row["target"]): row for row in rows.get("trend-residual", ()) if row["value"] is not None
    }
    by_target: dict[str, list[Row]] = {}
    for row in rows.get("block-summary", ()):
        if row["layer"] is not None and row["value"] is not None and row["target"] in SUMMARY:
            by_target.setdefault(row["target"], []).append(row)
    figures = []
    for target in (name for name in SUMMARY if len(by_target.get(name, ())) > 1):
        own = sorted(by_target[target], key=lambda row: int(row["layer"]))
        name, digits, unit = SUMMARY[target]
        factor = 100 if unit == "%" else 1
        x = [int(row["layer"]) for row in own]

        def scaled(column: str, own: Sequence[Row] = own, factor: int = factor) -> list[float | None]:
            return [None if row[column] is None else factor * row[column] for row in own]

        hover = []
        for row in own:
            told = {
                column: None if row[column] is None else factor * row[column] for column in ("value", "low", "high")
            }
            lines = [f"<b>layer {row['layer']}</b>", f"{name} {interval(told, digits + 1)} {unit}"]
            residual = residuals.get((row["layer"], target))
            if residual is not None:
                lines.append(f"from the trend of the others: z = {interval(residual, 1)}")
            hover.append("<br>".join(lines))
        marked = [layer in abnormal for layer in x]
        data: list[Trace] = [
            band(x, scaled("low"), scaled("high"), BLUE),
            {
                "type": "scatter", "mode": "lines", "x": x, "y": scaled("floor"), "hoverinfo": "skip", "showlegend": False,
                "line": {"color": GREY, "width": 1.4, "dash": "dash"},
            },
            {
                "type": "scatter", "mode": "lines+markers", "x": x, "y": scaled("value"),
                "line": {"color": BLUE, "width": 1.6},
                "marker": {
                    "color": [ORANGE if one else BLUE for one in marked],
                    "symbol": ["diamond" if one else "circle" for one in marked],
                    "size": [9 if one else 4 for one in marked],
                },
                "hovertext": hover, "hoverinfo": "text", "showlegend": False,
            },
        ]  # fmt: skip
        layout = {
            "xaxis": {"title": {"text": "layer", "standoff": 4}, "nticks": 8, "zeroline": False, "showgrid": False},
            "yaxis": {"nticks": 5, "zeroline": False, "tickformat": "~g"},
            "margin": {"l": 52, "r": 8, "t": 6, "b": 36}, "hovermode": "closest", "font": {"size": 11},
        }  # fmt: skip
        figures.append(
            Figure(
                f"figure-scalar-{target}",
                f"{target} of every block",
                data,
                layout,
                height=160,
                title=name,
                note=unit,
            )
        )
    return figures
