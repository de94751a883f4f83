"""Tables of pages: cells in percent and points, and the marks between which a recipe writes."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from otoscope.evaluation.outcome import Change
from otoscope.training.folders import replace_text

END = "<!-- end of what was measured -->"
NOTHING = "-"


def mark(recipe: str) -> str:
    """The line before what a recipe writes."""
    return f"<!-- measured: written by recipes/{recipe} -->"


def put(page: Path, recipe: str, text: str) -> None:
    """Puts text between the marks of a page; what stands before and after stays."""
    start = mark(recipe)
    before, _, rest = page.read_text().partition(start)
    _, _, after = rest.partition(END)
    replace_text(page, f"{before}{start}\n\n{text.strip()}\n\n{END}{after}")


def days(places: Iterable[Path]) -> str:
    """From which day to which files were written, by universal time; nothing where there are none."""
    found = sorted(datetime.fromtimestamp(one.stat().st_mtime, UTC).date().isoformat() for one in places)
    if not found:
        return ""
    return found[0] if found[0] == found[-1] else f"{found[0]} to {found[-1]}"


def made(command: str, date: str) -> str:
    """By which command, and when."""
    return f"Made by `{command}`{f', {date}' if date else ''}."


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown.

    >>> print(table(["a", "b"], [["1", "2"]]), end="")
    | a | b |
    | --- | --- |
    | 1 | 2 |
    """
    return "".join(f"| {' | '.join(line)} |\n" for line in (head, ["---"] * len(head), *rows))


def values(change: Change | None, side: int) -> str:
    """The mean of a side, and every seed's value in brackets where there are several; in percent.

    Args:
        change: of an error rate; None where nothing was measured.
        side: 0 for before, 1 for after.
    """
    if change is None:
        return NOTHING
    runs = change.runs[side]
    mean = f"{100 * sum(runs) / len(runs):.1f} %"
    return mean if len(runs) == 1 else f"{mean} ({', '.join(f'{100 * one:.1f}' for one in runs)})"


def points(change: Change | None) -> str:
    """The difference in points, with its interval."""
    if change is None:
        return NOTHING
    found = change.difference
    ends = "" if found.low != found.low else f" ({100 * found.low:+.1f} to {100 * found.high:+.1f})"
    return f"{100 * found.value:+.1f}{ends}"


def sizes(change: Change) -> str:
    """On how much speech, and what intervals are over."""
    found = change.difference
    runs = f"{len(change.runs[0])} seeds and " if len(change.runs[0]) > 1 else ""
    only = "" if len(change.runs[0]) > 1 else ", and say nothing of other seeds"
    return (
        f"{found.utterances} utterances of {found.blocks} {found.by}s; intervals at {found.level:.0%}, over "
        f"{runs}{found.by}s{only}."
    )
