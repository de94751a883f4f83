"""Trainings with Ray, each in a process of its own: Ray leaves files and processes to the end of the program."""

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from otoscope.errors import FederationError
from otoscope.federation.channels import exchanged, groups_of
from otoscope.federation.client import LocalSettings
from otoscope.federation.flower.inline import run_local
from otoscope.federation.flower.ray import RayGrid, run_ray
from otoscope.federation.partition import partition
from otoscope.federation.result import FederationResult
from otoscope.federation.schedules import uniform
from otoscope.federation.settings import FederationSettings
from otoscope.models.recogniser import load_recogniser
from tests.federation.small import speech, wav2vec2

SHARES = partition(speech(8), "speaker")
LOCAL = LocalSettings(steps=1)


def equal(folder: Path) -> None:
    """Workers train what one process does, and are gone afterwards."""
    recogniser = wav2vec2()
    rates, settings = uniform(groups_of(recogniser.model), 0.5), FederationSettings(rounds=2, local=LOCAL)
    run_local(recogniser, SHARES, rates, settings, folder=folder / "local")
    found = run_ray(recogniser, SHARES, rates, settings, folder=folder / "ray", workers=2)
    one, other = (exchanged(load_recogniser(folder / name).model) for name in ("local", "ray"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert (found.status, found.runner) == ("completed", "ray")
    assert not workers()


def killed(folder: Path) -> None:
    """A worker that is killed between rounds is replaced, and its client left out of one round."""

    def kill(result: FederationResult, row: object) -> None:
        if len(result.rows) == 1:
            os.kill(workers()[0].pid, signal.SIGKILL)

    settings = FederationSettings(rounds=3, local=LOCAL, tolerance=0.5)
    result = run_ray(wav2vec2(), SHARES, {}, settings, folder=folder, workers=2, report=kill)
    assert result.status == "completed"
    assert [len(row.failures) for row in result.rows] == [0, 1, 0], [row.failures for row in result.rows]


def slow(folder: Path) -> None:
    """Clients that take too long are broken off."""
    settings = FederationSettings(rounds=1, local=LocalSettings(epochs=5000, batch_seconds=1.5), timeout=3.0)
    began = time.monotonic()
    with pytest.raises(FederationError, match="4 of 4 clients failed .*did not answer in time"):
        run_ray(wav2vec2(), SHARES, {}, settings, folder=folder, workers=2)
    assert FederationResult.load(folder).status == "failed"
    assert time.monotonic() - began < 300


def absent(folder: Path) -> None:
    """A template that cannot be read is told of."""
    with pytest.raises(FederationError, match="Ray does not start"):
        RayGrid(folder / "none", SHARES, 1)


def workers() -> list[psutil.Process]:
    """Processes of Ray that train; not those that have ended and are only still listed."""
    found = []
    for one in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess, IndexError):
            if one.cmdline()[0].startswith("ray::Worker"):
                found.append(one)
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    {one.__name__: one for one in (equal, killed, slow, absent)}[sys.argv[1]](Path(sys.argv[2]))
