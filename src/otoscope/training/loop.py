"""Runs an objective through transformers' Trainer: progress, states to go on from, models kept along the way."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import shutil
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Sampler, SequentialSampler
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments, set_seed

from otoscope.errors import MissingPackageError, OtoscopeError, TrainingError
from otoscope.models.model import take_weights
from otoscope.speech.corpus import Corpus
from otoscope.speech.utterance import Utterance
from otoscope.training.batches import BatchPlan
from otoscope.training.folders import INITIAL, LOG, RUN, alone, open_run, put_model, replace_text
from otoscope.training.objective import Objective
from otoscope.training.settings import TrainingSettings

Report = Callable[[Mapping[str, Any]], None]


def train(
    objective: Objective,
    utterances: Sequence[Utterance],
    held_out: Sequence[Utterance],
    settings: TrainingSettings,
    folder: Path,
    *,
    resume: bool = False,
    report: Report | None = None,
) -> dict[str, float]:
    """Trains, and stores the model in a folder.

    Args:
        objective: the model and what it is trained for.
        utterances: speech to train on.
        held_out: speech to watch the training with.
        settings: see `TrainingSettings`.
        folder: gets the trained model, `initial/` and `step-N/` with the models along the way, and `run/` with the
            log (`log.jsonl`), the settings and the states that an interrupted run is taken up from.
        resume: go on with an interrupted run; the speech, the model's sizes, the weights that it began with and all
            settings must be the same.
        report: called with each line of the log.

    Returns:
        The figures on held-out speech at the end; the first of several processes takes them for all.

    Raises:
        TrainingError: the folder or the speech cannot be used, or the loss is no longer finite.
        MissingPackageError: TensorBoard is asked for and not installed.
    """
    if not utterances or not held_out:
        raise TrainingError(
            "No utterance is left to train on, or none to watch with", "See what was left out, and why."
        )
    arguments = _arguments(settings, folder)
    chief = arguments.process_index == 0
    sets = {"speech": utterances, "held_out": held_out}
    prints = {name: Corpus(name, tuple(some)).fingerprint() for name, some in sets.items()}
    described = {**settings.to_dict(), **objective.describe(), **_sizes(objective), **prints}
    described["processes"] = arguments.world_size  # each takes every n-th batch of the plan
    described["starting_weights"] = _fingerprint(objective)
    with contextlib.ExitStack() as held:
        state = _from_first(lambda: _opened(folder, described, resume, held), chief)
        if chief and not (folder / INITIAL / "config.json").exists():
            if state is not None:
                raise TrainingError(f"{folder / INITIAL} is gone", "Begin the training anew in another folder.")
            put_model(objective.write, folder / INITIAL)
        length = settings.steps * settings.accumulate * arguments.world_size
        plan = BatchPlan(utterances, settings.batch_seconds, length, settings.seed, objective.assemble)
        set_seed(settings.seed)
        watch = _Watch(objective, held_out, settings, folder, report, chief)
        trainer = _Trainer(
            model=objective, args=arguments, train_dataset=plan, data_collator=_only, callbacks=[watch],
        )  # fmt: skip
        trainer.watch = watch
        trainer.remove_callback(PrinterCallback)
        with warnings.catch_warnings():
            # WavLM's attention in transformers hands PyTorch two kinds of masks; nobody who trains can mend that.
            warnings.filterwarnings("ignore", message="Support for mismatched key_padding_mask", category=UserWarning)
            trainer.train(resume_from_checkpoint=None if state is None else str(state))
            if not all(bool(torch.isfinite(parameter).all()) for parameter in objective.parameters()):
                raise _diverged(settings.steps)
            figures = _from_first(lambda: watch.last or objective.held_out(held_out), chief)
        if chief:
            put_model(objective.write, folder)
            for path in (folder / RUN).glob("checkpoint-*"):
                shutil.rmtree(path, ignore_errors=True)
        return figures


def _fingerprint(objective: Objective) -> str:
    """SHA-256 over the weights of a model and of its heads, as hexadecimal digits."""
    digest = hashlib.sha256()
    take_weights(digest, objective.state_dict())
    return digest.hexdigest()


def _from_first(make: Callable[[], Any], chief: bool) -> Any:
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


def _diverged(step: int) -> TrainingError:
    return TrainingError(
        f"The loss is no longer finite at step {step}", "Begin anew with a lower learning rate, or in float32."
    )


def _sizes(objective: Objective) -> dict[str, Any]:
    """What the model's configuration says, but for where it was read from and how it is stored."""
    config: Any = objective.model.config
    stated = {"class": type(objective.model).__name__, **config.to_diff_dict()}
    for name in ("_name_or_path", "transformers_version", "architectures", "dtype"):
        stated.pop(name, None)
    return {f"model.{name}": value for name, value in stated.items()}


def _opened(folder: Path, settings: Mapping[str, Any], resume: bool, held: contextlib.ExitStack) -> Path | None:
    """`open_run` in a folder that no other run is at work in, as long as `held` is open."""
    there = folder.is_dir()
    if there:  # before it is looked at, since half states are removed then
        held.enter_context(alone(folder))
    state = open_run(folder, settings, resume)
    if not there:
        held.enter_context(alone(folder))
    return state


def _only(items: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """An item of the plan is a whole batch."""
    return items[0]


def _arguments(settings: TrainingSettings, folder: Path) -> TrainingArguments:
    warm, hold = (round(share * settings.steps) for share in (settings.warmup, settings.hold))
    if settings.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise MissingPackageError("TensorBoard is not installed", "Install otoscope[tensorboard].")
    on_cpu = not torch.cuda.is_available()
    if settings.precision == "float16" and on_cpu:
        raise TrainingError("Mixed precision in float16 needs a GPU", "Choose bfloat16.")
    return TrainingArguments(
        output_dir=str(folder / RUN), max_steps=settings.steps, per_device_train_batch_size=1,
        gradient_accumulation_steps=settings.accumulate, learning_rate=settings.learning_rate, warmup_steps=warm,
        lr_scheduler_type="warmup_stable_decay",
        lr_scheduler_kwargs={
            "num_decay_steps": max(1, settings.steps - warm - hold), "min_lr_ratio": settings.last_rate,
            "decay_type": "cosine",
        },
        weight_decay=settings.weight_decay, adam_beta2=0.98, max_grad_norm=settings.clip, seed=settings.seed,
        bf16=settings.precision == "bfloat16", fp16=settings.precision == "float16", use_cpu=on_cpu,
        save_strategy="steps", save_steps=settings.save_every, save_total_limit=2, logging_strategy="steps",
        logging_steps=settings.log_every, logging_nan_inf_filter=False, eval_strategy="no", disable_tqdm=True,
        report_to=["tensorboard"] if settings.tensorboard else [], remove_unused_columns=False,
        ddp_find_unused_parameters=True, dataloader_pin_memory=not on_cpu,
        ddp_backend="gloo" if on_cpu and "RANK" in os.environ else None,
        log_level="error", log_level_replica="error",
    )  # fmt: skip


class _Trainer(Trainer):
    """Takes the plan's items in their order, and hands parts of the loss to the log."""

    watch: _Watch

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler:
        plan: Any = train_dataset if train_dataset is not None else self.train_dataset
        return SequentialSampler(plan)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        parts = model(**inputs)
        self.watch.take({name: value.detach() for name, value in parts.items() if name != "loss"})
        return parts["loss"]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs = {**logs, **self.watch.means()}
        super().log(logs, start_time)


class _Watch(TrainerCallback):
    """Writes the log, looks at held-out speech, keeps models along the way, and stops a run that diverges."""

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

    def take(self, parts: Mapping[str, torch.Tensor]) -> None:
        """Notes the parts of a batch's loss."""
        for name, value in parts.items():
            self._sums[name].append(value.float().mean())

    def means(self) -> dict[str, float]:
        """Means of the parts since the last call."""
        found = {name: float(torch.stack(values).mean()) for name, values in self._sums.items()}
        self._sums.clear()
        return found

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Takes up the log where the state stands."""
        self._began, self._first = time.monotonic(), state.global_step
        log = self._folder / RUN / LOG
        lines = log.read_text().splitlines() if log.exists() else []
        self._rows = [row for row in map(json.loads, lines) if row["step"] <= state.global_step]

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Keeps the model of a step, and looks at held-out speech."""
        step = state.global_step
        if not self._chief:
            return
        if step in self._settings.keep:
            put_model(self._objective.write, self._folder / f"step-{step}")
        if step % self._settings.evaluate_every == 0 or step == self._settings.steps:
            self.last = self._objective.held_out(self._held_out)
            self._note({"step": step, "held_out": self.last})

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Writes a line with the time left.

        Raises:
            TrainingError: the loss is no longer finite.
        """
        if not logs or "loss" not in logs:
            return
        if not all(abs(logs[name]) < float("inf") for name in ("loss", "grad_norm") if name in logs):
            raise _diverged(state.global_step)
        spent = (time.monotonic() - self._began) / 60
        done = state.global_step - self._first
        row = {"step": state.global_step}
        row |= {name: value for name, value in logs.items() if name not in ("epoch", "total_flos")}
        row |= {"minutes": spent, "minutes_left": spent / max(done, 1) * (self._settings.steps - state.global_step)}
        self._note(row)

    def _note(self, row: dict[str, Any]) -> None:
        if not self._chief:
            return
        self._rows.append(row)
        replace_text(self._folder / RUN / LOG, "".join(json.dumps(one) + "\n" for one in self._rows))
        if self._report is not None:
            self._report({**row, "of": self._settings.steps})
