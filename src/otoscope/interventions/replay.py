"""What the unedited model computes before the first edited part, recorded once and handed to every edited copy."""

from __future__ import annotations

import contextlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from otoscope.models.edits import BranchEdit, HeadEdits


@dataclass
class _Pass:
    """One forward pass of the recorded encoder.

    Attributes:
        inputs: what the encoder was called with.
        calls: places in the order in which they gave something, with what they gave.
    """

    inputs: tuple[tuple[Any, ...], dict[str, Any]]
    calls: list[tuple[str, Any]] = field(default_factory=list)


class Tape:
    """What the parts of an encoder gave in each forward pass, in their order in time.

    Parts are its layers and whatever else holds weights beside them (the convolutions, the feature projection, norms),
    each as a whole; how they are wired is left to the model's own forward pass, which runs in the copy too. Memory is
    the output of every part for the passes of one recording: about (L + 4) B T d numbers for a batch of B utterances of
    T frames, beside what layers hand on from one to the next (WavLM's position biases), which is kept once.

    Args:
        encoder: the unedited encoder.
        layers: path of its list of layers.
    """

    def __init__(self, encoder: nn.Module, layers: str) -> None:
        self.encoder = encoder
        self.paths, self.around = _places(encoder, layers)
        self.passes: list[_Pass] = []

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Records all passes until it is left, and forgets those before."""
        self.passes = []
        current: list[_Pass] = []

        def begin(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            current[:] = [_Pass((args, dict(kwargs)))]

        def end(module: nn.Module, args: Any, out: Any) -> None:
            self.passes += current
            current.clear()

        def take(path: str) -> Callable[..., None]:
            def hook(module: nn.Module, args: Any, out: Any) -> None:
                if current:
                    current[0].calls.append((path, _copied(out)))

            return hook

        handles = [self.encoder.register_forward_pre_hook(begin, with_kwargs=True)]
        handles += [self.encoder.get_submodule(path).register_forward_hook(take(path)) for path in self.paths]
        handles.append(self.encoder.register_forward_hook(end))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def find(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Pass | None:
        """The pass with these very inputs, None where none was recorded."""
        for one in self.passes:
            if _same_values(one.inputs, (args, kwargs)):
                return one
        return None


class Player:
    """Hands what is on a tape to an edited copy of the recorded encoder, up to the first part that is edited.

    What comes before it in time is the same in both, bit for bit, whatever the family: weights and changes of every
    part are compared, and a pass whose inputs were not recorded is run as a whole.

    Args:
        tape: of the unedited encoder.
        encoder: the encoder of a copy.
        changed: parts that are to run though nothing about them is edited, such as a layer that is hooked; None finds
            those that are edited.
    """

    def __init__(self, tape: Tape, encoder: nn.Module, changed: frozenset[str] | None = None) -> None:
        self.tape, self.encoder = tape, encoder
        self.changed = changed or frozenset(
            path
            for path in (*tape.paths, *tape.around)
            if not _same(tape.encoder.get_submodule(path), encoder.get_submodule(path), path in tape.paths)
        )
        self._given: dict[tuple[str, int], Any] = {}
        self._calls: Counter[str] = Counter()

    @contextlib.contextmanager
    def playing(self) -> Iterator[None]:
        """Replays until it is left."""
        handles = [
            self.encoder.register_forward_pre_hook(self._begin, with_kwargs=True),
            self.encoder.register_forward_hook(self._end, always_call=True),
        ]
        own: list[tuple[nn.Module, Callable[..., Any] | None]] = []
        for path in self.tape.paths:
            if path not in self.changed:
                module = self.encoder.get_submodule(path)
                own.append((module, vars(module).get("forward")))
                module.forward = self._instead(path, module.forward)
        try:
            yield
        finally:
            for module, forward in own:
                if forward is None:
                    del module.forward
                else:
                    module.forward = forward
            for handle in handles:
                handle.remove()
            self._end()

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        found = self.tape.find(args, kwargs)
        self._given, self._calls = ({} if found is None else self._before(found)), Counter()

    def _end(self, *passed: object) -> None:
        self._given = {}

    def _before(self, one: _Pass) -> dict[tuple[str, int], Any]:
        """What comes before the first changed part: (place, how often it was called before) -> what it gave."""
        if not self.changed <= {path for path, _ in one.calls}:
            return {}  # weights that no part's own pass reads, such as positions: no telling where they come in
        given: dict[tuple[str, int], Any] = {}
        counts: defaultdict[str, int] = defaultdict(int)
        for path, out in one.calls:
            if path in self.changed:
                break
            given[path, counts[path]] = out
            counts[path] += 1
        return given

    def _instead(self, path: str, forward: Callable[..., Any]) -> Callable[..., Any]:
        def stored(*args: Any, **kwargs: Any) -> Any:
            key = (path, self._calls[path])
            self._calls[path] += 1
            return _copied(self._given[key]) if key in self._given else forward(*args, **kwargs)

        return stored


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


def _copied(out: Any) -> Any:
    """A copy of the hidden states, which forward passes write to; what stands beside them is shared, and may be large."""
    if isinstance(out, torch.Tensor):
        return out.clone()
    if isinstance(out, tuple) and type(out) is tuple and out and isinstance(out[0], torch.Tensor):
        return (out[0].clone(), *out[1:])
    return out


def _same(one: nn.Module, other: nn.Module, whole: bool) -> bool:
    """Whether two modules hold the same weights and the same changes, with all that is in them or by themselves."""
    ours, theirs = dict(_values(one, whole)), dict(_values(other, whole))
    return _same_values(ours, theirs)


def _values(module: nn.Module, whole: bool) -> Iterator[tuple[str, Any]]:
    for path, one in module.named_modules() if whole else [("", module)]:
        for name, tensor in (*one.named_parameters(recurse=False), *one.named_buffers(recurse=False)):
            yield f"{path}.{name}", tensor
        if isinstance(one, HeadEdits):
            # A layer that lends its map, or borrows one, has to run: what is lent is on no tape.
            lending = object() if one.lending is not None else None
            yield f"{path}!", (one.kept, one.map, one.width, one.source, lending)
        elif isinstance(one, BranchEdit):
            yield f"{path}!", (one.whole, one.active)


def _same_values(one: Any, other: Any) -> bool:
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
        return one.keys() == other.keys() and all(_same_values(one[key], other[key]) for key in one)
    if isinstance(one, tuple | list) and type(one) is type(other):
        return len(one) == len(other) and all(_same_values(a, b) for a, b in zip(one, other, strict=True))
    return type(one) is type(other) and bool(one == other)
