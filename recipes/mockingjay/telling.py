"""The page of what was measured, with the published figures beside ours."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recipes.mockingjay.published import CURVES, PRUNED, R_VALUE, RADII, SPANS
from recipes.mockingjay.stages import MODELS

START, END = "<!-- measured: written by recipes/mockingjay -->", "<!-- end of what was measured -->"
CATEGORIES = ("global", "vertical", "diagonal")
TASKS = {
    "reconstruction": "L1", "phone": "phone, %", "speaker": "speaker of a frame, %",
    "speaker-utterance": "speaker of an utterance, %",
}  # fmt: skip
ORDERS = ("globalness", "verticality", "diagonality", "max-weight", "random")
Found = Mapping[str, Mapping[str, Any]]


def tell(page: Path, found: Found) -> None:
    """Puts what was measured between the page's marks."""
    before, _, rest = page.read_text().partition(START)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{START}\n\n{tables(found)}\n{END}{after}")


def tables(found: Found) -> str:
    """Everything, as Markdown."""
    parts = [_models(found), _categories(found), _signs(found), _pruning(found), _spans(found), _boundaries(found)]
    return "\n".join([*parts, _relations(found)])


def _models(found: Found) -> str:
    rows = []
    for name, one in found.items():
        value, low, high = one["model"]["reconstruction"]
        rows.append([
            name, str(MODELS[name]), f"{one['model']['parameters'] / 1e6:.2f} million",
            f"{value:.3f} ({low:.3f} to {high:.3f})", f"{SPANS[name]['reconstruction'][0]:.3f}",
        ])  # fmt: skip
    return _table(["model", "C_num", "parameters", "L1 without masks", "published"], rows, "Models")


def _categories(found: Found) -> str:
    """Counts of categories, and how far focused heads look to the side."""
    rows = []
    for name, one in found.items():
        labels = {_place(row): row["label"] for row in one["heads"] if row["measure"] == "category"}
        counts = Counter(labels.values())
        offsets, masses = (
            {_place(row): row["value"] for row in one["heads"] if row["measure"] == measure}
            for measure in ("peak-offset", "peak-mass")
        )
        diagonal = sorted((place for place, label in labels.items() if label == "diagonal"), key=lambda p: -masses[p])
        told = ", ".join(f"{_named(p)}: {offsets[p]:+.0f} ({masses[p]:.0%})" for p in diagonal[:6])
        far = [abs(offsets[p]) for p in diagonal]
        mean = f"{sum(far) / len(far):.1f}" if far else "-"
        rows.append([name, *(str(counts.get(kind, 0)) for kind in CATEGORIES), mean, told or "-"])
    head = [
        "model", *CATEGORIES, "mean distance of the diagonal heads' peak, frames",
        "diagonal heads by the mass around their peak: its offset (mass within one frame of it)",
    ]  # fmt: skip
    after = (
        "Published: a larger C_num goes with more global heads and farther shifted diagonals, M3 has the most diagonal "
        "heads, and no focused diagonal lies on the main diagonal.\n"
    )
    return _table(head, rows, "Categories and offsets") + "\n" + after


def _signs(found: Found) -> str:
    rows = []
    for number in range(6):
        one = [parts["probes"]["signs"][number] for parts in found.values()]
        rows.append([
            f"({one[0]['number']}) {one[0]['claim']}", one[0]["published"],
            *(f"**{sign['outcome']}**: {sign['found']}" for sign in one),
        ])  # fmt: skip
    return _table(["sign", "published", *found], rows, "Six sign tests")


def _pruning(found: Found) -> str:
    """Curves of heads removed, for every task and order; those of random orders are their mean."""
    text = []
    for task, title in TASKS.items():
        rows = []
        for order in ORDERS:
            for name, one in found.items():
                values = _curve(_rows_of(one, task), f"pruning-{task}", order)
                rows.append([order, name, *(_value(task, value) for value in values)])
                theirs = CURVES[name].get(task, {}).get(order)
                if theirs:
                    rows.append(
                        [order, f"{name}, published", *(_value(task, value, published=True) for value in theirs)]
                    )
        head = ["order", "model", *(f"{round(100 * count / PRUNED[-1])} %" for count in PRUNED)]
        text.append(_table(head, rows, f"Heads removed: {title}"))
    return "\n".join(text)


def _spans(found: Found) -> str:
    """Curves of spans limited, after the softmax."""
    rows = []
    for task, title in TASKS.items():
        for name, one in found.items():
            values = _curve(_rows_of(one, task), f"span-{task}", "literal")
            # From the widest to the narrowest; the whole model stays first.
            rows.append([title, name, *(_value(task, value) for value in [values[0], *values[:0:-1]])])
            theirs = SPANS[name].get(task)
            if theirs:
                rows.append([title, f"{name}, published", *(_value(task, value, published=True) for value in theirs)])
    return _table(["", "model", "full", *(f"r = {radius}" for radius in RADII)], rows, "Spans limited")


def _boundaries(found: Found) -> str:
    rows = []
    for name, one in found.items():
        by = {(row.get("stream"), row.get("target")): row for row in one["segmentation"] if "head" not in row}
        best = next(row for row in one["segmentation"] if row["target"] == "best-head")
        layers = [row for row in one["segmentation"] if _is_layer(row) and row["target"] == "r-value"]
        layer = max(layers, key=lambda row: row["value"])
        rows.append([
            name, f"{_interval(best)} (head {_named(_place(best))})", f"{R_VALUE[name]:.4f}",
            f"{layer['value']:.4f} ({layer['stream']})", f"{by['mfcc', 'r-value']['value']:.4f}", f"{best['floor']:.4f}",
        ])  # fmt: skip
    head = [
        "model", "R-value of the best head by validation", "published", "best layer", "MFCC",
        "as many evenly spaced boundaries",
    ]  # fmt: skip
    after = f"Published, on TIMIT: MFCC {R_VALUE['mfcc']:.4f}, layer 11 of M3 {R_VALUE['layer of M3']:.4f}.\n"
    return _table(head, rows, "Phone boundaries at 20 ms") + "\n" + after


def _relations(found: Found) -> str:
    rows = []
    for name, one in found.items():
        extremes = [row for row in one["relations"] if row["measure"] == "relation-phone" and "value" in row]
        extremes.sort(key=lambda row: -abs(row["value"]))
        told = ", ".join(f"{_named(_place(row))} {row['label']} {row['value']:+.2f}" for row in extremes[:5])
        kinds = Counter(row.get("label", "none") for row in one["relations"] if row["measure"] == "operation-phone")
        operations = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common())
        relation = next(row for row in one["relations"] if row["measure"].startswith("relation-verticality"))
        floor = f"{relation['floor']:.4f}" if "floor" in relation else "-"
        rows.append([name, told, operations, _interval(relation), floor])
    head = [
        "model",
        "largest concentrations: head, phone, C",
        "operations",
        "rank correlation of V with the size of the extreme C",
        "the same with permuted labels",
    ]
    after = "Published: largest focus 2.95 (M3) and 2.04 (M9); the more vertical a head, the stronger its focus or neglect.\n"
    return _table(head, rows, "Phone relations") + "\n" + after


def _rows_of(one: Mapping[str, Any], task: str) -> Sequence[Mapping[str, Any]]:
    return one["reconstruction"] if task == "reconstruction" else one["probes"]["rows"]


def _curve(rows: Sequence[Mapping[str, Any]], measure: str, target: str) -> list[float]:
    """Values of a curve: that of the whole model, then by rising amount; the mean of curves whose names go on."""
    mine = [row for row in rows if row["measure"] == measure]
    is_pruning = measure.startswith("pruning")
    whole = next(row for row in mine if row.get("other") in (None, "full") or (is_pruning and row["other"] == "0"))
    points: dict[int, list[float]] = {}
    for row in mine:
        named = row.get("target") or ""
        amount = row.get("other") or ""
        if (named == target or named.startswith(f"{target}-")) and amount.isdigit() and row is not whole:
            points.setdefault(int(amount), []).append(row["value"])
    if is_pruning:
        points.pop(0, None)
    return [whole["value"], *(sum(points[amount]) / len(points[amount]) for amount in sorted(points))]


def _value(task: str, value: float, published: bool = False) -> str:
    """L1 as it is; accuracies in percent, as the published ones are."""
    if task == "reconstruction":
        return f"{value:.3f}"
    return f"{value if published else 100 * value:.1f}"


def _is_layer(row: Mapping[str, Any]) -> bool:
    return "head" not in row and row.get("stream", "").startswith("layer.")


def _place(row: Mapping[str, Any]) -> tuple[int, int]:
    return row["layer"], row["head"]


def _named(place: tuple[int, int]) -> str:
    return f"{place[0]}.{place[1]}"


def _interval(row: Mapping[str, Any]) -> str:
    if "low" not in row or "high" not in row:
        return f"{row['value']:.4f}"
    return f"{row['value']:.4f} ({row['low']:.4f} to {row['high']:.4f})"


def _table(head: list[str], rows: list[list[str]], title: str) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return f"### {title}\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)
