"""Everything that a training run depends on."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from otoscope.errors import TrainingError

PRECISIONS = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class TrainingSettings:
    """How long, how fast and from which seed.

    Attributes:
        steps: updates of the weights.
        batch_seconds: seconds of padded speech in a batch, on each process.
        accumulate: batches an update.
        learning_rate: the highest one.
        warmup: share of the steps in which the rate rises from zero.
        hold: share of the steps in which it stays; a cosine then takes it down to `last_rate`.
        last_rate: rate at the end as a fraction of the highest.
        weight_decay: of AdamW, on weight matrices only.
        clip: highest norm of the gradient.
        seed: of batches, masks, noise and dropout.
        precision: "float32", or "bfloat16" or "float16" for mixed precision; weights stay float32.
        save_every: steps between the states that a broken run is taken up from.
        evaluate_every: steps between evaluations on held-out speech.
        log_every: steps between lines of progress.
        keep: steps whose model is kept as a folder of its own, beside the initial one.
        tensorboard: also log for TensorBoard.
        patience: evaluations without a better figure on held-out speech after which a run ends; whenever it ends, the weights
            of the best evaluation are kept. 0 trains for all steps and keeps the last weights.

    Raises:
        TrainingError: a number is out of its range.
    """

    steps: int = 1000
    batch_seconds: float = 40.0
    accumulate: int = 1
    learning_rate: float = 1e-3
    warmup: float = 0.08
    hold: float = 0.25
    last_rate: float = 0.01
    weight_decay: float = 0.01
    clip: float = 1.0
    seed: int = 0
    precision: str = "float32"
    save_every: int = 200
    evaluate_every: int = 200
    log_every: int = 20
    keep: tuple[int, ...] = ()
    tensorboard: bool = False
    patience: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "accumulate", "save_every", "evaluate_every", "log_every"):
            if getattr(self, name) < 1:
                raise TrainingError(f"{name} is {getattr(self, name)}", "Give one or more.")
        for name in ("seed", "weight_decay", "patience"):
            if not getattr(self, name) >= 0:
                raise TrainingError(f"{name} is {getattr(self, name)}", "Give zero or more.")
        if not 0 <= self.last_rate <= 1:
            raise TrainingError(f"last_rate is {self.last_rate}", "Give a fraction of the highest rate, from 0 to 1.")
        for name in ("batch_seconds", "learning_rate", "clip"):
            if not getattr(self, name) > 0:
                raise TrainingError(f"{name} is {getattr(self, name)}", "Give a number above zero.")
        if not (self.warmup >= 0 and self.hold >= 0 and self.warmup + self.hold <= 1):
            raise TrainingError(
                f"warmup {self.warmup} and hold {self.hold} are no shares of one run",
                "Give shares that sum to 1 at most.",
            )
        if self.precision not in PRECISIONS:
            raise TrainingError(f"There is no precision {self.precision!r}", f"Choose one of {', '.join(PRECISIONS)}.")
        beyond = [step for step in self.keep if not 0 < step < self.steps]
        if beyond:
            raise TrainingError(
                f"Step {beyond[0]} cannot be kept of a run of {self.steps} steps",
                "Name steps between the first and the last; the initial and the final model are always kept.",
            )

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {**asdict(self), "keep": list(self.keep)}
