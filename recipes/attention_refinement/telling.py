"""The page: what was measured beside what the paper states, and which of its signs intervals decide."""

from collections.abc import Sequence
from pathlib import Path

from otoscope.evaluation.scores import Scores
from otoscope.evaluation.seeds import mean_interval
from otoscope.interventions.signs import MARGIN
from recipes.attention_refinement.comparing import ORDERS, at, change, points, signs, steps_of, trained_change
from recipes.attention_refinement.design import FORMS, LEFT_OUT, RANDOM, WHOLE, Point, removed
from recipes.attention_refinement.stages import Found
from recipes.mockingjay.published import CURVES, PRUNED, RADII, SPANS
from recipes.trials.tables import made, put, table

THEIR_HEADS, THEIR_MS = PRUNED[-1], 30
_TASKS = ("phone", "reconstruction", "speaker")
_CALLED = {"confidence": "max-weight"}  # one column of the paper's, and two readings of what it is


def tell(page: Path, found: Found) -> None:
    """Puts what was measured between the page's marks."""
    put(page, "attention_refinement", tables(found))


def tables(found: Found) -> str:
    """Everything, as Markdown."""
    parts = (_about, _signs, _pruning, _spans, _trained, _costs)
    return "\n".join(part(found) for part in parts)


def _about(found: Found) -> str:
    told = found.facts
    own = found.before.interval()
    batches = "one utterance at a time, since it depends on the batch" if told.get("alone") else "in batches"
    lines = [
        f"{told.get('model', 'The model')}, {found.heads} heads, frames of {found.hop_ms:g} ms. WER of the unpruned model "
        f"{_percent(found.before)} ({100 * own.low:.1f} to {100 * own.high:.1f}), greedy decoding, {batches}, on "
        f"{told.get('speech', 'the exam')}, {told.get('voices', '?')} voices. Heads ranked on {told.get('ranked', '?')} of "
        f"development speech. Random orders are of seed 0; fine-tuning has the seeds {_seeds(found)}. Intervals are at "
        f"95 %, over {own.by}s (and seeds, where there are several).",
        "",
        made(told["command"], told.get("date", "")) if "command" in told else "",
    ]
    return "\n".join(lines) + "\n"


def _signs(found: Found) -> str:
    rows = [[one.number, one.claim, f"**{one.outcome}**", one.found, one.published] for one in signs(found)]
    after = f'"Does not hurt" allows {100 * MARGIN:g} point, a limit of ours. Figures in points of WER are ours.\n'
    return _table(["", "claim", "here", "ours", "theirs"], rows, "Signs") + "\n" + after


def _pruning(found: Found) -> str:
    """Heads taken out, nothing trained."""
    rows = []
    steps = steps_of(found)
    for order in ORDERS:
        for step in range(1, steps + 1):
            name = f"{order}:{step}"
            scores, difference = at(found, name), change(found, name)
            if scores is None or difference is None:
                continue
            count = removed(step, steps, found.heads)
            rows.append(
                [order, f"{count} of {found.heads}", _percent(scores), points(difference), *_theirs(order, step, steps)]
            )
    head = [
        "order", "heads taken out", "WER, ours", "change, points (95 %)", "heads taken out, theirs (M3)",
        "phone accuracy, %", "L1", "speaker of a frame, %",
    ]  # fmt: skip
    first = ["none", f"0 of {found.heads}", _percent(found.before), "", f"0 of {THEIR_HEADS}", *_at("globalness", 0)]
    return _table(head, [first, *rows], "Heads taken out, nothing trained")


def _theirs(order: str, step: int, steps: int) -> list[str]:
    """The paper's figures after the same share of the heads, where it has them."""
    share = THEIR_HEADS * step / steps
    if order in (LEFT_OUT, RANDOM) or share not in PRUNED:
        return ["-"] * 4
    place = PRUNED.index(int(share))
    return [f"{PRUNED[place]} of {THEIR_HEADS}", *_at(order, place)]


def _at(order: str, place: int) -> list[str]:
    return [_theirs_told(task, CURVES["M3"][task][_CALLED.get(order, order)][place]) for task in _TASKS]


def _spans(found: Found) -> str:
    radii = sorted(
        {point.amount for point in map(Point.named, found.after) if point.span}, reverse=True
    )  # fmt: skip
    first = ["full", "", _percent(found.before), _percent(found.before), "", *_spans_at(0)]
    rows = [first]
    for radius in radii:
        ours = []
        for form in FORMS:
            ours.append(_with_change(found, f"{form}:{radius}"))
        there = radius in RADII
        theirs = _spans_at(1 + RADII.index(radius)) if there else ["-"] * 5
        rows.append(
            [str(radius), f"{radius * found.hop_ms:g}", *ours, f"{radius * THEIR_MS}" if there else "-", *theirs]
        )
    head = [
        "r, frames", "ms, ours", "WER, literal: change", "WER, banded: change", "ms, theirs", "phone accuracy M3, %", "M6",
        "M9", "L1 (M3)", "speaker of a frame (M3), %",
    ]  # fmt: skip
    return _table(head, rows, "Spans limited, nothing trained")


def _spans_at(place: int) -> list[str]:
    phones = [_theirs_told("phone", SPANS[model]["phone"][place]) for model in ("M3", "M6", "M9")]
    return [*phones, *(_theirs_told(task, SPANS["M3"][task][place]) for task in ("reconstruction", "speaker"))]


def _trained(found: Found) -> str:
    """Points that were fine-tuned, beside what they were before."""
    rows = []
    steps = steps_of(found)
    for name, by_seed in sorted(found.trained.items(), key=lambda item: item[0] != WHOLE):
        scores = [by_seed[seed] for seed in sorted(by_seed)]
        before, own = at(found, name) if name != WHOLE else found.before, trained_change(found, name, None)
        against = None if name == WHOLE else trained_change(found, name)
        words = "the whole model (control)" if name == WHOLE else Point.named(name).words(steps, found.heads)
        rows.append([
            words, "-" if before is None else _percent(before), ", ".join(map(_percent, scores)),
            f"{100 * mean_interval(scores).value:.1f} %", "-" if own is None else points(own),
            "-" if against is None else points(against), *_savings(found, name),
        ])  # fmt: skip
    head = [
        "model", "WER, not trained", "WER of each seed, fine-tuned", "mean", "against the unpruned model, points",
        "against the control, points", "parameters", "MACs", "time",
    ]  # fmt: skip
    return _table(head, rows, "After brief fine-tuning")


def _costs(found: Found) -> str:
    """Sizes and times of the physically pruned models."""
    rows = []
    for name in found.costs:
        words = Point.named(name).words(steps_of(found), found.heads)
        rows.append([words, *_savings(found, name), _with_change(found, name)])
    head = ["model", "parameters", "MACs of the encoder", "time", "WER, nothing trained: change"]
    after = (
        "Parameters are of encoder and head. Time is a ratio to the unpruned model, both run in turn, one utterance at a "
        "time (median of pairs, 95 %). Orders that leave as many heads differ in parameters only where a layer is left "
        "with none."
    )
    return _table(head, rows, "Size and time, with the heads gone for good") + f"\n{after}\n"


def _with_change(found: Found, name: str) -> str:
    """WER of a point without training, and by how much it differs from the unpruned model's."""
    scores, difference = at(found, name), change(found, name)
    return "-" if scores is None or difference is None else f"{_percent(scores)}: {points(difference)}"


def _savings(found: Found, name: str) -> list[str]:
    cost = found.costs.get(name)
    if cost is None:
        return ["-"] * 3
    shares = []
    for key in ("parameters", "macs_per_second"):
        old, new = cost[key]
        shares.append("-" if not old or new is None else f"{100 * (new - old) / old:+.1f} %")
    ratio, low, high = cost["time"]
    return [*shares, f"x {ratio:.2f} ({low:.2f} to {high:.2f})"]


def _seeds(found: Found) -> str:
    seeds = sorted({seed for by_seed in found.trained.values() for seed in by_seed})
    return ", ".join(map(str, seeds)) or "none"


def _theirs_told(task: str, value: float) -> str:
    return f"{value:.3f}" if task == "reconstruction" else f"{value:.1f}"


def _percent(scores: Scores) -> str:
    return f"{100 * scores.value:.1f} %"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], title: str) -> str:
    return f"### {title}\n\n{table(head, rows)}"
