"""What is pre-trained: three small Mockingjays that differ only in how many frames a mask covers."""

import json
from pathlib import Path
from typing import Any

import torch

from otoscope.training.architectures import Size
from otoscope.training.settings import TrainingSettings
from otoscope.workflow.pretraining import pretrain

MODELS = {"M3": 3, "M6": 6, "M9": 9}  # C_num, in stacked frames of 30 ms
SIZE = Size(layers=4, heads=6, width=144, feed_forward=576, dropout=0.0)  # 24 heads
STEPS = 5000
SPEECH = "embedded:train"


def pretrain_one(name: str, work: Path, scale: float = 1.0, seed: int = 0) -> Path:
    """Pre-trains one model, or takes up what an interrupted run left.

    Args:
        name: of `MODELS`.
        work: gets the folder.
        scale: of the number of steps.
        seed: of weights, batches and masks; the same for all three.

    Returns:
        The model's folder.
    """
    torch.set_num_threads(1)  # a second thread gains little at this size, and loses much where the machine is shared
    folder = work / name
    if not (folder / "config.json").exists():
        steps = max(4, round(STEPS * scale))
        settings = TrainingSettings(
            steps=steps, batch_seconds=12, learning_rate=1e-3, warmup=0.06, hold=0.5, precision="bfloat16", seed=seed,
            log_every=min(100, steps), evaluate_every=min(500, steps), save_every=min(250, steps),
        )  # fmt: skip
        pretrain(
            "mockingjay", SPEECH, folder, size=SIZE, settings=settings, mask_run=MODELS[name],
            resume=(folder / "run").exists(), report=_print,
        )  # fmt: skip
    return folder


def _print(row: dict[str, Any]) -> None:
    short = {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}
    print(json.dumps(short), flush=True)
