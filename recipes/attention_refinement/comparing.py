"""Differences between points with their intervals, and the signs of the paper that word errors can decide."""

import math
from collections.abc import Sequence

from otoscope.evaluation.paired import Difference, paired_bootstrap
from otoscope.evaluation.scores import Scores
from otoscope.evaluation.seeds import seed_bootstrap
from otoscope.interventions.criticality.changes import mean_scores
from otoscope.interventions.signs import FAIL, MARGIN, MODERATE_MS, PASS, UNDECIDED, Sign
from recipes.attention_refinement.design import FORMS, LEFT_OUT, METRICS, RANDOM, WEIGHTS, WHOLE, Point, removed
from recipes.attention_refinement.stages import Found

ORDERS = (*METRICS, *WEIGHTS, LEFT_OUT, RANDOM)  # rows of the page; random is the mean of all that were drawn
_SOURCES = (*METRICS, *WEIGHTS, RANDOM)  # what the first signs are decided between: leave-one-out is not the paper's


def at(found: Found, name: str) -> Scores | None:
    """Word errors of a point without training; those of "random:2" are the mean over the orders drawn at random."""
    by, _, amount = name.partition(":")
    if by != RANDOM:
        return found.after.get(name)
    drawn = [
        scores
        for other, scores in found.after.items()
        if other.startswith(f"{RANDOM}-") and other.endswith(f":{amount}")
    ]
    return mean_scores(drawn) if drawn else None


def change(found: Found, name: str, than: str | None = None) -> Difference | None:
    """WER of a point less that of the unpruned model, or of another point; None where one is absent."""
    before = found.before if than is None else at(found, than)
    after = at(found, name)
    return None if before is None or after is None else paired_bootstrap(before, after)


def trained_change(found: Found, name: str, than: str | None = WHOLE) -> Difference | None:
    """The same after fine-tuning, over the seeds that both have.

    Args:
        found: what was measured.
        name: of the point.
        than: another point, or `WHOLE` for the unpruned model that was fine-tuned alike; None is the unpruned model as it
            was.
    """
    after = found.trained.get(name, {})
    if than is None:
        before, seeds = [found.before], sorted(after)
    else:
        others = found.trained.get(than, {})
        seeds = sorted(set(after) & set(others))
        before = [others[seed] for seed in seeds]
    if not seeds:
        return None
    return _between(before, [after[seed] for seed in seeds])


def _between(before: Sequence[Scores], after: Sequence[Scores]) -> Difference:
    if len(before) == len(after) == 1:
        return paired_bootstrap(before[0], after[0])
    return seed_bootstrap(before, after)[0]


def signs(found: Found) -> list[Sign]:
    """The paper's findings that word errors can be held against; steps are those nearest to a sixth and to half."""
    steps = steps_of(found)
    first, half = max(1, round(steps / 6)), max(1, round(steps / 2))
    sixth = "phones 62.6 % after 24 of 144 heads, 62.5 % before (M3); 64.6 and 64.7 (M6), 65.5 and 65.5 (M9)"
    halves = "phones 62.7 % after 72 of 144 heads, 62.5 % before (M3); 64.9 and 64.7 (M6), 65.6 and 65.5 (M9)"
    return [
        _diagonal_hurts_most(found, first), _diagonal_after_training(found, first), _global_hurts_least(found, first),
        *_global_spared(found, "iv", first, sixth), *_global_spared(found, "v", half, halves), *_moderate_span(found),
        _cliff(found),
    ]  # fmt: skip


def steps_of(found: Found) -> int:
    """In how many steps the orders take out all heads."""
    known = map(Point.named, found.after)
    return max((point.amount for point in known if not point.span), default=0)


def _diagonal_hurts_most(found: Found, step: int) -> Sign:
    rivals = [name for name in _SOURCES if name != "diagonality"]
    return _all_above(
        "i", f"{_heads(found, step)} diagonal heads hurts most: diagonality less each other order",
        [(name, change(found, f"diagonality:{step}", f"{name}:{step}")) for name in rivals],
        "24 of 144 heads: phones 58.2 % by diagonality, 62.6 to 62.7 % by other orders, 62.5 % before; L1 0.583, 0.260 to "
        "0.262, 0.258 (M3)",
    )  # fmt: skip


def _diagonal_after_training(found: Found, step: int) -> Sign:
    there = [Point.named(name) for name in found.trained if name != WHOLE]
    rivals = [one for one in there if not one.span and one.amount == step and one.by != "diagonality"]
    return _all_above(
        "ii", "It still does after fine-tuning: diagonality less each other order",
        [(one.by, trained_change(found, f"diagonality:{step}", one.name)) for one in rivals],
        "the transformer was never trained again",
    )  # fmt: skip


def _global_hurts_least(found: Found, step: int) -> Sign:
    rivals = [name for name in _SOURCES if name != "globalness"]
    return _all_above(
        "iii", f"{_heads(found, step)} global heads hurts least: each other order less globalness",
        [(name, change(found, f"{name}:{step}", f"globalness:{step}")) for name in rivals],
        "24 of 144 heads: speakers 88.5 % by globalness, 84.0 by weight, 80.0 by verticality, 33.7 by diagonality (M3); for "
        "phones verticality and weight cost no more",
    )  # fmt: skip


def _global_spared(found: Found, number: str, step: int, published: str) -> list[Sign]:
    name = f"globalness:{step}"
    told = [("nothing trained", change(found, name)), ("fine-tuned, against the control", trained_change(found, name))]
    return _each_spared(number, f"{_heads(found, step)} global heads does not hurt", told, published)


def _moderate_span(found: Found) -> list[Sign]:
    known = [point for point in map(Point.named, found.after) if point.span and point.amount]
    published = "phones 63.0 % within 25 frames of 30 ms, 62.5 % before (M3); 64.8 and 64.7 (M6), 65.7 and 65.5 (M9)"
    wanted = MODERATE_MS / found.hop_ms
    near = [one.amount for one in known if wanted / 2 <= one.amount <= 2 * wanted]
    if not near:
        return [Sign("vi", "A moderate limit of spans does not hurt", UNDECIDED, "Not examined", published)]
    radius = min(near, key=lambda one: abs(math.log(one / wanted)))
    told: list[tuple[str, Difference | None]] = [(form, change(found, f"{form}:{radius}")) for form in FORMS]
    claim = f"A limit of all spans to {radius} frames of {found.hop_ms:g} ms does not hurt"
    return _each_spared("vi", claim, told, published)


def _cliff(found: Found) -> Sign:
    return _all_above(
        "vii", "A literal span of one frame hurts more than one of two: one less two",
        [("literal", change(found, "literal:1", "literal:2"))],
        "phones 1.6 (M3), 2.3 (M6) and 1.8 (M9) points lower within 1 frame of 30 ms than within 2",
    )  # fmt: skip


def _heads(found: Found, step: int) -> str:
    count = removed(step, steps_of(found), found.heads) if step <= steps_of(found) else 0
    return f"Taking out the {count} most"


def _all_above(number: str, claim: str, told: Sequence[tuple[str, Difference | None]], published: str) -> Sign:
    """Passes where all differences are decided for the worse, and fails where one is decided the other way."""
    there = [(name, one) for name, one in told if one is not None]
    if not there:
        return Sign(number, claim, UNDECIDED, "Not examined", published)
    outcomes = {PASS if one.low > 0 else FAIL if one.high < 0 else UNDECIDED for _, one in there}
    outcome = FAIL if FAIL in outcomes else PASS if outcomes == {PASS} else UNDECIDED
    return Sign(number, claim, outcome, "; ".join(f"{name} {points(one)}" for name, one in there), published)


def _each_spared(number: str, claim: str, told: Sequence[tuple[str, Difference | None]], published: str) -> list[Sign]:
    """For each difference: passes where it cannot be for the worse by the margin, and fails where it surely is."""
    found = []
    for name, one in told:
        if one is None:
            found.append(Sign(number, f"{claim} ({name})", UNDECIDED, "Not examined", published))
            continue
        outcome = PASS if one.high < MARGIN else FAIL if one.low > MARGIN else UNDECIDED
        found.append(Sign(number, f"{claim} ({name})", outcome, points(one), published))
    return found


def points(one: Difference) -> str:
    """A difference of error rates in points of a hundred, with its interval."""
    if one.low != one.low:
        return f"{100 * one.value:+.1f}"
    return f"{100 * one.value:+.1f} ({100 * one.low:+.1f} to {100 * one.high:+.1f})"
