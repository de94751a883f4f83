"""Taking queries and keys out of layers that make no map of their own."""

from dataclasses import dataclass

from otoscope.models.edits import head_edits
from otoscope.models.mapless import drop_map, is_mapless
from otoscope.surgery.edit import Edit, registered
from otoscope.surgery.removal import hand_on_bias
from otoscope.surgery.units import Parts


@registered
@dataclass(frozen=True)
class DropMap(Edit):
    """Takes out what only made the maps of layers whose maps are replaced: queries, keys and tensors of positions.

    Nothing changes but size and time. Layers that make their own map stay as they are, so that the units of a
    `ReplaceMap` can be named again. What a layer lost is not drawn anew where its map is replaced by another later.

    In a WavLM one layer holds the position embedding of all: it is handed on to the next layer that makes its own map,
    and LayerDrop, which might skip that one, is turned off.

    Attributes:
        units: layers or attention modules.
    """

    kind = "drop_map"

    def apply(self, parts: Parts) -> None:
        """See `Edit`."""
        named = {unit.layer or 0 for unit in parts.find(self.units, ("layer", "attention"))}
        for layer, attention in parts.attentions().items():
            edits = head_edits(attention) if layer in named else None
            if edits is None or edits.map == "own" or is_mapless(attention, parts.family):
                continue
            hand_on_bias(parts, layer)
            drop_map(attention, parts.family)
        parts.reread()
