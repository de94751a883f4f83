"""The page of what was measured."""

from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from otoscope.training.folders import replace_text
from recipes.conformers.comparing import (
    Found,
    agreement,
    changes,
    chosen,
    cost,
    kinds,
    pairs_of_norms,
    pairs_of_seeds,
    pairs_of_sizes,
    predictions,
    shares,
    words,
)
from recipes.conformers.models import CONTEXTS, NORMS, SIZES, Conformer

START, END = "<!-- measured: written by recipes/conformers -->", "<!-- end of what was measured -->"
PARTS = ("attention", "feed_forward.1", "feed_forward.2", "convolution", "norms")
DISTANCES = ("churn-rms", "churn-relative", "churn-angular", "churn-largest", "churn-path")
_PAIRS = (("batch", "group"), ("batch", "none"), ("group", "none"))


def tell(page: Path, found: Found) -> None:
    """Puts what was measured between the page's marks."""
    before, _, rest = page.read_text().partition(START)
    _, _, after = rest.partition(END)
    replace_text(page, f"{before}{START}\n\n{tables(found)}\n{END}{after}")


def tables(found: Found) -> str:
    """Everything, as Markdown."""
    parts = [_recognition, _costs, _replaced, _layers, _labels_of_parts, _stability, _churn]
    return "\n".join(part(found) for part in parts)


def _recognition(found: Found) -> str:
    rows = []
    for size, context in kinds(found):
        for norm in NORMS:
            models = chosen(found, size=size, context=context, norm=norm)
            scores = words(found, size, context, norm)
            if scores is None:
                continue
            told = [found[one]["recognition"] for one in models]
            mean = scores.interval()
            rows.append([
                size, context, norm, f"{told[0]['parameters'] / 1e6:.2f} million",
                ", ".join(_percent(one["wer"][0]) for one in told),
                f"{_percent(mean.value)} ({_percent(mean.low)} to {_percent(mean.high)})",
                ", ".join(f"{one['ctc-loss'][0]:.3f}" for one in told),
            ])  # fmt: skip
    head = [
        "size", "context", "norm", "parameters", "WER of each seed", "WER, mean over seeds (95 % over speakers)",
        "CTC loss of each seed, nats a token",
    ]  # fmt: skip
    return _table(head, rows, "Error rates")


def _costs(found: Found) -> str:
    """What one norm costs against another."""
    rows = []
    for size, context in kinds(found):
        for than, norm in _PAIRS:
            difference = cost(found, size, context, norm, than)
            if difference is None:
                continue
            each = [
                found[other]["recognition"]["wer"][0] - found[one]["recognition"]["wer"][0]
                for one, other in pairs_of_norms(found, size, context, (than, norm))
            ]
            low, high = (f"{100 * end:+.1f}" for end in (difference.low, difference.high))
            rows.append([
                size, context, f"{norm} rather than {than}", f"{100 * difference.value:+.1f} ({low} to {high})",
                ", ".join(f"{100 * one:+.1f}" for one in each),
            ])  # fmt: skip
    head = ["size", "context", "norm", "WER, points (95 % over speakers)", "of each seed"]
    return _table(head, rows, "What a norm costs")


def _replaced(found: Found) -> str:
    """Batch norm replaced in models that were trained with it."""
    rows = []
    for size, context in kinds(found):
        told = [found[one]["replaced"] for one in chosen(found, size=size, context=context, norm="batch")]
        for norm in NORMS if told else ():
            wer, loss = ([one[metric][norm] for one in told] for metric in ("wer", "ctc-loss"))
            rows.append([size, context, norm, ", ".join(map(_percent, wer)), ", ".join(f"{one:.3f}" for one in loss)])
    head = ["size", "context", "norm", "WER of each seed", "CTC loss of each seed"]
    return _table(head, rows, "Batch norm replaced after training, and nothing trained")


def _layers(found: Found) -> str:
    """Every layer of every model: its label and its share of what a reset of all layers does."""
    text = []
    for size in SIZES:
        models = [
            one
            for context in CONTEXTS
            for norm in NORMS
            for one in chosen(found, size=size, context=context, norm=norm)
        ]
        if not models:
            continue
        rows = []
        for one in models:
            labels, share = changes(found[one]), shares(found[one])
            cells = [
                f"{labels[unit]['label']} {share[unit]:.2f}" if unit in share else labels[unit]["label"]
                for unit in labels
            ]
            rows.append([one.context, one.norm, str(one.seed), *cells])
        head = ["context", "norm", "seed", *(f"layer {k}" for k in range(1, SIZES[size].layers + 1))]
        text.append(_table(head, rows, f"Layers of the {size} models, each re-initialised: label and share"))
    return "\n".join(text)


def _labels_of_parts(found: Found) -> str:
    """How many of each kind of part are ambient, over seeds."""
    rows = []
    for size, context in kinds(found):
        for norm in NORMS:
            models = chosen(found, size=size, context=context, norm=norm)
            if not models:
                continue
            counted = {part: Counter[str]() for part in PARTS}
            for one in models:
                for unit, row in changes(found[one], "parts").items():
                    counted[unit.split(".", 2)[2]][row["label"]] += 1
            cells = [f"{counted[part]['ambient']} of {counted[part].total()}" for part in PARTS]
            rows.append([size, context, norm, *cells])
    head = ["size", "context", "norm", *(part.replace("_", " ").replace(".", " ") for part in PARTS)]
    return _table(head, rows, "Ambient parts of layers, over all seeds")


def _stability(found: Found) -> str:
    rows = []
    for size, context in kinds(found):
        for norm in NORMS:
            rows += _agreed(found, f"seeds ({size}, {context}, {norm})", pairs_of_seeds(found, size, context, norm))
    for size, context in kinds(found):
        for norms in _PAIRS:
            named = f"{norms[0]} and {norms[1]} ({size}, {context})"
            rows += _agreed(found, named, pairs_of_norms(found, size, context, norms))
    for sizes in pairwise(SIZES):
        for norm in NORMS:
            rows += _agreed(found, f"{' and '.join(sizes)} (full, {norm})", pairs_of_sizes(found, sizes, norm))
    head = [
        "between", "pairs", "blocks with the same label", "by chance", "rho of blocks", "parts with the same label",
        "by chance", "rho of parts",
    ]  # fmt: skip
    return _table(head, rows, "Whether they are the same ones")


def _agreed(found: Found, between: str, pairs: list[tuple[Conformer, Conformer]]) -> list[list[str]]:
    both = [agreement(found, pairs, part) for part in ("blocks", "parts")]
    if both[0] is None:
        return []
    cells = [cell for one in both for cell in _cells(one)]
    return [[between, str(both[0]["n"]), *cells]]


def _cells(one: Mapping[str, Any] | None) -> list[str]:
    if one is None:
        return ["-", "-", "-"]
    rho = "-" if one["rho"] is None else f"{one['rho']:+.2f} ({one['least']:+.2f} to {one['most']:+.2f})"
    return [f"{one['same']:.0%}", f"{one['chance']:.0%}", rho]


def _churn(found: Found) -> str:
    """Rank correlation of churn with criticality."""
    rows = []
    for size, context in kinds(found):
        for norm in NORMS:
            models = chosen(found, size=size, context=context, norm=norm)
            if not models:
                continue
            for granularity, called in (("block", "blocks"), ("sub-module", "parts")):
                cells = []
                for score in DISTANCES:
                    told = predictions(found, models, score, granularity)
                    cells.append(_correlation(told))
                rows.append([size, context, norm, called, *cells])
    head = ["size", "context", "norm", "of", *(score.removeprefix("churn-") for score in DISTANCES)]
    after = (
        "Spearman's rho of the change of the CTC loss with the distance between initial and trained weights: mean over "
        "seeds, and in brackets the least lower and the greatest upper end of the seeds' 95 % intervals over units (from "
        "five units on).\n"
    )
    return _table(head, rows, "Churn and criticality") + "\n" + after


def _correlation(rows: list[Mapping[str, Any]]) -> str:
    if not rows:
        return "-"
    mean = f"{np.mean([row['value'] for row in rows]):+.2f}"
    if any("low" not in row for row in rows):
        return mean
    return f"{mean} ({min(row['low'] for row in rows):+.2f} to {max(row['high'] for row in rows):+.2f})"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _table(head: list[str], rows: list[list[str]], title: str) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return f"### {title}\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)
