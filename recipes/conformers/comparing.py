"""Figures over several models: what a norm costs, whether the same layers are ambient, how labels agree."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from otoscope.evaluation.paired import Difference, paired_bootstrap
from otoscope.evaluation.scores import Scores
from otoscope.interventions.agreement import spearman
from otoscope.interventions.criticality.changes import mean_scores
from recipes.conformers.examination import read_scores
from recipes.conformers.models import SIZES, Conformer

Found = Mapping[Conformer, Mapping[str, Any]]
Changes = Mapping[str, Mapping[str, Any]]  # unit -> its row of criticality


def chosen(found: Found, **wanted: Any) -> list[Conformer]:
    """The models that have certain properties, by seed."""
    kept = [one for one in found if all(getattr(one, name) == value for name, value in wanted.items())]
    return sorted(kept, key=lambda one: one.seed)


def kinds(found: Found) -> list[tuple[str, str]]:
    """Sizes and contexts that there are models of, in order."""
    return list(dict.fromkeys((one.size, one.context) for one in found))


def words(found: Found, size: str, context: str, norm: str) -> Scores | None:
    """Word errors of every utterance, the mean over seeds; None where there is no model."""
    models = chosen(found, size=size, context=context, norm=norm)
    return mean_scores([read_scores(found[one]["recognition"]["words"]) for one in models]) if models else None


def cost(found: Found, size: str, context: str, norm: str, than: str, seed: int = 0) -> Difference | None:
    """WER with one norm less WER with another, each the mean over seeds; the interval is over speakers."""
    one, other = (words(found, size, context, name) for name in (norm, than))
    return paired_bootstrap(other, one, seed=seed) if one is not None and other is not None else None


def changes(one: Mapping[str, Any], part: str = "blocks", metric: str = "ctc-loss") -> Changes:
    """Criticality of the units of a model, those of blocks or of their parts."""
    return {
        row["stream"]: row for row in one[part]["rows"] if row["measure"] == "criticality" and row["target"] == metric
    }


def shares(one: Mapping[str, Any], part: str = "blocks", metric: str = "ctc-loss") -> dict[str, float]:
    """Criticality over that of all layers together."""
    return {
        row["stream"]: row["value"]
        for row in one[part]["rows"]
        if row["measure"] == "criticality-normalised" and row["target"] == metric
    }


def pairs_of_seeds(found: Found, size: str, context: str, norm: str) -> list[tuple[Conformer, Conformer]]:
    """Two models that differ in their seed."""
    return list(combinations(chosen(found, size=size, context=context, norm=norm), 2))


def pairs_of_norms(found: Found, size: str, context: str, norms: tuple[str, str]) -> list[tuple[Conformer, Conformer]]:
    """Two models that differ in their norm, of the same seed."""
    one, other = (
        {model.seed: model for model in chosen(found, size=size, context=context, norm=norm)} for norm in norms
    )
    return [(one[seed], other[seed]) for seed in one if seed in other]


def pairs_of_sizes(found: Found, sizes: tuple[str, str], norm: str) -> list[tuple[Conformer, Conformer]]:
    """Two models that see both sides and differ in their size, of the same seed."""
    one, other = (
        {model.seed: model for model in chosen(found, size=size, context="full", norm=norm)} for size in sizes
    )
    return [(one[seed], other[seed]) for seed in one if seed in other]


def agreement(
    found: Found, pairs: Iterable[tuple[Conformer, Conformer]], part: str = "blocks"
) -> dict[str, Any] | None:
    """How labels and changes of two models agree, over pairs of models.

    Units of the model with more layers are taken at the same relative depth u / L, where the layer that is nearest ends.

    Returns:
        `same`: share of units with the same label. `chance`: that share if labels were dealt out at random, each as often
        as it is among both models of a pair: sum p^2. `rho`: mean of Spearman's rank correlation of the changes, `least`
        and `most` of the pairs; None where all pairs lack one. `n` pairs. None where there is no pair.
    """
    same, chance, rho = [], [], []
    for one, other in pairs:
        here, there = _matched(changes(found[one], part), changes(found[other], part), one, other)
        labels = [(a.get("label"), b.get("label")) for a, b in zip(here, there, strict=True)]
        same.append(sum(a == b for a, b in labels) / len(labels))
        counted = Counter(label for pair in labels for label in pair)
        chance.append(sum((count / (2 * len(labels))) ** 2 for count in counted.values()))
        value, _ = spearman(*(np.array([row["value"] for row in rows], np.float64) for rows in (here, there)))
        rho += [value] if np.isfinite(value) else []
    if not same:
        return None
    ranks = (
        {"rho": float(np.mean(rho)), "least": min(rho), "most": max(rho)}
        if rho
        else dict.fromkeys(("rho", "least", "most"))
    )
    return {"same": float(np.mean(same)), "chance": float(np.mean(chance)), **ranks, "n": len(same)}


def _matched(
    one: Changes, other: Changes, mine: Conformer, theirs: Conformer
) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """Rows of the same units, those of the model with fewer layers first."""
    if SIZES[mine.size].layers > SIZES[theirs.size].layers:
        one, other, mine, theirs = other, one, theirs, mine
    few, many = SIZES[mine.size].layers, SIZES[theirs.size].layers
    here, there = [], []
    for unit, row in one.items():
        _, number, *rest = unit.split(".")
        name = ".".join(["layer", str(round(int(number) * many / few)), *rest])
        if name in other:
            here.append(row)
            there.append(other[name])
    return here, there


def predictions(found: Found, models: Sequence[Conformer], score: str, granularity: str) -> list[Mapping[str, Any]]:
    """Rank correlations of the change of the CTC loss with a distance between initial and trained weights."""
    return [
        row
        for one in models
        for row in found[one]["prediction"]["rows"]
        if (row["target"], row["stream"], row["label"]) == (score, granularity, "ctc-loss") and "value" in row
    ]
