"""The strategy: a round's orders as messages to nodes, and their answers to the server, in a fixed order."""

from __future__ import annotations

import contextlib
import logging
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from otoscope.errors import FederationError
from otoscope.federation.flower.messages import HELLO, TRAIN, orders_content, read_facts, read_replies
from otoscope.federation.result import FederationResult
from otoscope.federation.running import Report, Run
from otoscope.federation.server import Reply, Server
from otoscope.federation.settings import FederationSettings
from otoscope.models.recogniser import Recogniser
from otoscope.speech.utterance import Utterance


@dataclass(frozen=True)
class Member:
    """A client that a node told of.

    Attributes:
        node: the node that it is on.
        speech: fingerprint of its speech.
    """

    node: int
    speech: str


def meet(grid: Grid, kind: str, timeout: float) -> dict[str, Member]:
    """Asks all nodes who is there.

    Args:
        grid: the nodes.
        kind: what nodes must agree on with the server, see `client_app.kind_of`.
        timeout: seconds that nodes have to answer.

    Returns:
        Clients by name, in order.

    Raises:
        FederationError: no node answers or one fails, one has another model, or a client is on two nodes.
    """
    nodes = sorted(grid.get_node_ids())
    hello = [Message(RecordDict(), node, HELLO, ttl=timeout) for node in nodes]
    replies = {one.metadata.src_node_id: one for one in grid.send_and_receive(hello, timeout=timeout)}
    found: dict[str, Member] = {}
    for node in nodes:
        reply = replies.get(node)
        if reply is None or reply.has_error():
            why = "did not answer in time" if reply is None else f"failed: {_reason(reply)}"
            raise FederationError(f"Node {node} {why}", "Look at what it writes, and whether it reads its speech.")
        told = read_facts(reply)
        if told.get("model") != kind:
            raise FederationError(
                f"Node {node} has a model of other tensors, shapes or vocabulary than the server",
                "Give all machines the same model.",
            )
        for name, facts in dict(told["clients"]).items():
            if name in found:
                raise FederationError(
                    f"The client {name!r} is on two nodes", "Give every node speech of its own, or partitions."
                )
            found[name] = Member(node, str(facts["speech"]))
    if not found:
        raise FederationError("No node holds a client", "Start nodes with speech.")
    return dict(sorted(found.items()))


class Federation(Strategy):
    """Trains the rounds of a run that are left; Flower's own loop, `start`, drives it.

    Evaluation is the server's, on speech that no client has; clients are not asked to evaluate.

    Args:
        run: opened.
        members: which node each client is on, see `meet`.
    """

    def __init__(self, run: Run, members: Mapping[str, Member]) -> None:
        self._run, self._members = run, members
        self._began, self._before = 0.0, run.server.done

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """One message a node, with the orders of all its clients.

        Rounds are counted from the first that is left; the arrays are the server's own, and those given are not used.
        A grid that takes messages one by one (`one_by_one`) has them made so, which keeps a single one in memory.
        """
        self._began = time.monotonic()
        messages = self._messages(self._before + server_round)
        return messages if getattr(grid, "one_by_one", False) else list(messages)

    def _messages(self, round: int) -> Iterator[Message]:
        server = self._run.server
        terms = terms_of(server.settings, server.rates)
        by_node: dict[int, list[Any]] = defaultdict(list)
        for name in server.submodels(round):
            by_node[self._members[name].node].append(name)
        for node, names in by_node.items():
            content = orders_content([server.order(round, name) for name in names], terms)
            yield Message(content, node, TRAIN, ttl=server.settings.timeout, group_id=str(round))

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> tuple[None, MetricRecord]:
        """Hands the answers to the run, in an order that does not depend on who was quicker.

        Raises:
            FederationError: see `Run.finish`.
        """
        round = self._before + server_round
        taken: list[Reply] = []
        failures: dict[str, str] = {}
        on = defaultdict(list)
        for name in self._run.server.submodels(round):
            on[self._members[name].node].append(name)
        for message in replies:
            node = message.metadata.src_node_id
            try:
                if message.has_error():
                    raise FederationError(_reason(message))
                found, failed = read_replies(message)
            except FederationError as error:
                failures |= dict.fromkeys(on[node], error.problem)
                continue
            if {*failed, *(one.client for one in found)} - set(on[node]):
                failures |= dict.fromkeys(on[node], "its node answered for clients that are not there")
                continue
            taken += found
            failures |= failed
        row = self._run.finish(round, taken, failures, time.monotonic() - self._began)
        return None, MetricRecord({"loss": row.loss, **row.held_out})

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Asks nobody."""
        return []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> None:
        """There is nothing to take together."""

    def summary(self) -> None:
        """Says nothing: rows are reported by the run."""


def drive(run: Run, members: Mapping[str, Member], grid: Grid) -> FederationResult:
    """Trains all rounds that are left, and ends the run.

    Raises:
        FederationError: too many clients failed, or something could not be written; the result file says so.
    """
    left = run.server.settings.rounds - run.server.done
    with quiet():
        Federation(run, members).start(grid, ArrayRecord(), num_rounds=left, timeout=run.server.settings.timeout)
    return run.complete()


def open_run(
    recogniser: Recogniser,
    members: Mapping[str, Member],
    rates: Mapping[str, float],
    settings: FederationSettings,
    held_out: Sequence[Utterance],
    folder: Path,
    runner: str,
    resume: bool,
    report: Report | None,
    asked: Mapping[str, Any] | None = None,
) -> Run:
    """The run of a server whose clients are those that were met; see `Run`."""
    server = Server(recogniser.model, list(members), rates, settings)
    speech = {name: member.speech for name, member in members.items()}
    return Run(server, recogniser.vocabulary, held_out, folder, speech, runner, resume, report, asked)


def terms_of(settings: FederationSettings, rates: Mapping[str, float]) -> dict[str, Any]:
    """What clients train by, as plain values: rates, drawing, local settings and the type of deltas."""
    told = settings.to_dict()
    return {"rates": dict(rates), **{name: told[name] for name in ("drawing", "local", "dtype")}}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps what Flower logs of every round to itself; warnings are let through."""
    logger = logging.getLogger("flwr")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _reason(message: Message) -> str:
    return message.error.reason or f"error {message.error.code}"
