"""What is done to a block's attention to see whether the model needs it: four interventions, one block at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from otoscope.errors import EvaluationError, SurgeryError
from otoscope.models.edits import NO_LIMIT, HeadEdits, described, head_edits, head_names
from otoscope.models.model import SpeechModel
from otoscope.surgery import Bypass, Edit, ReplaceMap, Span, apply, prepared
from otoscope.surgery.units import Parts

BYPASS, UNIFORM, LOCAL, NEIGHBOUR = INTERVENTIONS = ("bypass", "uniform", "local", "neighbour")
WIDTH = 5  # frames on either side, those that a block's local mass is counted over


@dataclass(frozen=True)
class Planned:
    """Interventions on the blocks of a model.

    Attributes:
        edits: (layer, intervention) -> what is done.
        unchanged: those that leave the model as it is, since the block's attention is so already.
        absent: those that there is no way to do, with the reason.
    """

    edits: dict[tuple[int, str], tuple[Edit, ...]] = field(default_factory=dict)
    unchanged: list[tuple[int, str]] = field(default_factory=list)
    absent: dict[tuple[int, str], str] = field(default_factory=dict)


def plan_interventions(model: SpeechModel, width: int = WIDTH, layers: Sequence[int] | None = None) -> Planned:
    """The four interventions on each block.

    - bypass: the attention branch adds nothing; feed-forward and convolution stay.
    - uniform: every query attends to all frames alike; values and output projection stay.
    - local: the block's own map within `width` frames on either side, brought back to rows that sum to one.
    - neighbour: the map of the block before it, head by head. The first block has none before it, and the map of the
      one after it is not made yet when it is needed, so that it goes without.

    Attention that was edited before is taken as it is: a block that borrows its map lends what it borrowed, a map that
    is uniform or local already is given to the block after it as such, with its spans, and the map of a block that lends
    it is not replaced.

    Args:
        model: the model; it is not changed.
        width: see above, in frames of the layers.
        layers: blocks to intervene on, from 1; None is all that have attention.

    Raises:
        EvaluationError: the model has no such block, or the width is no number of frames.
    """
    base = prepared(model)
    parts = Parts(base.family.encoder(base.source), base.family)
    count = len(parts.layers)
    chosen = list(parts.attentions()) if layers is None else list(dict.fromkeys(layers))
    strange = [layer for layer in chosen if not 1 <= layer <= count]
    if strange or not chosen:
        raise EvaluationError(
            f"{model.name} has no block {strange[0]}" if strange else "No block is named",
            f"Name blocks from 1 to {count}.",
        )
    if isinstance(width, bool) or not isinstance(width, int) or width < 0:
        raise EvaluationError(f"The width of the local window is {width!r}", "Give a whole number of frames.")
    before = described(parts.encoder, str)
    planned = Planned()
    for layer in chosen:
        for kind in INTERVENTIONS:
            try:
                edits = _edits(parts, layer, kind, width)
                made = apply(base, edits, share=True)
            except SurgeryError as error:
                planned.absent[layer, kind] = str(error)
                continue
            if described(made.family.encoder(made.source), str) == before:
                planned.unchanged.append((layer, kind))
            else:
                planned.edits[layer, kind] = edits
    return planned


def _edits(parts: Parts, layer: int, kind: str, width: int) -> tuple[Edit, ...]:
    """What an intervention does to a block.

    Raises:
        SurgeryError: it cannot be done there.
    """
    name = f"layer.{layer}"
    own = head_edits(parts.attention(layer))
    if kind == BYPASS:
        return (Bypass(f"{name}.attention"),)
    if kind in (UNIFORM, NEIGHBOUR):
        _check_alone(parts, layer)
    if kind == UNIFORM:
        return (ReplaceMap(name, "uniform"), *_spans(parts, layer, own, None))
    if kind == LOCAL:
        # A span that is narrower already stays.
        wide = [
            head for k, head in enumerate(_names(parts, layer)) if own is None or int(own.radius[k]) > width
        ]  # fmt: skip
        return (Span(f"{name}.head.{','.join(map(str, wide))}", width, "banded"),) if wide else ()
    if layer == 1:
        raise SurgeryError(
            "The first block has no block before it, and the map of the second is not made yet when the first runs",
            "Go by the other interventions.",
        )
    lender = head_edits(parts.attention(layer - 1))
    if _names(parts, layer) != _names(parts, layer - 1):
        raise SurgeryError(f"Blocks {layer - 1} and {layer} have other heads left", "Go by the other interventions.")
    spans = _spans(parts, layer, own, lender)
    if lender is not None and lender.map in ("uniform", "local"):
        return (ReplaceMap(name, lender.map, lender.width), *spans)
    return (ReplaceMap(name, "layer", source=layer - 1), *spans)


def _check_alone(parts: Parts, layer: int) -> None:
    """Refuses to replace a map that other blocks use, since theirs would change with it.

    Raises:
        SurgeryError: there is such a block.
    """
    for other, attention in parts.attentions().items():
        edits = head_edits(attention)
        if edits is not None and (edits.map, edits.source) == ("layer", layer):
            raise SurgeryError(
                f"Block {other} uses the map of block {layer}, and would change with it",
                "Go by the other interventions.",
            )


def _spans(parts: Parts, layer: int, own: HeadEdits | None, wanted: HeadEdits | None) -> tuple[Edit, ...]:
    """Gives each head of a block the span of another block's head, where either has a limited one."""
    if not any(one is not None and one.limited for one in (own, wanted)):
        return ()
    radii = torch.full((len(_names(parts, layer)),), NO_LIMIT) if wanted is None else wanted.radius
    forms = [wanted is not None and bool(wanted.literal[k]) for k in range(len(radii))]
    return tuple(
        Span(f"layer.{layer}.head.{head}", int(radius), "literal" if literal else "banded")
        for head, radius, literal in zip(_names(parts, layer), radii, forms, strict=True)
    )


def _names(parts: Parts, layer: int) -> tuple[int, ...]:
    return head_names(parts.attention(layer), parts.total_heads)
