"""Rounds of a federated training in TensorBoard, by the callback that fine-tuning logs with."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from transformers import TrainerControl, TrainerState
from transformers.integrations import TensorBoardCallback

from otoscope.errors import MissingPackageError
from otoscope.federation.result import RoundRow
from otoscope.training.folders import RUN


class Board:
    """Writes rows for TensorBoard.

    Args:
        folder: of the training; they lie in its `run/`.

    Raises:
        MissingPackageError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        if importlib.util.find_spec("tensorboard") is None:
            raise MissingPackageError("TensorBoard is not installed", "Install otoscope[tensorboard].")
        self._place = folder / RUN / "runs"
        self._callback: Any = None

    def row(self, row: RoundRow) -> None:
        """One round: loss, figures on held-out speech, bytes, share of the model, failures, seconds and privacy."""
        if self._callback is None:  # opened late, since a run's folder must be empty when it begins
            from torch.utils.tensorboard import SummaryWriter

            self._callback = TensorBoardCallback(SummaryWriter(str(self._place)))
        figures = {
            "loss": row.loss, "download_bytes": row.download, "upload_bytes": row.upload, "share": row.share,
            "clients": len(row.clients), "failures": len(row.failures), "seconds": row.seconds,
            **{f"eval_{name}": value for name, value in row.held_out.items()},
        }  # fmt: skip
        figures |= {
            name: value
            for name, value in (("epsilon", row.epsilon), ("peak_training_bytes", row.memory))
            if value is not None
        }
        state = TrainerState(global_step=row.round, is_world_process_zero=True)
        self._callback.on_log(None, state, TrainerControl(), logs=figures)

    def close(self) -> None:
        """Writes what is left."""
        if self._callback is not None and self._callback.tb_writer is not None:
            self._callback.tb_writer.close()
