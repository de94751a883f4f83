"""Entries of the catalogue that tell what attention heads do, and which of them matter."""

from __future__ import annotations

from collections.abc import Iterator

from otoscope.diagnosis.entries import MANY, ONE, WITH_MAPS, Entry, plain


def head_entries() -> Iterator[Entry]:
    """What the tap sums over every head's maps."""
    for name, unit, tells, place in (
        ("globalness", "nat, 0 to ln T", "how widely each query spreads its attention", "globalness.Globalness"),
        ("verticality", "nat, -ln T to 0", "how much all queries agree on the same keys", "verticality.Verticality"),
        (
            "diagonality",
            "relative distance, about -0.75 to 0",
            "how near to itself each query attends",
            "diagonality.Diagonality",
        ),
        (
            "globalness-normalised",
            "G / ln T, 0 to 1",
            "globalness for any length of utterance",
            "globalness.NormalisedGlobalness",
        ),
        (
            "verticality-normalised",
            "V / ln T, -1 to 0",
            "verticality for any length of utterance",
            "verticality.NormalisedVerticality",
        ),
        (
            "head-information",
            "nat, 0 to ln T",
            "how much attention depends on the query: -(G + V)",
            "information.HeadInformation",
        ),
        (
            "cad",
            "share, 0 to 1",
            "cumulative attention within a growing distance: D on another scale",
            "diagonality.CumulativeDiagonality",
        ),
        (
            "centrality",
            "share, 0 to 1",
            "how near to itself each query attends, of as far as it could",
            "diagonality.Centrality",
        ),
        ("mean-offset", "frames", "how far ahead (or back) a query attends on average", "diagonality.MeanOffset"),
        ("max-weight", "weight, 0 to 1", "the greatest weight of an utterance's map", "sharpness.MaxWeight"),
        ("confidence", "weight, 0 to 1", "the greatest weight of a query, on average", "sharpness.Confidence"),
    ):
        yield Entry(name, "heads", "a head", unit, ONE, tells, plain(f"heads.{place}"))
    for name, unit, tells in (
        ("peak-offset", "frames", "at which offset a head attends most: diagonals may be shifted"),
        ("peak-mass", "share, 0 to 1", "how much of its attention lies within one frame of that offset"),
    ):
        yield Entry(name, "heads", "a head", unit, ONE, tells, plain("heads.peak.ProfilePeak"), made_by="peak-offset")
    yield Entry(
        "category", "heads", "a head", "ranks ahead of the second-best category", ONE,
        "global, vertical or diagonal, by the best of three ranks", plain("heads.category.Category"),
    )  # fmt: skip
    yield from _relations()
    yield Entry(
        "head-segmentation", "segmentation", "a head, a stream, MFCC, the model", "R-value, P, R and F1", WITH_MAPS,
        "how well minima of similarity along attention rows find where phones meet",
        plain("heads.head_segmentation.HeadSegmentation"),
    )  # fmt: skip


def _relations() -> Iterator[Entry]:
    """Figures of one set of relation maps."""
    for group, tier, ending in (
        ("heads", "phone", ""),
        ("relations", "phone", "-exclude-run"),
        ("relations", "word", ""),
        ("relations", "word", "-exclude-run"),
    ):
        maker = f"relation-{tier}{ending}"
        make = plain("heads.relation_maps.RelationMaps", tier, bool(ending))
        for prefix, rows, unit, tells in (
            (
                "relation",
                "a head",
                "relative to uniform attention, -1 and up",
                "which {} a head focuses on or neglects most",
            ),
            (
                "concentration",
                "a head and label",
                "relative to uniform attention, -1 and up",
                "how much a head focuses on each {}",
            ),
            (
                "operation",
                "a head",
                "margin",
                "what a head does with {}s, by rule: attends to one, to the same, to others",
            ),
            ("relation-verticality", "the model", "Spearman's rho", "whether vertical heads focus or neglect {}s more"),
        ):
            also = "; frames of the query's own run left out" if ending else ""
            yield Entry(
                f"{prefix}-{tier}{ending}", group, rows, unit, ONE, tells.format(tier) + also, make, made_by=maker
            )


_PASSES = {
    "importance-loo": ("a head and metric", "the metric's own", "what a metric loses or gains when a head is left out"),
    "importance-gradient": ("a head", "nat a frame", "how much the loss changes with a head's gate, frame by frame"),
    "importance-gradient-sum": ("a head", "nat a frame", "the same, summed over an utterance before its size is taken"),
    "importance-attribution": ("a head", "nat", "the greatest attribution of the output to a weight of a head"),
    "importance-l1": ("a head", "sum of sizes", "how large a head's weights are"),
    "agreement-kendall": ("two rankings", "Kendall's tau", "how far two rankings of heads agree"),
    "agreement-spearman": ("two rankings", "Spearman's rho", "how far two rankings of heads agree"),
    "pruning-phone": ("an order and a number of heads", "accuracy", "how well a probe reads phones with heads removed"),
    "pruning-speaker": ("an order and a number of heads", "accuracy", "the same for speakers, frame by frame"),
    "pruning-speaker-utterance": ("an order and a number of heads", "accuracy", "the same for speakers of utterances"),
    "pruning-mel": ("an order and a number of heads", "L1 distance", "how well a probe gives the spectrum back"),
    "pruning-verdict": ("the model", "accuracy", "whether diagonal heads matter more for phones than global ones"),
    "span-phone": ("a radius", "accuracy", "how well a probe reads phones with attention cut off at a radius"),
    "span-speaker": ("a radius", "accuracy", "the same for speakers, frame by frame"),
    "span-speaker-utterance": ("a radius", "accuracy", "the same for speakers of utterances"),
    "span-mel": ("a radius", "L1 distance", "how well a probe gives the spectrum back"),
    "sign-test": ("a claim", "the claim's own", "whether what was found of other models is found here"),
}
_BY_PLACE = {
    "span-layer": (
        "a layer, a radius and a metric",
        "what a metric loses with one layer's attention cut off at a radius",
    ),
    "span-head": ("a head, a radius and a metric", "the same with one head's attention cut off"),
}
_MIXING = {
    "attention": "raw weights, the mean over heads",
    "norm": "weights times the values they carry, through the residual and the norm (Kobayashi et al.)",
    "value-zeroing": "how far a frame moves when another's value is zero (Mohebbi et al.)",
}


def many_pass_entries() -> Iterator[Entry]:
    """What is seen only by changing the model and running it again, or layer by layer."""
    for name, (rows, unit, tells) in _PASSES.items():
        yield Entry(name, "importance", rows, unit, MANY, tells, None)
    for name, tells in _MIXING.items():
        for ending, unit, also in (
            ("", "frames", ""),
            ("-rollout", "frames", "; multiplied up from the input"),
            ("-words", "words", "; from word to word"),
        ):
            yield Entry(
                f"mixing-{name}{ending}", "mixing", "a layer", f"distance in {unit}, shares", MANY,
                f"how far a layer reaches by {tells}{also}", None,
            )  # fmt: skip


def span_entries() -> Iterator[Entry]:
    """Spans limited in one place at a time: as many variants of the model as there are places and radii."""
    for name, (rows, tells) in _BY_PLACE.items():
        yield Entry(name, "spans", rows, "the metric's own", MANY, tells, None)
