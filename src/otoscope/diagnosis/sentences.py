"""A diagnosis in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from otoscope.diagnosis.block_sentences import block_sentences
from otoscope.diagnosis.head_sentences import mixing_sentences, relation_sentences
from otoscope.statistics.intervals import corrected_t

if TYPE_CHECKING:
    from otoscope.diagnosis.result import Diagnosis

_READ = {
    "cca-phone": ("Phones are", "phones"),
    "cca-word": ("Words are", "words"),
}
_NEAR_MS = 100


def sentences(diagnosis: Diagnosis) -> list[str]:
    """Findings in words; a measure that was not taken gives none."""
    return [
        *(line for name in _READ if (line := _best_read(diagnosis, name))),
        *_sound(diagnosis),
        *_heads(diagnosis),
        *relation_sentences(diagnosis),
        *_importance(diagnosis),
        *mixing_sentences(diagnosis),
        *_blocks(diagnosis),
        *block_sentences(diagnosis),
        *_left_out(diagnosis),
    ]


def _place(stream: str) -> str:
    kind, _, number = stream.partition(".")
    names = {"layer": f"layer {number}", "conv": f"convolution {number}", "input": "the input of layer 1"}
    return names.get(kind, "the final norm")


def _scores(diagnosis: Diagnosis, name: str) -> list[dict[str, object]]:
    return diagnosis.measure(name).drop_nulls("value").to_dicts()


def _best_read(diagnosis: Diagnosis, name: str) -> str | None:
    rows = _scores(diagnosis, name)
    if not rows:
        return None
    best = max(rows, key=lambda row: row["value"])  # type: ignore[arg-type, return-value]
    subject, plural = _READ[name]
    low, high, floor = best["low"], best["high"], best["floor"]
    fresh = "floor" in diagnosis.provenance
    called = "fresh weights" if fresh else "floor"
    if low is not None and floor is not None and low <= floor:  # type: ignore[operator]
        beaten = "better than a network with fresh weights" if fresh else "above chance"
        return f"No layer reads {plural} {beaten} on this corpus (best {_two(best['value'])}, {called} {_two(floor)})."
    text = f"{subject} best read at {_place(str(best['stream']))} (PWCCA {best['value']:.2f}"
    text += f", 95 % {low:.2f} to {high:.2f}" if low is not None else ""
    text += f", {called} {_two(floor)})" if floor is not None else ")"
    close = _not_told_apart(diagnosis, name, str(best["stream"]))
    if close:
        text += f"; {_counted(close, 'other stream')} cannot be told from it"
    return text + "."


def _not_told_apart(diagnosis: Diagnosis, name: str, best: str) -> int:
    """How many streams differ from the best by an interval that holds zero, fold by fold on the same speech."""
    scores = diagnosis.arrays.get(f"{name}.scores")
    streams = diagnosis.measure(name)["stream"].to_list()
    if scores is None or len(scores) != len(streams):
        return 0
    count = 0
    for stream, row in zip(streams, scores, strict=True):
        behind = scores[streams.index(best)] - row
        behind = behind[np.isfinite(behind)]
        if stream != best and len(behind) >= 2:
            # Of k folds one is tested, one chooses the ridge, and k - 2 are trained on.
            _, low, _ = corrected_t(behind, 1 / max(len(behind) - 2, 1))
            count += bool(low <= 0)
    return count


def _sound(diagnosis: Diagnosis) -> list[str]:
    rows = _scores(diagnosis, "cca-mel")
    layers = [row for row in rows if row["layer"] is not None]
    if len(rows) < 2 or not layers:
        return []
    most = max(rows, key=lambda row: row["value"])  # type: ignore[arg-type, return-value]
    least = min(layers, key=lambda row: row["value"])  # type: ignore[arg-type, return-value]
    text = (
        f"The sound itself (log-mel) is closest at {_place(str(most['stream']))} (PWCCA {most['value']:.2f}) and "
        f"faintest at {_place(str(least['stream']))} ({least['value']:.2f})"
    )
    last = layers[-1]
    if last is not least and last["low"] is not None and least["high"] is not None and last["low"] > least["high"]:  # type: ignore[operator]
        text += f", returning to {last['value']:.2f} at the top"
    return [text + "."]


def _heads(diagnosis: Diagnosis) -> list[str]:
    lines = []
    most = []
    for name, word in (("diagonality", "diagonal"), ("globalness", "global"), ("verticality", "vertical")):
        rows = _scores(diagnosis, name)
        if rows:
            best = max(rows, key=lambda row: row["value"])  # type: ignore[arg-type, return-value]
            most.append(f"{best['layer']}.{best['head']} is the most {word}")
    if most:
        lines.append(f"Head {', '.join(most)}.")
    labels = diagnosis.measure("category")["label"].to_list()
    if labels:
        counts = ", ".join(f"{labels.count(word)} {word}" for word in ("diagonal", "vertical", "global"))
        lines.append(f"Of {len(labels)} heads: {counts} (each by the list in which it ranks highest).")
    return lines


def _importance(diagnosis: Diagnosis) -> list[str]:
    """Whether diagonal heads matter more for phones than global ones, for both kinds of probes in one sentence."""
    found = []
    for name, probes in (("pruning-verdict", "trained anew"), ("pruning-verdict-frozen", "left as they were")):
        for row in diagnosis.measure(name).drop_nulls("value").to_dicts():
            ends = f", 95 % {100 * row['low']:+.1f} to {100 * row['high']:+.1f}" if row["low"] is not None else ""
            found.append(f"{row['label']} with probes {probes} ({100 * row['value']:+.1f} points{ends})")
    claim = "That removing the most diagonal heads hurts phones more than removing the most global ones"
    return [f"{claim}: {'; '.join(found)}."] if found else []


def _blocks(diagnosis: Diagnosis) -> list[str]:
    table = diagnosis.measure("relative-profile")
    if not table.height:
        return []
    reach = max(1, round(_NEAR_MS / diagnosis.provenance["model"]["hop_ms"]))
    near = table.with_columns(pl.col("target").cast(pl.Int64, strict=False).alias("offset")).filter(
        pl.col("offset").abs() <= reach
    )
    mass = near.group_by("layer").agg(pl.col("value").sum(), pl.col("floor").sum()).sort("layer").to_dicts()
    most, least = max(mass, key=lambda row: row["value"]), min(mass, key=lambda row: row["value"])
    uniform = f"uniform attention would give {most['floor']:.0%}"
    if f"{most['value']:.0%}" == f"{least['value']:.0%}":
        return [f"All blocks attend about as widely ({most['value']:.0%} within {_NEAR_MS} ms; {uniform})."]
    return [
        f"Block {most['layer']} attends most locally ({most['value']:.0%} within {_NEAR_MS} ms) and block "
        f"{least['layer']} least ({least['value']:.0%}); {uniform}."
    ]


def _left_out(diagnosis: Diagnosis) -> list[str]:
    """Labels too rare to count; utterances and measures left out are told with their reasons elsewhere."""
    lines = []
    notes = diagnosis.provenance.get("notes", {})
    for name, word in (("cca-phone", "phone"), ("cca-word", "word")):
        told = notes.get(name, {})
        if told.get("labels_left_out"):
            lines.append(
                f"{told['labels']} {word}s are frequent enough to be examined; {_counted(told['labels_left_out'], word)} "
                f"({_counted(told['rows_left_out'], 'occurrence')}) left out as too rare."
            )
    return lines


def _counted(n: int, word: str) -> str:
    return f"{n} {word}{'' if n == 1 else 's'}"


def _two(value: Any) -> str:
    """Two decimals, and no sign on what rounds to zero."""
    return f"{float(value):.2f}".replace("-0.00", "0.00")
