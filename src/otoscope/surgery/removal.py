"""Taking layers and branches out of a model."""

from dataclasses import dataclass
from typing import Any

from otoscope.errors import SurgeryError
from otoscope.models.absent import POSITION_BIAS, SHARED_BIAS, Absent, AbsentBranch, AbsentLayer, shared_bias
from otoscope.models.families import submodule
from otoscope.models.mapless import is_mapless
from otoscope.surgery.edit import Edit, registered
from otoscope.surgery.units import Parts, Unit

REMOVABLE = ("layer", "attention", "feed_forward", "convolution")


@registered
@dataclass(frozen=True)
class Remove(Edit):
    """Takes layers or branches out, with their weights and the time that they take.

    What enters a layer that is gone enters the next one; a branch that is gone adds nothing to the residual stream,
    while norms before or after it stay. Numbers and names of all other units stay those of the original. To rounding
    the result is that of bypassing the same units. transformers' own `hidden_states` have no entry for a layer that is
    gone.

    In a WavLM one layer holds the position embedding of all: it is handed on to the next layer that has attention, and
    LayerDrop, which might skip that one, is turned off.

    Attributes:
        units: layers, attention modules, feed-forward or convolution branches; those that were taken out before may be
            named.
    """

    kind = "remove"

    def apply(self, parts: Parts) -> None:
        """See `Edit`."""
        units = parts.find(self.units, REMOVABLE, lost=True)
        layers = {unit.layer or 0 for unit in units if unit.kind == "layer"}
        if all(number in layers or isinstance(layer, Absent) for number, layer in enumerate(parts.layers, start=1)):
            raise SurgeryError(f"{self.units!r} names every layer that this model has left", "Leave one layer or more.")
        for unit in units:
            if unit.name in parts.units:
                if unit.kind in ("layer", "attention"):
                    hand_on_bias(parts, unit.layer or 0)
                _take_out(parts, unit)
        parts.reread()


def hand_on_bias(parts: Parts, layer: int) -> None:
    """Hands the position embedding that a WavLM's layer holds for all of them on to the next one that makes a map.

    Args:
        parts: the encoder.
        layer: whose attention, or map, is to go; nothing is done where it holds none.
    """
    found = shared_bias(parts.layers[layer - 1], parts.family)
    if found is None:
        return
    later = [
        attention
        for number, attention in parts.attentions().items()
        if number > layer and not is_mapless(attention, parts.family)
    ]
    for attention in later[:1]:
        setattr(attention, SHARED_BIAS, found)
    parts.keep_every_layer()


def _take_out(parts: Parts, unit: Unit) -> None:
    """Puts a module without weights in the place of each module of a unit."""
    biased = parts.family.own_attention == "wavlm"
    if unit.kind == "layer":
        _put(parts, unit.paths[0], AbsentLayer(POSITION_BIAS if biased else None))
        parts.layers[(unit.layer or 0) - 1] = submodule(parts.encoder, unit.paths[0])  # type: ignore[assignment]
    elif unit.kind == "attention":
        _put(parts, unit.paths[0], AbsentBranch("biased attention" if biased else "attention"))
    else:
        *first, last = unit.paths
        for path in first:
            _put(parts, path, AbsentBranch(width=0))
        _put(parts, last, AbsentBranch(width=getattr(parts.config, parts.family.size_names[0])))


def _put(parts: Parts, path: str, new: Absent) -> None:
    """Puts a module in place of another."""
    head, _, name = path.rpartition(".")
    place: Any = submodule(parts.encoder, head)
    new.train(getattr(place, name).training)
    setattr(place, name, new)
