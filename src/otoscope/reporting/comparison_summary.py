"""The summary of a comparison in the terminal: where each property peaks, and what is apart."""

from collections.abc import Iterator
from typing import Any

from otoscope.diagnosis.comparison import Comparison, peak_cell
from otoscope.diagnosis.curves import titles
from otoscope.diagnosis.metric_words import called
from otoscope.diagnosis.stability import figure_lines, label_cell
from otoscope.reporting.comparison import MOST_SENTENCES, absent_in_words
from otoscope.reporting.summary import hanging


def render_comparison_summary(comparison: Comparison, console: Any) -> None:
    """Prints the first sentences, tables of labels and of peaks, and what is absent or taken in another way.

    Args:
        comparison: what to summarise.
        console: a `rich.console.Console`; its width decides how lines break.
    """
    from rich import box
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    console.print()
    console.print(
        Text(", ".join(comparison.names[1:]), style="bold").append(f" against {comparison.names[0]}", "not bold")
    )
    console.print()
    sentences = comparison.sentences()
    for sentence in sentences[:MOST_SENTENCES]:
        console.print(Padding(hanging(sentence), (0, 0, 0, 1)))
    if len(sentences) > MOST_SENTENCES:
        console.print(Text(f" {len(sentences) - MOST_SENTENCES} further findings stand in the report.", style="dim"))
    for shown in _stability(comparison):
        console.print(shown)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column("peak of")
    for name in comparison.names:
        table.add_column(Text(name), justify="right", overflow="fold")
    for key, title in titles(comparison.keys).items():
        peaks = [comparison.peak(*key, name) for name in comparison.names]
        cells = [
            Text(peak_cell(peak) if peak else "", style="dim" if peak and peak["above_floor"] is False else "")
            for peak in peaks
        ]
        table.add_row(Text(title), *cells)
    table.caption = "(n): so many other streams cannot be told from the peak; faint: not beyond its floor"
    table.caption_justify = "left"
    if table.row_count:
        console.print(table)
    for line in comparison.provenance["stated"]:
        console.print(Padding(hanging(line, style="yellow"), (0, 0, 0, 1)))
    for who, reason in absent_in_words(comparison):
        console.print(Padding(hanging(f"Absent in {who} ({reason.rstrip('.')}).", style="yellow"), (0, 0, 0, 1)))
    console.print()


def _stability(comparison: Comparison) -> Iterator[Any]:
    """A table of labels for every metric, mode and kind of unit, with the agreement below it."""
    from rich import box
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    found = comparison.stability
    for group in found.groups if found is not None else ():
        assert found is not None
        metric, mode, granularity = group
        names = found.names(group)
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
        table.add_column(granularity)
        for name in names:
            table.add_column(Text(name), overflow="fold")
        for unit, cells in found.labels(group):
            row = [cells.get(name) for name in names]
            labels = {cell["label"] for cell in row if cell is not None}
            table.add_row(unit, *(Text(label_cell(cell, unit), "" if len(labels) > 1 else "dim") for cell in row))
        yield Text(f"criticality by {called(metric)} under {mode}", "italic")
        yield table
        for line in figure_lines(found.of(group)):
            yield Padding(Text(line, "dim"), (0, 0, 0, 1))
        yield Text()
