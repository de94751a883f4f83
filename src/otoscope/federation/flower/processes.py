"""The processes of a deployment: started with their logs, watched, and ended with all that they started."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from otoscope.errors import FederationError

HOST = "127.0.0.1"
CONNECTION = "otoscope"
# Nothing is sent to any other host, nothing is installed while it runs, and nothing of it lies in the user's home.
ENVIRONMENT = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_OFFLINE": "1",
}
_STOP = 6.0  # seconds that processes have to end by themselves


class Processes:
    """Processes of a training, with their logs; all of them end when the context is left.

    Args:
        engine: folder for Flower's files.
    """

    def __init__(self, engine: Path) -> None:
        self.engine = engine
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._held = contextlib.ExitStack()
        threads = os.environ.get("OMP_NUM_THREADS", "1")
        self._environment = {
            **os.environ, **ENVIRONMENT, "FLWR_HOME": str(engine / "home"), "OMP_NUM_THREADS": threads,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        }  # fmt: skip

    def __enter__(self) -> Processes:
        self._held.enter_context(_ended_by_signal())
        return self

    def __exit__(self, *args: object) -> None:
        with self._held:
            self._stop()

    def log(self, name: str) -> Path:
        """Where a process writes."""
        return self.engine / f"{name}.log"

    def start(self, name: str, *command: str) -> None:
        """Starts a process that runs on.

        Raises:
            FederationError: it cannot be started.
        """
        with self.log(name).open("wb") as log:
            try:
                # In a session of its own, so that Ctrl-C comes here alone, and all end in order.
                self._running[name] = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=self._environment,
                    start_new_session=True,
                )  # fmt: skip
            except OSError as error:
                raise FederationError(
                    f"{command[0]} cannot be started ({error})", "Install otoscope[federation]."
                ) from error

    def call(self, *command: str) -> str:
        """Runs a command of Flower to its end.

        Raises:
            FederationError: it fails.
        """
        done = subprocess.run(command, capture_output=True, text=True, env=self._environment, check=False)
        told = told_json(done.stdout)
        if done.returncode or told.get("success") is False:
            why = told.get("error-message") or done.stderr or done.stdout
            raise FederationError(
                f"{' '.join(command[:3])} failed: {' '.join(str(why).split())}", f"See the logs in {self.engine}."
            )
        return done.stdout

    def run_status(self) -> str:
        """What Flower says of the latest run; empty where it does not answer."""
        with contextlib.suppress(FederationError):
            runs = told_json(self.call("flwr", "list", CONNECTION, "--format", "json")).get("runs") or []
            return str(runs[0].get("status", "")) if runs else ""
        return ""

    def check(self) -> None:
        """Makes sure that all processes still run.

        Raises:
            FederationError: one has ended.
        """
        for name, process in self._running.items():
            if process.poll() is not None:
                lines = self.log(name).read_text(encoding="utf-8", errors="replace").strip().splitlines()
                raise FederationError(
                    f"The {name} ended with exit status {process.returncode}: {lines[-1] if lines else 'it wrote nothing'}",
                    f"See {self.log(name)}.",
                )

    def _stop(self) -> None:
        """Ends all processes with all that they started, in the order that they depend on each other."""
        import psutil

        family: list[Any] = []
        for process in self._running.values():
            with contextlib.suppress(psutil.NoSuchProcess):
                parent = psutil.Process(process.pid)
                family += [*parent.children(recursive=True), parent]
        # SuperNodes before the SuperLink, which they would otherwise look for.
        for process in reversed(self._running.values()):
            process.terminate()
        _, alive = psutil.wait_procs(family, timeout=_STOP / 2)
        for one in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.terminate()
        _, alive = psutil.wait_procs(alive, timeout=_STOP / 2)
        for one in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(alive, timeout=_STOP)
        for process in self._running.values():
            process.wait()
        self._running = {}


def free_ports(first: int, count: int) -> list[int]:
    """Ports that can be listened on.

    Args:
        first: takes so many from this one on; 0 takes any.
        count: how many.

    Raises:
        FederationError: one is in use, or beyond the highest.
    """
    with contextlib.ExitStack() as stack:
        found = []
        for k in range(count):
            wanted = first + k if first else 0
            held = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: closed connections do not count
            try:
                held.bind((HOST, wanted))
            except (OSError, OverflowError) as error:
                raise FederationError(
                    f"Port {wanted} of {HOST} cannot be listened on ({error})",
                    f"Choose {count} others that follow one another, or 0 for any (port).",
                ) from error
            found.append(held.getsockname()[1])
        return found


def listens(port: int) -> bool:
    """Whether a connection to a port of this machine is taken."""
    with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1):
        return True
    return False


def told_json(text: str) -> dict[str, Any]:
    """The JSON object that a command printed, whatever stands before it; empty where there is none."""
    with contextlib.suppress(ValueError):
        return dict(json.loads(text[text.index("{") :]))
    return {}


@contextlib.contextmanager
def _ended_by_signal() -> Iterator[None]:
    """Has SIGTERM end the program as an exception does, so that processes are ended first."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
