"""What relation maps of heads and context mixing say, in words."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from otoscope.diagnosis.result import Diagnosis

MOST_KINDS = 3
"""Of what heads do the commonest are named."""

_NOTHING = ("none seen", "stays near")
_SIDES = {
    "silence to silence, speech to speech": "silence from silence and speech from speech",
    "silence to speech, speech to silence": "speech from silence and silence from speech",
    "own segment": "the query's own segment",
}
_CARRIED = (
    ("mixing-value-zeroing", "by what changes when others' values are zero"),
    ("mixing-norm", "by the norm of what they carry"),
)

Row = dict[str, Any]


def relation_sentences(diagnosis: Diagnosis) -> list[str]:
    """What heads do with labels, and the head that is the most extreme; a sentence a kind of label."""
    lines = []
    for name in dict.fromkeys(diagnosis.table["measure"].to_list()):
        if name.startswith("relation-") and not name.startswith("relation-verticality-"):
            lines += _of_label(diagnosis, name.removeprefix("relation-"))
    return lines


def _of_label(diagnosis: Diagnosis, key: str) -> list[str]:
    extremes = [
        row
        for row in diagnosis.measure(f"relation-{key}").drop_nulls("value").to_dicts()
        if row["head"] is not None and row["label"]
    ]
    if not extremes:
        return []
    what = key.removesuffix("-exclude-run")
    what = f"{what}s" + (" (without a query's own run)" if key.endswith("-exclude-run") else "")
    best = max(extremes, key=lambda row: abs(row["value"]))
    ends = f", 95 % {best['low']:.2f} to {best['high']:.2f}" if best["low"] is not None else ""
    floor = f"; permuted labels {best['floor']:.2f}" if best["floor"] is not None else ""
    does = "focuses on" if best["value"] > 0 else "neglects"
    text = f"Head {best['layer']}.{best['head']} {does} '{best['label']}' most of all"
    text += f" (concentration {best['value']:.2f}{ends}{floor})"
    operations = [row["label"] for row in diagnosis.measure(f"operation-{key}").to_dicts() if row["label"]]
    kinds = Counter(_kind(label) for label in operations if label not in _NOTHING)
    if operations:
        clear = sum(kinds.values())
        told = ", ".join(
            f"{n} {verb}{'s' if n == 1 else ''} {object_}" for (verb, object_), n in kinds.most_common(MOST_KINDS)
        )
        verb = "does" if clear == 1 else "do"
        heads = f"{len(operations)} head{'s' if len(operations) > 1 else ''}"
        text = f"Of {heads} {clear} {verb} something clear with {what}{f': {told}' if told else ''}. {text}"
    return [text + "."]


def _kind(operation: str) -> tuple[str, str]:
    """An operation as what heads do and to what, without the labels that it names.

    >>> _kind("attends s, sh"), _kind("not s, sh"), _kind("attends silence"), _kind("not the same phone")
    (('attend', 'some labels'), ('neglect', 'some labels'), ('attend', 'silence'), ('neglect', 'the same phone'))
    >>> _kind("same phone"), _kind("silence to speech, speech to silence")
    (('attend', 'the same phone'), ('attend', 'speech from silence and silence from speech'))
    """
    if operation in _SIDES:
        return "attend", _SIDES[operation]
    first, _, named = operation.partition(" ")
    verb = "neglect" if first == "not" else "attend"
    if first == "same":
        return verb, f"the {operation}"
    return verb, named if named == "silence" or named.startswith("the same ") else "some labels"


def mixing_sentences(diagnosis: Diagnosis) -> list[str]:
    """How much of a frame comes from others, by raw weights and by what is carried; one sentence."""
    raw = _others(diagnosis, "mixing-attention")
    for name, words in _CARRIED:
        carried = _others(diagnosis, name)
        if not carried:
            continue
        most, least = (choose(carried, key=lambda layer: carried[layer]["value"]) for choose in (max, min))
        text = f"Layer {most} mixes most: {_share(carried[most])} of a frame comes from other frames, {words}"
        if most in raw:
            text += f", where raw attention weights say {raw[most]['value']:.0%}"
        if least != most:
            text += f"; layer {least} mixes least, {_share(carried[least])}"
        return [text + "."]
    return []


def _share(row: Row) -> str:
    ends = f" (95 % {row['low']:.0%} to {row['high']:.0%})" if row["low"] is not None else ""
    return f"{row['value']:.0%}{ends}"


def _others(diagnosis: Diagnosis, name: str) -> dict[int, Row]:
    """One less the frame's own share, by layer."""
    found = {}
    for row in diagnosis.measure(name).drop_nulls("value").to_dicts():
        if row["target"] == "own-share" and row["layer"] is not None:
            turned = {"value": 1 - row["value"], "low": None, "high": None}
            if row["low"] is not None and row["high"] is not None:
                turned |= {"low": 1 - row["high"], "high": 1 - row["low"]}
            found[row["layer"]] = turned
    return found
