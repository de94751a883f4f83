"""The page of what federated dropout came to: costs and error rates side by side, claims and what became of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from otoscope.evaluation.outcome import Change
from recipes.federated.aims import AIMED, FULL, RANDOM, UNIFORM, Aim, Choice
from recipes.federated.comparing import AMBIENT, CRITICAL, ENSEMBLE, VARIANTS, Spent
from recipes.federated.stages import DENSE, SERVER, SMALL
from recipes.trials.comparing import GREEDY, LETTERS
from recipes.trials.tables import NOTHING, made, points, sizes, table, values

Key = tuple[str, str, str, str]  # "short" or "long", before, after, key of RATES
SHORT, LONG = LENGTHS = ("short", "long")
PASS, FAIL, UNDECIDED, NOT_MEASURED = "pass", "fail", "undecided", "nothing was measured"
MARGIN = 0.01  # of the word error rate, within which clients' smaller models are called no worse
_FIGURES = {GREEDY: "WER", LETTERS: "CER"}
_MIB = 2**20


@dataclass(frozen=True)
class Claim:
    """What is claimed, and by what it is decided.

    Attributes:
        words: the claim.
        source: who makes it.
        pairs: models before and after; the claim says that each of the latter is better, or with `margin` not worse.
        margin: of the word error rate; None claims to be better.
    """

    words: str
    source: str
    pairs: tuple[tuple[str, str], ...]
    margin: float | None = None

    def decided(self, changes: Sequence[Change | None]) -> str:
        """By the intervals: "pass" where all say so, "fail" where one surely says the contrary, else "undecided".

        Args:
            changes: one a pair; None where it was not measured.
        """
        there = [one for one in changes if one is not None]
        if len(there) < len(changes):
            return NOT_MEASURED
        if self.margin is None:
            found = [one.verdict for one in there]
            passes, fails = (all(one == "better" for one in found), any(one == "worse" for one in found))
        else:
            passes = all(one.worse_by_less_than(self.margin) for one in there)
            fails = any(one.difference.low >= self.margin for one in there)
        return FAIL if fails else PASS if passes else UNDECIDED


ZHOU, CHENG = "Zhou et al. 2022", "Cheng et al. 2022"
CLAIMS = (
    Claim("dropout aimed at ambient layers is better than uniform dropout", ZHOU, ((UNIFORM, AMBIENT),)),
    Claim("aimed at ambient layers it is better than at random ones", ZHOU, ((RANDOM, AMBIENT),)),
    Claim(
        "aimed at critical layers it is worse than uniform, random and ambient", "negative control",
        tuple((CRITICAL, one) for one in (UNIFORM, RANDOM, AMBIENT)),
    ),
    Claim(
        f"aimed at ambient layers it costs less than {100 * MARGIN:g} point beside the full model", ZHOU,
        ((FULL, AMBIENT),), MARGIN,
    ),
    Claim("uniform dropout is better than a small dense model", "what dropout is for", ((SMALL, UNIFORM),)),
    Claim("ambient-targeted dropout is better than a small dense model", "what dropout is for", ((SMALL, AMBIENT),)),
    Claim("an ensemble of small models is better than uniform dropout", CHENG, ((UNIFORM, ENSEMBLE),)),
    Claim("an ensemble of small models is better than ambient-targeted dropout", CHENG, ((AMBIENT, ENSEMBLE),)),
    Claim("clients that hold short utterances adapt the full model to them", "the task", ((SERVER, FULL),)),
    Claim("the large model is better than a small dense one before it is adapted", "premise", ((DENSE, SERVER),)),
)  # fmt: skip


@dataclass(frozen=True)
class Found:
    """Everything that the page is made of.

    Attributes:
        client_size: share of the server's model that clients hold, at most.
        members: of an ensemble.
        choices: what schedules aim at, by seed.
        changes: error rates of one variant after another's, see `Key`; absent where a training failed.
        spent: what each variant costs; absent likewise.
        command: that made it.
        runs: a line on each kind of training, in words.
        date: on which days models were held against each other.
    """

    client_size: float
    members: int
    choices: Mapping[int, Choice]
    changes: Mapping[Key, Change]
    spent: Mapping[str, Spent]
    command: str
    runs: Sequence[str] = field(default_factory=tuple)
    date: str = ""


def page_of(found: Found) -> str:
    """All tables."""
    parts = [
        made(found.command, found.date),
        "\n".join(f"- {line}" for line in found.runs),
        "### What was claimed, and what happened",
        summary(found),
        table(["claim", "by", "WER of short utterances, points", ""], claims(found)),
        "Decided by the intervals alone, each at 95 % and none widened for the number of claims. *Undecided* is no evidence "
        "that there is no difference.",
        "### Error rates",
        *(text for length in LENGTHS for text in _rates(found, length)),
        "### What it costs",
        _costs(found),
        _bytes(found),
        "### Which layers",
        _importance(found),
        _aimed(found),
    ]
    return "\n\n".join(part.rstrip("\n") for part in parts if part)


def claims(found: Found) -> list[list[str]]:
    """A row a claim: what it says, whose it is, the figures, and what became of it."""
    rows = []
    for one in CLAIMS:
        changes = [found.changes.get((SHORT, *pair, GREEDY)) for pair in one.pairs]
        cells = [
            f"{before} -> {after} {points(change)}"
            for (before, after), change in zip(one.pairs, changes, strict=True)
            if change is not None
        ]
        rows.append([one.words, one.source, "; ".join(cells) or NOTHING, one.decided(changes)])
    return rows


def summary(found: Found) -> str:
    """In a sentence or two whether the idea won."""
    ends = {words: end for words, _, _, end in claims(found)}
    uniform, random = (ends[one.words] for one in CLAIMS[:2])
    if NOT_MEASURED in (uniform, random):
        return "Whether ambient-targeted dropout is better than its controls was not measured."
    what = "Dropout aimed at ambient layers"
    if _stood_in(found, AMBIENT):
        what = "Dropout aimed at the least important layers, which stand in for ambient ones,"
    said = {PASS: "is better than", FAIL: "is worse than", UNDECIDED: "is not told apart from"}
    text = f"{what} {said[uniform]} uniform dropout and {said[random]} dropout of random layers at the same bytes."
    if (uniform, random) == (PASS, PASS):
        return text
    return f"{text} **The idea does not win here.**"


def _stood_in(found: Found, name: str) -> list[int]:
    """Seeds in which the diagnosis calls no layer so, and others stand in."""
    return [seed for seed, one in found.choices.items() if one.aims[name].stands_in]


def _rates(found: Found, length: str) -> list[str]:
    rows = []
    for variant in VARIANTS:
        cells = [variant]
        for rate in _FIGURES:
            change, side = _of(found, length, variant, rate)
            cells.append(values(change, side))
            for reference in (SERVER, UNIFORM):
                cells.append(points(found.changes.get((length, reference, variant, rate))))
        rows.append(cells)
    head = ["model"]
    for words in _FIGURES.values():
        head += [words, "against the server's model", "against uniform"]
    some = next((one for (there, *_), one in found.changes.items() if there == length), None)
    text = f"Of {length} utterances." + ("" if some is None else f" {sizes(some)}")
    return [text + " Of several seeds the mean, and each in brackets; differences in points.", table(head, rows)]


def _of(found: Found, length: str, variant: str, rate: str) -> tuple[Change | None, int]:
    """The comparison that has a variant with the most seeds, and on which side it is there."""
    there = [
        (change, side)
        for (spoken, *names, by), change in found.changes.items()
        for side in (0, 1)
        if (spoken, by) == (length, rate) and names[side] == variant
    ]
    return max(there, key=lambda one: len(one[0].runs[one[1]]), default=(None, 0))


def _costs(found: Found) -> str:
    rows = []
    for variant in VARIANTS:
        one = found.spent.get(variant)
        if one is None:
            rows.append([variant, *[NOTHING] * 8])
            continue
        using = [f"{one.parameters:,}", NOTHING if one.macs is None else f"{one.macs / 1e6:.1f}"]
        if not one.rounds:
            rows.append([variant, *[NOTHING] * 6, *using])
            continue
        rows.append(
            [
                variant, str(one.rounds), f"{one.elements:,}", f"{one.share:.1%}",
                f"{one.download / _MIB:.2f} and {one.upload / _MIB:.2f}",
                NOTHING if one.memory is None else f"{one.memory / _MIB:.1f}", str(one.failures), *using,
            ]
        )  # fmt: skip
    head = [
        "model", "rounds", "elements of a client", "of the model", "MiB down and up, a client and round",
        "peak MiB of a client's step", "failures", "parameters when recognising", "million MACs a second of speech",
    ]  # fmt: skip
    return table(head, rows)


def _bytes(found: Found) -> str:
    """What the sizes have to do with one another."""
    whole = found.members * found.client_size
    text = (
        f"Clients of all but `full` and `ensemble` hold {found.client_size:.0%} of the server's model, or less by under one "
        f"unit. `full` is there for reference, and takes more bytes. `ensemble` is {found.members} of `small` with seeds "
        f"of their own, {whole:.1f} of the model's bytes, each trained as long as any other model: of their "
        "hypotheses that one counts whose CTC loss, averaged over them, is the lowest."
    )
    small, full = (found.spent.get(name) for name in (ENSEMBLE, FULL))
    if small is not None and full is not None and small.macs and full.macs:
        text += f" When recognising it takes {small.macs / full.macs:.2f} times the operations of the one model."
    return text


def _importance(found: Found) -> str:
    if not found.choices:
        return "No server's model was diagnosed."
    layers = sorted({layer for one in found.choices.values() for layer in one.importance})
    rows = [
        [str(layer), *(f"{one.importance[layer]:.3f}, {one.labels[layer]}" for one in found.choices.values())]
        for layer in layers
    ]
    some = next(iter(found.choices.values()))
    after = (
        f"Importance of a layer: what its reset ({some.mode}) changes the metric ({some.metric}, on dev) by, over what a "
        "reset of all layers does; label by its interval ([criticality](blocks.md))."
    )
    return f"{table(['layer', *(f'seed {seed}' for seed in found.choices)], rows)}\n{after}"


def _aimed(found: Found) -> str:
    """What is aimed at, and what that is not."""
    lines = []
    for seed, choice in found.choices.items():
        for name in (*AIMED, RANDOM):
            lines.append(f"- seed {seed}, {name}: {_words(choice.aims[name], name)}")
            if len(choice.aims[name].layers) == len(choice.importance):
                lines.append(f"- **Seed {seed}: {name} reaches all layers, and is uniform dropout by another name.**")
        both = sorted(set.intersection(*(set(choice.aims[name].layers) for name in AIMED)))
        if both:
            lines.append(
                f"- seed {seed}: layers {_numbers(both)} are aimed at by ambient and by critical, which differ the less"
            )
    for name in AIMED:
        seeds = _stood_in(found, name)
        if seeds:
            which = "least" if name == AMBIENT else "most"
            lines.append(
                f"- **No layer is {name}** by the diagnosis of seed {_numbers(seeds)}: the {which} important ones stand in, "
                f"and what is told of these seeds says nothing of {name} layers."
            )
    return "\n".join(lines)


def _words(aim: Aim, name: str) -> str:
    text = f"layers {_numbers(aim.layers)}"
    if aim.called:
        text += f"; {_numbers(aim.called)} called {name}"
    if name in AIMED and aim.stands_in:
        text += f"; {_numbers(aim.stands_in)} in their place"
    if aim.added:
        text += f"; {_numbers(aim.added)} added, since with one unit left of the others clients are still too large"
    kept = sorted({rate for rate in aim.rates.values() if rate < 1})
    if kept:
        text += f"; {kept[0]:.0%} to {kept[-1]:.0%} kept of what is in them"
    return f"{text}; {aim.share:.1%} of the model"


def _numbers(of: Sequence[int]) -> str:
    return ", ".join(map(str, of))
