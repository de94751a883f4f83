"""Runs the client app in this process: no other processes, no network, the cost of a plain loop."""

from __future__ import annotations

import contextlib
import signal
import threading
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run as FlowerRun
from flwr.supercore.task_identity import TaskIdentity

from otoscope.federation.flower.client_app import Node, kind_of, make_client_app
from otoscope.federation.flower.strategy import drive, meet, open_run
from otoscope.federation.partition import Share
from otoscope.federation.result import FederationResult
from otoscope.federation.running import Report, check_run_folder
from otoscope.federation.settings import FederationSettings
from otoscope.models.recogniser import Recogniser
from otoscope.speech.utterance import Utterance

PARTITION, PARTITIONS = "partition-id", "num-partitions"
_RUN_ID = 1
_MEETING = 3600.0  # seconds that nodes have to tell who they are, for which they look through all of their speech
_RAISED = 0  # Flower's code for an error of no kind of its own


class LocalGrid(Grid):
    """Nodes of this machine that are numbered from 1; node k holds partition k - 1.

    Flower's messages ask a class of its own which run and node they are made in: this is the one internal name that is
    used of it.

    Args:
        nodes: how many there are.

    Attributes:
        one_by_one: messages are taken from an iterator when they can be worked on, and not before.
    """

    one_by_one = True

    def __init__(self, nodes: int) -> None:
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = _RUN_ID, 0, 0
        self._contexts = {
            k: Context(_RUN_ID, k, {PARTITION: k - 1, PARTITIONS: nodes}, RecordDict(), {}) for k in range(1, nodes + 1)
        }
        self._pushed: dict[str, Message] = {}
        self._sent = 0
        self._run = FlowerRun.create_empty(_RUN_ID)

    def set_run(self, run: FlowerRun) -> None:
        """See `Grid`."""
        self._run = run

    @property
    def run(self) -> FlowerRun:
        """See `Grid`."""
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """See `Grid`."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """See `Grid`."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """See `Grid`."""
        pushed = {one.metadata.message_id: one for one in self._numbered(messages)}
        self._pushed |= pushed
        return list(pushed)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """See `Grid`; what was pushed is worked off here."""
        return self.answers((self._pushed.pop(one) for one in message_ids), None)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """See `Grid`; messages are taken when a node is free, and the time is for each of them."""
        return self.answers(self._numbered(messages), timeout)

    @abstractmethod
    def answers(self, messages: Iterable[Message], timeout: float | None) -> list[Message]:
        """Answers to messages; an error where the app failed, and nothing where it took longer than `timeout` seconds."""

    def _numbered(self, messages: Iterable[Message]) -> Iterator[Message]:
        for message in messages:
            self._sent += 1
            message.metadata.__dict__["_message_id"] = str(self._sent)
            yield message


class InlineGrid(LocalGrid):
    """Runs the app here, one message after another.

    A message that takes too long is broken off where signals are to be had: in the main thread, not on Windows. Elsewhere
    it is waited for.

    Args:
        app: the client app.
        nodes: how many there are.
    """

    def __init__(self, app: Callable[[Message, Context], Message], nodes: int) -> None:
        super().__init__(nodes)
        self._app = app

    def answers(self, messages: Iterable[Message], timeout: float | None) -> list[Message]:
        """See `LocalGrid`."""
        found = []
        for message in messages:
            try:
                with _time_limit(timeout):
                    found.append(self._app(message, self._contexts[message.metadata.dst_node_id]))
            except _TimeUpError:
                continue
            except Exception as error:  # whatever the app raises
                found.append(error_reply(error, message))
        return found


def error_reply(error: Exception, message: Message) -> Message:
    """An error as the answer to a message."""
    return Message(Error(_RAISED, f"{type(error).__name__}: {error}"), reply_to=message)


def run_local(
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
) -> FederationResult:
    """Trains in this process, one client after another.

    Args:
        recogniser: the model that the training begins with; it is left as it is.
        shares: each client's speech.
        rates: share of the units that is kept, by group; groups that are absent are whole.
        settings: see `FederationSettings`.
        folder: for the trained model and the result, see `Run`.
        held_out: speech that no client has, to watch the training with.
        resume: go on with an interrupted run.
        report: called with the result so far and each new row.
        asked: how the rates were come by, for the result.

    Returns:
        The result, which also lies in the folder.

    Raises:
        FederationError: the folder cannot be used, settings do not fit, or too many clients failed.
    """
    given = settings or FederationSettings()
    check_run_folder(folder, resume)
    nodes = [Node(recogniser, [share]) for share in shares]
    grid = InlineGrid(make_client_app(lambda context: nodes[int(context.node_config[PARTITION])]), len(nodes))
    members = meet(grid, kind_of(recogniser), _MEETING)
    with open_run(recogniser, members, rates, given, held_out, folder, "local", resume, report, asked) as run:
        return drive(run, members, grid)


class _TimeUpError(BaseException):
    """No `Exception`, so that nothing on the way takes it for a client's failure."""


@contextlib.contextmanager
def _time_limit(seconds: float | None) -> Iterator[None]:
    """Breaks off what takes longer.

    Raises:
        _TimeUpError: it did.
    """
    if seconds is None or threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise _TimeUpError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
