"""Runs an objective through transformers' Trainer, from a state where there is one, and stores the model."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib.util
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch.utils.data import Sampler, SequentialSampler
from transformers import PrinterCallback, Trainer, TrainingArguments, set_seed

from otoscope.errors import MissingPackageError, StorageError, TrainingError, TreatmentError
from otoscope.models.model import take_weights
from otoscope.speech.corpus import Corpus
from otoscope.speech.utterance import Utterance
from otoscope.training.batches import BatchPlan
from otoscope.training.folders import INITIAL, RUN, alone, open_run, put_model
from otoscope.training.objective import Objective
from otoscope.training.outcome import Trained
from otoscope.training.parameter_groups import hold_frozen, parameter_groups
from otoscope.training.settings import TrainingSettings
from otoscope.training.watch import Report, Watch, diverged, from_first
from otoscope.treatments.applying import record_of


def train(
    objective: Objective,
    utterances: Sequence[Utterance],
    held_out: Sequence[Utterance],
    settings: TrainingSettings,
    folder: Path,
    *,
    resume: bool = False,
    report: Report | None = None,
    also: Mapping[str, Any] | None = None,
) -> Trained:
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
        also: what else the result depends on, as plain values; stored with the settings, and compared on resuming.

    Returns:
        The figures of the model on held-out speech, and the step that its weights are of: the last, or with patience the
        best one. The first of several processes takes them for all.

    Raises:
        TrainingError: the folder or the speech cannot be used, the disk is full, the loss is no longer finite, or the
            objective has no figure that a training can be stopped by.
        MissingPackageError: TensorBoard is asked for and not installed.
    """
    if not utterances or not held_out:
        raise TrainingError(
            "No utterance is left to train on, or none to watch with", "See what was left out, and why."
        )
    if settings.patience and objective.judged_by is None:
        raise TrainingError(
            f"The objective {objective.name} has no figure that a training can be stopped by",
            "Train for all steps: leave the patience at 0.",
        )
    arguments = _arguments(settings, folder)
    chief = arguments.process_index == 0
    sets = {"speech": utterances, "held_out": held_out}
    prints = {name: Corpus(name, tuple(some)).fingerprint() for name, some in sets.items()}
    rates = hold_frozen(objective.model)
    described = {**settings.to_dict(), **objective.describe(), **_sizes(objective), **prints, **(also or {})}
    described["treatments"] = _treatments(objective)
    described["processes"] = arguments.world_size  # each takes every n-th batch of the plan
    described["starting_weights"] = _fingerprint(objective)
    with contextlib.ExitStack() as held:
        state = from_first(lambda: _opened(folder, described, resume, held), chief)
        with _full_disk_named(folder):
            if chief and not (folder / INITIAL / "config.json").exists():
                if state is not None:
                    raise TrainingError(f"{folder / INITIAL} is gone", "Begin the training anew in another folder.")
                put_model(objective.write, folder / INITIAL)
            return _trained(objective, utterances, held_out, settings, folder, state, rates, arguments, report)


def _trained(
    objective: Objective,
    utterances: Sequence[Utterance],
    held_out: Sequence[Utterance],
    settings: TrainingSettings,
    folder: Path,
    state: Path | None,
    rates: Mapping[str, float],
    arguments: TrainingArguments,
    report: Report | None,
) -> Trained:
    """See `train`; goes on from a state, and stores the model."""
    chief = arguments.process_index == 0
    length = settings.steps * settings.accumulate * arguments.world_size
    plan = BatchPlan(utterances, settings.batch_seconds, length, settings.seed, objective.assemble)
    set_seed(settings.seed)
    watch = Watch(objective, held_out, settings, folder, report, chief)
    watch.take_up(0 if state is None else int(state.name.rpartition("-")[2]))
    trainer = _Trainer(model=objective, args=arguments, train_dataset=plan, data_collator=_only, callbacks=[watch])
    trainer.watch, trainer.rates = watch, {f"model.{name}": factor for name, factor in rates.items()}
    trainer.remove_callback(PrinterCallback)
    if not from_first(watch.over, chief):
        with warnings.catch_warnings():
            # WavLM's attention in transformers hands PyTorch two kinds of masks; nobody who trains can mend that.
            warnings.filterwarnings("ignore", message="Support for mismatched key_padding_mask", category=UserWarning)
            trainer.train(resume_from_checkpoint=None if state is None else str(state))
        if not all(bool(torch.isfinite(parameter).all()) for parameter in objective.parameters()):
            raise diverged(settings.steps)

    def figures() -> Trained:
        if settings.patience:
            return Trained(*watch.take_best())
        return Trained(watch.last or objective.held_out(held_out), settings.steps)

    found: Trained = from_first(figures, chief)
    if chief:
        put_model(objective.write, folder)
        watch.remove_kept()
        for path in (folder / RUN).glob("checkpoint-*"):
            shutil.rmtree(path, ignore_errors=True)
    return found


@contextlib.contextmanager
def _full_disk_named(folder: Path) -> Iterator[None]:
    """Names the folder, and the way on, where something could not be written.

    Raises:
        StorageError: it could not.
    """
    try:
        yield
    except (OSError, SafetensorError, RuntimeError, TreatmentError) as error:
        told = error.__cause__ if isinstance(error, TreatmentError) else error
        full = isinstance(told, OSError) and told.errno in _NO_ROOM
        # safetensors and PyTorch tell of it in errors of their own.
        if not full and not any(sign in str(error) for sign in _NOT_WRITTEN):
            raise
        raise StorageError(
            f"The training in {folder} cannot be written ({told})",
            "Make room, then go on with resume=True (--resume).",
        ) from error


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_NOT_WRITTEN = ("Error while serializing", "PytorchStreamWriter", "unexpected pos")


def _fingerprint(objective: Objective) -> str:
    """SHA-256 over the weights of a model and of its heads, as hexadecimal digits."""
    digest = hashlib.sha256()
    take_weights(digest, objective.state_dict())
    return digest.hexdigest()


def _treatments(objective: Objective) -> list[dict[str, Any]]:
    """What the model was treated by before the training."""
    found = record_of(objective.model)
    return [] if found is None else [treatment.to_dict() for treatment in found.treatments]


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
    """Takes the plan's items in their order, hands parts of the loss to the log, and heeds factors on the rate."""

    watch: Watch
    rates: Mapping[str, float]

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            trained: Any = self.model
            made_by, options = self.get_optimizer_cls_and_kwargs(self.args, trained)
            decayed, args = self.get_decay_parameter_names(trained), self.args
            named = trained.named_parameters()
            groups = parameter_groups(named, decayed, args.weight_decay, args.learning_rate, self.rates)
            self.optimizer = made_by(groups, **options)
        return self.optimizer

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
