"""The control: what the rule for abnormal blocks would say of normal ones, and so whether abnormality says anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from scipy.stats import fisher_exact

from otoscope.errors import EvaluationError
from otoscope.interventions.blocks.variants import INTERVENTIONS
from otoscope.interventions.blocks.verdicts import (
    DISPENSABLE,
    HARMFUL,
    LEVEL,
    NORMAL,
    Criterion,
    criteria_of,
    judge,
    rows_of,
    verdicts,
)
from otoscope.interventions.blocks.verdicts import NAME as VERDICT
from otoscope.measures.measure import Result, Row
from otoscope.statistics import uniform
from otoscope.statistics.multiple import wilson

NAME = "block-control"
ANY = "any"

_FREED = (HARMFUL, DISPENSABLE)


def block_verdicts(abnormal: Mapping[int, bool], found: Result, called: Callable[[str], str] = str) -> Result:
    """Verdicts on all blocks by all metrics that interventions were taken with, their control, and what that says.

    Args:
        abnormal: see `verdicts`.
        found: what `block_interventions` gave.
        called: a metric's name -> its name in a sentence.

    Returns:
        Rows `block-verdict` and `block-control`, and notes under these names; "says" is a sentence a metric.

    Raises:
        EvaluationError: see `verdicts`.
    """
    criteria = criteria_of(found)
    rows = verdicts(abnormal, found.rows, criteria)
    control = controls(abnormal, found.rows, criteria)
    rule = {
        "definition": "otoscope's own; that of Chen and Asgari (2021) is not known to us", "level": LEVEL,
        "correction": "Holm, over interventions on abnormal blocks", "criteria": [one.to_dict() for one in criteria],
    }  # fmt: skip
    says = {one.metric: control_sentence([*rows, *control], one.metric, called) for one in criteria}
    return Result([*rows, *control], notes={VERDICT: rule, NAME: {"says": says}})


def controls(abnormal: Mapping[int, bool], changes: Sequence[Row], criteria: Sequence[Criterion]) -> list[Row]:
    """How often the rule for abnormal blocks would call normal ones harmful or dispensable.

    Args:
        abnormal: layer, from 1 -> whether its pattern is abnormal.
        changes: rows `block-intervention`.
        criteria: see `verdicts`.

    Returns:
        Rows `block-control`: other is "any" for the whole rule, or an intervention for the rule with that one alone;
        value is the share of normal blocks, with Wilson's interval over them; n is how many there are. There is no row
        where no normal block was intervened on.
    """
    rows = []
    for criterion in criteria:
        normal = [row for row in rows_of(changes, criterion.metric) if not abnormal[row.layer or 0]]
        for kind in (ANY, *INTERVENTIONS):
            judged = judge([row for row in normal if kind in (ANY, row.other)], criterion)
            if judged:
                hits = sum(one.label in _FREED for one in judged.values())
                low, high = wilson(hits, len(judged))
                rows.append(
                    Row(NAME, target=criterion.metric, other=kind, value=hits / len(judged), low=low, high=high,
                        n=len(judged))
                )  # fmt: skip
    return rows


def control_sentence(rows: Sequence[Row], metric: str, called: Callable[[str], str] = str) -> str:
    """What the control says: whether abnormal blocks are harmful or dispensable more often than normal ones would be.

    The two shares are compared by Fisher's exact test, one-sided at 5 %.

    Args:
        rows: rows `block-verdict` and `block-control`; others may be among them.
        metric: of the rows that are compared.
        called: see `block_verdicts`.

    Raises:
        EvaluationError: there are no verdicts by this metric.
    """
    judged = [row for row in rows if row.measure == VERDICT and row.target == metric]
    if not judged:
        raise EvaluationError(f"There is no verdict by {metric}", "Give rows of `verdicts` and `controls`.")
    flagged = [row for row in judged if row.label != NORMAL]
    if not flagged:
        return f"By {called(metric)} there is nothing to be compared: no block is abnormal."
    freed = sum(row.label in _FREED for row in flagged)
    told = f"By {called(metric)} {_of(freed, len(flagged), 'abnormal')} harmful or dispensable"
    control = next((r for r in rows if (r.measure, r.target, r.other) == (NAME, metric, ANY)), None)
    if control is None or not control.n or control.value is None:
        return f"{told}; no normal block was tried, so that nothing says whether that is more than chance."
    hits = round(control.value * control.n)
    told += f"; the same rule says so of {hits} of {control.n} normal blocks"
    if freed * control.n <= hits * len(flagged):
        return f"{told}: no more often of abnormal blocks, so that abnormality says nothing here about need."
    table = [[freed, len(flagged) - freed], [hits, control.n - hits]]
    p = float(fisher_exact(table, alternative="greater").pvalue)
    if p < 1 - LEVEL:
        return f"{told}: abnormality goes with not being needed (p = {p:.2g})."
    return f"{told}: more often of abnormal blocks, which may be chance with so few (p = {p:.2g})."


def drawn_blocks(abnormal: Mapping[int, bool], most: int, seed: int = 0) -> list[int]:
    """Blocks to intervene on where all are too many: those that are abnormal, and some normal ones for the control.

    Args:
        abnormal: layer, from 1 -> whether its pattern is abnormal.
        most: at most so many normal blocks, which a hash of (seed, layer) chooses.
        seed: of the choice.

    >>> drawn_blocks({1: False, 2: True, 3: False}, 0)
    [2]
    """
    normal = sorted(
        (layer for layer in abnormal if not abnormal[layer]), key=lambda k: uniform(seed, str(k), purpose="control")
    )
    return sorted([*(layer for layer in abnormal if abnormal[layer]), *normal[:most]])


def _of(hits: int, n: int, kind: str) -> str:
    return f"{hits} of {n} {kind} block{'s' if n != 1 else ''} {'are' if hits != 1 else 'is'}"
