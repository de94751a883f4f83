"""The summary of a diagnosis in the terminal: its sentences, and one short table over the layers."""

from collections.abc import Mapping, Sequence
from typing import Any

from otoscope.diagnosis.curves import curves
from otoscope.reporting import facts
from otoscope.reporting.block_table import block_tables
from otoscope.reporting.segmentation import segmentation_panel
from otoscope.reporting.values import (
    CATEGORIES,
    Reportable,
    Row,
    best_stream,
    category_counts,
    cca_rows,
    cca_targets,
    number,
    ordered_streams,
    plural,
    rows_by_measure,
    stream_key,
)

MOST_REASONS = 3
"""Of utterances that were left out, so many are named in the terminal."""

MOST_TARGETS = 4
"""So many targets of correlation fit beside the categories of heads."""

MOST_LINES = 16
"""A table over more streams shows about so many, evenly spaced, and the best of each target."""


def render_summary(diagnosis: Reportable, console: Any) -> None:
    """Prints the summary: what was examined, the sentences, and a table of correlations and head categories.

    Args:
        diagnosis: what to summarise.
        console: a `rich.console.Console`; its width decides how lines break.
    """
    from rich.padding import Padding
    from rich.text import Text

    rows = rows_by_measure(diagnosis.table)
    provenance = diagnosis.provenance
    console.print()
    title = Text(facts.model_name(provenance), style="bold")
    title.append(" on ", style="not bold")
    title.append(facts.corpus_name(provenance))
    console.print(title)
    headline = facts.headline(provenance)
    if headline:
        console.print(Text(headline, style="dim"))
    console.print()
    segmentation = segmentation_panel(rows, {})
    found = [str(sentence) for sentence in diagnosis.sentences()]
    found += [" ".join(segmentation.sentences)] if segmentation is not None and segmentation.sentences else []
    table = _table(rows)
    blocks = block_tables(rows)
    if not found and table is None and not blocks and rows:
        found = [_untold(list(rows))]
    for sentence in found:
        console.print(Padding(hanging(sentence), (0, 0, 0, 1)))
    if table is not None:
        console.print()
        console.print(table)
        hidden = _hidden(rows, len(curves(diagnosis.table)))
        if hidden:
            console.print(Text(f" {hidden} in the report.", style="dim"))
    for blocks_told, words in blocks:
        console.print()
        console.print(blocks_told)
        for line in words:
            console.print(Text(f" {line}", style="dim"))
    apart = _left_out(provenance)
    if apart:
        console.print()
        for line in apart:
            console.print(Padding(hanging(line, style="yellow"), (0, 0, 0, 1)))
    console.print()


def _untold(measures: Sequence[str]) -> str:
    """What was taken, where there is no sentence and no table for it."""
    more = len(measures) - MOST_TARGETS
    names = f"{', '.join(measures[:MOST_TARGETS])}{f' and {more} more' if more > 0 else ''}"
    return f"Taken: {names}. A result that is saved (-o DIR) holds the numbers, and its report draws them."


def hanging(sentence: str, style: str = "") -> Any:
    """A list item whose later lines stand under its first word."""
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=1)
    grid.add_column()
    grid.add_row(Text("•", style=style or "cyan"), Text(sentence, style=style))
    return grid


def _streams(rows: Mapping[str, Sequence[Row]]) -> list[str]:
    names = [name for target in _targets(rows) for name in cca_rows(rows, target)]
    names += [f"layer.{layer}" for layer in category_counts(rows)]
    return ordered_streams(names)


def _shown(rows: Mapping[str, Sequence[Row]]) -> list[str]:
    """All streams from `input` on, or some where they are many; of earlier ones only the best of a target."""
    best = {best_stream(cca_rows(rows, target)) for target in _targets(rows)}
    streams = _streams(rows)
    deep = [name for name in streams if stream_key(name)[0] >= 2]
    step = max(-(-len(deep) // MOST_LINES), 1)
    kept = set(deep[::step]) | set(deep[-1:])
    return [name for name in streams if name in kept or name in best]


def _targets(rows: Mapping[str, Sequence[Row]]) -> list[str]:
    return cca_targets(rows)[:MOST_TARGETS]


def _hidden(rows: Mapping[str, Sequence[Row]], measures: int) -> str:
    """What the table leaves out: streams, and measures of streams."""
    streams = len(_streams(rows)) - len(_shown(rows))
    parts = [(streams, "further stream"), (measures - len(_targets(rows)), "further measure")]
    told = " and ".join(plural(count, noun) for count, noun in parts if count > 0)
    return f"{told} {'stands' if sum(count for count, _ in parts if count > 0) == 1 else 'stand'}" if told else ""


def _table(rows: Mapping[str, Sequence[Row]]) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    targets = _targets(rows)
    counts = category_counts(rows)
    streams = _shown(rows)
    if not streams or not (targets or counts):
        return None
    per_target = {target: cca_rows(rows, target) for target in targets}
    best = {target: best_stream(found) for target, found in per_target.items()}
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), title_justify="left", title_style="")
    table.add_column("stream", no_wrap=True)
    for target in targets:
        table.add_column(Text(target), justify="right", no_wrap=True)
    if counts:
        for name in CATEGORIES:
            table.add_column(name, justify="right", no_wrap=True)
    for stream in streams:
        cells = [Text(stream)]
        for target in targets:
            row = per_target[target].get(stream)
            text = number(row["value"], 2) if row else ""
            cells.append(Text(f"{text} *", style="bold green") if best[target] == stream else Text(f"{text}  "))
        if counts:
            place, layer = stream_key(stream)
            found = counts.get(layer) if place == 3 else None
            cells += [_count_cell(found, name) for name in CATEGORIES]
        table.add_row(*cells)
    caption = []
    if targets:
        caption.append(f"{', '.join(targets)}: correlation with it, * best")
    if counts:
        caption.append("global, vertical, diagonal: heads in the layer")
    table.caption = "; ".join(caption)
    table.caption_justify = "left"
    return table


def _count_cell(found: Mapping[str, int] | None, name: str) -> Any:
    from rich.text import Text

    if found is None:
        return Text("")
    return Text(str(found[name]) if found[name] else "·", style="" if found[name] else "dim")


def _left_out(provenance: Mapping[str, Any]) -> list[str]:
    apart = facts.left_out(provenance)
    lines = []
    total = len(apart["utterances"]) + apart["more"]
    if total:
        noun = "utterance was" if total == 1 else "utterances were"
        lines.append(f"{total} {noun} left out:")
        lines += [f"{name}: {reason}" for name, reason in apart["utterances"][:MOST_REASONS]]
        if total > MOST_REASONS:
            lines.append(f"and {total - MOST_REASONS} more, which the saved result names.")
    alike: dict[str, list[str]] = {}
    for measure, reason in apart["skipped"]:
        alike.setdefault(reason, []).append(measure)
    for reason, measures in alike.items():
        lines.append(f"{', '.join(measures)} {'was' if len(measures) == 1 else 'were'} skipped: {reason}")
    return lines
