"""What is done between the steps of a training: the log, held-out speech, models and weights kept, an early end."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from otoscope.errors import OtoscopeError, TrainingError
from otoscope.speech.utterance import Utterance
from otoscope.training.folders import LOG, RUN, put_model, replace_text
from otoscope.training.objective import Objective
from otoscope.training.schedules import best_step, is_over
from otoscope.training.settings import TrainingSettings

Report = Callable[[Mapping[str, Any]], None]

_BEST = "best-"


class Watch(TrainerCallback):
    """Writes the log, looks at held-out speech, keeps models along the way, and stops a run that diverges or stands still.

    Args:
        objective: what is trained.
        held_out: speech to watch the training with.
        settings: of the run.
        folder: of the run.
        report: called with each line of the log.
        chief: whether this is the first of the processes, which alone writes.

    Attributes:
        last: the latest figures on held-out speech.
    """

    def __init__(
        self,
        objective: Objective,
        held_out: Sequence[Utterance],
        settings: TrainingSettings,
        folder: Path,
        report: Report | None,
        chief: bool,
    ) -> None:
        self._objective, self._held_out, self._settings = objective, held_out, settings
        self._folder, self._report, self._chief = folder, report, chief
        self._sums: dict[str, list[torch.Tensor]] = defaultdict(list)
        self._began, self._first = time.monotonic(), 0
        self._rows: list[dict[str, Any]] = []
        self.last: dict[str, float] = {}

    def take_up(self, step: int) -> None:
        """Takes up the log where a state stands; lines of later steps are written anew."""
        log = self._folder / RUN / LOG
        lines = log.read_text().splitlines() if log.exists() else []
        self._rows = [row for row in map(json.loads, lines) if row["step"] <= step]
        if self._chief:
            for path in self._kept():
                if _step_of(path) > step:
                    path.unlink(missing_ok=True)

    def take(self, parts: Mapping[str, torch.Tensor]) -> None:
        """Notes the parts of a batch's loss."""
        for name, value in parts.items():
            self._sums[name].append(value.float().mean())

    def means(self) -> dict[str, float]:
        """Means of the parts since the last call."""
        found = {name: float(torch.stack(values).mean()) for name, values in self._sums.items()}
        self._sums.clear()
        return found

    def over(self) -> bool:
        """Whether the figure that the run is judged by has not fallen for as long as is waited."""
        return is_over(self._judged(), self._settings.patience)

    def take_best(self) -> tuple[dict[str, float], int]:
        """Gives the model the weights of the best evaluation.

        Returns:
            The figures of that evaluation, and its step.

        Raises:
            TrainingError: the weights are gone.
        """
        step = best_step(self._judged())
        place = self._best(step)
        try:
            self._objective.model.load_state_dict(load_file(place))
        except (OSError, RuntimeError) as error:
            raise TrainingError(
                f"The best weights cannot be read from {place} ({error})", "Begin the training anew in another folder."
            ) from error
        figures = next(row["held_out"] for row in self._rows if row["step"] == step and "held_out" in row)
        return figures, step

    def remove_kept(self) -> None:
        """Removes the best weights, once the model that has them is in its place."""
        for path in self._kept():
            path.unlink(missing_ok=True)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Starts the clock."""
        self._began, self._first = time.monotonic(), state.global_step

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Has the objective set what is trained in this step."""
        self._objective.begin_step(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Keeps the model of a step, looks at held-out speech, and ends a run that stands still."""
        step = state.global_step
        if self._chief and step in self._settings.keep:
            put_model(self._objective.write, self._folder / f"step-{step}")
        if step % self._settings.evaluate_every == 0 or step == self._settings.steps:
            if self._chief:
                self._evaluate(step)
            # All processes stop after the same step, or those that went on would wait for the others.
            if self._settings.patience and from_first(self.over, self._chief):
                control.should_training_stop = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Removes weights that were the best before: no run is taken up from an earlier state any more."""
        if self._chief and self._settings.patience and self._judged():
            best = self._best(best_step(self._judged()))
            for path in self._kept():
                if path != best:
                    path.unlink(missing_ok=True)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Writes a line with the time left.

        Raises:
            TrainingError: the loss is no longer finite.
        """
        if not logs or "loss" not in logs:
            return
        if not all(abs(logs[name]) < float("inf") for name in ("loss", "grad_norm") if name in logs):
            raise diverged(state.global_step)
        spent = (time.monotonic() - self._began) / 60
        done = state.global_step - self._first
        row = {"step": state.global_step}
        row |= {name: value for name, value in logs.items() if name not in ("epoch", "total_flos")}
        row |= {"minutes": spent, "minutes_left": spent / max(done, 1) * (self._settings.steps - state.global_step)}
        if self._chief:
            self._note(row)

    def _evaluate(self, step: int) -> None:
        """Figures of a step, and its weights where they are the best so far."""
        self.last = self._objective.held_out(self._held_out)
        if self._settings.patience and step > self._objective.judged_from:
            figures = {**self._judged(), step: self.last[str(self._objective.judged_by)]}
            if best_step(figures) == step:
                place = self._best(step)
                partial = place.with_name(f".{place.name}")
                state = self._objective.model.state_dict()
                save_file({name: value.detach().cpu().clone().contiguous() for name, value in state.items()}, partial)
                partial.replace(place)
        self._note({"step": step, "held_out": self.last})

    def _judged(self) -> dict[int, float]:
        """The figure that the run is judged by, of each evaluation by step."""
        name, first = self._objective.judged_by, self._objective.judged_from
        rows = [row for row in self._rows if "held_out" in row and row["step"] > first]
        return {row["step"]: row["held_out"][name] for row in rows if name is not None}

    def _best(self, step: int) -> Path:
        return self._folder / RUN / f"{_BEST}{step}.safetensors"

    def _kept(self) -> list[Path]:
        return [path for path in (self._folder / RUN).glob(f"{_BEST}*.safetensors") if _step_of(path) >= 0]

    def _note(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        replace_text(self._folder / RUN / LOG, "".join(json.dumps(one) + "\n" for one in self._rows))
        if self._report is not None:
            self._report({**row, "of": self._settings.steps})


def from_first(make: Callable[[], Any], chief: bool) -> Any:
    """What the first process makes, handed to the others.

    Raises:
        OtoscopeError: it raised one.
    """
    if not torch.distributed.is_initialized():
        return make()
    found: list[Any] = [None]
    if chief:
        try:
            found = [make()]
        except OtoscopeError as error:
            found = [error]
    torch.distributed.broadcast_object_list(found)
    if isinstance(found[0], OtoscopeError):
        raise found[0]
    return found[0]


def diverged(step: int) -> TrainingError:
    """The error of a run whose loss is no longer finite."""
    return TrainingError(
        f"The loss is no longer finite at step {step}", "Begin anew with a lower learning rate, or in float32."
    )


def _step_of(path: Path) -> int:
    """The step of a file with the best weights; -1 where it is none."""
    number = path.stem.removeprefix(_BEST)
    return int(number) if number.isdecimal() else -1
