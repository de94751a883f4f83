"""What the parts of the unedited model give, recorded pass by pass, within a bound of memory."""

from __future__ import annotations

import contextlib
import functools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class Forgotten:
    """What is left of a layer's output that is not kept.

    Attributes:
        like: an empty tensor of the hidden states' type and place.
        shape: of the hidden states.
        beside: what the layer hands on beside them; None where it gives hidden states alone.
    """

    like: torch.Tensor
    shape: torch.Size
    beside: tuple[Any, ...] | None

    def stand_in(self) -> Any:
        """NaN in place of the hidden states, for a layer whose successor is kept: nothing else may come to use them."""
        states = self.like.new_full((), torch.nan).expand(self.shape)
        return states if self.beside is None else (states, *self.beside)


@dataclass
class Pass:
    """One forward pass of the recorded encoder.

    Attributes:
        inputs: what the encoder was called with.
        lengths: samples of its utterances.
        inference: whether it ran in inference mode, and
        plain: whether without gradients and not in training.
        calls: places in the order in which they gave something, with what they gave.
        given: shapes of what each call was given.
        size: bytes of all that is kept.
    """

    inputs: tuple[tuple[Any, ...], dict[str, Any]]
    lengths: tuple[int, ...] = ()
    inference: bool = False
    plain: bool = False
    calls: list[tuple[str, Any]] = field(default_factory=list)
    given: list[Any] = field(default_factory=list)
    size: int = 0

    def measure(self) -> None:
        """Sets `size`; what several calls handed on is there once."""
        held = {id(one): one for one in tensors_in((self.inputs, [out for _, out in self.calls]))}
        self.size = sum(one.numel() * one.element_size() for one in held.values())


class Room:
    """How much several tapes may hold together.

    Args:
        limit: bytes; None is as much as there is.
    """

    def __init__(self, limit: float | None = None) -> None:
        self.limit = limit
        self.tapes: list[Tape] = []

    @property
    def held(self) -> int:
        """Bytes on all tapes."""
        return sum(tape.held for tape in self.tapes)

    def fits(self, more: int = 0) -> bool:
        """Whether there is room for so many bytes more."""
        return self.limit is None or self.held + more <= self.limit


class Tape:
    """What the parts of an encoder gave in each forward pass, in their order in time.

    Parts are its layers and whatever else holds weights beside them (the convolutions, the feature projection, norms),
    each as a whole; how they are wired is left to the model's own forward pass, which runs in the copy too. Memory is
    the output of every part for the passes of one recording: about (L + 4) B T d numbers for a batch of B utterances of
    T frames, beside what layers hand on from one to the next (WavLM's position biases), which is kept once.

    Where there is no room for all of it, every second layer is kept, then every fourth, and so on, so that a copy that
    begins at any layer runs at most one, three, ... layers before it. What comes before the layers is kept longest, since
    all copies need it and the convolutions are dear; a pass for which even that has no room is not kept at all.

    Args:
        encoder: the unedited encoder.
        layers: path of its list of layers.
        room: what it may hold, shared with other tapes; None is as much as there is.
        lengths: gives the samples of each utterance of the pass at hand, where that is known.
    """

    def __init__(
        self,
        encoder: nn.Module,
        layers: str,
        room: Room | None = None,
        lengths: Callable[[], Sequence[int]] = tuple,
    ) -> None:
        self.encoder, self.room, self.lengths = encoder, room or Room(), lengths
        self.paths, self.around = _places(encoder, layers)
        found = [path for path in self.paths if path.startswith(f"{layers}.")]
        self._numbers = {path: number for number, path in enumerate(found, start=1)}
        self.passes: list[Pass] = []
        self._current: Pass | None = None
        self._every = 1
        self.room.tapes.append(self)

    @property
    def held(self) -> int:
        """Bytes of all that is kept."""
        return sum(one.size for one in self._all())

    def _all(self) -> list[Pass]:
        return [*self.passes, *([] if self._current is None else [self._current])]

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Records all passes until it is left, and forgets those before."""
        self.passes, self._every = [], 1
        handles = [self.encoder.register_forward_pre_hook(self._begin, with_kwargs=True)]
        handles += [
            self.encoder.get_submodule(path).register_forward_hook(self._take(path), with_kwargs=True)
            for path in self.paths
        ]
        handles.append(self.encoder.register_forward_hook(self._end))
        try:
            yield
        finally:
            self._current = None  # a pass that failed
            for handle in handles:
                handle.remove()

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        plain = not torch.is_grad_enabled() and not module.training
        one = Pass((args, dict(kwargs)), tuple(self.lengths()), torch.is_inference_mode_enabled(), plain)
        one.measure()
        self._make_room(one.size)
        self._current = one if self.room.fits(one.size) else None

    def _end(self, module: nn.Module, args: Any, out: Any) -> None:
        if self._current is not None:
            self.passes.append(self._current)
            self._current = None

    def _take(self, path: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
            one = self._current
            if one is None:
                return
            one.given.append(mapped(lambda tensor: tensor.shape, (args, kwargs)))
            one.calls.append((path, copied(out) if self._keeps(path) else self._forgotten(out)))
            one.measure()
            self._make_room()
            if not self.room.fits():
                self._current = None

        return hook

    def is_layer(self, path: str) -> bool:
        """Whether a part is one of the layers."""
        return path in self._numbers

    def _keeps(self, path: str) -> bool:
        return self._numbers.get(path, 0) % self._every == 0

    def _make_room(self, more: int = 0) -> None:
        """Keeps fewer layers, until there is room or no layer is kept."""
        while not self.room.fits(more) and self._every <= len(self._numbers):
            self._every *= 2
            for one in self._all():
                one.calls = [(path, out if self._keeps(path) else self._forgotten(out)) for path, out in one.calls]
                one.measure()

    def _forgotten(self, out: Any) -> Forgotten:
        found = out
        if not isinstance(out, Forgotten):
            states, beside = (out[0], out[1:]) if isinstance(out, tuple) else (out, None)
            found = Forgotten(states.new_empty(0), states.shape, beside)
        # Where no layer is kept none stands in for another, and what they hand on would be held for nothing.
        return found if self._every <= len(self._numbers) else Forgotten(found.like, found.shape, None)

    def before(self, one: Pass, changed: frozenset[str], watched: bool) -> dict[tuple[str, int], Any]:
        """What comes before the first changed part: (place, how often it was called before) -> what it gave.

        Args:
            one: a pass on this tape.
            changed: places that are to run.
            watched: whether somebody looks at what single layers give: nothing stands in for them then.
        """
        if not changed <= {path for path, _ in one.calls}:
            return {}  # weights that no part's own pass reads, such as positions: no telling where they come in
        first = next((k for k, (path, _) in enumerate(one.calls) if path in changed), len(one.calls))
        before = one.calls[:first]
        # A layer hands its hidden states to the next and to nobody else: behind one that is kept, none before it counts.
        kept = max((k for k, (path, _) in enumerate(before) if self.is_layer(path) and self._keeps(path)), default=0)
        found: dict[tuple[str, int], Any] = {}
        counts: Counter[str] = Counter()
        for k, (path, out) in enumerate(before):
            if not isinstance(out, Forgotten):
                found[path, counts[path]] = out
            elif k < kept and not watched:
                found[path, counts[path]] = out.stand_in()
            counts[path] += 1
        return found

    def find(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Pass | None:
        """The pass with these very inputs, None where none was recorded."""
        for one in self.passes:
            if same_values(one.inputs, (args, kwargs)):
                return one
        return None


@contextlib.contextmanager
def instead(module: nn.Module, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Iterator[None]:
    """Puts a function in place of a module's forward pass, until it is left.

    Args:
        module: its hooks are called as before.
        make: from the forward pass to what is called in its place.
    """
    own = vars(module).get("forward")
    module.forward = functools.wraps(module.forward)(make(module.forward))
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own


def mapped(change: Callable[[torch.Tensor], Any], value: Any) -> Any:
    """A structure of tuples, lists and dictionaries with every tensor in it changed."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, dict):  # outputs of transformers among them
        return type(value)(**{name: mapped(change, one) for name, one in value.items()})
    if type(value) in (tuple, list):
        return type(value)(mapped(change, one) for one in value)
    return value


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """All tensors of such a structure, in order."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Forgotten):
        yield from tensors_in(value.beside)
    elif isinstance(value, dict | tuple | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from tensors_in(one)


def copied(out: Any) -> Any:
    """A copy of the hidden states, which forward passes write to; what stands beside them is shared, and may be large."""
    if isinstance(out, torch.Tensor):
        return out.clone()
    if isinstance(out, tuple) and type(out) is tuple and out and isinstance(out[0], torch.Tensor):
        return (out[0].clone(), *out[1:])
    return out


def _places(encoder: nn.Module, layers: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Paths of layers and of everything with weights beside them; and of the modules that hold these."""
    paths, around = [], []

    def visit(module: nn.Module, path: str) -> None:
        around.append(path)
        for name, child in module.named_children():
            below = f"{path}.{name}" if path else name
            if layers == below or layers.startswith(f"{below}."):
                visit(child, below)
            elif any(True for _ in (*child.parameters(), *child.buffers())):
                paths.append(below)

    visit(encoder, "")
    return tuple(paths), tuple(around)


def same_values(one: Any, other: Any) -> bool:
    """Whether two structures of tensors and plain values are the same, bit for bit."""
    if one is other:
        return True
    if isinstance(one, torch.Tensor) or isinstance(other, torch.Tensor):
        return (
            isinstance(one, torch.Tensor)
            and isinstance(other, torch.Tensor)
            and one.shape == other.shape
            and one.dtype == other.dtype
            and torch.equal(one, other)
        )
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same_values(one[key], other[key]) for key in one)
    if isinstance(one, tuple | list) and type(one) is type(other):
        return len(one) == len(other) and all(same_values(a, b) for a, b in zip(one, other, strict=True))
    return type(one) is type(other) and bool(one == other)
