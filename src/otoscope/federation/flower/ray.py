"""Runs the client app on workers of Ray: several clients at a time, on one machine or a cluster."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flwr.app import Context, Message
from flwr.supercore.task_identity import TaskIdentity

from otoscope.errors import FederationError, MissingPackageError
from otoscope.federation.flower.client_app import Node, kind_of, make_client_app
from otoscope.federation.flower.inline import PARTITION, LocalGrid, error_reply
from otoscope.federation.flower.strategy import drive, meet, open_run
from otoscope.federation.partition import Share
from otoscope.federation.result import FederationResult
from otoscope.federation.running import ENGINE, Report, alone, check_run_folder, put_recogniser
from otoscope.federation.settings import FederationSettings
from otoscope.models.recogniser import Recogniser, load_recogniser
from otoscope.speech.utterance import Utterance

_START = 300.0  # seconds that a worker has to start in


class Worker:
    """What runs in a process of Ray.

    Args:
        template: folder of a model of the server's kind.
        shares: of all clients; node k has the k-th.
        device: where clients train.
    """

    def __init__(self, template: str, shares: Sequence[Share], device: str) -> None:
        import torch

        torch.set_num_threads(1)
        self._recogniser, self._shares = load_recogniser(template, device=device), shares
        self._nodes: dict[int, Node] = {}
        self._app = make_client_app(self._node)

    def ready(self) -> bool:
        """Answers once the worker has started."""
        return True

    def answer(self, message: Message, context: Context) -> Message:
        """Runs the app."""
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = context.run_id, context.node_id, 0
        return self._app(message, context)

    def _node(self, context: Context) -> Node:
        k = int(context.node_config[PARTITION])
        if k not in self._nodes:
            self._nodes[k] = Node(self._recogniser, [self._shares[k]])
        return self._nodes[k]


class RayGrid(LocalGrid):
    """Hands messages to workers, each to the next that is free.

    A worker that dies or takes too long is replaced. Flower 1.41 has a simulation with Ray of its own, `run_simulation`,
    which it is about to remove; it also waits for ever for a client that hangs.

    Args:
        template: folder of a model of the server's kind, which all machines of the cluster can read.
        shares: of all clients, one a node.
        workers: processes that train at a time; 0 for as many as there are cores.
        device: where clients train; workers share the GPUs of Ray's cluster evenly.

    Raises:
        MissingPackageError: Ray is not installed.
        FederationError: Ray or a worker does not start.
    """

    def __init__(self, template: Path, shares: Sequence[Share], workers: int = 0, device: str = "cpu") -> None:
        super().__init__(len(shares))
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault(
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0"
        )  # as Ray will do of itself; it warns until then
        try:
            import ray
        except ImportError as error:
            raise MissingPackageError("Ray is not installed", "Install otoscope[ray].") from error
        self._ray = ray
        count = min(workers or os.cpu_count() or 1, len(shares))
        self._own = not ray.is_initialized()
        try:
            if self._own:
                ray.init(num_cpus=count, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
            gpus = ray.cluster_resources().get("GPU", 0.0) / count if device.startswith("cuda") else 0.0
            self._kind = ray.remote(num_cpus=1, num_gpus=gpus)(Worker)
            self._given = (str(template), ray.put(list(shares)), device)
            self._idle = [self._new() for _ in range(count)]
            ray.get([worker.ready.remote() for worker in self._idle], timeout=_START)
        except Exception as error:  # of many kinds
            self.close()
            raise FederationError(
                f"Ray does not start ({type(error).__name__}: {' '.join(str(error).split())})",
                "See Ray's own log, or train with --runner local.",
            ) from error

    def close(self) -> None:
        """Ends the workers, and Ray where it was started here."""
        for worker in getattr(self, "_idle", []):
            self._ray.kill(worker)
        self._idle = []
        if self._own:
            self._ray.shutdown()

    def answers(self, messages: Iterable[Message], timeout: float | None) -> list[Message]:
        """See `LocalGrid`."""
        waiting, found = iter(messages), []
        at_work: dict[Any, tuple[Any, Message, float]] = {}
        message = next(waiting, None)
        while message is not None or at_work:
            while message is not None and self._idle:
                worker = self._idle.pop()
                task = worker.answer.remote(message, self._contexts[message.metadata.dst_node_id])
                at_work[task] = (worker, message, time.monotonic())
                message = next(waiting, None)
            done, _ = self._ray.wait(list(at_work), num_returns=1, timeout=self._longest(at_work, timeout))
            for task in done:
                worker, asked, _ = at_work.pop(task)
                try:
                    found.append(self._ray.get(task))
                except self._ray.exceptions.RayTaskError as error:
                    found.append(error_reply(error, asked))
                except self._ray.exceptions.RayError as error:
                    found.append(error_reply(error, asked))
                    worker = self._replaced(worker)
                self._idle.append(worker)
            for task, (worker, _, began) in list(at_work.items()):
                if timeout is not None and time.monotonic() - began > timeout:
                    del at_work[task]
                    self._idle.append(self._replaced(worker))
        return found

    def _new(self) -> Any:
        return self._kind.remote(*self._given)

    def _replaced(self, worker: Any) -> Any:
        self._ray.kill(worker)
        return self._new()

    def _longest(self, at_work: Mapping[Any, tuple[Any, Message, float]], timeout: float | None) -> float | None:
        """Seconds until the first worker's time is up."""
        if timeout is None:
            return None
        return max(0.01, min(began for _, _, began in at_work.values()) + timeout - time.monotonic())


def run_ray(
    recogniser: Recogniser,
    shares: Sequence[Share],
    rates: Mapping[str, float],
    settings: FederationSettings | None = None,
    *,
    folder: Path,
    held_out: Sequence[Utterance] = (),
    resume: bool = False,
    report: Report | None = None,
    asked: Mapping[str, Any] | None = None,
    workers: int = 0,
    device: str = "cpu",
) -> FederationResult:
    """Trains on workers of Ray; the same as `run_local` but for the time, where both train with one thread.

    Args:
        recogniser: see `run_local`.
        shares: each client's speech; utterances in memory are copied to the workers.
        rates: see `run_local`.
        settings: see `run_local`.
        folder: see `run_local`.
        held_out: see `run_local`.
        resume: see `run_local`.
        report: see `run_local`.
        asked: see `run_local`.
        workers: clients that train at a time; 0 for as many as there are cores.
        device: where clients train.

    Raises:
        MissingPackageError: Ray is not installed.
        FederationError: see `run_local` and `RayGrid`.
    """
    given = settings or FederationSettings()
    check_run_folder(folder, resume)
    template = folder / ENGINE / "template"
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder):  # what a training that is under way needs stays
        shutil.rmtree(template, ignore_errors=True)
        put_recogniser(recogniser, template)
    grid = RayGrid(template, shares, workers, device)
    try:
        members = meet(grid, kind_of(recogniser), _START)
        with open_run(recogniser, members, rates, given, held_out, folder, "ray", resume, report, asked) as run:
            return drive(run, members, grid)
    finally:
        grid.close()
