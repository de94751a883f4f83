"""What a treatment saves, from the sizes that a diagnosis keeps; no model is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from otoscope.treatments.freeze import Freeze
from otoscope.treatments.replace_attention import MODULES, ReplaceAttention
from otoscope.treatments.sizes import Sizes
from otoscope.treatments.treatment import Treatment

_EXACT = ("prune-heads", "remove-blocks", "bypass")  # what they take out is all that they change about cost
_FREE = ("reinitialise", "freeze", "learning-rate", "group-norm")  # they change neither size nor time
_TARGETS = ("query", "key", "value", "output")


class Estimate:
    """What a model costs as treatments take parts of it away.

    Args:
        parts: what `evaluation.part_costs` gave for the model.
        sizes: of the same model.
    """

    def __init__(self, parts: Mapping[str, Any], sizes: Sizes) -> None:
        self.layers: Sequence[Mapping[str, Mapping[str, float | None]]] = parts["layers"]
        self.shared = int(parts["shared"])
        self.sizes = sizes

    def cost(self, treatment: Treatment, before: Sizes, after: Sizes) -> dict[str, float]:
        """The change that one treatment brings.

        Args:
            treatment: what is done.
            before: sizes of the model that it is done to.
            after: sizes of the treated model.

        Returns:
            By a name of `plan.COSTS`; what is not known from sizes is absent. Limited spans and replaced maps have as
            many parameters; what time they take depends on how attention is computed. Parameters of
            a frozen layer count as trained no longer.
        """
        if treatment.kind in _EXACT:
            pairs = {name: (self.total(name, before), self.total(name, after)) for name in _NAMES}
            return {name: new - old for name, (old, new) in pairs.items() if old is not None and new is not None}
        if isinstance(treatment, Freeze):
            frozen = self._frozen(treatment, before)
            return {"parameters": 0} | ({} if frozen is None else {"trained_parameters": -frozen})
        if treatment.kind in _FREE:
            return {"parameters": 0, "macs_per_second": 0}
        if treatment.kind == "low-rank":
            return self._adapters(treatment, before)
        if isinstance(treatment, ReplaceAttention) and treatment.by in MODULES:
            return {}
        return {"parameters": 0}

    def total(self, name: str, sizes: Sizes) -> float | None:
        """Parameters or multiply-accumulates a second of all layers of a model of these sizes.

        Args:
            name: "parameters" or "macs_per_second".
            sizes: of the model, or of what is left of it.

        Returns:
            None where a part has no such figure.
        """
        found: list[float | None] = []
        for number, layer in enumerate(self.layers, start=1):
            if f"layer.{number}" in sizes.removed or "layer" not in layer:
                continue
            gone = [key for key in layer if f"layer.{number}.{key}" in sizes.removed]
            found.append(layer["layer"][name])
            found += [_negative(layer[key][name]) for key in gone]
            cut = len(self.sizes.head_names[number - 1]) - len(sizes.head_names[number - 1])
            if cut and "attention" not in gone and "attention" in layer:
                share = layer["head"][name] if "head" in layer else None
                found.append(None if share is None else -cut * share)
        if name == "parameters" and any(self._attends(number, sizes) for number in range(1, len(self.layers) + 1)):
            found.append(self.shared)
        return None if any(one is None for one in found) else sum(one for one in found if one is not None)

    def _attends(self, layer: int, sizes: Sizes) -> bool:
        return not {f"layer.{layer}", f"layer.{layer}.attention"} & sizes.removed

    def _frozen(self, treatment: Freeze, sizes: Sizes) -> float | None:
        """Parameters of the layers that are frozen; None where others than whole layers are named."""
        units = sizes.find(treatment.units)
        kept = {unit.name for unit in sizes.find(treatment.but)} if treatment.but else set()
        if not units or any(unit.kind != "layer" for unit in units):
            return None
        layers = [unit.layer or 0 for unit in units if unit.name not in kept]
        if any(name.count(".") > 1 for name in kept):
            return None
        figures = [self.layers[layer - 1]["layer"]["parameters"] or 0 for layer in layers]
        return float(sum(figures))

    def _adapters(self, treatment: Any, sizes: Sizes) -> dict[str, float]:
        """Parameters that low-rank adapters add to attention projections: rank times what enters and what leaves them."""
        targets = [one.strip() for one in str(treatment.targets).split(",")]
        if any(one not in _TARGETS for one in targets):
            return {}
        total = max((head + 1 for names in self.sizes.head_names for head in names), default=1)
        layers = {unit.layer or 0 for unit in sizes.find(treatment.units)}
        inner = [len(sizes.head_names[layer - 1]) * (sizes.width // total) for layer in layers]
        return {"parameters": sum(len(targets) * treatment.rank * (sizes.width + size) for size in inner)}


_NAMES = ("parameters", "macs_per_second")


def estimate(treatments: Sequence[Treatment], parts: Mapping[str, Any], sizes: Sizes) -> list[dict[str, float]]:
    """What each of several treatments saves, one after another.

    Args:
        treatments: in order; they fit the model, see `Plan.check`.
        parts: what `evaluation.part_costs` gave for it.
        sizes: of the model.

    Returns:
        For each treatment the change that it brings, see `Estimate.cost`.
    """
    body = Estimate(parts, sizes)
    found: list[dict[str, float]] = []
    for k, treatment in enumerate(treatments):
        after = sizes if treatment in treatments[:k] else treatment.left(sizes)
        found.append(body.cost(treatment, sizes, after))
        sizes = after
    return found


def _negative(value: float | None) -> float | None:
    return None if value is None else -value
