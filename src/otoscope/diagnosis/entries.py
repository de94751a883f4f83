"""What an entry of the catalogue says of a measure, and how measures without options are made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from otoscope.diagnosis.options import Options
from otoscope.measures.measure import Measure

Make = Callable[[Options], Measure]


@dataclass(frozen=True)
class Entry:
    """One measure that can be asked for.

    Attributes:
        name: canonical name; the `measure` column of the table.
        group: "layers", "heads", "blocks", or another that is taken only when it is named.
        rows: what a row of the table stands for.
        unit: unit and range of the value.
        cost: how many passes over the audio it takes.
        tells: what it measures, in a line.
        make: a fresh measure; None where it takes many passes and no measure of the one pass gives it.
        needs: what must be given for it, as the command line calls it; it is taken with its group only then.
        made_by: the measure whose object gives this one's rows too; the same name where it is its own.
    """

    name: str
    group: str
    rows: str
    unit: str
    cost: str
    tells: str
    make: Make | None
    needs: str = ""
    made_by: str = ""

    @property
    def maker(self) -> str:
        """Name of the measure whose object gives the rows."""
        return self.made_by or self.name

    def served(self, options: Options) -> bool:
        """Whether what it needs was given."""
        if self.needs.startswith("--against"):
            return options.other is not None
        if self.needs.startswith("--initial"):
            return options.checkpoints
        return not self.needs or self.needs.removeprefix("--table ").partition("=")[0] in options.tables


ONE = "one pass, shared"
WITH_MAPS = "the same pass, with whole maps of some utterances"
MANY = "many passes"
ON_REQUEST = ("variants", "word-spans", "probes", "relations", "segmentation", "noise", "importance", "spans", "mixing")
"""Groups that are taken only when they are named."""


def plain(place: str, *arguments: Any, **settings: Any) -> Make:
    """A measure that takes no options; its module is imported when it is made, so that the catalogue is quick to read.

    Args:
        place: its module within `otoscope.measures`, and its class, such as "heads.globalness.Globalness".
        arguments: what the class is called with.
        settings: the same, by name.
    """

    def make(options: Options) -> Measure:
        module, _, name = place.rpartition(".")
        measure: Measure = getattr(import_module(f"otoscope.measures.{module}"), name)(*arguments, **settings)
        return measure

    return make
