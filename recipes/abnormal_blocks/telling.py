"""The page of what avoiding blocks came to, beside what the source states."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from otoscope.evaluation.outcome import Change
from recipes.abnormal_blocks.choosing import ABNORMAL, STAND_IN, Choice
from recipes.abnormal_blocks.variants import AVOIDS, COMPARISONS, CUSTOM, LIMITED, ORIGINAL, VARIANTS, Variant
from recipes.trials.comparing import BEAM, GREEDY, RATES
from recipes.trials.tables import NOTHING, made, points, sizes, table, values

SOURCE = "Chen and Asgari 2021"
STATED = {GREEDY: -4.8, BEAM: -0.9}  # points of WER on test-clean, custom less original, 100 h

Key = tuple[str, str, str]  # before, after, key of RATES


@dataclass(frozen=True)
class Found:
    """Everything that the page is made of.

    Attributes:
        choice: which blocks are avoided.
        avoided: in words, by name of the variant: which blocks it avoids, and how.
        changes: error rates of one variant after another's, by both names and key of `RATES`; absent where a training
            failed.
        parameters: of a variant's encoder and head, by name.
        verdicts: by number of the block: what interventions on the fine-tuned original say of it.
        command: that made it.
        runs: a line on each kind of training, in words.
        date: on which days models were held against each other.
    """

    choice: Choice
    avoided: Mapping[str, str]
    changes: Mapping[Key, Change]
    parameters: Mapping[str, int]
    verdicts: Mapping[int, str]
    command: str
    runs: Sequence[str] = field(default_factory=tuple)
    date: str = ""


def page_of(found: Found) -> str:
    """All tables."""
    some = next(iter(found.changes.values()), None)
    parts = [
        made(found.command, found.date),
        "\n".join(f"- {line}" for line in found.runs),
        "### The blocks of the original",
        _chosen(found.choice),
        _blocks(found),
        "### Error rates",
        _rates(found),
        "Of several seeds the mean, and each in brackets." + ("" if some is None else f" {sizes(some)}"),
        "### What a change brings",
        _comparisons(found),
        _interaction(found),
        "### Beside the source",
        table([SOURCE, "here"], beside(found)),
    ]
    return "\n\n".join(part.rstrip("\n") for part in parts if part)


def _chosen(choice: Choice) -> str:
    """Which blocks are avoided, and why, in a sentence."""
    numbers = ", ".join(map(str, choice.blocks))
    if choice.why == ABNORMAL:
        told = f"Abnormal in more than half of {choice.originals} originals, and avoided: {numbers}."
        if len(choice.abnormal) > len(choice.blocks):
            told += (
                f" Abnormal are {len(choice.abnormal)} of {len(choice.found)} blocks; no more than half of all are avoided, "
                "those that deviate most."
            )
        return told
    if choice.why == STAND_IN:
        return (
            f"**No block is abnormal** in more than half of {choice.originals} originals. Block {numbers}, which deviates "
            "most from its neighbours, stands in for an abnormal one: what follows says nothing of abnormal blocks."
        )
    return f"Blocks named by hand, and avoided: {numbers}."


def _blocks(found: Found) -> str:
    rows = []
    for block, (count, deviations, reasons) in found.choice.found.items():
        told = ", ".join(NOTHING if one is None else f"{one:.3f}" for one in deviations)
        why = "; ".join(one for one in reasons if one)
        avoided = "avoided" if block in found.choice.blocks else ""
        rows.append(
            [
                str(block), told, f"{count} of {found.choice.originals}", why or NOTHING,
                found.verdicts.get(block, NOTHING), avoided,
            ]
        )  # fmt: skip
    head = ["block", "deviation from its neighbours, nat", "abnormal", "by", "verdict once fine-tuned", ""]
    return table(head, rows)


def _rates(found: Found) -> str:
    rows = []
    for variant in VARIANTS:
        cells = [variant.name, found.avoided.get(variant.name, NOTHING)]
        cells.append(f"{found.parameters[variant.name]:,}" if variant.name in found.parameters else NOTHING)
        rows.append([*cells, *(values(*_of(found, variant, decoder)) for decoder in RATES)])
    head = ["model", "before it is trained", "parameters", *RATES.values()]
    return table(head, rows)


def _of(found: Found, variant: Variant, decoder: str) -> tuple[Change | None, int]:
    """The comparison that has a variant with the most seeds, and on which side it is there."""
    there = [
        (change, side)
        for (*names, by), change in found.changes.items()
        for side in (0, 1)
        if by == decoder and names[side] == variant.name
    ]
    return max(there, key=lambda one: len(one[0].runs[one[1]]), default=(None, 0))


def _comparisons(found: Found) -> str:
    rows = []
    for words, before, after in COMPARISONS:
        cells = [words, f"{before.name} -> {after.name}"]
        for decoder in RATES:
            change = found.changes.get((before.name, after.name, decoder))
            cells.append(NOTHING if change is None else f"{points(change)}, {change.verdict}")
        rows.append(cells)
    return table(["change", "models", *RATES.values()], rows)


def effects(found: Found, decoder: str) -> dict[str, float] | None:
    """The 2 x 2 in points: what each change brings, the mean with and without the other, and their interaction.

    avoiding    = ((avoiding - original) + (custom - limited)) / 2
    limiting    = ((limited - original) + (custom - avoiding)) / 2
    interaction = (custom - limited) - (avoiding - original)

    Returns:
        None where one of the four models is absent.
    """
    keys = [(ORIGINAL, AVOIDS), (LIMITED, CUSTOM), (ORIGINAL, LIMITED), (AVOIDS, CUSTOM)]
    there = [found.changes.get((before.name, after.name, decoder)) for before, after in keys]
    known = [100 * change.difference.value for change in there if change is not None]
    if len(known) < len(keys):
        return None
    alone, beside_spans, spans, beside_blocks = known
    return {
        "avoiding": (alone + beside_spans) / 2, "limiting": (spans + beside_blocks) / 2,
        "interaction": beside_spans - alone,
    }  # fmt: skip


def _interaction(found: Found) -> str:
    lines = []
    for decoder in RATES:
        told = effects(found, decoder)
        if told is not None:
            lines.append(
                f"- {RATES[decoder]}: avoiding blocks {told['avoiding']:+.1f} points, limiting spans "
                f"{told['limiting']:+.1f}, each the mean with and without the other; interaction {told['interaction']:+.1f}"
            )
    return "\n".join(lines)


def beside(found: Found) -> list[list[str]]:
    """What the source states, and what was found here of the same."""
    rows = []
    for decoder, stated in STATED.items():
        change = found.changes.get((ORIGINAL.name, CUSTOM.name, decoder))
        called = {GREEDY: "Viterbi", BEAM: "4-gram"}[decoder]
        here = "nothing was measured" if change is None else f"{points(change)}, {change.verdict}"
        rows.append([f"custom less original, {called}: {stated:+.1f} points of WER (test-clean, 100 h)", here])
    rows.append(["avoiding abnormal patterns is the main contributor", _main(found)])
    rows.append(["abnormal patterns contribute negative influence (assumed)", _assumed(found)])
    return rows


def _main(found: Found) -> str:
    told = effects(found, GREEDY)
    if told is None:
        return "nothing was measured"
    what = "this block" if found.choice.why == STAND_IN else "blocks"
    said = f"avoiding {what} {told['avoiding']:+.1f} points, limiting spans {told['limiting']:+.1f} (greedy)"
    if told["avoiding"] >= 0:
        return f"{said}: avoiding brings nothing"
    random = found.changes.get(("random", AVOIDS.name, GREEDY))
    control = "" if random is None else f"; rather than random blocks {points(random)}, {random.verdict}"
    larger = "the larger part, as stated" if told["avoiding"] < told["limiting"] else "the smaller part"
    return f"{said}: {larger}{control}"


def _assumed(found: Found) -> str:
    told = [f"block {block} {found.verdicts[block]}" for block in found.choice.blocks if block in found.verdicts]
    return "; ".join(told) + " (fine-tuned original)" if told else "nothing was measured"
