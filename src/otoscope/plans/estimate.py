"""What a treatment saves, from the sizes that a diagnosis keeps; no model is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from otoscope.treatments.freeze import Freeze
from otoscope.treatments.low_rank import ATTENTION, LowRank, there_are
from otoscope.treatments.replace_attention import MAPS, ReplaceAttention
from otoscope.treatments.sizes import Sizes
from otoscope.treatments.treatment import Treatment

_EXACT = ("prune-heads", "remove-blocks", "bypass")  # what they take out is all that they change about cost
_FREE = ("reinitialise", "learning-rate", "group-norm")  # they change neither size nor time
_NAMES = ("parameters", "macs_per_second")
_REST = ""  # what a layer has beside its branches

Part = tuple[int, str]  # a layer and a branch of it, or `_REST`


class Estimate:
    """What a model costs as treatments take parts of it away.

    Args:
        parts: what `evaluation.part_costs` gave for the model.
        sizes: of the same model.
    """

    def __init__(self, parts: Mapping[str, Any], sizes: Sizes) -> None:
        self.layers: Sequence[Mapping[str, Mapping[str, float | None]]] = parts["layers"]
        self.maps: Sequence[Mapping[str, float | None]] = parts.get("maps", [{}] * len(self.layers))
        self.shared = int(parts["shared"])
        self.sizes = sizes

    def cost(
        self, treatment: Treatment, before: Sizes, after: Sizes, earlier: Sequence[Treatment] = ()
    ) -> dict[str, float]:
        """The change that one treatment brings.

        Args:
            treatment: what is done.
            before: sizes of the model that it is done to.
            after: sizes of the treated model.
            earlier: what was done before it since the model was measured: what is frozen already counts no more.

        Returns:
            By a name of `plan.COSTS`; what is not known from sizes is absent. Limited spans have as many parameters; what
            time they take depends on how attention is computed. Trained parameters are those that fine-tuning trains
            where it trains the layers; they are told where a treatment says what is trained.
        """
        if treatment in earlier:
            return dict.fromkeys(_NAMES, 0)
        replaced = isinstance(treatment, ReplaceAttention)
        if treatment.kind in _EXACT or (isinstance(treatment, ReplaceAttention) and treatment.by in MAPS):
            if self._adapted(treatment, before, earlier):
                return {}
            pairs = {name: (self.total(name, before), self.total(name, after)) for name in _NAMES}
            return {name: new - old for name, (old, new) in pairs.items() if old is not None and new is not None}
        if isinstance(treatment, Freeze):
            frozen = self._newly_frozen(treatment, before, earlier)
            return {"parameters": 0} | ({} if frozen is None else {"trained_parameters": -frozen})
        if treatment.kind in _FREE:
            return {"parameters": 0, "macs_per_second": 0}
        if isinstance(treatment, LowRank):
            return self._adapters(treatment, before, earlier)
        return {} if replaced else {"parameters": 0}

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
            found.append(layer["layer"][name])
            found += [_negative(layer[key][name]) for key in layer if f"layer.{number}.{key}" in sizes.removed]
            found.append(_negative(self._lost(name, number, sizes)))
        if name == "parameters" and self._holder(sizes) is not None:
            found.append(self.shared)
        return None if any(one is None for one in found) else sum(one for one in found if one is not None)

    def _lost(self, name: str, layer: int, sizes: Sizes) -> float | None:
        """What a layer's attention has lost while it is there: heads, and what made its map."""
        if layer not in sizes.attending:
            return 0
        now, then = len(sizes.head_names[layer - 1]), len(self.sizes.head_names[layer - 1])
        lost: list[float | None] = []
        if then - now:
            head = self.layers[layer - 1].get("head")
            lost.append(None if head is None else _times(then - now, head[name]))
        if layer in sizes.mapless - self.sizes.mapless:
            lost.append(self._map(name, layer, now, then))
        fixed = (layer in sizes.fixed) - (layer in self.sizes.fixed)
        if name == "macs_per_second" and fixed:
            lost.append(_times(fixed * now / then, self.maps[layer - 1].get("scores_macs_per_second")))
        return None if any(one is None for one in lost) else sum(one for one in lost if one is not None)

    def _map(self, name: str, layer: int, now: int, then: int) -> float | None:
        """What makes the map of a layer that has `now` heads of the `then` that were counted."""
        whole = self.maps[layer - 1].get(name)
        if name == "macs_per_second":
            return _times(now / then, whole)
        cut = _times(then - now, self.maps[layer - 1].get("head_parameters"))
        return whole if then == now else None if whole is None or cut is None else whole - cut

    def _holder(self, sizes: Sizes) -> int | None:
        """The layer that holds what all layers' maps share: the first that makes one."""
        numbers = range(1, len(self.layers) + 1)
        return next((k for k in numbers if k in sizes.attending - sizes.mapless), None)

    def _newly_frozen(self, treatment: Treatment, sizes: Sizes, earlier: Sequence[Treatment]) -> float | None:
        """Parameters that a treatment keeps from being trained, and none before it; None where sizes do not tell."""
        frozen = [self._frozen(one, sizes) for one in (*earlier, treatment)]
        *done, mine = frozen
        if mine is None or any(one is None for one in done):
            return None
        left = mine.difference(*(one for one in done if one is not None))
        figures = [self._part(part, sizes) for part in left]
        return None if any(one is None for one in figures) else sum(one for one in figures if one is not None)

    def _frozen(self, treatment: Treatment, sizes: Sizes) -> frozenset[Part] | None:
        """The parts of layers that a treatment freezes; None where it freezes others, or parts of parts."""
        if not isinstance(treatment, Freeze | LowRank):
            return frozenset()
        named = self._parts(treatment.units, sizes)
        kept = self._parts(treatment.but, sizes) if isinstance(treatment, Freeze) and treatment.but else frozenset()
        return None if named is None or kept is None else named - kept

    def _parts(self, pattern: str, sizes: Sizes) -> frozenset[Part] | None:
        """The parts of layers that a pattern names, those that are gone among them."""
        units = replace(sizes, removed=frozenset()).find(pattern)
        found: set[Part] = set()
        for unit in units:
            layer, branch = unit.layer or 0, unit.name.removeprefix(f"layer.{unit.layer}").lstrip(".")
            branches = [key for key in self.layers[layer - 1] if key not in ("layer", "head")]
            if unit.kind == "layer":
                found |= {(layer, key) for key in (*branches, _REST)}
            elif branch in branches:
                found.add((layer, branch))
            else:
                return None
        return frozenset(found) if units else None

    def _part(self, part: Part, sizes: Sizes) -> float | None:
        """Parameters of a part of a layer as they are left."""
        layer, branch = part
        held = self.layers[layer - 1]
        if {f"layer.{layer}", f"layer.{layer}.{branch}"} & sizes.removed or "layer" not in held:
            return 0
        if branch == _REST:
            inner = [one["parameters"] for key, one in held.items() if key not in ("layer", "head")]
            return (held["layer"]["parameters"] or 0) - sum(one or 0 for one in inner)
        whole = held[branch]["parameters"] or 0
        if branch != "attention":
            return whole
        lost = self._lost("parameters", layer, sizes)
        return None if lost is None else whole - lost + (self.shared if self._holder(sizes) == layer else 0)

    def _adapted(self, treatment: Treatment, sizes: Sizes, earlier: Sequence[Treatment]) -> bool:
        """Whether a treatment meets layers that have adapters, which would go with what it takes out."""
        there = replace(sizes, removed=frozenset())
        adapted = {unit.layer for one in earlier if isinstance(one, LowRank) for unit in there.find(one.units)}
        return bool(adapted & {unit.layer for unit in there.find(treatment.units, cut=True)})

    def _adapters(self, treatment: LowRank, sizes: Sizes, earlier: Sequence[Treatment]) -> dict[str, float]:
        """Low-rank adapters of attention projections: rank times what enters and what leaves them."""
        targets = {one.strip() for one in treatment.targets.split(",")}
        if not targets <= set(ATTENTION) or self._adapted(treatment, sizes, earlier):
            return {}
        size = sizes.width // sizes.total_heads
        added = 0
        for layer in sorted({unit.layer or 0 for unit in sizes.find(treatment.units) if unit.kind != "feed_forward"}):
            inner = len(sizes.head_names[layer - 1]) * size
            there = targets & set(there_are(layer, sizes))
            added += len(there) * treatment.rank * (sizes.width + inner) if inner else 0
        frozen = self._newly_frozen(treatment, sizes, earlier)
        return {"parameters": added} | ({} if frozen is None else {"trained_parameters": added - frozen})


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
        found.append(body.cost(treatment, sizes, after, treatments[:k]))
        sizes = after
    return found


def _negative(value: float | None) -> float | None:
    return _times(-1, value)


def _times(factor: float, value: float | None) -> float | None:
    return None if value is None else factor * value
