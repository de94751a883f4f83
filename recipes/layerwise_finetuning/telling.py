"""The page of what re-initialised top layers came to, beside what the source states."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from otoscope.evaluation.outcome import Change
from otoscope.measures.measure import Row
from otoscope.plans.rules.reinitialise_top import fallen
from otoscope.training.subsets import seconds_of
from recipes.trials.comparing import BEAM, GREEDY, RATES
from recipes.trials.tables import NOTHING, made, points, sizes, table, values

Key = tuple[str, int, str]  # subset, n, key of RATES
SOURCE = "Pasad, Chou and Livescu 2021"


@dataclass(frozen=True)
class Found:
    """Everything that the page is made of.

    Attributes:
        subsets: how much transcribed speech, from the least on.
        tops: how many top layers began anew, 0 among them.
        changes: the error rate with n layers anew after that with none, by subset, n above 0 and key of `RATES`; absent
            where a training failed.
        chosen: n by the diagnosis; None where there was none.
        curve: a row a layer of the curve that n was chosen by.
        notes: what rules said that did not act.
        command: that made it.
        runs: a line on each kind of training, in words.
        date: on which days models were held against each other.
    """

    subsets: Sequence[str]
    tops: Sequence[int]
    changes: Mapping[Key, Change]
    chosen: int | None
    curve: Sequence[Row]
    notes: Sequence[str]
    command: str
    runs: Sequence[str]
    date: str = ""


def page_of(found: Found) -> str:
    """All tables."""
    some = next(iter(found.changes.values()), None)
    parts = [
        made(found.command, found.date),
        "\n".join(f"- {line}" for line in found.runs),
        "### Error rates",
        _rates(found),
        "Of several seeds the mean, and each in brackets. Change: the rate less that with n = 0 of the same seeds, in points."
        + ("" if some is None else f" {sizes(some)}"),
        "### n by the diagnosis",
        _choice(found),
        "### Beside the source",
        table([SOURCE, "here"], beside(found)),
    ]
    return "\n\n".join(part.rstrip("\n") for part in parts if part)


def _rates(found: Found) -> str:
    rows = []
    for subset in found.subsets:
        for top in sorted(found.tops):
            cells = [subset, f"{top}{' (by the diagnosis)' * (top == found.chosen)}"]
            for decoder in RATES:
                if top:
                    change = found.changes.get((subset, top, decoder))
                    cells += [values(change, 1), points(change)]
                else:
                    cells += [values(_untreated(found, subset, decoder), 0), NOTHING]
            rows.append(cells)
    head = ["transcribed speech", "n", *(cell for words in RATES.values() for cell in (words, "change"))]
    return table(head, rows)


def _untreated(found: Found, subset: str, decoder: str) -> Change | None:
    """The comparison with the most seeds of models without layers that began anew."""
    there = [found.changes[subset, top, decoder] for top in found.tops if (subset, top, decoder) in found.changes]
    return max(there, key=lambda one: len(one.runs[0]), default=None)


def _choice(found: Found) -> str:
    if found.chosen is None:
        return "The model was not diagnosed."
    fell = {row.layer for row in fallen(found.curve)}
    rows = [
        [
            str(row.layer), f"{row.value or 0:.3f}",
            NOTHING if row.low is None or row.high is None else f"{row.low:.3f} to {row.high:.3f}",
            "fallen" if row.layer in fell else "",
        ]
        for row in found.curve
    ]  # fmt: skip
    name = found.curve[0].measure if found.curve else "no curve"
    said = "\n".join(f"- {note}" for note in found.notes)
    return (
        f"**n = {found.chosen}**, by the rule `reinitialise-top` on {name} ([plans](plans.md)):\n\n"
        f"{table(['layer', name, 'interval', ''], rows)}\n{said}"
    ).rstrip()


def beside(found: Found) -> list[list[str]]:
    """What the source states, and what was found here of the same."""
    least, most = (pick(found.subsets, key=seconds_of) for pick in (min, max))
    rows = [["With 10 minutes the top layers begun anew lower the WER clearly (figures not known to us)"]]
    rows[0].append(f"With {least}: {_told(found, least)}")
    if least != most:
        rows.append(["With more speech (1 h, 10 h) they gain little", f"With {most}: {_told(found, most)}"])
        rows.append(["The gain shrinks with speech", _shrinks(found, least, most)])
    rows.append(["Held with and without a language model", _agree(found, least)])
    return rows


def _told(found: Found, subset: str) -> str:
    """Every n of a subset by greedy decoding, and whether there is a gain."""
    there = {top: found.changes.get((subset, top, GREEDY)) for top in sorted(found.tops) if top}
    known = {top: change for top, change in there.items() if change is not None}
    if not known:
        return "nothing was measured"
    parts = [f"n = {top} {points(change)} ({change.verdict})" for top, change in known.items()]
    return "; ".join(parts)


def gain(found: Found, subset: str, decoder: str) -> float | None:
    """The mean over n of how much lower the WER is, in points; None where nothing was measured.

    The mean rather than the best n: the best of three is lower than that without a reset by chance alone.
    """
    there = [
        -100 * change.difference.value
        for (one, _, by), change in found.changes.items()
        if (one, by) == (subset, decoder)
    ]
    return sum(there) / len(there) if there else None


def _decided(found: Found, subset: str, decoders: Sequence[str]) -> bool:
    """Whether any n is told apart from none at all, by each of the decoders."""
    return all(
        any(
            change.difference.decided
            for (one, _, by), change in found.changes.items()
            if (one, by) == (subset, decoder)
        )
        for decoder in decoders
    )


def _shrinks(found: Found, least: str, most: str) -> str:
    gains = [gain(found, subset, GREEDY) for subset in (least, most)]
    if gains[0] is None or gains[1] is None:
        return "nothing was measured"
    told = f"mean gain over n {gains[0]:+.1f} points with {least}, {gains[1]:+.1f} with {most}"
    if gains[0] <= 0:
        return f"{told}: with the least speech there is no gain that could shrink"
    if not _decided(found, least, (GREEDY,)):
        return f"{told}: cannot be told, since no n is told apart from 0 with {least}"
    return f"{told}: {'it does' if gains[1] < gains[0] else 'it does not'}"


def _agree(found: Found, subset: str) -> str:
    gains = [gain(found, subset, decoder) for decoder in (GREEDY, BEAM)]
    if gains[0] is None or gains[1] is None:
        return "nothing was measured"
    same = "the same sign" if (gains[0] > 0) == (gains[1] > 0) else "not the same sign"
    if not _decided(found, subset, (GREEDY, BEAM)):
        same = "cannot be told, since no n is told apart from 0"
    return f"With {subset}, mean gain over n: {gains[0]:+.1f} points greedy, {gains[1]:+.1f} with the 4-gram: {same}"
