"""What the figures share: colours, bands and axes, as plain plotly structures (dicts and lists).

The page sets fonts, ink and grid from its style sheet, so that a figure follows the light or dark scheme. A
figure names only the colours that carry meaning, all from the palette of Okabe and Ito (2008), which readers
with a colour vision deficiency can tell apart.
"""

import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from otoscope.reporting.values import finite

BLUE, VERMILLION, GREEN = "#0072B2", "#D55E00", "#009E73"
SKY, ORANGE, PURPLE, YELLOW = "#56B4E9", "#E69F00", "#CC79A7", "#F0E442"
GREY = "#888888"

TARGET_COLOURS = {"mel": BLUE, "phone": VERMILLION, "word": GREEN}
OTHER_COLOURS = (PURPLE, ORANGE, SKY)
CATEGORY_COLOURS = {"global": SKY, "vertical": ORANGE, "diagonal": PURPLE}
CATEGORY_SYMBOLS = {"global": "circle", "vertical": "square", "diagonal": "diamond"}

Trace = dict[str, Any]


@dataclass
class Figure:
    """One plotly figure and how the page places it.

    Attributes:
        id: name of the element that holds it.
        label: what it shows, for readers who cannot see it.
        data: traces.
        layout: plotly layout, without fonts and without the colours of the scheme.
        height: in CSS pixels.
        min_width: in CSS pixels; a narrower page scrolls the figure sideways.
        max_width: in CSS pixels, or None for the full width.
        note: a few words beside the title.
        title: what stands over it.
        choices: names of the traces, where the page shows one at a time.
    """

    id: str
    label: str
    data: list[Trace]
    layout: dict[str, Any]
    height: int = 420
    min_width: int = 0
    max_width: int | None = None
    note: str = ""
    title: str = ""
    choices: list[str] = field(default_factory=list)

    def plotly(self) -> dict[str, Any]:
        """Data and layout as plotly reads them."""
        return {"data": self.data, "layout": self.layout | {"height": self.height}}


def rgba(colour: str, alpha: float) -> str:
    """A hexadecimal colour with an opacity in [0, 1], as CSS writes it.

    >>> rgba("#0072B2", 0.5)
    'rgba(0,114,178,0.5)'
    """
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},{round(alpha, 3):g})"


def safe(text: Any) -> str:
    """Text for plotly, which reads a part of HTML in its labels."""
    return html.escape(str(text), quote=True)


def panel_colours(targets: Sequence[str]) -> list[str]:
    """A colour for each curve of a panel: mel, phone and word have their own, the others take what is left.

    >>> panel_colours(["phone", "speaker"]) == [VERMILLION, PURPLE]
    True
    """
    own = [TARGET_COLOURS.get(target) for target in targets]
    found = [colour if colour not in own[:place] else None for place, colour in enumerate(own)]
    rest = [colour for colour in (*OTHER_COLOURS, *TARGET_COLOURS.values(), YELLOW) if colour not in found]
    places = [place for place, colour in enumerate(found) if colour is None]
    return [colour or rest[places.index(place) % len(rest)] for place, colour in enumerate(found)]


def runs(low: Sequence[float | None], high: Sequence[float | None]) -> list[tuple[int, int]]:
    """First and last-plus-one index of every stretch in which both ends of the interval are finite.

    >>> runs([0.1, None, 0.2, 0.3], [0.2, 0.3, 0.4, 0.5])
    [(0, 1), (2, 4)]
    """
    found: list[tuple[int, int]] = []
    start: int | None = None
    for place in range(len(low) + 1):
        there = place < len(low) and finite(low[place]) is not None and finite(high[place]) is not None
        if there and start is None:
            start = place
        elif not there and start is not None:
            found.append((start, place))
            start = None
    return found


def band(
    x: Sequence[float | int],
    low: Sequence[float | None],
    high: Sequence[float | None],
    colour: str,
    **more: Any,
) -> Trace:
    """The area between `low` and `high` as one filled trace, broken where the interval is missing.

    An interval that stands alone is drawn a little wide, so that it can be seen.
    """
    across: list[float | int | None] = []
    along: list[float | None] = []
    for first, last in runs(low, high):
        places = list(x[first:last])
        below, above = list(low[first:last]), list(high[first:last])
        if last - first == 1:
            places = [places[0] - 0.12, places[0] + 0.12]
            below, above = below * 2, above * 2
        if across:
            across.append(None)
            along.append(None)
        across += [*places, *reversed(places)]
        along += [*below, *reversed(above)]
    return {
        "type": "scatter",
        "mode": "lines",
        "x": across,
        "y": along,
        "fill": "toself",
        "fillcolor": rgba(colour, 0.2),
        "line": {"width": 0},
        "hoverinfo": "skip",
        "showlegend": False,
    } | more
