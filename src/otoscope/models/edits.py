"""What an edited copy of a model carries: changes of how attention is computed, and of what a branch gives.

Both are sub-modules without weights, attached to the module that they change; what they hold are buffers that are not
saved, so that they move with the model, copy and pickle with it, and leave its state dict as it is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from otoscope.errors import SurgeryError
from otoscope.models import banded, even

HEADS = "otoscope_heads"  # name of `HeadEdits` within an attention module
BRANCH = "otoscope_branch"  # name of `BranchEdit` within a layer or a branch's module
ADAPTED = "base_layer"  # PEFT's name of a linear map within the module that puts an adapter beside it
ADAPTER = ".lora_"  # stands in the paths of adapters' own parameters, and of no others

NO_LIMIT = 2**40  # a radius that no utterance reaches


@dataclass(frozen=True)
class Ingredients:
    """What one layer's attention scores are made of.

    Attributes:
        query: (B, H, T, D).
        key: (B, H or fewer, S, D).
        mask: transformers' mask, boolean or additive, or None.
        position_bias: what is added to the scores, (B or 1, H, T, S), or None.
        scaling: factor on the product of query and key, or None for one over the root of D.
    """

    query: torch.Tensor
    key: torch.Tensor
    mask: torch.Tensor | None
    position_bias: torch.Tensor | None
    scaling: float | None


class Lending:
    """Where a layer leaves the ingredients of its map for later layers of the same pass.

    It also is a hook on the encoder that empties it before and after every pass.
    """

    def __init__(self) -> None:
        self.made: dict[int, Ingredients] = {}
        self.handles: list[Any] = []  # copied and pickled with the hooks, so that their numbers stay taken

    def hook(self, encoder: nn.Module) -> None:
        """Puts the hooks on an encoder."""
        self.handles = [encoder.register_forward_pre_hook(self), encoder.register_forward_hook(self)]

    def __call__(self, encoder: Any, *passed: object) -> None:
        """The hook.

        Raises:
            SurgeryError: the pass is checkpointed, so that layers would be run again without the maps that they use.
        """
        if encoder.training and any(getattr(one, "gradient_checkpointing", False) for one in encoder.modules()):
            raise SurgeryError(
                "A layer that uses another layer's attention map cannot be trained with gradient checkpointing",
                "Switch it off with `gradient_checkpointing_disable()`.",
            )
        self.made.clear()

    def __getstate__(self) -> dict[str, Any]:
        return {"made": {}, "handles": self.handles}


class HeadEdits(nn.Module):
    """Changes of one attention module.

    Args:
        total: heads of the original module.
        like: a tensor of the module, for device and type.

    Attributes:
        kept: original numbers of the heads that are left, in order.
        map: "own", "uniform", "local" (uniform over keys at most `width` frames away) or "layer" (that of `source`).
        gate: (heads left,), factor on each head's output before the output projection.
        radius: (heads left,), frames beyond which a head's map is cut off.
        literal: (heads left,), whether it is cut after the softmax, without renormalisation, rather than before it.
        means: (heads left, D), what replaces the output of the heads in `replaced`.
    """

    gate: torch.Tensor
    radius: torch.Tensor
    literal: torch.Tensor
    means: torch.Tensor
    replaced: torch.Tensor

    def __init__(self, total: int, head_size: int, like: torch.Tensor) -> None:
        super().__init__()
        self.total = total
        self.kept = tuple(range(total))
        self.map, self.width, self.source = "own", 0, 0
        self.number = 0
        self.lending: Lending | None = None
        for name, value in {
            "gate": like.new_ones(total),
            "radius": like.new_full((total,), NO_LIMIT, dtype=torch.long),
            "literal": like.new_zeros(total, dtype=torch.bool),
            "means": like.new_zeros(total, head_size),
            "replaced": like.new_zeros(total, dtype=torch.bool),
        }.items():
            self.register_buffer(name, value, persistent=False)
        self.limited = False  # whether any radius is set: asked in every pass, and a tensor would have to be read
        self.shortened = False  # whether any head is cut after the softmax
        self.widest, self.even = NO_LIMIT, True  # the largest radius, and whether all heads have it
        self.function = ""
        self.handles: list[Any] = []  # copied and pickled with the hook, so that its number stays taken

    def hook(self, attention: nn.Module, function: str) -> None:
        """Refuses to run the module with another attention function than the one that makes these changes."""
        self.function = function
        self.handles = [attention.register_forward_pre_hook(self)]

    def forward(self, attention: Any, args: tuple[Any, ...]) -> None:
        """The hook.

        Raises:
            SurgeryError: the model was set to another attention function, which would leave the changes out.
        """
        found = attention.config._attn_implementation
        if found != self.function:
            raise SurgeryError(
                f"The attention of layer {self.number} was edited, and the model now runs {found!r} attention, which "
                "would leave the edits out",
                f"Call `set_attn_implementation({self.function!r})` on the edited model.",
            )

    @property
    def neutral(self) -> bool:
        """Whether nothing about the attention is changed."""
        whole = len(self.kept) == self.total and self.map == "own" and not self.limited
        return whole and not bool(self.replaced.any()) and bool((self.gate == 1).all())

    def description(self) -> tuple[Any, ...]:
        """Everything that changes the result, as plain values."""
        return (
            self.kept, self.map, self.width, self.source, self.gate.tolist(), self.radius.tolist(),
            self.literal.tolist(), self.replaced.tolist(), self.means.tolist(),
        )  # fmt: skip

    def put(self, name: str, positions: list[int], value: Any) -> None:
        """Sets a buffer for the heads at these positions; a new one, since another model may share the old."""
        changed = getattr(self, name).detach().clone()
        changed[positions] = value
        setattr(self, name, changed)
        self._read_spans()

    def keep(self, positions: list[int]) -> None:
        """Leaves only the heads at these positions among those that were left."""
        self.kept = tuple(self.kept[k] for k in positions)
        for name in ("gate", "radius", "literal", "means", "replaced"):
            setattr(self, name, getattr(self, name)[positions].clone())
        self._read_spans()

    def _read_spans(self) -> None:
        self.limited = bool((self.radius < NO_LIMIT).any())
        self.shortened = self.limited and bool((self.literal & (self.radius < NO_LIMIT)).any())
        self.widest = int(self.radius.max()) if len(self.radius) else NO_LIMIT
        self.even = bool((self.radius == self.widest).all())

    @property
    def reshapes(self) -> bool:
        """Whether weights differ from a softmax of scores, so that fused attention does not do."""
        return self.limited or self.fixed

    @property
    def fixed(self) -> bool:
        """Whether the map is the same whatever is heard, but for padding."""
        return self.map in ("uniform", "local")

    @property
    def reach(self) -> int:
        """Frames beyond which no head attends to anything, `NO_LIMIT` where there is no such limit."""
        if self.shortened:  # rows would be summed over keys outside the band too
            return NO_LIMIT
        return min(self.widest, self.width if self.map == "local" else NO_LIMIT)

    def ingredients(self, own: Ingredients) -> Ingredients:
        """What this layer's map is made of, its own or a lending layer's; leaves its own where others need it.

        Raises:
            SurgeryError: the lending layer was not run in this pass.
        """
        if self.map == "layer":
            return self.borrowed()
        if self.lending is not None:
            self.lending.made[self.number] = own
        return own

    def borrowed(self) -> Ingredients:
        """What the map of the lending layer is made of; leaves it where others need it.

        Raises:
            SurgeryError: the lending layer was not run in this pass.
        """
        if self.lending is None or self.source not in self.lending.made:
            raise SurgeryError(
                f"Layer {self.number} uses the attention map of layer {self.source}, which was not run before it",
                "Run the encoder as a whole, with LayerDrop off.",
            )
        found = self.lending.made[self.number] = self.lending.made[self.source]
        return found

    def replace(self, scores: torch.Tensor, first: int, lowest: float) -> torch.Tensor:
        """Scores of a replaced map and of heads that are cut before the softmax.

        Args:
            scores: (..., H, rows, S); rows `first`, `first` + 1, ... of the map, all keys attended to.
            first: index of the first row.
            lowest: a score so low that its weight is zero.
        """
        if self.fixed:
            scores = torch.zeros_like(scores)
        if self.map == "local":
            scores = scores.masked_fill(_offsets(scores, first) > self.width, lowest)
        if self.limited:
            scores = scores.masked_fill(self._outside(scores, first) & ~self.literal[:, None, None], lowest)
        return scores

    def shorten(self, weights: torch.Tensor, first: int) -> torch.Tensor:
        """Weights (..., H, rows, S) with zeros outside the span of heads that are cut after the softmax."""
        if not self.shortened:
            return weights
        return weights.masked_fill(self._outside(weights, first) & self.literal[:, None, None], 0)

    def within(self, scores: torch.Tensor, first: int, lowest: float) -> torch.Tensor:
        """Scores whose softmax is what `shorten` leaves, brought back to rows that sum to one."""
        if not self.shortened:
            return scores
        return scores.masked_fill(self._outside(scores, first) & self.literal[:, None, None], lowest)

    def _outside(self, map_: torch.Tensor, first: int) -> torch.Tensor:
        return _offsets(map_, first) > self.radius[:, None, None]

    def finish(self, context: torch.Tensor) -> torch.Tensor:
        """Outputs of the heads, (B, T, H, D), with means and gates."""
        context = torch.where(self.replaced[:, None], self.means.to(context.dtype), context)
        return context * self.gate.to(context.dtype)[:, None]

    def attend(self, made: Ingredients, value: torch.Tensor, dropout: float) -> torch.Tensor:
        """Attention whose map is changed: all at once and differentiable, for a pass that observes nothing.

        Args:
            made: what the scores are made of.
            value: (B, H or fewer, S, D).
            dropout: probability that a weight is dropped.

        Returns:
            (B, T, H, D).
        """
        if self.fixed and not self.limited and not dropout and _alike(made.mask):
            values = _each(value.to(torch.promote_types(value.dtype, torch.float32)), made.query.shape[1])
            attended = None if made.mask is None else made.mask[..., 0, :]
            return even.attend(values, self.width if self.map == "local" else None, attended).to(value.dtype)
        if banded.pays(self.reach, made.query.shape[2], made.key.shape[2]):
            return self._attend_in_band(made, value, dropout)
        wide = torch.promote_types(made.query.dtype, torch.float32)
        query, key, values = (_each(one.to(wide), made.query.shape[1]) for one in (made.query, made.key, value))
        scaling = query.shape[-1] ** -0.5 if made.scaling is None else made.scaling
        lowest = torch.finfo(torch.float32).min / 2
        scores = (query * scaling) @ key.transpose(-1, -2)
        if made.position_bias is not None:
            scores = scores + made.position_bias.to(wide)
        if made.mask is not None and made.mask.dtype != torch.bool:
            scores = scores + made.mask.to(wide)
        scores = self.replace(scores, 0, lowest)
        if made.mask is not None:  # what is masked has lost its mask where the map is replaced
            scores = scores.masked_fill(~_open(made.mask), lowest)
        weights = self.shorten(torch.softmax(scores, -1), 0)
        weights = nn.functional.dropout(weights, dropout, training=dropout > 0)
        return (weights @ values).transpose(1, 2).to(made.query.dtype)

    def _attend_in_band(self, made: Ingredients, value: torch.Tensor, dropout: float) -> torch.Tensor:
        """What `attend` gives, without the scores that no head looks at."""
        wide = torch.promote_types(made.query.dtype, torch.float32)
        query, key, values = (_each(one.to(wide), made.query.shape[1]) for one in (made.query, made.key, value))
        mask, bias = made.mask, made.position_bias
        if self.fixed:
            query, key = torch.zeros_like(query), torch.zeros_like(key)
            mask, bias = None if mask is None else _open(mask), None
        radius = None if self.even else self.radius.clamp(max=self.reach)
        context = banded.attend(
            query, key, values, self.reach, radius,
            mask=mask, position_bias=bias, scaling=made.scaling, dropout=dropout,
        )  # fmt: skip
        return context.to(made.query.dtype)


def _each(states: torch.Tensor, heads: int) -> torch.Tensor:
    """Keys or values (B, H or fewer, S, D) for each of H heads, some of which share theirs."""
    return states if states.shape[1] == heads else states.repeat_interleave(heads // states.shape[1], 1)


def _open(mask: torch.Tensor) -> torch.Tensor:
    """Where a mask lets attention through; an additive one may hold positions beside."""
    return mask if mask.dtype == torch.bool else mask >= torch.finfo(mask.dtype).min / 2


def _alike(mask: torch.Tensor | None) -> bool:
    """Whether all queries and heads surely attend to the same keys."""
    if mask is None:
        return True
    if mask.dtype != torch.bool or mask.shape[1] != 1:
        return False
    return mask.shape[2] == 1 or bool((mask == mask[:, :, :1]).all())


def _offsets(map_: torch.Tensor, first: int) -> torch.Tensor:
    """Distance in frames between query and key, (rows, S), for rows from `first` on."""
    rows, keys = map_.shape[-2:]
    queries = torch.arange(first, first + rows, device=map_.device)
    return (queries[:, None] - torch.arange(keys, device=map_.device)).abs()


class BranchEdit(nn.Module):
    """Replaces what a module gives; it is the module's own forward hook.

    Args:
        whole: the module is a layer, whose input passes on; otherwise a branch that is added to something.

    Attributes:
        mean: (d,), what a branch gives at every frame, or what a layer adds to its input; None is nothing.
        active: whether anything is replaced.
    """

    mean: torch.Tensor | None

    def __init__(self, whole: bool) -> None:
        super().__init__()
        self.whole = whole
        self.active = False
        self.register_buffer("mean", None, persistent=False)
        self.handles: list[Any] = []  # copied and pickled with the hook, so that its number stays taken

    def hook(self, module: nn.Module) -> None:
        """Comes before other hooks, so that all of them see what it gives."""
        self.handles = [module.register_forward_hook(self, with_kwargs=True, prepend=True)]

    def description(self) -> tuple[Any, ...]:
        """Everything that changes the result, as plain values."""
        return (self.whole, None if self.mean is None else self.mean.tolist())

    @property
    def neutral(self) -> bool:
        """Whether the module gives what it always gave."""
        return not self.active

    def forward(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        """The hook: the output with its hidden states replaced."""
        if not self.active:
            return output
        states: torch.Tensor = output[0] if isinstance(output, tuple) else output
        given: Any = args[0] if args else kwargs.get("hidden_states")
        states = given if self.whole else torch.zeros_like(states)
        if self.mean is not None:
            states = states + self.mean.to(states.dtype)
        return (states, *output[1:]) if isinstance(output, tuple) else states


class Replacement(nn.Module):
    """A module that stands in place of one of the original's, whose weights do not tell all that it does."""

    neutral = False

    def description(self) -> tuple[Any, ...]:
        """Everything beside the weights that changes the result, as plain values."""
        raise NotImplementedError


def head_edits(attention: nn.Module) -> HeadEdits | None:
    """The changes of an attention module, None where there are none."""
    return getattr(attention, HEADS, None)


def head_names(attention: nn.Module, total: int) -> tuple[int, ...]:
    """Original numbers of the heads that an attention module has, of `total` in the original."""
    edits = head_edits(attention)
    return tuple(range(total)) if edits is None else edits.kept


def described(encoder: nn.Module, rename: Callable[[str], str]) -> list[tuple[str, tuple[Any, ...]]]:
    """What the edits of an encoder change, by the path of the changed module; empty where nothing is changed."""
    return [
        (rename(path), module.description())
        for path, module in encoder.named_modules()
        if isinstance(module, HeadEdits | BranchEdit | Replacement) and not module.neutral
    ]
