"""What a head does with labels, read off its relation map where it is clear."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from otoscope.speech.phones import SILENCE

SEEN = math.log(1.5)
"""How strong an operation must be: 1.5 times as much attention as uniform, or as little as two thirds of it."""

NEAR_MS = 100
NEAR_SHARE = 0.5
"""A head is diagonal, and not asked for its operation, if more than this share of its attention lies within 100 ms."""

MOST_NAMED = 4
"""The most labels that are named where a head attends or neglects several."""

NONE_SEEN = "none seen"
DIAGONAL = "stays near"

KINDS = ("to silence", "not silence", "apart", "crossed", "same", "not same", "own segment", "focus", "neglect")
"""The operations, in the order in which equal ones are taken."""

_NEGATIVE = np.array([kind in ("not silence", "not same", "neglect") for kind in KINDS])

_LEAST = math.exp(-30)
"""A ratio of attention to uniform attention that stands for none at all."""


@dataclass(frozen=True)
class Operations:
    """What each head does.

    Attributes:
        kinds: index into `KINDS` of the strongest operation, -1 where none is seen, -2 where the head is diagonal, shape
            (heads,).
        margins: of the strongest over the second strongest, or over `SEEN` where that is larger; below zero where none
            is seen; NaN where the head is diagonal, shape (heads,).
        names: in words, one a head.
    """

    kinds: np.ndarray
    margins: np.ndarray
    names: tuple[str, ...]


def head_operations(
    p: Float[np.ndarray, "heads n n"],
    p_uniform: Float[np.ndarray, "n n"],
    permuted: Float[np.ndarray, "heads n n"],
    permuted_uniform: Float[np.ndarray, "n n"],
    near: Float[np.ndarray, " heads"],
    labels: Sequence[str],
    what: str = "label",
) -> Operations:
    """Names the operation of each head; kinds after Yang, Liu and Lee (2020, fig. 3), rule and thresholds otoscope's own.

    Heads with more than half of their attention within 100 ms of the query are diagonal ("stays near"): they follow
    whatever label comes next. For the others, with S the silence and N all other labels, r the logarithm of P' over
    P_U, both summed over some pairs of labels, and r* that of permuted labels, there are:

    - "attends silence": r(N to S) and r(S to S); "not silence": their negatives;
    - "silence to silence, speech to speech": r(S to S) and -r(N to S); "silence to speech, speech to silence": the
      negatives;
    - "same label": r(same label, of N) - r(N to N); "not the same label": its negative;
    - "own segment": "same label" and the same of permuted labels, which is high too where a head stays near;
    - "attends a, b": r(to a) - r(N to N), of three quarters or more of all other labels of N; "not a, b": the negative.

    The strength of an operation is the least min(r, r - r*) over its terms, so what permuted labels show as well does not
    count; of "own segment" it is the lesser of the two. The strongest is the head's operation if it reaches ln 1.5; one
    with "not" only if none without it does, for attention that goes to some labels is missing at others.

    Args:
        p: mean of P' over utterances, for all labels that are looked at.
        p_uniform: mean of P_U.
        permuted: mean of P' with permuted labels.
        permuted_uniform: mean of P_U with permuted labels.
        near: share of attention within 100 ms of the query.
        labels: names of the labels, one of them "sil" where there is a silence.
        what: what a label is called, such as "phone".
    """
    real, chance = _terms(p, p_uniform, labels), _terms(permuted, permuted_uniform, labels)
    strong = {name: _known(np.minimum(r, r - chance[name])) for name, r in real.items()}
    strengths = np.stack(
        [
            np.minimum(strong["N to S"], strong["S to S"]),
            np.minimum(strong["not N to S"], strong["not S to S"]),
            np.minimum(strong["S to S"], strong["not N to S"]),
            np.minimum(strong["not S to S"], strong["N to S"]),
            strong["same"],
            strong["not same"],
            _known(np.minimum(real["same"], chance["same"])),
            strong["to each"].max(-1),
            strong["not to each"].max(-1),
        ],
        axis=-1,
    )
    elsewhere = np.any(strengths[:, ~_NEGATIVE] >= SEEN, axis=-1, keepdims=True)
    strengths = np.where(elsewhere & _NEGATIVE, -np.inf, strengths)
    in_order = np.sort(strengths, axis=-1)
    kinds = np.where(in_order[:, -1] >= SEEN, strengths.argmax(-1), -1)
    kinds = np.where(near > NEAR_SHARE, -2, kinds)
    margins = np.where(kinds == -2, np.nan, in_order[:, -1] - np.maximum(in_order[:, -2], SEEN))
    names = tuple(
        _name(kind, strong["to each"][k], strong["not to each"][k], labels, what)
        for k, kind in enumerate(kinds.tolist())
    )
    return Operations(kinds, margins, names)


def _terms(p: np.ndarray, p_uniform: np.ndarray, labels: Sequence[str]) -> dict[str, np.ndarray]:
    """Logarithms of attention over uniform attention and their negatives; NaN where labels never come together."""
    silent = np.array([label == SILENCE for label in labels])
    itself = np.eye(len(labels), dtype=bool)
    pairs = {"N to S": ~silent[:, None] & silent, "S to S": silent[:, None] & silent, "same": itself & ~silent}
    found = {}
    for name, inside in pairs.items():
        found[name] = _log(p[..., inside].sum(-1), p_uniform[inside].sum(keepdims=True))
        found[f"not {name}"] = -found[name]
    # Where silence takes much or little, all else gets less or more; silence and the own label have operations of theirs.
    speech = ~silent[:, None] & ~silent
    among = _log(p[..., speech].sum(-1), p_uniform[speech].sum(keepdims=True))
    found["same"], found["not same"] = found["same"] - among, found["not same"] + among
    each = np.where(speech & ~itself, _log(p, p_uniform) - among[..., None, None], np.nan)
    in_order, known = np.sort(each, axis=-2), (~np.isnan(each)).sum(-2)  # NaN last
    quarter = known // 4
    for name, place, sign in (("to each", quarter, 1), ("not to each", known - 1 - quarter, -1)):
        found[name] = sign * np.take_along_axis(in_order, np.maximum(place, 0)[..., None, :], -2)[..., 0, :]
    return found


def _log(p: np.ndarray, p_uniform: np.ndarray) -> np.ndarray:
    """ln(p / p_uniform), never below -30; NaN where there is no baseline."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(p_uniform > 0, np.log(np.maximum(p / p_uniform, _LEAST)), np.nan)


def _known(strength: np.ndarray) -> np.ndarray:
    """What is not known is no strength."""
    return np.where(np.isnan(strength), -np.inf, strength)


def _name(kind: int, focus: np.ndarray, neglect: np.ndarray, labels: Sequence[str], what: str) -> str:
    """An operation in words; of several labels those that are strong enough, the strongest first."""
    if kind < 0:
        return NONE_SEEN if kind == -1 else DIAGONAL

    def strongest(of_labels: np.ndarray) -> str:
        order = np.argsort(-of_labels, kind="stable")[:MOST_NAMED]
        return ", ".join(labels[k] for k in order if of_labels[k] >= SEEN)

    return {
        "to silence": "attends silence",
        "not silence": "not silence",
        "apart": "silence to silence, speech to speech",
        "crossed": "silence to speech, speech to silence",
        "same": f"same {what}",
        "not same": f"not the same {what}",
        "own segment": "own segment",
        "focus": f"attends {strongest(focus)}",
        "neglect": f"not {strongest(neglect)}",
    }[KINDS[kind]]
