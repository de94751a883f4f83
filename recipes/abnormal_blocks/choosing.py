"""Which blocks are avoided: by the diagnosis of the pre-trained originals of all seeds."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from otoscope.diagnosis.result import Diagnosis, rows_of
from otoscope.errors import EvaluationError
from otoscope.measures.measure import Row
from otoscope.training.folders import replace_text

ABNORMAL, STAND_IN, NAMED = "abnormal", "stand-in", "named"


@dataclass(frozen=True)
class Choice:
    """The blocks that are avoided, and why.

    Attributes:
        blocks: their numbers.
        why: "abnormal", in most originals; "stand-in", the most deviating one where none is abnormal; "named" by hand.
        found: by number of the block: in how many originals it is abnormal, its deviation from its neighbours in each (in
            nat; None where too few blocks are sound enough to be held against), and reasons in words.
        originals: how many were diagnosed.
    """

    blocks: tuple[int, ...]
    why: str
    found: Mapping[int, tuple[int, tuple[float | None, ...], tuple[str, ...]]]
    originals: int

    @property
    def abnormal(self) -> list[int]:
        """The blocks that are abnormal in more than half of the originals."""
        return [block for block, (count, _, _) in self.found.items() if 2 * count > self.originals]

    def save(self, place: Path) -> None:
        """Writes it as JSON."""
        replace_text(place, json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, place: Path) -> "Choice":
        """What `save` wrote."""
        told = json.loads(place.read_text())
        found = {int(block): (one[0], tuple(one[1]), tuple(one[2])) for block, one in told["found"].items()}
        return cls(tuple(told["blocks"]), told["why"], found, told["originals"])


def choose(diagnoses: Sequence[Diagnosis], named: Sequence[int] = ()) -> Choice:
    """The blocks that are abnormal in more than half of the originals; where none is, the most deviating one.

    The deviation is that of the block's profile from its neighbours' (`neighbour-deviation`), the mean over originals. At
    most half of the blocks are avoided, since as many others are the control: those that are abnormal in the most
    originals, and of equals those that deviate most.

    Args:
        diagnoses: of the pre-trained originals, one a seed.
        named: blocks that a person names instead.

    Raises:
        EvaluationError: there is too little speech to tell.
    """
    judged = [{row.layer or 0: row for row in _rows(one, "abnormality")} for one in diagnoses]
    deviations = [{row.layer or 0: row.value for row in _rows(one, "neighbour-deviation")} for one in diagnoses]
    if not all(judged):
        raise EvaluationError(
            "There is too little speech to tell how blocks attend", "Give more of --dev, or more --hours."
        )
    found = {
        block: (
            sum(one[block].label == ABNORMAL for one in judged),
            tuple(one.get(block) for one in deviations),
            tuple(dict.fromkeys(one[block].target or "" for one in judged if one[block].label == ABNORMAL)),
        )
        for block in sorted(judged[0])
    }
    if named:
        return Choice(tuple(sorted(named)), NAMED, found, len(judged))

    def odd(block: int) -> tuple[int, float]:
        count, values, _ = found[block]
        return -count, -sum(value or 0.0 for value in values)

    abnormal = sorted((block for block, (count, _, _) in found.items() if 2 * count > len(judged)), key=odd)
    if abnormal:
        return Choice(tuple(sorted(abnormal[: len(found) // 2])), ABNORMAL, found, len(judged))
    return Choice((min(found, key=lambda block: odd(block)[1]),), STAND_IN, found, len(judged))


def _rows(diagnosis: Diagnosis, measure: str) -> list[Row]:
    return rows_of(diagnosis.measure(measure))
