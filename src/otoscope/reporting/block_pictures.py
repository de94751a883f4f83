"""One picture a block: its profiles by offset and by position, a word on its attention, and its numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from otoscope.reporting.block_scalars import summaries
from otoscope.reporting.blocks import profile_figures, profiles
from otoscope.reporting.figures import BLUE, GREY, Figure, rgba
from otoscope.reporting.values import Row, interval, number


@dataclass(frozen=True)
class BlockPicture:
    """The picture of one block.

    Attributes:
        figure: its profiles.
        verdict: a word on its attention; empty where it was not tested.
        numbers: names and values of the map that is the mean of its heads.
    """

    figure: Figure
    verdict: str = ""
    numbers: tuple[tuple[str, str], ...] = ()


def block_pictures(
    rows: Mapping[str, Sequence[Row]], hop_ms: float | None, patterns: Mapping[int, str]
) -> list[BlockPicture]:
    """One picture a block; empty where there are no profiles.

    Below the profile by offset stands that by position in the utterance, where there is one.

    Args:
        rows: the table by measure.
        hop_ms: milliseconds between frames; None draws offsets in frames.
        patterns: words on attention, by layer.
    """
    numbers, shares = summaries(rows), positions(rows)
    layers = [profile.layer for profile in profiles(rows)]
    figures = profile_figures(rows, hop_ms)
    most = max((row["value"] for own in shares.values() for row in own), default=0.0)
    for layer, figure in zip(layers, figures, strict=True):
        if layer in shares:
            _add_positions(figure, shares[layer], most)
    return [
        BlockPicture(figure, patterns.get(layer, ""), tuple(numbers.get(layer, ())))
        for layer, figure in zip(layers, figures, strict=True)
    ]


def positions(rows: Mapping[str, Sequence[Row]]) -> dict[int, list[Row]]:
    """The rows of `position-profile` that have a value, by layer and in the order of their bins."""
    found: dict[int, list[Row]] = {}
    for row in rows.get("position-profile", ()):
        if row["layer"] is not None and row["value"] is not None and str(row["target"]).isdigit():
            found.setdefault(int(row["layer"]), []).append(row)
    return {layer: sorted(own, key=lambda row: int(row["target"])) for layer, own in sorted(found.items())}


def _add_positions(figure: Figure, own: Sequence[Row], most: float) -> None:
    """Puts the profile by position below that by offset.

    Args:
        figure: of the block; it is changed.
        own: the rows of its bins.
        most: the largest share of any block, where the axis ends.
    """
    bins = max(int(row["target"]) for row in own)
    x = [100 * (int(row["target"]) - 0.5) / bins for row in own]
    uniform = own[0]["floor"]
    figure.data.append(
        {
            "type": "bar", "x": x, "y": [row["value"] for row in own], "width": 100 / bins, "xaxis": "x2", "yaxis": "y2",
            "marker": {"color": rgba(BLUE, 0.5)},
            "hovertext": [
                f"<b>{number(at - 50 / bins, 0)} to {number(at + 50 / bins, 0)} % of the utterance</b><br>"
                f"share {interval(row, 4)}<br>uniform {number(row['floor'], 4)}"
                for at, row in zip(x, own, strict=True)
            ],
            "hoverinfo": "text", "showlegend": False,
        }
    )  # fmt: skip
    if uniform is not None:
        figure.data.append(
            {
                "type": "scatter", "mode": "lines", "x": [0, 100], "y": [uniform, uniform], "xaxis": "x2", "yaxis": "y2",
                "line": {"color": GREY, "width": 1.4, "dash": "dash"}, "hoverinfo": "skip", "showlegend": False,
            }
        )  # fmt: skip
    figure.layout["yaxis"]["domain"] = [0.46, 1]
    figure.layout |= {
        "xaxis2": {
            "title": {"text": "place in the utterance (%)", "standoff": 4}, "range": [0, 100], "nticks": 6,
            "anchor": "y2", "showgrid": False, "zeroline": False,
        },
        "yaxis2": {
            "domain": [0, 0.22], "anchor": "x2", "range": [0, 1.06 * most], "nticks": 3, "tickformat": "~%",
            "title": {"text": "mass", "standoff": 2},
        },
        "bargap": 0,
    }  # fmt: skip
    figure.layout["xaxis"]["anchor"] = "y"
    figure.height += 106
    figure.label = f"{figure.label}, and its profile by position in the utterance"
