"""The canonical list of measures: name, group, row shape, unit and cost, in one place."""

from collections.abc import Iterable
from difflib import get_close_matches

from otoscope.diagnosis.block_entries import block_entries, block_passes
from otoscope.diagnosis.entries import ON_REQUEST, Entry
from otoscope.diagnosis.head_entries import head_entries, many_pass_entries, span_entries
from otoscope.diagnosis.layer_entries import layer_entries
from otoscope.diagnosis.options import Options
from otoscope.errors import MeasureError

CATALOGUE: tuple[Entry, ...] = (
    *layer_entries(),
    *head_entries(),
    *block_entries(),
    *block_passes(),
    *many_pass_entries(),
    *span_entries(),
)

GROUPS = tuple(dict.fromkeys(entry.group for entry in CATALOGUE))


def choose(measures: str | Iterable[str] | None, options: Options | None = None) -> list[tuple[Entry, bool]]:
    """Entries by names and groups, in the order of the catalogue, each with whether it was asked for by name.

    With its group, a measure that needs a table, another model or a checkpoint is taken only where that is given.

    Args:
        measures: names and groups, as a list or separated by commas; None for all that one pass gives.
        options: what is given beside model and corpus.

    Raises:
        MeasureError: a name is neither a measure nor a group.

    >>> [entry.name for entry, _ in choose("peak-offset,globalness")]
    ['globalness', 'peak-offset']
    """
    options = options or Options()
    if measures is None:
        wanted = [group for group in GROUPS if group not in ON_REQUEST]
    else:
        wanted = measures.split(",") if isinstance(measures, str) else list(measures)
        wanted = [name.strip() for name in wanted if name.strip()]
    names = {entry.name for entry in CATALOGUE}
    unknown = [name for name in wanted if name not in names and name not in GROUPS]
    if unknown or not wanted:
        near = get_close_matches(unknown[0], [*GROUPS, *names], 3) if unknown else []
        raise MeasureError(
            f"There is no measure or group {unknown[0]!r}" if unknown else "No measure was asked for",
            (f"Did you mean {' or '.join(near)}? " if near else "")
            + f"Groups are {', '.join(GROUPS)}; `otoscope diagnose --list` lists the measures.",
        )
    return [
        (entry, entry.name in wanted)
        for entry in CATALOGUE
        if entry.name in wanted
        or (entry.group in wanted and entry.served(options) and (measures is not None or entry.make is not None))
    ]
