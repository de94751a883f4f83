"""The six signs of Yang, Liu and Lee (2020) that any speech transformer can be tested for, with their figures beside ours.

A sign is which way something goes, not how far: whether pruning diagonal heads hurts phones more than pruning global ones,
and so on. Each is decided by a 95 % interval over speakers, or it is undecided.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from otoscope.errors import MeasureError
from otoscope.evaluation.paired import Difference
from otoscope.interventions.probed import Mode, ProbedCurves, Variant
from otoscope.measures.measure import Row

PASS, FAIL, UNDECIDED = "pass", "fail", "undecided"

MARGIN = 0.01
"""A loss of accuracy up to this counts as none: "does not hurt" needs a limit, and this one is ours."""

MODERATE_MS = 750.0
"""The span that counts as moderate: 25 frames of 30 ms, the best for phones in the paper's M3."""

_OTHERS = ("globalness", "verticality", "max-weight", "confidence")
ORDERS = ("diagonality", *_OTHERS)
"""Orders of heads that the tests look at."""


@dataclass(frozen=True)
class Sign:
    """One sign test.

    Attributes:
        number: "i" to "vi".
        claim: what is said of speech transformers.
        outcome: "pass", "fail" or "undecided".
        found: the figures, in words.
        published: the paper's, in words.
        value: the difference or correlation that decides, where one number does.
        low: lower end of its interval.
        high: upper end of its interval.
    """

    number: str
    claim: str
    outcome: str
    found: str
    published: str
    value: float | None = None
    low: float | None = None
    high: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return f"({self.number}) {self.claim}: {self.outcome}. {self.found}. Published: {self.published}."


def sign_tests(
    curves: ProbedCurves | None, segmentation: Row | None = None, relation: Row | None = None, mode: Mode = "trained"
) -> list[Sign]:
    """The six tests; what was not examined is undecided, and says so.

    Args:
        curves: probes of the tasks "phone" and "speaker", pruned by globalness, verticality and diagonality, and with
            literal spans; without any the first four tests are left out.
        segmentation: R-value of the best attention head less that of MFCC, with its interval.
        relation: rank correlation over heads of verticality with the largest |concentration|, with its interval and, as
            its floor, the same with permuted labels.
        mode: whether probes were trained anew for each variant, as in the paper, or are frozen.
    """
    makers: tuple[Callable[[ProbedCurves, Mode], Sign], ...] = (
        diagonal_hurts_phones_most, global_spares_phones, vertical_hurts_speakers, spans_spare_phones
    )  # fmt: skip
    of_curves = [] if curves is None else [make(curves, mode) for make in makers]
    return [*of_curves, rows_beat_mfcc(segmentation), vertical_concentrates(relation)]


def diagonal_hurts_phones_most(curves: ProbedCurves, mode: Mode = "trained") -> Sign:
    """(i): at the first step, phone accuracy is lower by the order of diagonality than by each of the others.

    It passes where all differences are decided that way, and fails where one is decided the other way.
    """
    claim = "Pruning the most diagonal heads hurts phones most"
    published = (
        "phones 58.2 % after the 24 most diagonal of 144 heads, 62.6 to 62.7 % by other orders, 62.5 % before (M3)"
    )
    orders = [name for name in _OTHERS if curves.variants("pruning", name)] or ["globalness"]

    def examine() -> Sign:
        own = curves.first_step("diagonality")
        found = {name: curves.change(own, "phone", mode, curves.first_step(name)) for name in orders}
        outcomes = [_below(difference) for difference in found.values()]
        outcome = FAIL if FAIL in outcomes else PASS if set(outcomes) == {PASS} else UNDECIDED
        told = "; ".join(f"against {name} {_points(one)}" for name, one in found.items())
        return Sign("i", claim, outcome, f"{_heads(own, curves)}: {told}", published)

    return _or_not_examined("i", claim, published, examine)


def global_spares_phones(curves: ProbedCurves, mode: Mode = "trained") -> Sign:
    """(ii): at the first step, phone accuracy by the order of globalness is not lower, but for `MARGIN`.

    It passes where the whole interval is above minus the margin, and fails where the whole interval is below it.
    """
    claim = "Pruning the most global heads does not hurt phones, and may help"
    published = "62.6 % after the 24 most global of 144 heads, 62.5 % before (M3)"

    def examine() -> Sign:
        step = curves.first_step("globalness")
        found = curves.change(step, "phone", mode)
        outcome = _not_below(found)
        return _sign("ii", claim, outcome, f"{_heads(step, curves)}: {_points(found)}", published, found)

    return _or_not_examined("ii", claim, published, examine)


def vertical_hurts_speakers(curves: ProbedCurves, mode: Mode = "trained") -> Sign:
    """(iii): at the first step, the accuracy of frames' speakers is lower by verticality than by globalness."""
    claim = "Pruning vertical heads hurts speakers more than pruning global heads"
    published = (
        "speakers 80.0 % after the 24 most vertical of 144 heads, 88.5 % after the most global, 96.8 % before (M3)"
    )

    def examine() -> Sign:
        step = curves.first_step("verticality")
        found = curves.change(step, "speaker", mode, curves.first_step("globalness"))
        return _sign("iii", claim, _below(found), f"{_heads(step, curves)}: {_points(found)}", published, found)

    return _or_not_examined("iii", claim, published, examine)


def spans_spare_phones(curves: ProbedCurves, mode: Mode = "trained") -> Sign:
    """(iv): under a moderate literal span phones are not hurt, but for `MARGIN`, and frames' speakers are.

    The span is that nearest to 750 ms on a logarithmic scale. It passes where both are decided that way, and fails
    where one is decided the other way.
    """
    claim = "Moderate span limits keep phones while frames' speakers collapse"
    published = "at r = 25 frames of 30 ms phones 63.0 % and speakers 55.6 %, from 62.5 and about 97 % (M3)"

    def examine() -> Sign:
        step = moderate_span(curves)
        phone, speaker = curves.change(step, "phone", mode), curves.change(step, "speaker", mode)
        outcomes = {_not_below(phone), _below(speaker)}
        outcome = FAIL if FAIL in outcomes else PASS if outcomes == {PASS} else UNDECIDED
        told = f"within {step.amount} frames phones {_points(phone)}, speakers {_points(speaker)}"
        return Sign("iv", claim, outcome, told, published)

    return _or_not_examined("iv", claim, published, examine)


def rows_beat_mfcc(row: Row | None) -> Sign:
    """(v): phone boundaries from the rows of an attention map are better than from MFCC, by R-value."""
    claim = "Rows of attention maps find phone boundaries better than MFCC"
    return _of_row("v", claim, "R-value 79.99 (M3), 78.43 (M6), 78.19 (M9) against 76.68 of MFCC", row)


def vertical_concentrates(row: Row | None) -> Sign:
    """(vi): the more vertical a head, the larger its extreme concentration on a phone, in either direction.

    A vertical head's few keys fall on some label whatever the labels are, so that permuted ones correlate too: it passes
    where the interval lies above theirs.
    """
    claim = "The more vertical a head, the more it focuses on or neglects single phones"
    return _of_row("vi", claim, "figure 4: the largest concentration 2.95 (M3) at high verticality", row)


def sign_rows(signs: Sequence[Sign]) -> list[Row]:
    """Sign tests as rows of the table: target is the test, label its outcome."""
    return [
        Row("sign-test", target=one.number, value=one.value, low=one.low, high=one.high, label=one.outcome)
        for one in signs
    ]


def diagonal_against_global(curves: ProbedCurves, mode: Mode = "trained") -> Row:
    """Whether pruning the most diagonal heads hurts phones more than pruning as many of the most global ones.

    Returns:
        A row `pruning-verdict` for the table: the difference of the two accuracies with its paired interval, and as
        label "holds", "does not hold" (the difference is decided the other way) or "undecided".

    Raises:
        MeasureError: the curves lack one of the two orders, or phones.
    """
    step, other = curves.first_step("diagonality"), curves.first_step("globalness")
    found = curves.change(step, "phone", mode, other)
    label = {PASS: "holds", FAIL: "does not hold", UNDECIDED: UNDECIDED}[_below(found)]
    return Row(
        "pruning-verdict" if mode == "trained" else "pruning-verdict-frozen", target="phone",
        other=f"{step.amount} diagonal against {other.amount} global heads", value=found.value, low=_known(found.low),
        high=_known(found.high), label=label, n=int(curves.whole["phone"].denominator.sum()),
    )  # fmt: skip


def moderate_span(curves: ProbedCurves) -> Variant:
    """The literal span nearest to 750 ms.

    Raises:
        MeasureError: no literal span was examined.
    """
    found = [one for one in curves.variants("span", "literal") if one.amount]
    if not found:
        raise MeasureError("No literal span was examined", "Examine spans first.")
    frames = MODERATE_MS * 16 / curves.speech.grid.hop
    return min(found, key=lambda one: abs(math.log(one.amount / frames)))


def tally(signs: Sequence[Sign]) -> dict[str, int]:
    """How many tests have each outcome."""
    outcomes = [sign.outcome for sign in signs]
    return {name: outcomes.count(name) for name in (PASS, FAIL, UNDECIDED)}


def _below(found: Difference) -> str:
    """Whether a difference is below zero."""
    return PASS if found.high < 0 else FAIL if found.low > 0 else UNDECIDED


def _not_below(found: Difference) -> str:
    """Whether a difference is not below zero, but for the margin."""
    return PASS if found.low > -MARGIN else FAIL if found.high < -MARGIN else UNDECIDED


def _of_row(number: str, claim: str, published: str, row: Row | None) -> Sign:
    """A test by one number that is to be above zero, and above its floor where it has one."""
    if row is None or row.value is None:
        return Sign(number, claim, UNDECIDED, "Not examined", published)
    if row.low is None or row.high is None:
        return Sign(number, claim, UNDECIDED, f"{row.value:+.3f}, without an interval", published, row.value)
    floor = 0.0 if row.floor is None else row.floor
    outcome = PASS if row.low > max(floor, 0) else FAIL if row.high < min(floor, 0) else UNDECIDED
    found = f"{row.value:+.3f} [{row.low:+.3f}, {row.high:+.3f}]"
    if row.floor is not None:
        found += f", its floor {row.floor:+.3f}"
    return Sign(number, claim, outcome, found, published, row.value, row.low, row.high)


def _sign(number: str, claim: str, outcome: str, found: str, published: str, difference: Difference) -> Sign:
    return Sign(
        number, claim, outcome, found, published, difference.value, _known(difference.low), _known(difference.high)
    )


def _or_not_examined(number: str, claim: str, published: str, examine: Callable[[], Sign]) -> Sign:
    """What `examine` gives; undecided where a curve or task is absent."""
    try:
        return examine()
    except MeasureError as error:
        return Sign(
            number, claim, UNDECIDED, f"Not examined: {error.problem[:1].lower()}{error.problem[1:]}", published
        )


def _heads(step: Variant, curves: ProbedCurves) -> str:
    return f"after {step.amount} of {curves.heads} heads"


def _points(found: Difference) -> str:
    """A difference of accuracies in points of a hundred, with its interval."""
    if found.low != found.low:
        return f"{100 * found.value:+.1f} points"
    return f"{100 * found.value:+.1f} points [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"


def _known(value: float) -> float | None:
    return None if value != value else value
