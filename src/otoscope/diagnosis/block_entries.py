"""Entries of the catalogue that tell how blocks attend, which of them a model needs, and which layers are critical."""

from __future__ import annotations

from collections.abc import Iterator

from otoscope.diagnosis.entries import MANY, ONE, Entry, plain

_PATTERN = {
    "position-profile": (
        "a block and a twentieth of the utterance",
        "share of attention, 0 to 1",
        "where in the utterance attention goes",
    ),
    "block-summary": (
        "a block and a scalar",
        "the scalar's own",
        "entropies, diagonality, local mass and the like of the mean of a block's maps",
    ),
    "neighbour-deviation": ("a block", "nat, 0 to ln 2", "how far a block's profile is from that of its neighbours"),
    "trend-residual": ("a block and a scalar", "robust z", "how far a scalar is from its trend over the other blocks"),
    "degenerate-pattern": (
        "a block and a pattern",
        "the pattern's own",
        "whether maps are uniform, the same for all queries, a neighbour's, and the like",
    ),
    "abnormality": ("a block", "p, corrected by Holm", "whether a block attends abnormally, and in what way"),
}
_INFLUENCE = {
    "block-influence": ("a block", "1 - cosine, 0 to 2", "how far a layer turns what it is given (Men et al.)"),
    "angular-distance": (
        "a run of layers",
        "share of half a turn, 0 to 1",
        "how far layers turn what they are given (Gromov et al.)",
    ),
}
_PASSES = {
    "block-intervention": (
        "a block, intervention and metric",
        "the metric's own",
        "what a metric changes by when a block's attention is bypassed, uniform, local or its neighbour's",
    ),
    "block-verdict": (
        "a block and metric",
        "the metric's own",
        "normal; or, if abnormal: harmful, dispensable, needed or undecided",
    ),
    "block-control": (
        "an intervention and metric",
        "share of blocks",
        "how often the same rule would call normal blocks harmful or dispensable",
    ),
    "criticality": (
        "a unit, mode and metric",
        "the metric's own",
        "what a metric loses when a unit's weights are set back: ambient, intermediate or critical",
    ),
    "criticality-normalised": (
        "a unit, mode and metric",
        "share",
        "the same as a share of what a reset of all layers loses",
    ),
    "criticality-spread": (
        "a unit and metric",
        "the metric's own",
        "how much that varies with the draw of fresh weights",
    ),
    "gradient-norm-relative": (
        "a unit",
        "relative, a frame",
        "how strongly a loss pulls at a unit's weights (Auto-RGN)",
    ),
    "gradient-fisher": ("a unit", "squared loss", "Fisher information in a unit's weights"),
    "churn": ("a unit and distance", "the distance's own", "how far training moved a unit's weights"),
    "criticality-prediction": ("a score and mode", "Spearman's rho", "how well cheap scores predict criticality"),
}
NOISE = "module-criticality"


def block_entries() -> Iterator[Entry]:
    """What one pass gives."""
    yield Entry(
        "relative-profile", "blocks", "a block and an offset", "share of attention, 0 to 1", ONE,
        "how much attention goes how far back and ahead", plain("blocks.profile.RelativeProfile"),
    )  # fmt: skip
    for found, place, maker in (
        (_PATTERN, "blocks.pattern.BlockPattern", "block-summary"),
        (_INFLUENCE, "blocks.influence.BlockInfluence", "block-influence"),
    ):
        for name, (rows, unit, tells) in found.items():
            yield Entry(name, "blocks", rows, unit, ONE, tells, plain(place), made_by=maker)


def block_passes() -> Iterator[Entry]:
    """What is seen only by changing blocks and layers and running the model again."""
    for name, (rows, unit, tells) in _PASSES.items():
        yield Entry(
            name, "blocks", rows, unit, MANY, tells, None, needs="--initial or --checkpoint" if name == "churn" else ""
        )
    yield Entry(
        NOISE, "noise", "a unit", "squared distance over squared noise", MANY,
        "how little of its training, and how noisy, a unit bears (Chatterji et al.)", None, needs="--initial",
    )  # fmt: skip
