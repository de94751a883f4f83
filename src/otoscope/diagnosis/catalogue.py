"""The canonical list of measures: name, group, row shape, unit and cost, in one place."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from otoscope.errors import MeasureError
from otoscope.measures.blocks.profile import RelativeProfile
from otoscope.measures.heads.category import Category
from otoscope.measures.heads.diagonality import Diagonality
from otoscope.measures.heads.globalness import Globalness, NormalisedGlobalness
from otoscope.measures.heads.information import HeadInformation
from otoscope.measures.heads.verticality import NormalisedVerticality, Verticality
from otoscope.measures.layers.cca import CCA
from otoscope.measures.measure import Measure


@dataclass(frozen=True)
class Entry:
    """One measure that can be asked for.

    Attributes:
        name: canonical name; the `measure` column of the table.
        group: "layers", "heads" or "blocks".
        rows: what a row of the table stands for.
        unit: unit and range of the value.
        cost: how many passes over the audio it takes.
        tells: what it measures, in a line.
        make: a fresh measure.
    """

    name: str
    group: str
    rows: str
    unit: str
    cost: str
    tells: str
    make: Callable[[], Measure]


_ONE = "one pass, shared"

CATALOGUE: tuple[Entry, ...] = (
    Entry(
        "cca-mel", "layers", "a stream", "PWCCA, up to 1", _ONE, "how much of the sound (log-mel) a stream holds",
        partial(CCA, "mel"),
    ),
    Entry(
        "cca-phone", "layers", "input, a layer", "PWCCA, up to 1", _ONE, "how well phones are told apart",
        partial(CCA, "phone"),
    ),
    Entry(
        "cca-word", "layers", "input, a layer", "PWCCA, up to 1", _ONE, "how well frequent words are told apart",
        partial(CCA, "word"),
    ),
    Entry(
        "globalness", "heads", "a head", "nat, 0 to ln T", _ONE, "how widely each query spreads its attention",
        Globalness,
    ),
    Entry(
        "verticality", "heads", "a head", "nat, -ln T to 0", _ONE, "how much all queries agree on the same keys",
        Verticality,
    ),
    Entry(
        "diagonality", "heads", "a head", "relative distance, about -0.75 to 0", _ONE,
        "how near to itself each query attends", Diagonality,
    ),
    Entry(
        "globalness-normalised", "heads", "a head", "G / ln T, 0 to 1", _ONE, "globalness for any length of utterance",
        NormalisedGlobalness,
    ),
    Entry(
        "verticality-normalised", "heads", "a head", "V / ln T, -1 to 0", _ONE,
        "verticality for any length of utterance", NormalisedVerticality,
    ),
    Entry(
        "head-information", "heads", "a head", "nat, 0 to ln T", _ONE,
        "how much attention depends on the query: -(G + V)", HeadInformation,
    ),
    Entry(
        "category", "heads", "a head", "ranks ahead of the second-best category", _ONE,
        "global, vertical or diagonal, by the best of three ranks", Category,
    ),
    Entry(
        "relative-profile", "blocks", "a block and an offset", "share of attention, 0 to 1", _ONE,
        "how much attention goes how far back and ahead", RelativeProfile,
    ),
)  # fmt: skip

GROUPS = tuple(dict.fromkeys(entry.group for entry in CATALOGUE))


def choose(measures: str | Iterable[str] | None) -> list[tuple[Entry, bool]]:
    """Entries by names and groups, in the order of the catalogue, each with whether it was asked for by name.

    Args:
        measures: names and groups, as a list or separated by commas; None for all that one pass gives.

    Raises:
        MeasureError: a name is neither a measure nor a group.

    >>> [entry.name for entry, _ in choose("blocks,globalness")]
    ['globalness', 'relative-profile']
    """
    if measures is None:
        return [(entry, False) for entry in CATALOGUE]
    wanted = measures.split(",") if isinstance(measures, str) else list(measures)
    wanted = [name.strip() for name in wanted if name.strip()]
    names = {entry.name for entry in CATALOGUE}
    unknown = [name for name in wanted if name not in names and name not in GROUPS]
    if unknown or not wanted:
        raise MeasureError(
            f"There is no measure or group {unknown[0]!r}" if unknown else "No measure was asked for",
            f"Groups: {', '.join(GROUPS)}. Measures: {', '.join(entry.name for entry in CATALOGUE)}.",
        )
    return [(entry, entry.name in wanted) for entry in CATALOGUE if entry.name in wanted or entry.group in wanted]
