"""What the measures of blocks say, in words: abnormal patterns, verdicts and their control, critical and ambient units."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from otoscope.diagnosis.metric_words import called, change_in_words, digits_of, higher_is_better, score_name, unit_of

if TYPE_CHECKING:
    from otoscope.diagnosis.result import Diagnosis

MOST_BLOCKS = 4
"""Of abnormal blocks so many have a sentence of their own."""

DONE = {
    "bypass": "bypassing its attention",
    "uniform": "uniform attention in its place",
    "local": "limiting it to a local window",
    "neighbour": "its neighbour's map in its place",
}
MODES = {
    "re-initialise": "re-initialised",
    "rewind": "rewound to",
    "re-randomise": "re-randomised",
    "bypass": "bypassed",
    "mean": "replaced by their mean output",
}
_LABELS = ("ambient", "intermediate", "critical")

Row = dict[str, Any]


def block_sentences(diagnosis: Diagnosis) -> list[str]:
    """Findings of the measures of blocks in words; a measure that was not taken gives none."""
    notes = diagnosis.provenance.get("notes", {})
    return [
        *_abnormal(diagnosis),
        *_control(diagnosis, notes),
        *_critical(diagnosis, notes),
        *_unchanged(notes),
        *_predicted(diagnosis),
        *_moved(diagnosis),
    ]


def notes_of(notes: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """What was noted under a measure's name, be it alone or within what was noted of a result of several measures.

    >>> notes_of({"block-verdict": {"block-control": {"says": {}}}}, "block-control")
    {'says': {}}
    >>> notes_of({"criticality": {"draws": 3}}, "criticality"), notes_of({}, "criticality")
    ({'draws': 3}, {})
    """
    for found in (notes.get(name), *notes.values()):
        inner = found.get(name) if isinstance(found, Mapping) else None
        if isinstance(inner, Mapping):
            return inner
    alone = notes.get(name)
    return alone if isinstance(alone, Mapping) else {}


def listed(layers: Iterable[int]) -> str:
    """Layers in words, with runs of three or more as ranges.

    >>> listed([1]), listed([2, 5]), listed([1, 2, 3, 7])
    ('layer 1', 'layers 2 and 5', 'layers 1 to 3 and 7')
    """
    runs: list[list[int]] = []
    for layer in sorted(layers):
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    parts = []
    for run in runs:
        parts += [f"{run[0]} to {run[-1]}"] if len(run) > 2 else [str(layer) for layer in run]
    several = len(parts) > 1 or len(runs[0]) > 1
    told = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    return f"layer{'s' if several else ''} {told}"


def _rows(diagnosis: Diagnosis, name: str) -> list[Row]:
    return diagnosis.measure(name).to_dicts()


def _abnormal(diagnosis: Diagnosis) -> list[str]:
    """A sentence a block that attends abnormally, and one of those that do not."""
    tested = [row for row in _rows(diagnosis, "abnormality") if row["label"] and row["layer"] is not None]
    if not tested:
        return []
    odd = [row for row in tested if row["label"] == "abnormal"]
    if not odd:
        return [f"All {len(tested)} blocks attend normally." if len(tested) > 1 else "The block attends normally."]
    verdicts = _first_verdicts(diagnosis)
    lines = [_of_block(row, verdicts.get(row["layer"])) for row in odd[:MOST_BLOCKS]]
    if len(odd) > MOST_BLOCKS:
        words = Counter(verdicts[row["layer"]]["label"] for row in odd[MOST_BLOCKS:] if row["layer"] in verdicts)
        told = f" ({', '.join(f'{n} {word}' for word, n in words.most_common())})" if words else ""
        more = len(odd) - MOST_BLOCKS
        lines.append(f"{more} further block{'s attend' if more > 1 else ' attends'} abnormally{told}.")
    rest = len(tested) - len(odd)
    if rest:
        lines[-1] += f" The other {rest} attend normally." if rest > 1 else " The other one attends normally."
    return lines


def _first_verdicts(diagnosis: Diagnosis) -> dict[int, Row]:
    """The verdict on every block by the first metric that was taken."""
    rows = [row for row in _rows(diagnosis, "block-verdict") if row["label"] and row["layer"] is not None]
    return {row["layer"]: row for row in rows if row["target"] == rows[0]["target"]}


def _of_block(row: Row, verdict: Row | None) -> str:
    text = f"Block {row['layer']} attends abnormally" + (
        f" ({row['target'].replace('; ', ', ')})" if row["target"] else ""
    )
    if verdict is None or verdict["label"] == "normal":
        return text + (f", p = {row['value']:.2g}." if row["value"] is not None else ".")
    if verdict["other"] is None or verdict["value"] is None:
        return f"{text}; by {called(verdict['target'])} its effect is {verdict['label']}."
    done = DONE.get(verdict["other"], verdict["other"])
    if verdict["label"] == "needed":
        done = f"even {done}"
    change = change_in_words(verdict["target"], verdict["value"], verdict["low"], verdict["high"])
    return f"{text}; {done} {change}: {verdict['label']}."


def _control(diagnosis: Diagnosis, notes: Mapping[str, Any]) -> list[str]:
    """Whether normal blocks would be called harmful or dispensable as often; only where there is an abnormal one."""
    verdicts = _first_verdicts(diagnosis)
    if not any(row["label"] != "normal" for row in verdicts.values()):
        return []
    metric = next(iter(verdicts.values()))["target"]
    told = notes_of(notes, "block-control").get("says")
    if isinstance(told, Mapping) and told.get(metric):
        return [str(told[metric])]
    for row in _rows(diagnosis, "block-control"):
        if row["target"] == metric and row["other"] == "any" and row["value"] is not None:
            ends = f" (95 % {row['low']:.0%} to {row['high']:.0%})" if row["low"] is not None else ""
            return [
                f"Of {row['n']} normal blocks the same rule would call {row['value']:.0%}{ends} harmful or dispensable."
            ]
    return []


def mode_in_words(mode: str) -> str:
    """What a mode does to a unit.

    >>> mode_in_words("bypass"), mode_in_words("rewind:pretrained")
    ('bypassed', 'rewound to pretrained')
    """
    kind, _, checkpoint = mode.partition(":")
    return f"{MODES.get(kind, kind)} {checkpoint}".strip()


def _critical(diagnosis: Diagnosis, notes: Mapping[str, Any]) -> list[str]:
    """Which blocks are ambient and which critical by the first mode, and in one more sentence by the others."""
    rows = [row for row in _rows(diagnosis, "criticality") if row["label"] in _LABELS and row["stream"]]
    blocks: dict[str, list[Row]] = {}
    finer: dict[str, list[Row]] = {}
    for row in rows:
        size = blocks if re.fullmatch(r"layer\.\d+", row["stream"]) else finer
        size.setdefault(row["other"], []).append(row)
    lines = []
    if blocks:
        first, *rest = blocks
        lines.append(_of_mode(first, blocks[first]))
        lines += _by_others(diagnosis, first, blocks[first], notes)
        told = [f"{mode_in_words(mode)}, {_sorted(blocks[mode], whole=False)}" for mode in rest]
        lines += [f"When {'; '.join(told)}."] if told else []
    lines += [_counted(mode, own) for mode, own in finer.items() if not blocks]
    return lines


def _of_mode(mode: str, rows: Sequence[Row]) -> str:
    metric, whole = rows[0]["target"], next((row["ceiling"] for row in rows if row["ceiling"] is not None), None)
    one = len(rows) == 1
    text = f"When {mode_in_words(mode)}{'' if one else ' one at a time'}, {_sorted(rows)} (by {called(metric)}"
    worst = max(rows, key=lambda row: (row["value"] or 0.0) * (-1 if higher_is_better(metric) else 1))
    if worst["value"] is not None:
        text += f": {_signed(worst, metric)}" + ("" if one else f" at layer {worst['layer']}, where most is lost")
    if whole is not None and not one:
        text += f", {_signed({'value': whole, 'low': None, 'high': None}, metric)} with all reset together"
    return text + ")."


def _by_others(diagnosis: Diagnosis, mode: str, rows: Sequence[Row], notes: Mapping[str, Any]) -> list[str]:
    """Layers that another metric would call critical, a metric each: labels go by one alone."""
    known = {row["layer"] for row in rows if row["label"] == "critical"}
    limit = notes_of(notes, "criticality").get("thresholds", {}).get("critical")
    lines = []
    shares = [
        row
        for row in _rows(diagnosis, "criticality-normalised")
        if row["other"] == mode
        and row["target"] != rows[0]["target"]
        and re.fullmatch(r"layer\.\d+", row["stream"] or "")
    ]
    for metric in dict.fromkeys(row["target"] for row in shares):
        found = [
            row
            for row in shares
            if row["target"] == metric and row["layer"] not in known
            and None not in (limit, row["low"]) and row["low"] > limit
        ]  # fmt: skip
        if found:
            most = max(found, key=lambda row: row["value"])
            where = f" at layer {most['layer']}" if len(found) > 1 else ""
            lines.append(
                f"By {called(metric)} {listed(row['layer'] for row in found)} would be critical: {most['value']:.0%} "
                f"(95 % {most['low']:.0%} to {most['high']:.0%}) of what is lost with all reset together is lost{where}."
            )
    return lines


def _sorted(rows: Sequence[Row], whole: bool = True) -> str:
    """Which layers are ambient and which critical; as a whole also how many are neither."""
    found = {label: [row["layer"] for row in rows if row["label"] == label] for label in _LABELS}
    there = [label for label in _LABELS if found[label]]
    if len(there) == 1:
        every = f"all {len(rows)} layers are" if len(rows) > 1 else f"{listed(found[there[0]])} is"
        return f"{every} {there[0]}"
    parts = [
        f"{listed(found[label])} {'are' if len(found[label]) > 1 else 'is'} {label}"
        for label in ("ambient", "critical")
        if found[label]
    ]
    rest = len(found["intermediate"])
    if whole and rest:
        parts.append("the other one is intermediate" if rest == 1 else f"the other {rest} are intermediate")
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))


def _signed(row: Mapping[str, Any], metric: str) -> str:
    factor, unit = unit_of(metric)
    digits = digits_of(metric)
    text = f"{factor * row['value']:+.{digits}f}" + (f" {unit}" if unit else "")
    if row["low"] is None or row["high"] is None:
        return text
    return f"{text} (95 % {factor * row['low']:+.{digits}f} to {factor * row['high']:+.{digits}f})"


def _counted(mode: str, rows: Sequence[Row]) -> str:
    counts = Counter(row["label"] for row in rows)
    told = ", ".join(f"{counts[label]} {label}" for label in _LABELS)
    return f"Of {len(rows)} units {mode_in_words(mode)} one at a time: {told} (by {called(rows[0]['target'])})."


def _unchanged(notes: Mapping[str, Any]) -> list[str]:
    """Layers whose weights are still those that they began with."""
    found = notes_of(notes, "criticality").get("unchanged")
    names = found.get("re-initialise", ()) if isinstance(found, Mapping) else ()
    layers = [int(name.removeprefix("layer.")) for name in names if re.fullmatch(r"layer\.\d+", name)]
    if not layers:
        return []
    told = listed(layers)
    verb = "have" if len(layers) > 1 else "has"
    return [f"{told[0].upper()}{told[1:]} {verb} the weights of the initialisation: never trained."]


def _predicted(diagnosis: Diagnosis) -> list[str]:
    """The cheap score that ranks blocks most as their criticality does."""
    rows = [
        row
        for row in diagnosis.measure("criticality-prediction").drop_nulls("value").to_dicts()
        if row["stream"] in (None, "block")
    ]
    labelled = [row["target"] for row in _rows(diagnosis, "criticality") if row["label"]]
    rows = [row for row in rows if not labelled or row["label"] in (None, labelled[0])]
    if not rows:
        return []
    mode = rows[0]["other"]
    own = [row for row in rows if row["other"] == mode]
    best = max(own, key=lambda row: row["value"])
    ends = f", 95 % {best['low']:.2f} to {best['high']:.2f}" if best["low"] is not None else ""
    text = (
        f"Of {len(own)} cheap score{'s' if len(own) > 1 else ''} {score_name(best['target'])} ranks layers most as their "
        f"criticality does, {mode_in_words(mode)} (Spearman's {best['value']:.2f}{ends}, {best['n']} layers)"
    )
    if best["low"] is None or best["low"] <= 0:
        text += "; that may be chance"
    return [text + "."]


def _moved(diagnosis: Diagnosis) -> list[str]:
    """The block that moved furthest from its initial weights, and the one that moved least."""
    rows = [
        row
        for row in diagnosis.measure("churn").drop_nulls("value").to_dicts()
        if row["target"] == "relative"
        and row["other"] == "initial"
        and re.fullmatch(r"layer\.\d+", row["stream"] or "")
    ]
    if len(rows) < 2:
        return []
    most, least = max(rows, key=lambda row: row["value"]), min(rows, key=lambda row: row["value"])
    if most["value"] == 0:
        return ["No layer has moved from its initial weights."]
    return [
        f"Layer {most['layer']} moved furthest from its initial weights (by {most['value']:.2g} of their size), layer "
        f"{least['layer']} least ({least['value']:.2g})."
    ]
