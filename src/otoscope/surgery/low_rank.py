"""Low-rank adapters beside linear maps: a way to train layers at few parameters."""

import copy
import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from otoscope.errors import MissingPackageError, SurgeryError
from otoscope.models import tap
from otoscope.models.absent import attention_of
from otoscope.models.edits import ADAPTED, Replacement
from otoscope.models.families import Family, submodule
from otoscope.surgery.edit import Edit, finite, registered
from otoscope.surgery.units import Parts, Unit

if TYPE_CHECKING:
    from otoscope.models.adapter import LowRankLinear

KINDS = ("layer", "attention", "feed_forward")
TARGETS = ("query", "key", "value", "output", "feed_forward")


@registered
@dataclass(frozen=True)
class LowRank(Edit):
    """Puts adapters beside linear maps of layers, see `models.adapter.LowRankLinear`.

    Nothing changes until they are trained. Other edits act on an adapted map as on any other: cut heads lose their part
    of the adapter, and a map that is reset or drawn anew loses what the adapter learnt.

    Attributes:
        units: layers, attention modules or feed-forward branches.
        rank: of the change that can be learnt.
        alpha: factor on the change, times the rank.
        targets: which linear maps, with commas between them: "query", "key", "value" and "output" of the attention, and
            "feed_forward", all of the feed-forward branches.
        dropout: probability that an input of an adapter is dropped in training.
        seed: of the adapters' first weights.
    """

    kind = "low_rank"
    rank: int = 8
    alpha: float = 16.0
    targets: str = "query,value"
    dropout: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, lowest in (("rank", 1), ("seed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
                raise SurgeryError(f"The {name} of an adapter is {value!r}", f"Give a whole number from {lowest} on.")
        if not finite(self.alpha, "The alpha of an adapter") > 0:
            raise SurgeryError(f"The alpha of an adapter is {self.alpha!r}", "Give a number above 0.")
        if not 0 <= finite(self.dropout, "The dropout of an adapter") < 1:
            raise SurgeryError(f"The dropout of an adapter is {self.dropout!r}", "Give a number from 0 to below 1.")
        target_names(self.targets)

    def apply(self, parts: Parts) -> None:
        """See `Edit`.

        Raises:
            MissingPackageError: PEFT is not installed.
        """
        kind = _adapter_class()
        maps = self._maps(parts)
        if not maps and not parts.repeated:
            raise SurgeryError(
                f"{self.units!r} has no linear map called {' or '.join(target_names(self.targets))}",
                f"Name a unit that has, or other targets of {', '.join(TARGETS)}.",
            )
        family = parts.family
        for path, (layer, linear) in maps.items():
            if isinstance(linear, kind) and linear.made_by == (self.rank, self.alpha, self.dropout, self.seed):
                continue
            base: Any = linear.base_layer if isinstance(linear, kind) else linear
            if self.rank > min(base.in_features, base.out_features):
                raise SurgeryError(
                    f"Rank {self.rank} is more than {path} of {base.out_features} x {base.in_features} has",
                    f"Give a rank of {min(base.in_features, base.out_features)} at most.",
                )
            head, _, name = path.rpartition(".")
            setattr(
                submodule(parts.encoder, head), name,
                kind(base, self.rank, float(self.alpha), float(self.dropout), self.seed, path),
            )  # fmt: skip
            if family.own_attention is not None and path.startswith(f"{family.layers}.{layer - 1}.{family.attention}."):
                # The library's own attention reads the weights, and would leave out the adapter's dropout.
                tap.by_head(parts.attention(layer))
        parts.reread()

    def _maps(self, parts: Parts) -> dict[str, tuple[int, nn.Module]]:
        """The linear maps that are adapted, by path within the encoder, and their layers."""
        family, wanted = parts.family, target_names(self.targets)
        named = [name for target, name in zip(TARGETS, family.projections, strict=False) if target in wanted]
        found: dict[str, tuple[int, nn.Module]] = {}
        for unit in parts.find(self.units, KINDS):
            layer = unit.layer or 0
            place = f"{family.layers}.{layer - 1}"
            attention = attention_of(parts.layers[layer - 1], family)
            if unit.kind != "feed_forward" and attention is not None and _has_heads(attention, family):
                for name in named:
                    if hasattr(attention, name):  # a layer without a map of its own has no queries and keys
                        found[f"{place}.{family.attention}.{name}"] = layer, getattr(attention, name)
            if unit.kind != "attention" and "feed_forward" in wanted:
                for path in _branches(family, unit, place):
                    for below, one in linear_maps(submodule(parts.encoder, path)):
                        found[f"{path}.{below}".rstrip(".")] = layer, one
        return found


def _has_heads(attention: Any, family: Family) -> bool:
    return getattr(attention, family.projections[2]).out_features > 0


def _branches(family: Family, unit: Unit, place: str) -> list[str]:
    """Paths of the modules of the feed-forward branches that a unit names."""
    if unit.kind == "feed_forward":
        return list(unit.paths)
    return [f"{place}.{path}" for modules in family.feed_forwards for path in modules]


def linear_maps(module: nn.Module | None) -> list[tuple[str, nn.Module]]:
    """The linear maps within a module by path; an adapted one is one map."""
    found: list[tuple[str, nn.Module]] = []
    for path, one in [] if module is None else module.named_modules():
        inside = any(path.startswith(f"{outer}.") or not outer for outer, _ in found)
        if not inside and (isinstance(one, nn.Linear) or hasattr(one, ADAPTED)):
            found.append((path, one))
    return found


def target_names(targets: str) -> tuple[str, ...]:
    """The linear maps that a text names, in the order of `TARGETS`.

    Raises:
        SurgeryError: it names none, or one that there is not.

    >>> target_names("value, query")
    ('query', 'value')
    """
    given = [one.strip() for one in targets.split(",")] if isinstance(targets, str) else [repr(targets)]
    strange = [one for one in given if one not in TARGETS]
    if strange:
        near = difflib.get_close_matches(strange[0], TARGETS, n=1)
        raise SurgeryError(
            f"{strange[0]!r} is no linear map that can be adapted",
            f"Did you mean {near[0]}?" if near else f"They are {', '.join(TARGETS)}; put commas between them.",
        )
    return tuple(name for name in TARGETS if name in given)


def merged_module(module: nn.Module) -> nn.Module:
    """A copy of a transformers model whose adapters are folded into the weights that they stand beside.

    It gives what the model gives when it is not trained, to rounding, and needs PEFT no more.

    Args:
        module: left as it is.
    """
    made = copy.deepcopy(module)
    adapted = [
        (path, one) for path, one in made.named_modules() if isinstance(one, Replacement) and hasattr(one, ADAPTED)
    ]
    for path, one in adapted:
        head, _, name = path.rpartition(".")
        with torch.no_grad():
            setattr(submodule(made, head), name, one.folded())  # type: ignore[operator]
    return made


def _adapter_class() -> "type[LowRankLinear]":
    try:
        from otoscope.models.adapter import LowRankLinear
    except ImportError as error:
        raise MissingPackageError(
            f"PEFT, which low-rank adapters are made by, is not installed ({error})", "Install otoscope[adapters]."
        ) from error
    return LowRankLinear
