"""Rows of the diagnosis table as plain values: finite numbers or None, ordered streams, numbers as text."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

Row = dict[str, Any]
"""One row of the diagnosis table; its number columns hold a finite float or None."""

NUMBER_COLUMNS = ("value", "low", "high", "floor", "ceiling")

LAYER_TARGETS = ("mel", "phone", "word")
"""The targets that come first, in this order; any other follows by name."""

CATEGORIES = ("global", "vertical", "diagonal")


@runtime_checkable
class Reportable(Protocol):
    """What the report needs of a diagnosis."""

    @property
    def table(self) -> Any:
        """A polars frame with the columns of the diagnosis table."""

    @property
    def arrays(self) -> Mapping[str, Any]:
        """Arrays that stand beside the table, by name."""

    @property
    def provenance(self) -> Mapping[str, Any]:
        """What was examined, with what, and when."""

    def sentences(self) -> list[str]:
        """The findings in words."""


def finite(value: Any) -> float | None:
    """The value as a float, or None where it is no number, NaN or infinite."""
    if value is None or isinstance(value, str | bytes | bool):
        return None
    try:
        result = float(value)
    except (TypeError, ValueError):
        return None
    return result if math.isfinite(result) else None


def rows_by_measure(table: Any) -> dict[str, list[Row]]:
    """The rows of a polars frame by the name of their measure, in the order of the table.

    Args:
        table: frame with the columns of `Diagnosis.table`.
    """
    found: dict[str, list[Row]] = {}
    for row in table.to_dicts():
        if row.get("measure") is None:
            continue
        for column in NUMBER_COLUMNS:
            row[column] = finite(row.get(column))
        found.setdefault(row["measure"], []).append(row)
    return found


def stream_key(name: str) -> tuple[int, int]:
    """Where a stream stands on the way from waveform to output: `conv.n`, `input`, `layer.l`, `final_norm`.

    A stream of another name stands before `input`.
    """
    for place, pattern in ((0, r"conv\.(\d+)"), (3, r"layer\.(\d+)")):
        match = re.fullmatch(pattern, name)
        if match:
            return place, int(match[1])
    return {"input": 2, "final_norm": 4}.get(name, 1), 0


def ordered_streams(names: Iterable[str]) -> list[str]:
    """The distinct names in the order of the signal path; where two tie, in the order met."""
    return sorted(dict.fromkeys(names), key=stream_key)


def cca_targets(rows: Mapping[str, Sequence[Row]]) -> list[str]:
    """Targets with at least one finite `cca-*` value: mel, phone, word, then the others by name."""
    found = [
        name.removeprefix("cca-")
        for name, group in rows.items()
        if name.startswith("cca-") and any(row["stream"] and row["value"] is not None for row in group)
    ]
    rank = {name: place for place, name in enumerate(LAYER_TARGETS)}
    return sorted(found, key=lambda name: (rank.get(name, len(rank)), name))


def cca_rows(rows: Mapping[str, Sequence[Row]], target: str) -> dict[str, Row]:
    """The rows of `cca-{target}` by stream, in the order of the signal path."""
    found = {row["stream"]: row for row in rows.get(f"cca-{target}", ()) if row["stream"]}
    return {name: found[name] for name in ordered_streams(found)}


def best_stream(rows: Mapping[str, Row]) -> str | None:
    """The stream of the highest finite value; the first where two are equal."""
    scored = [name for name, row in rows.items() if row["value"] is not None]
    return max(scored, key=lambda name: rows[name]["value"]) if scored else None


def category_counts(rows: Mapping[str, Sequence[Row]]) -> dict[int, dict[str, int]]:
    """How many heads of each category every layer has, by layer; empty where no head has a category."""
    counts: dict[int, dict[str, int]] = {}
    for row in rows.get("category", ()):
        if row["layer"] is None or row["label"] not in CATEGORIES:
            continue
        layer = counts.setdefault(int(row["layer"]), dict.fromkeys(CATEGORIES, 0))
        layer[row["label"]] += 1
    return dict(sorted(counts.items()))


def number(value: Any, digits: int = 3) -> str:
    """A number with fixed decimals and a true minus sign; an en dash where there is none."""
    found = finite(value)
    if found is None:
        return "–"
    text = f"{found:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("-", "−")


def interval(row: Mapping[str, Any], digits: int = 3) -> str:
    """`value [low, high]`, or the value alone where it has no interval."""
    text = number(row["value"], digits)
    if row["low"] is None or row["high"] is None:
        return text
    return f"{text} [{number(row['low'], digits)}, {number(row['high'], digits)}]"


def count(value: Any) -> str:
    """A count with thin spaces between thousands, or an en dash; collections are counted."""
    if isinstance(value, list | tuple | set | dict):
        value = len(value)
    found = finite(value)
    return "–" if found is None else f"{found:,.0f}".replace(",", "\u202f")


def plural(amount: int, noun: str) -> str:
    """The count with its noun, in the plural where it is not one.

    >>> plural(1, "layer"), plural(3, "layer")
    ('1 layer', '3 layers')
    """
    return f"{count(amount)} {noun}" + ("" if amount == 1 else "s")
