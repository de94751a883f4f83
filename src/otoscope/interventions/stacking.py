"""Several variants in one pass: the batch once for each of them, and every edited part run on its own rows."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from otoscope.interventions.replay import Player
from otoscope.interventions.tape import Pass, Tape, instead, mapped, tensors_in
from otoscope.models.edits import HeadEdits


class _ApartError(Exception):
    """A pass cannot be run for several variants at once; never leaves this module."""


def begin(player: Player) -> int:
    """Where a variant's first edited part stands among the parts of its encoder: variants alike in it run together."""
    return min(
        (k for k, path in enumerate(player.tape.paths) if path in player.changed), default=len(player.tape.paths)
    )


def run_together(
    players: Sequence[Player], expect: Callable[[Sequence[int], bool], None], room: float | None = None
) -> None:
    """Runs every pass on a tape once for all of several variants, and gives each player what its variant makes of it.

    The rows of a batch stand one copy after another, first to last variant. What comes before the first edited part is
    taken from the tape; edited parts are run by the variants' own modules, each on its rows; all others by the unedited
    model's, on all rows at once. What a part is given must be the same for all rows or hold as many times the rows of
    the recorded pass as there are variants: a pass for which this does not hold, one that was run for its gradients, and
    variants whose layers lend their maps to each other are left to be run one by one.

    Args:
        players: of one encoder of each variant, all of one tape.
        expect: says how many samples each utterance of a pass has: to the unedited model (True) and to the variants
            (False).
        room: bytes that what is given may take; None is as much as there is.
    """
    tape = players[0].tape
    if any(_lends(player.encoder.get_submodule(path)) for player in players for path in player.changed):
        return
    for one in tape.passes:
        with contextlib.suppress(_ApartError):
            answers = _answers(tape, one, players, expect)
            size = sum(one.numel() * one.element_size() for one in tensors_in(answers))
            if room is not None:
                if size > room:
                    return
                room -= size
            for player, answer in zip(players, answers, strict=True):
                player.answers.append((one, answer))


def _lends(module: nn.Module) -> bool:
    """Whether a map that is made in a module is used by another, or the other way round."""
    return any(isinstance(one, HeadEdits) and one.lending is not None for one in module.modules())


def _answers(
    tape: Tape, one: Pass, players: Sequence[Player], expect: Callable[[Sequence[int], bool], None]
) -> list[Any]:
    """What the encoders of all variants give for a recorded pass."""
    changed = frozenset[str]().union(*(player.changed for player in players))
    if not one.plain or not changed <= {path for path, _ in one.calls}:
        raise _ApartError
    if any(encoder.training for encoder in (tape.encoder, *(player.encoder for player in players))):
        raise _ApartError
    copies = len(players)
    given = tape.before(one, changed, watched=False)
    rows = {len(tensor) for tensor in tensors_in(one.inputs) if tensor.ndim}
    if len(rows) != 1:
        raise _ApartError
    (count,) = rows

    def several(tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.ndim or len(tensor) % count:
            raise _ApartError
        return tensor.repeat(copies, *(1 for _ in tensor.shape[1:]))

    shapes: dict[tuple[str, int], Any] = {}
    counted: Counter[str] = Counter()
    for (path, _), shape in zip(one.calls, one.given, strict=True):
        shapes[path, counted[path]] = shape
        counted[path] += 1
    calls: Counter[str] = Counter()

    def taken(path: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """A part before the first edited one: what the tape has, once for every variant."""

        def around(forward: Callable[..., Any]) -> Callable[..., Any]:
            def stored(*args: Any, **kwargs: Any) -> Any:
                key = (path, calls[path])
                calls[path] += 1
                return mapped(several, given[key]) if key in given else forward(*args, **kwargs)

            return stored

        return around

    def apart(path: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """An edited part: each variant's own module on its rows."""
        modules = [player.encoder.get_submodule(path) for player in players]

        def around(forward: Callable[..., Any]) -> Callable[..., Any]:
            def own(*args: Any, **kwargs: Any) -> Any:
                recorded = shapes.get((path, calls[path]))
                calls[path] += 1
                parts = []
                for k, module in enumerate(modules):
                    mine, named = _chunk((args, kwargs), recorded, k, copies)
                    parts.append(module(*mine, **named))
                return _joined(parts, count)

            return own

        return around

    with contextlib.ExitStack() as stack:
        for path in {path for path, _ in given if tape.is_layer(path) or _by_row(tape, path, given, count)}:
            stack.enter_context(instead(tape.encoder.get_submodule(path), taken(path)))
        for path in changed:
            stack.enter_context(instead(tape.encoder.get_submodule(path), apart(path)))
        stack.enter_context(torch.inference_mode(one.inference))
        stack.enter_context(torch.no_grad())
        expect(one.lengths * copies, True)
        expect(one.lengths, False)
        args, kwargs = mapped(several, one.inputs)
        out = tape.encoder(*args, **kwargs)
    return [mapped(partial(_rows, count=count, copies=copies, k=k), out) for k in range(copies)]


def _by_row(tape: Tape, path: str, given: Mapping[tuple[str, int], Any], count: int) -> bool:
    """Whether what a part before the layers gave is of rows of the batch; positions are not, and are made again."""
    found = [tensor for (one, _), out in given.items() if one == path for tensor in tensors_in(out)]
    weighted = any(True for _ in tape.encoder.get_submodule(path).parameters())
    return weighted and all(tensor.ndim > 2 and len(tensor) == count for tensor in found)


def _rows(tensor: torch.Tensor, count: int, copies: int, k: int) -> torch.Tensor:
    """The rows of a variant in what an encoder gave for all of them."""
    if not tensor.ndim or len(tensor) != count * copies:
        raise _ApartError
    return tensor[k * count : (k + 1) * count].clone()


def _chunk(value: Any, recorded: Any, k: int, copies: int) -> Any:
    """What the k-th variant's module is given; `recorded` are the shapes of what the unedited one was given."""
    if isinstance(value, torch.Tensor):
        if not isinstance(recorded, torch.Size):
            raise _ApartError
        if value.shape == recorded:
            return value
        if not recorded or value.shape != (copies * recorded[0], *recorded[1:]):
            raise _ApartError
        return value[k * recorded[0] : (k + 1) * recorded[0]]
    if isinstance(value, dict):
        if not isinstance(recorded, dict):
            raise _ApartError
        return type(value)(**{name: _chunk(one, recorded.get(name), k, copies) for name, one in value.items()})
    if type(value) in (tuple, list):
        if type(recorded) is not type(value) or len(recorded) != len(value):
            raise _ApartError
        return type(value)(_chunk(one, shape, k, copies) for one, shape in zip(value, recorded, strict=True))
    return value


def _joined(parts: Sequence[Any], count: int) -> Any:
    """What the variants' modules gave, as if one had given it for all rows."""
    first = parts[0]
    if isinstance(first, torch.Tensor):
        if all(one is first for one in parts):
            return first  # handed through, the same for all
        if not first.ndim or len(first) % count or any(one.shape != first.shape for one in parts):
            raise _ApartError
        return torch.cat(list(parts))
    if isinstance(first, dict):
        return type(first)(**{name: _joined([one[name] for one in parts], count) for name in first})
    if type(first) in (tuple, list):
        return type(first)(_joined(list(rows), count) for rows in zip(*parts, strict=True))
    return first
