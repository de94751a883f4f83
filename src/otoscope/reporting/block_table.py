"""The blocks in the terminal: pattern, verdict, label and what decided, a line a block."""

from collections.abc import Mapping, Sequence
from typing import Any

from otoscope.diagnosis.metric_words import called, unit_of
from otoscope.reporting.criticality import granularity, labelling_metric, mode_name, mode_order
from otoscope.reporting.forest import change
from otoscope.reporting.values import Row, plural

MOST_LINES = 16
"""Of more blocks those are left away that attend normally, and then the last."""

_STYLES = {
    "abnormal": "yellow", "harmful": "bold red", "dispensable": "cyan", "needed": "green", "undecided": "yellow",
    "critical": "bold", "ambient": "cyan", "normal": "dim",
}  # fmt: skip


def block_tables(rows: Mapping[str, Sequence[Row]]) -> list[tuple[Any, list[str]]]:
    """A table of patterns and verdicts, and one of labels, each with what is said below it, where there are any.

    Args:
        rows: of the diagnosis by measure.
    """
    patterns = _by_layer(rows.get("abnormality", ()))
    judged = [row for row in rows.get("block-verdict", ()) if row["label"]]
    metric = judged[0]["target"] if judged else None
    verdicts = _by_layer([row for row in judged if row["target"] == metric])
    labels, label_metric, mode = _labels(rows)
    found = []
    # That all blocks attend normally is a sentence, and no table.
    if verdicts or any(row["label"] != "normal" for row in patterns.values()):
        shown, hidden = _shown(sorted({*patterns, *verdicts}), [patterns, verdicts], "normal")
        words = []
        if metric:
            decided = "its change is by what decided, or what is mildest."
            words = [f"Verdicts go by {called(metric)}; {decided}"]
        table = _table(shown, {"pattern": patterns, "verdict": verdicts}, verdicts, metric)
        found.append((table, [*words, *_below(metric, hidden)]))
    if label_metric and mode:
        shown, hidden = _shown(sorted(labels), [labels], "intermediate")
        words = [f"Labels go by {called(label_metric)}, blocks {mode_name(mode)} one at a time."]
        table = _table(shown, {"label": labels}, labels, label_metric)
        found.append((table, [*words, *_below(label_metric, hidden)]))
    return found


def _table(
    layers: Sequence[int], columns: Mapping[str, Mapping[int, Row]], changes: Mapping[int, Row], metric: str | None
) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    there = {name: words for name, words in columns.items() if words}
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column("block", justify="right", no_wrap=True)
    for name in there:
        table.add_column(name, no_wrap=name != "pattern", max_width=34 if name == "pattern" else None)
    if metric:
        table.add_column(Text(f"change of {called(metric)}"), justify="right")
    for layer in layers:
        cells = [Text(str(layer))]
        for name, words in there.items():
            row = words.get(layer, {})
            word = (name == "pattern" and row.get("target")) or row.get("label") or ""
            cells.append(Text(word.replace("; ", ", "), style=_STYLES.get(row.get("label") or "", "")))
        if metric:
            changed = changes.get(layer)
            cells.append(Text(change(changed, metric) if changed and changed["value"] is not None else ""))
        table.add_row(*cells)
    return table


def _by_layer(rows: Sequence[Row]) -> dict[int, Row]:
    return {int(row["layer"]): row for row in rows if row["layer"] is not None and row["label"]}


def _labels(rows: Mapping[str, Sequence[Row]]) -> tuple[dict[int, Row], str | None, str | None]:
    """Labels of blocks by the first mode that has some, with the metric and the mode."""
    own = [row for row in rows.get("criticality", ()) if row["stream"] and granularity(row["stream"]) == "block"]
    own = [row for row in own if row["label"]]
    metric = labelling_metric(own)
    modes = sorted(dict.fromkeys(row["other"] for row in own), key=mode_order)
    mode = modes[0] if modes else None
    return _by_layer([row for row in own if row["target"] == metric and row["other"] == mode]), metric, mode


def _shown(layers: Sequence[int], columns: Sequence[Mapping[int, Row]], usual: str) -> tuple[list[int], int]:
    """Blocks that are shown, those that are not as usual first, and how many are not."""
    odd = [
        layer for layer in layers if any(there.get(layer, {}).get("label") not in (None, usual) for there in columns)
    ]
    rest = [layer for layer in layers if layer not in odd]
    shown = sorted([*odd, *rest][:MOST_LINES])
    return shown, len(layers) - len(shown)


def _below(metric: str | None, hidden: int) -> list[str]:
    unit = unit_of(metric)[1] if metric else ""
    return [
        *([f"Changes in {unit}, with 95 % intervals."] if unit else []),
        *(
            [f"{plural(hidden, 'further block')} {'stands' if hidden == 1 else 'stand'} in the report."]
            if hidden
            else []
        ),
    ]
