"""Edits of attention: gates on heads, limited spans, replaced maps."""

from dataclasses import dataclass

from otoscope.errors import SurgeryError
from otoscope.models.edits import Lending, head_edits
from otoscope.surgery.edit import Edit, finite, frames, registered
from otoscope.surgery.units import Parts


@registered
@dataclass(frozen=True)
class Gate(Edit):
    """Multiplies the outputs of heads before the output projection, whose bias stays.

    A head's output is its map times its values, their bias included; a gate of 0 is what setting the map to zero after
    the softmax gives (Yang, Liu and Lee 2020, section 7.1; Michel, Levy and Neubig 2019, equation 1). The map itself,
    as the tap reports it, is that of the model without gates.

    Attributes:
        units: heads, or layers or attention modules for all of their heads.
        value: the factor.
    """

    kind = "gate"
    value: float = 0.0

    def __post_init__(self) -> None:
        finite(self.value, "A gate")

    def apply(self, parts: Parts) -> None:
        """See `Edit`."""
        for layer, positions in parts.heads(self.units).items():
            parts.edits_of(layer).put("gate", positions, self.value)


@registered
@dataclass(frozen=True)
class Span(Edit):
    """Keeps only that part of heads' maps where query and key are at most `radius` frames apart.

    Attributes:
        units: heads, or layers or attention modules for all of their heads.
        radius: frames on either side that are kept; 0 keeps the diagonal.
        form: "literal" sets weights outside to zero after the softmax, so that rows no longer sum to one (Yang, Liu and
            Lee 2020, section 7.2); "banded" masks scores before it, so that they do. The tap reports the same rows for
            both, which sum to one, and how much of a literal span's rows was cut off beside them.
    """

    kind = "span"
    radius: int
    form: str = "literal"

    def __post_init__(self) -> None:
        frames(self.radius, "The radius of a span")
        if self.form not in ("literal", "banded"):
            raise SurgeryError(f"A span has no form {self.form!r}", "Its form is literal or banded.")

    def apply(self, parts: Parts) -> None:
        """See `Edit`."""
        for layer, positions in parts.heads(self.units).items():
            edits = parts.edits_of(layer)
            edits.put("radius", positions, self.radius)
            edits.put("literal", positions, self.form == "literal")


@registered
@dataclass(frozen=True)
class ReplaceMap(Edit):
    """Replaces the attention maps of all heads of layers; values and output projection stay their own.

    Attributes:
        units: layers or attention modules.
        by: "uniform" over the keys that are not padding; "local", uniform over those at most `width` frames away;
            "layer", the map of the layer `source`, head by head, made in the same pass; "first", that of the first of
            the layers that are named, for all others of them (attention map reuse: Shim, Choi and Sung 2022).
        width: frames on either side, for "local".
        source: an earlier layer, from 1, for "layer"; 0 is the layer just before.
    """

    kind = "map"
    by: str
    width: int = 0
    source: int = 0

    def __post_init__(self) -> None:
        frames(self.width, "The width of a local map")
        frames(self.source, "The layer whose map is used")
        if self.by not in ("uniform", "local", "layer", "first"):
            raise SurgeryError(f"No map is called {self.by!r}", "A map is replaced by uniform, local, layer or first.")

    def apply(self, parts: Parts) -> None:
        """See `Edit`."""
        layers = sorted({unit.layer or 0 for unit in parts.find(self.units, ("layer", "attention"))})
        if self.by == "first" and len(layers) < 2:
            raise SurgeryError(f"{self.units!r} is one layer, which has no other's map to use", "Name several layers.")
        for layer in layers:
            if self.by in ("uniform", "local"):
                edits = parts.edits_of(layer)
                edits.map, edits.width, edits.source = self.by, self.width if self.by == "local" else 0, 0
            elif self.by == "layer":
                _borrow(parts, layer, self.source or layer - 1)
            elif layer != layers[0]:
                _borrow(parts, layer, layers[0])


def _borrow(parts: Parts, layer: int, source: int) -> None:
    """Lets a layer use the map of an earlier one."""
    if not 1 <= source < layer:
        raise SurgeryError(
            f"Layer {layer} cannot use the attention map of layer {source}, which is not made before its own",
            "Name an earlier layer as the source.",
        )
    lending = _lending(parts)
    for number in (source, layer):
        parts.edits_of(number).lending = lending
    edits = parts.edits_of(layer)
    edits.map, edits.width, edits.source = "layer", 0, source


def _lending(parts: Parts) -> Lending:
    """Where layers of this encoder leave their maps; LayerDrop, which would leave gaps, is turned off."""
    for attention in parts.attentions().values():
        found = head_edits(attention)
        if found is not None and found.lending is not None:
            return found.lending
    lending = Lending()
    lending.hook(parts.encoder)
    parts.keep_every_layer()
    return lending


def check_maps(parts: Parts) -> None:
    """Refuses maps that cannot be lent, once all edits are applied.

    Raises:
        SurgeryError: a layer uses a map that is itself replaced, of other heads, or gone.
    """
    there = parts.attentions()
    for layer, attention in there.items():
        edits = head_edits(attention)
        if edits is None or edits.map != "layer":
            continue
        if edits.source not in there:
            raise SurgeryError(
                f"Layer {layer} uses the attention map of layer {edits.source}, whose attention was taken out",
                f"Keep the attention of layer {edits.source}, or take that of layer {layer} out too.",
            )
        source = parts.edits_of(edits.source)
        if source.map in ("uniform", "local"):
            raise SurgeryError(
                f"Layer {layer} uses the attention map of layer {edits.source}, which is itself replaced",
                f"Give layer {layer} the same {source.map} map.",
            )
        if source.kept != edits.kept:
            raise SurgeryError(
                f"Layer {layer} has the heads {list(edits.kept)}, and uses the attention map of layer {edits.source} "
                f"with the heads {list(source.kept)}",
                "Cut the same heads from both.",
            )
