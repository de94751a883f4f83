"""What the unedited model computes before the first edited part is handed to every edited copy."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from otoscope.interventions.tape import Pass, Tape, copied, instead, mapped, same_values
from otoscope.models.edits import BranchEdit, HeadEdits, Replacement


class Player:
    """Hands what is on a tape to an edited copy of the recorded encoder, up to the first part that is edited.

    What comes before it in time is the same in both, bit for bit, whatever the family: weights and changes of every
    part are compared, and a pass whose inputs were not recorded is run as a whole.

    Args:
        tape: of the unedited encoder.
        encoder: the encoder of a copy.
        changed: parts that are to run though nothing about them is edited, such as a layer that is hooked; None finds
            those that are edited.

    Attributes:
        answers: passes with what the copy's encoder gives as a whole, where that is known already; it is handed out
            unless somebody looks at what single parts give.
    """

    def __init__(self, tape: Tape, encoder: nn.Module, changed: frozenset[str] | None = None) -> None:
        self.tape, self.encoder = tape, encoder
        self.changed = changed or frozenset(
            path
            for path in (*tape.paths, *tape.around)
            if not _same(tape.encoder.get_submodule(path), encoder.get_submodule(path), path in tape.paths)
        )
        self.answers: list[tuple[Pass, Any]] = []
        self._answer: Any = None
        self._given: dict[tuple[str, int], Any] = {}
        self._calls: Counter[str] = Counter()
        self._hooks = _hooks(encoder)

    @contextlib.contextmanager
    def playing(self) -> Iterator[None]:
        """Replays until it is left."""
        handles = [
            self.encoder.register_forward_pre_hook(self._begin, with_kwargs=True),
            self.encoder.register_forward_hook(self._end, always_call=True),
        ]
        try:
            with contextlib.ExitStack() as stack:
                stack.enter_context(instead(self.encoder, self._whole))
                for path in self.tape.paths:
                    if path not in self.changed:
                        stack.enter_context(instead(self.encoder.get_submodule(path), self._stored(path)))
                yield
        finally:
            for handle in handles:
                handle.remove()
            self._end()

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        found = self.tape.find(args, kwargs)
        watched = _hooks(self.encoder) != self._hooks
        self._given, self._answer, self._calls = {}, None, Counter()
        if found is None:
            return
        if not watched:
            self._answer = next((out for one, out in self.answers if one is found), None)
        self._given = self.tape.before(found, self.changed, watched)

    def _end(self, *passed: object) -> None:
        self._given, self._answer = {}, None

    def _whole(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        def answer(*args: Any, **kwargs: Any) -> Any:
            return forward(*args, **kwargs) if self._answer is None else mapped(torch.clone, self._answer)

        return answer

    def _stored(self, path: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def around(forward: Callable[..., Any]) -> Callable[..., Any]:
            def stored(*args: Any, **kwargs: Any) -> Any:
                key = (path, self._calls[path])
                self._calls[path] += 1
                return copied(self._given[key]) if key in self._given else forward(*args, **kwargs)

            return stored

        return around


def _same(one: nn.Module, other: nn.Module, whole: bool) -> bool:
    """Whether two modules hold the same weights and the same changes, with all that is in them or by themselves."""
    ours, theirs = dict(_values(one, whole)), dict(_values(other, whole))
    return same_values(ours, theirs)


def _values(module: nn.Module, whole: bool) -> Iterator[tuple[str, Any]]:
    for path, one in module.named_modules() if whole else [("", module)]:
        yield f"{path}?", type(one)
        for name, tensor in (*one.named_parameters(recurse=False), *one.named_buffers(recurse=False)):
            yield f"{path}.{name}", tensor
        if isinstance(one, HeadEdits):
            # A layer that lends its map, or borrows one, has to run: what is lent is on no tape.
            lending = object() if one.lending is not None else None
            yield f"{path}!", (one.kept, one.map, one.width, one.source, lending)
        elif isinstance(one, BranchEdit):
            yield f"{path}!", (one.whole, one.active)
        elif isinstance(one, Replacement):
            yield f"{path}!", one.description()


def _hooks(encoder: nn.Module) -> int:
    """How many hooks there are within an encoder."""
    return sum(len(one._forward_hooks) + len(one._forward_pre_hooks) for one in list(encoder.modules())[1:])
