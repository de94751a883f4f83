"""Options of what takes many passes, checked before the work."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from otoscope.errors import MeasureError

if TYPE_CHECKING:
    from otoscope.workflow.examining import Passes


class Spent(NamedTuple):
    """Options that all of it reads."""

    seconds: float
    utterances: int
    metrics: str | None
    store: Path | None


class Blocks(NamedTuple):
    """Options of blocks and layers."""

    initial: str | None
    checkpoints: tuple[str, ...]
    twins: tuple[str, ...]
    granularity: str
    modes: str | None
    draws: int
    stop_below: float | None
    stop_above: float | None
    cache_gb: float | None
    together: int

    def given(self) -> list[str]:
        """The options that are not as they are by default, as they are written."""
        usual = Blocks(None, (), (), "block", None, 3, None, None, None, 1)
        names = {"checkpoints": "checkpoint", "twins": "twin"}
        return [
            "--" + names.get(name, name).replace("_", "-")
            for name, mine, theirs in zip(self._fields, self, usual, strict=True)
            if mine != theirs
        ]


def named_paths(given: tuple[str, ...], option: str, example: str) -> dict[str, str]:
    """NAME=PATH of an option as a mapping."""
    found: dict[str, str] = {}
    for one in given:
        name, equals, path = one.partition("=")
        if not (name and equals and path) or name in found:
            again = name in found
            raise MeasureError(
                f"{option} {one} " + (f"gives the name {name} again" if again else "is not NAME=PATH"),
                f"Write it as {option} {example}" + (", each name once." if again else "."),
            )
        found[name] = path
    return found


def passes_of(measures: str | None, spent: Spent, blocks: Blocks) -> Passes:
    """How much is spent on what takes many passes.

    Raises:
        MeasureError: no measure that was asked for reads an option, or options do not go together.
        EvaluationError: there is no such metric.
    """
    from otoscope.diagnosis.catalogue import choose
    from otoscope.diagnosis.options import Options
    from otoscope.evaluation.catalogue import metric_by_name
    from otoscope.interventions.sequential import Stopping
    from otoscope.workflow.blocks import BlockPasses
    from otoscope.workflow.examining import Passes

    metrics = _listed(spent.metrics)
    for name in metrics:
        metric_by_name(name)
    chosen = choose(measures, Options(checkpoints=bool(blocks.initial or blocks.checkpoints)))
    groups = {entry.group for entry, _ in chosen if entry.make is None}
    idle = [
        *([] if groups & {"importance", "spans", "blocks", "noise"} or not metrics else ["--metrics"]),
        *([] if groups & {"importance", "spans", "blocks", "noise"} or spent.store is None else ["--store"]),
    ]
    if idle:
        raise MeasureError(
            f"No measure that was asked for reads {idle[0]}",
            "Leave it out, or name importance or blocks in --measures as well.",
        )
    unread = [] if groups & {"blocks", "noise"} else blocks.given()
    if unread:
        raise MeasureError(
            f"No measure that was asked for reads {unread[0]}", "Leave it out, or name blocks in --measures as well."
        )
    stop = None
    if blocks.stop_below is not None or blocks.stop_above is not None:
        if len(metrics) != 1:
            raise MeasureError(
                "A change can be decided early by one metric only", "Name one, such as --metrics ctc-loss."
            )
        below = float("-inf") if blocks.stop_below is None else blocks.stop_below
        stop = Stopping(below, float("inf") if blocks.stop_above is None else blocks.stop_above)
    units = blocks.granularity.split(";")
    return Passes(
        spent.seconds, spent.utterances, metrics, spent.store,
        BlockPasses(
            granularity=blocks.granularity if len(units) == 1 and "." not in units[0] else units,
            modes=_listed(blocks.modes) or None, initial=blocks.initial,
            checkpoints=named_paths(blocks.checkpoints, "--checkpoint", "pretrained=my-pretrained"),
            twins=named_paths(blocks.twins, "--twin", "seed-1=my-other-model"),
            draws=blocks.draws, cache_gb=blocks.cache_gb, together=blocks.together, stop=stop,
        ),
    )  # fmt: skip


def _listed(names: str | None) -> list[str]:
    return [name.strip() for name in (names or "").split(",") if name.strip()]
