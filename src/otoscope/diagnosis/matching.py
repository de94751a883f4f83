"""From diagnoses to their comparison: what they share, whether it may be set side by side, and the differences."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import polars as pl

from otoscope.diagnosis.comparison import PEAK_SCHEMA, TABLE_SCHEMA, Comparison
from otoscope.diagnosis.curves import Curve, Depth, Key, curves, difference, group_of
from otoscope.diagnosis.provenance import versions
from otoscope.diagnosis.result import Diagnosis
from otoscope.diagnosis.stability import Stability, stability_of
from otoscope.errors import MeasureError, ResultError
from otoscope.interventions.prediction import CRITICALITY

_TASK = ("labels", "labels_left_out", "labels_without_vector", "segments", "span", "weights", "clusters_wanted")
"""Notes of a measure that say what was asked of the streams: where they differ, so do the questions."""

_FOLDING = ("seed", "folds", "folds_by")
"""Notes that say which rows are in which fold."""


def compare_diagnoses(
    named: Mapping[str, Diagnosis],
    measures: str | Iterable[str] | None = None,
    *,
    other_speech: bool = False,
    paths: Mapping[str, str] | None = None,
    command: str = "",
) -> Comparison:
    """Sets diagnoses side by side; the first is the one that the others are compared with.

    Streams are matched by relative depth. Scores on the same speech are comparable; scores on different speech are not,
    for every score depends on the labels and rows that the speech has: with `other_speech` their curves stand side by
    side, and no difference is taken. The same holds of one measure that was asked of other labels or with other weights.
    Where two of the diagnoses hold the criticality of units, it is told whether they agree (see `stability_of`), on the
    same speech or not.

    Args:
        named: at least two diagnoses by name.
        measures: names of measures and groups to compare; None for all that two of the diagnoses hold.
        other_speech: allow diagnoses of different speech.
        paths: folders that the diagnoses were read from, by name.
        command: what is told in the provenance.

    Raises:
        ResultError: there are fewer than two diagnoses.
        MeasureError: they share no measure, a measure that is asked for is in none, or the speech differs.
    """
    if len(named) < 2:
        raise ResultError(
            f"{len(named)} diagnosis cannot be compared" if named else "There is no diagnosis to compare",
            "Name two or more folders that `otoscope diagnose -o` wrote.",
        )
    stated = _same_speech(named, other_speech)
    found = {
        name: curves(diagnosis.table, diagnosis.arrays, whole=True, blocks=True) for name, diagnosis in named.items()
    }
    keys, absent, stability = _shared(named, found, measures, stability_of(named))
    stated += _circumstances(named)
    depths = {name: Depth.of(diagnosis) for name, diagnosis in named.items()}
    reference = next(iter(named))
    rows: list[dict[str, Any]] = []
    peaks: list[dict[str, Any]] = []
    for key in keys:
        for name in named:
            if key in found[name]:
                curve = found[name][key]
                rows += _values(curve, name, depths[name])
                peaks.append(_peak(curve, name, depths[name]))
        for name in named:
            if name == reference or key not in found[name] or key not in found[reference]:
                continue
            if _relates(found[name][key]) or not _alike_speech(named[reference], named[name]):
                continue
            settings = _other_settings(named, reference, name, key[0])
            stated += [text for text in settings.values() if text not in stated]
            if "task" not in settings:
                pair = found[reference][key], found[name][key]
                rows += _differences(
                    *pair, (reference, name), (depths[reference], depths[name]), "folds" not in settings
                )
    about = {
        "diagnoses": [_described(name, diagnosis, (paths or {}).get(name)) for name, diagnosis in named.items()],
        "reference": reference,
        "absent": absent,
        "stated": stated + _unmatched(found, keys, reference, depths),
        "versions": versions(),
        "command": command,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return Comparison(
        pl.DataFrame(rows, schema=TABLE_SCHEMA, orient="row"),
        pl.DataFrame(peaks, schema=PEAK_SCHEMA, orient="row"),
        about,
        stability,
    )


def _fingerprint(diagnosis: Diagnosis, part: str) -> str | None:
    return (diagnosis.provenance.get(part) or {}).get("fingerprint")


def _alike_speech(a: Diagnosis, b: Diagnosis) -> bool:
    return _fingerprint(a, "corpus") is not None and _fingerprint(a, "corpus") == _fingerprint(b, "corpus")


def _same_speech(named: Mapping[str, Diagnosis], other_speech: bool) -> list[str]:
    """What is to be said of diagnoses of different speech.

    Raises:
        MeasureError: the speech differs, and that is not allowed.
    """
    (first, one), *rest = named.items()
    differ = [(name, diagnosis) for name, diagnosis in rest if not _alike_speech(one, diagnosis)]
    if not differ:
        return []
    told = f"{first} was taken on {_speech(one)} and {differ[0][0]} on {_speech(differ[0][1])}"
    if not other_speech:
        raise MeasureError(
            f"{told}: their scores would differ even if the models did not",
            "Diagnose both on the same utterances; or allow it (other_speech=True, --other-speech) to see the curves "
            "side by side, without differences.",
        )
    names = ", ".join(name for name, _ in differ)
    return [f"{told}. The speech of {names} is not that of {first}, so no difference from it is taken."]


def _speech(diagnosis: Diagnosis) -> str:
    corpus = diagnosis.provenance.get("corpus") or {}
    return f"{corpus.get('name')} ({corpus.get('utterances')} utterances, {str(corpus.get('fingerprint'))[:8]})"


def _shared(
    named: Mapping[str, Diagnosis],
    found: Mapping[str, Mapping[Key, Curve]],
    measures: str | Iterable[str] | None,
    stability: Stability | None,
) -> tuple[list[Key], list[dict[str, Any]], Stability | None]:
    """What two or more of the diagnoses hold (or one, of relations to another model), and what some of them lack."""
    every = list(dict.fromkeys(key for held in found.values() for key in held))
    if measures is not None:
        wanted = measures.split(",") if isinstance(measures, str) else list(measures)
        wanted = [name.strip() for name in wanted if name.strip()]
        there = {measure for measure, _ in every} | {group_of(measure) for measure, _ in every}
        there |= set() if stability is None else {CRITICALITY, "blocks"}
        unknown = [name for name in wanted if name not in there]
        if unknown or not wanted:
            raise MeasureError(
                f"No diagnosis holds {unknown[0]!r} along its streams" if unknown else "No measure was asked for",
                f"They hold: {', '.join(dict.fromkeys(measure for measure, _ in every)) or 'none'}.",
            )
        every = [key for key in every if key[0] in wanted or group_of(key[0]) in wanted]
        stability = stability if {CRITICALITY, "blocks"} & set(wanted) else None
    keys, absent = [], []
    for key in every:
        held = [name for name in found if key in found[name]]
        relates = _relates(found[held[0]][key])
        if len(held) >= 2 or relates:
            keys.append(key)
        if not relates:
            absent += [
                {"measure": key[0], "target": key[1], "diagnosis": name, "reason": _why_absent(named[name], key[0])}
                for name in found
                if name not in held
            ]
    if not keys and stability is None:
        held_by = "; ".join(
            f"{name}: {', '.join(dict.fromkeys(m for m, _ in held)) or 'none'}" for name, held in found.items()
        )
        raise MeasureError(
            f"No two of the diagnoses share a measure along the streams ({held_by})",
            "Diagnose both with the same --measures.",
        )
    return keys, absent, stability


def _relates(curve: Curve) -> bool:
    return any(row["other"] for row in curve.rows.values())


def _why_absent(diagnosis: Diagnosis, measure: str) -> str:
    skipped = {one["measure"]: one["reason"] for one in diagnosis.provenance.get("skipped") or []}
    return str(skipped.get(measure, "it was not taken"))


def _circumstances(named: Mapping[str, Diagnosis]) -> list[str]:
    """In what diagnoses differ from the first beside their models and their speech."""
    stated = []
    (first, one), *rest = named.items()
    for name, diagnosis in rest:
        if _fingerprint(one, "model") is not None and _fingerprint(one, "model") == _fingerprint(diagnosis, "model"):
            stated.append(f"{first} and {name} are diagnoses of the same model.")
        mine, theirs = one.provenance.get("versions") or {}, diagnosis.provenance.get("versions") or {}
        differ = [f"{key} {mine.get(key)} / {theirs.get(key)}" for key in mine if mine[key] != theirs.get(key)]
        if differ:
            stated.append(f"{first} and {name} were taken with other versions: {', '.join(differ)}.")
        zeros = [(about.provenance.get("floor") or {}).get("kind", "permuted labels") for about in (one, diagnosis)]
        if zeros[0] != zeros[1]:
            stated.append(f"The floors of {first} are by {zeros[0]}, those of {name} by {zeros[1]}.")
        layers, others = Depth.of(one).layers, Depth.of(diagnosis).layers
        if layers != others:
            stated.append(
                f"{first} has {layers} layers and {name} {others}: each layer of {name} is set against that of {first} "
                "nearest in relative depth."
            )
    return stated


def _other_settings(named: Mapping[str, Diagnosis], first: str, name: str, measure: str) -> dict[str, str]:
    """What is to be said of a measure that was taken in another way: "task" forbids a difference, "folds" a pairing."""
    one, two = named[first].provenance, named[name].provenance
    mine, theirs = (about.get("notes", {}).get(measure, {}) for about in (one, two))
    found = {}
    task = [key for key in _TASK if mine.get(key) != theirs.get(key)]
    if task:
        told = ", ".join(f"{key} {_short(mine.get(key))} / {_short(theirs.get(key))}" for key in task)
        found["task"] = f"{measure} was asked otherwise of {first} and {name} ({told}): no difference is taken."
    folds = [key for key in _FOLDING if mine.get(key) != theirs.get(key)]
    if one.get("seed") != two.get("seed") or folds:
        told = ", ".join(f"{key} {mine.get(key)} / {theirs.get(key)}" for key in folds if key != "seed")
        told = ", ".join(filter(None, [f"seed {one.get('seed')} / {two.get('seed')}", told]))
        found["folds"] = f"Folds of {first} and {name} differ ({told}): their scores are not paired."
    return found


def _short(value: Any) -> str:
    return f"{len(value)} words" if isinstance(value, list) else str(value)


def _unmatched(
    found: Mapping[str, Mapping[Key, Curve]], keys: list[Key], reference: str, depths: Mapping[str, Depth]
) -> list[str]:
    """Streams that have no counterpart in the reference, or the other way round."""
    stated = []
    for name in found:
        mine: set[str] = set()
        theirs: set[str] = set()
        for key in keys:
            if name == reference or key not in found[reference] or key not in found[name]:
                continue
            a, b = found[reference][key].rows, found[name][key].rows
            theirs |= {stream for stream in b if depths[name].matched(stream, depths[reference]) not in a}
            mine |= {stream for stream in a if depths[reference].matched(stream, depths[name]) not in b}
        for streams, there, here in ((theirs, name, reference), (mine, reference, name)):
            if streams:
                stated.append(f"Streams of {there} without a counterpart in {here}: {', '.join(sorted(streams))}.")
    return stated


def _values(curve: Curve, name: str, depth: Depth) -> Iterator[dict[str, Any]]:
    for stream, row in curve.rows.items():
        yield {
            "measure": curve.measure, "target": curve.target, "stream": stream, "layer": row["layer"],
            "depth": depth(stream), "diagnosis": name, "other": row["other"], "value": row["value"], "low": row["low"],
            "high": row["high"], "floor": row["floor"], "ceiling": row["ceiling"], "n": row["n"],
        }  # fmt: skip


def _differences(
    first: Curve, second: Curve, names: tuple[str, str], depths: tuple[Depth, Depth], paired: bool
) -> Iterator[dict[str, Any]]:
    for stream, row in second.rows.items():
        matched = depths[1].matched(stream, depths[0])
        if matched not in first.rows:
            continue
        found = difference(first, matched, second, stream, paired)
        yield {
            "measure": second.measure, "target": second.target, "stream": stream, "layer": row["layer"],
            "depth": depths[1](stream), "diagnosis": names[1], "against": names[0], "other": matched,
            "value": found.value, "low": None if found.pairing is None else found.low,
            "high": None if found.pairing is None else found.high, "pairing": found.pairing,
        }  # fmt: skip


def _peak(curve: Curve, name: str, depth: Depth) -> dict[str, Any]:
    best = curve.best()
    row, (as_good, how) = curve.rows[best], curve.as_good()
    reach = [at for at in map(depth, [best, *as_good]) if at is not None]
    return {
        "measure": curve.measure, "target": curve.target, "diagnosis": name, "stream": best, "layer": row["layer"],
        "depth": depth(best), "value": row["value"], "low": row["low"], "high": row["high"], "floor": row["floor"],
        "above_floor": curve.above_floor(), "lowest": curve.low_is_good, "as_good": as_good, "pairing": how,
        "from_depth": min(reach, default=None), "to_depth": max(reach, default=None),
    }  # fmt: skip


def _described(name: str, diagnosis: Diagnosis, path: str | None) -> dict[str, Any]:
    about = diagnosis.provenance
    model = {
        key: (about.get("model") or {}).get(key) for key in ("name", "family", "layers", "parameters", "fingerprint")
    }
    corpus = {
        key: (about.get("corpus") or {}).get(key)
        for key in ("name", "utterances", "speakers", "seconds", "fingerprint")
    }
    kept = {key: about.get(key) for key in ("seed", "versions", "command", "finished")}
    return {"name": name, "path": path, "model": model, "corpus": corpus, **kept}
