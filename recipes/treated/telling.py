"""The page of what the treatment came to."""

from collections.abc import Mapping
from pathlib import Path

from otoscope.evaluation.outcome import Outcome
from otoscope.plans.plan import Plan
from otoscope.plans.showing import shown
from otoscope.training.folders import replace_text
from recipes.treated.stages import VARIANTS, Variant

START, END = "<!-- measured: written by recipes/treated -->", "<!-- end of what was measured -->"
MARGIN = 0.01  # WER, absolute: what the upper end of the interval is to stay below
SHARE = 0.25  # of the encoder's parameters or time that is to be saved


def tell(page: Path, plan: Plan, outcomes: Mapping[Variant, Outcome], date: str) -> None:
    """Puts what was measured between the page's marks."""
    before, _, rest = page.read_text().partition(START)
    _, _, after = rest.partition(END)
    replace_text(page, f"{before}{START}\n\n{tables(plan, outcomes, date)}\n{END}{after}")


def tables(plan: Plan, outcomes: Mapping[Variant, Outcome], date: str) -> str:
    """The plan, a row a variant, and what it says."""
    lines = ["```", shown(plan, evidence=False), "```", ""]
    lines += [
        "| model | WER before | WER after | difference, points | parameters of the encoder and head | time |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for variant, outcome in outcomes.items():
        change, time = outcome.first.difference, outcome.time
        saved = {name: (after - before) / before for name, before, after in outcome.savings if before}
        taken = "" if time is None else f"x {time.ratio:.2f} ({time.low:.2f} to {time.high:.2f})"
        lines.append(
            f"| {variant.words} | {100 * change.before:.2f} % | {100 * change.after:.2f} % | {100 * change.value:+.2f} "
            f"({100 * change.low:+.2f} to {100 * change.high:+.2f}) | {100 * saved['parameters']:+.1f} % | {taken} |"
        )
    first = next(iter(outcomes.values())).first.difference
    heard = f"{first.utterances} utterances of {first.blocks} voices; intervals at 95 %, over {first.by}s"
    lines += ["", f"{heard}. Held against each other on {date}.", ""]
    lines += [f"- **{variant.words}**: {judged(outcome)}" for variant, outcome in outcomes.items() if variant.treated]
    absent = [variant.words for variant in VARIANTS if variant not in outcomes]
    if absent:
        lines += ["", f"Not run: {'; '.join(absent)}."]
    return "\n".join([*lines, ""])


def judged(outcome: Outcome) -> str:
    """Whether a variant saves enough and loses little enough, or how near it came."""
    saved = {name: (before - after) / before for name, before, after in outcome.savings if before}
    time = 0.0 if outcome.time is None else 1 - outcome.time.high
    high = outcome.first.difference.high
    enough = max(saved["parameters"], time) >= SHARE
    little = outcome.first.worse_by_less_than(MARGIN)
    size = (
        f"{100 * saved['parameters']:.1f} % of the parameters and at least {100 * max(0, time):.0f} % of the time saved"
    )
    told = f"{size}; the WER's interval ends at {100 * high:+.2f} points"
    if enough and little:
        return f"{told}: both within what was aimed at."
    return f"{told}. Aimed at were {100 * SHARE:.0f} % of either, and an end below {100 * MARGIN:+.1f}."
