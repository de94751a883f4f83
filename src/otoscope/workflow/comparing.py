"""Compare: saved diagnoses in, their curves side by side out."""

import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from otoscope.diagnosis.comparison import Comparison
from otoscope.diagnosis.matching import compare_diagnoses
from otoscope.diagnosis.result import Diagnosis
from otoscope.errors import ResultError


def compare(
    diagnoses: Sequence[Diagnosis | str | Path],
    measures: str | Iterable[str] | None = None,
    *,
    names: Sequence[str] | None = None,
    other_speech: bool = False,
) -> Comparison:
    """Sets diagnoses side by side: pre-trained and fine-tuned, checkpoint and checkpoint, model and model.

    Args:
        diagnoses: two or more, as folders or as they are; the others are compared with the first.
        measures: names of measures and groups, as a list or separated by commas; None for all that two of them hold.
        names: what to call the diagnoses; None for the names of their folders (of the models, where there is no
            folder), made unique.
        other_speech: allow diagnoses of different speech; their curves stand side by side, and no difference is taken.

    Returns:
        The comparison. What is absent in which diagnosis is listed in `provenance["absent"]`. Where two of the diagnoses
        hold the criticality of units, `stability` tells whether they agree; it is None otherwise.

    Raises:
        ResultError: there are fewer than two diagnoses, one is given twice, a folder holds none, or the names do not fit.
        MeasureError: the diagnoses share no measure, a measure that is asked for is in none, or the speech differs.
    """
    places = [None if isinstance(one, Diagnosis) else Path(one) for one in diagnoses]
    known = [id(one) if path is None else path.resolve() for one, path in zip(diagnoses, places, strict=True)]
    twice = [str(one) for one, count in zip(places, map(Counter(known).get, known), strict=True) if count != 1]
    if twice:
        what = "A diagnosis" if twice[0] == "None" else f"The diagnosis in {twice[0]}"
        raise ResultError(f"{what} is given twice", "Name each diagnosis once.")
    loaded = [one if isinstance(one, Diagnosis) else Diagnosis.load(one) for one in diagnoses]
    called = _names(loaded, places) if names is None else [name.strip() for name in names]
    if len(called) != len(loaded) or len(set(called)) != len(called) or not all(called):
        raise ResultError(
            f"The names {', '.join(map(repr, called))} do not fit {len(loaded)} diagnoses",
            "Give each diagnosis a name of its own.",
        )
    return compare_diagnoses(
        dict(zip(called, loaded, strict=True)),
        measures,
        other_speech=other_speech,
        paths={name: str(path.resolve()) for name, path in zip(called, places, strict=True) if path is not None},
        command=shlex.join(sys.argv),
    )


def _names(diagnoses: Sequence[Diagnosis], places: Sequence[Path | None]) -> list[str]:
    """Names of folders, with as many of their parents as tell them apart; of models, numbered where they are alike."""
    parts = [
        (str(one.provenance["model"]["name"]),) if path is None else path.resolve().parts
        for one, path in zip(diagnoses, places, strict=True)
    ]
    lengths = [1] * len(parts)
    while True:
        found = ["/".join(one[-length:]) for one, length in zip(parts, lengths, strict=True)]
        alike = [k for k, name in enumerate(found) if found.count(name) > 1 and lengths[k] < len(parts[k])]
        if not alike:
            break
        for k in alike:
            lengths[k] += 1
    before = [found[:k].count(name) for k, name in enumerate(found)]
    return [name if not count else f"{name} ({count + 1})" for name, count in zip(found, before, strict=True)]
