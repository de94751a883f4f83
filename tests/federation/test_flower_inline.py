"""Trainings in this process: what Flower's objects do is what a plain loop over server and clients does."""

import time

import pytest
import torch
from flwr.app import Context, Message, RecordDict

from otoscope.errors import FederationError
from otoscope.federation.channels import exchanged, groups_of
from otoscope.federation.client import Client, LocalSettings
from otoscope.federation.drawing import Drawing
from otoscope.federation.encoding import decode, encode
from otoscope.federation.flower.client_app import Node, kind_of, make_client_app
from otoscope.federation.flower.inline import InlineGrid, run_local
from otoscope.federation.flower.messages import HELLO, facts_content, replies_content
from otoscope.federation.flower.strategy import drive, meet, open_run, terms_of
from otoscope.federation.partition import partition
from otoscope.federation.result import FederationResult
from otoscope.federation.schedules import uniform
from otoscope.federation.server import Reply, Server, fingerprint
from otoscope.federation.settings import FederationSettings
from otoscope.models.recogniser import load_recogniser
from tests.federation.small import SPEAKERS, conformer, speech, wav2vec2

SHARES = partition(speech(8), "speaker")
LOCAL = LocalSettings(steps=1, learning_rate=0.05)


def given(**other):
    return FederationSettings(**{"rounds": 2, "local": LOCAL, **other})


def weights(folder):
    return exchanged(load_recogniser(folder).model)


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def plain_loop(recogniser, rates, settings):
    """Without Flower."""
    server = Server(recogniser.model, SPEAKERS, rates, settings)
    clients = {share.client: Client(recogniser, share, settings.local) for share in SHARES}
    for round in range(1, settings.rounds + 1):
        replies = []
        for order in server.orders(round):
            trained = clients[order.client].train(order.arrays, order.submodel, round, order.seed)
            delta = decode(encode(trained.delta, settings.dtype))
            replies.append(
                Reply(
                    order.client, round, order.seed, fingerprint(order.submodel), delta, trained.weight, trained.metrics
                )
            )  # fmt: skip
        server.receive(round, replies)
    return server.state


@pytest.mark.parametrize(
    ("make", "keep", "settings"),
    [(wav2vec2, 0.5, {}), (conformer, 0.5, {"dtype": "bfloat16", "cohort": 3}), (wav2vec2, 1.0, {"server": "fedadam"})],
)
def test_a_run_gives_the_weights_of_a_plain_loop(tmp_path, make, keep, settings):
    recogniser = make()
    rates = uniform(groups_of(recogniser.model), keep)
    before = {name: value.clone() for name, value in recogniser.model.source.state_dict().items()}
    result = run_local(recogniser, SHARES, rates, given(**settings), folder=tmp_path)
    assert result.status == "completed"
    assert same(weights(tmp_path), plain_loop(recogniser, rates, given(**settings)))
    assert same(before, recogniser.model.source.state_dict())
    assert result.rows[0].upload < result.rows[0].download or "dtype" not in settings


def test_the_same_run_gives_the_same_weights_whatever_the_order_of_clients(tmp_path):
    recogniser = wav2vec2()
    rates = uniform(groups_of(recogniser.model), 0.5)
    one = run_local(recogniser, SHARES, rates, given(rounds=1), folder=tmp_path / "one")
    two = run_local(recogniser, SHARES[::-1], rates, given(rounds=1), folder=tmp_path / "two")
    assert same(weights(tmp_path / "one"), weights(tmp_path / "two"))
    assert one.rows[0].loss == two.rows[0].loss


def test_an_interrupted_run_is_taken_up(tmp_path):
    recogniser, rates = wav2vec2(), {}
    run_local(recogniser, SHARES, rates, given(), folder=tmp_path / "whole")

    def kill(result, row):
        if row.round == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_local(recogniser, SHARES, rates, given(), folder=tmp_path / "part", report=kill)
    rounds = []
    run_local(
        recogniser, SHARES, rates, given(), folder=tmp_path / "part", resume=True,
        report=lambda result, row: rounds.append(row.round),
    )  # fmt: skip
    assert rounds == [2]
    assert same(weights(tmp_path / "part"), weights(tmp_path / "whole"))


def test_training_lowers_the_loss(tmp_path):
    local = LocalSettings(epochs=2, batch_seconds=3.0, optimiser="adamw", learning_rate=3e-3)
    settings = given(rounds=4, local=local, evaluate_every=4)
    result = run_local(wav2vec2(), SHARES, {}, settings, folder=tmp_path, held_out=speech(4).utterances)
    assert result.rows[-1].loss < 0.7 * result.rows[0].loss
    assert set(result.last) == {"wer", "cer"}


def test_variables_can_be_frozen(tmp_path):
    settings, frozen = given(rounds=1), given(rounds=1, drawing=Drawing(0, frozen=0.5))
    whole = run_local(wav2vec2(), SHARES, {}, settings, folder=tmp_path / "whole").rows[0]
    part = run_local(wav2vec2(), SHARES, {}, frozen, folder=tmp_path / "part").rows[0]
    assert part.download == whole.download
    assert part.upload < 0.8 * whole.upload


def break_client(monkeypatch, name, how):
    """Has one client fail when it trains."""
    train = Client.train

    def broken(self, arrays, submodel, round, seed):
        if self.name == name:
            return how(self, arrays, submodel, round, seed)
        return train(self, arrays, submodel, round, seed)

    monkeypatch.setattr(Client, "train", broken)


def dies(*given):
    raise MemoryError("out of memory")


def hangs(*given):
    time.sleep(60)


def test_a_client_that_dies_is_left_out_up_to_the_tolerance(tmp_path, monkeypatch):
    break_client(monkeypatch, "s1", dies)
    result = run_local(wav2vec2(), SHARES, {}, given(tolerance=0.25), folder=tmp_path / "borne")
    assert [row.failures for row in result.rows] == [{"s1": "MemoryError: out of memory"}] * 2
    with pytest.raises(FederationError, match="s1: MemoryError: out of memory"):
        run_local(wav2vec2(), SHARES, {}, given(), folder=tmp_path / "not")
    told = FederationResult.load(tmp_path / "not")
    assert (told.status, told.rows) == ("failed", ())


def test_a_client_that_hangs_is_broken_off(tmp_path, monkeypatch):
    break_client(monkeypatch, "s2", hangs)
    began = time.monotonic()
    result = run_local(wav2vec2(), SHARES, {}, given(rounds=1, tolerance=0.25, timeout=5.0), folder=tmp_path)
    assert time.monotonic() - began < 50
    assert result.rows[0].failures == {"s2": "it did not answer in time"}
    assert result.rows[0].clients == ("s0", "s1", "s3")


def test_if_all_clients_fail_the_run_fails(tmp_path, monkeypatch):
    for name in SPEAKERS:
        break_client(monkeypatch, name, dies)
    with pytest.raises(FederationError, match="4 of 4 clients failed"):
        run_local(wav2vec2(), SHARES, {}, given(tolerance=0.9), folder=tmp_path)
    assert FederationResult.load(tmp_path).status == "failed"


def test_folders_are_looked_at_before_anything_else(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(FederationError, match="not empty"):
        run_local(wav2vec2(), [], {}, folder=tmp_path)


def grid_of(*nodes):
    return InlineGrid(make_client_app(lambda context: nodes[context.node_id - 1]), len(nodes))


def test_nodes_tell_who_is_there():
    recogniser = wav2vec2()
    nodes = Node(recogniser, SHARES[:1]), Node(recogniser, SHARES[1:3])
    members = meet(grid_of(*nodes), kind_of(recogniser), 10)
    assert {name: one.node for name, one in members.items()} == {"s0": 1, "s1": 2, "s2": 2}
    assert members["s0"].speech == SHARES[0].utterances.fingerprint()


def test_nodes_that_cannot_take_part_are_named():
    recogniser = wav2vec2()
    kind = kind_of(recogniser)
    with pytest.raises(FederationError, match="'s0' is on two nodes"):
        meet(grid_of(Node(recogniser, SHARES[:1]), Node(recogniser, SHARES[:2])), kind, 10)
    with pytest.raises(FederationError, match="Node 1 has a model of other tensors"):
        meet(grid_of(Node(wav2vec2(layers=1), SHARES[:1])), kind, 10)
    with pytest.raises(FederationError, match="Node 1 failed: AttributeError"):
        meet(grid_of(None), kind, 10)
    with pytest.raises(FederationError, match="No node holds a client"):
        meet(grid_of(), kind, 10)
    with pytest.raises(FederationError, match="no client 'eve' here"):
        Node(recogniser, SHARES[:1]).train({"client": "eve", "round": 1, "seed": 0}, {}, terms())


def terms():
    return terms_of(given(), {})


def test_a_node_of_several_clients_answers_for_those_that_can(tmp_path, monkeypatch):
    break_client(monkeypatch, "s1", dies)
    recogniser = wav2vec2()
    grid = grid_of(Node(recogniser, SHARES[:2]), Node(recogniser, SHARES[2:]))
    members = meet(grid, kind_of(recogniser), 10)
    with open_run(recogniser, members, {}, given(rounds=1, tolerance=0.25), (), tmp_path, "local", False, None) as run:
        result = drive(run, members, grid)
    assert result.rows[0].clients == ("s0", "s2", "s3")


def test_a_node_that_answers_for_others_is_not_believed(tmp_path):
    recogniser = wav2vec2()
    honest, false = Node(recogniser, SHARES[:2]), Node(recogniser, SHARES[2:])
    app = make_client_app(lambda context: (honest, false)[context.node_id - 1])

    def lying(message: Message, context: Context) -> Message:
        if context.node_id == 2 and message.metadata.message_type == "train":
            return Message(replies_content([], {"s0": "it died"}), reply_to=message)
        return app(message, context)

    grid = InlineGrid(lying, 2)
    members = meet(grid, kind_of(recogniser), 10)
    with open_run(recogniser, members, {}, given(rounds=1, tolerance=0.5), (), tmp_path, "local", False, None) as run:
        row = drive(run, members, grid).rows[0]
    assert row.clients == ("s0", "s1")
    assert row.failures == dict.fromkeys(("s2", "s3"), "its node answered for clients that are not there")


@pytest.mark.parametrize("content", [RecordDict(), facts_content({"replies": 1, "failures": {}})])
def test_a_node_that_answers_nonsense_fails(tmp_path, content):
    recogniser = wav2vec2()
    nodes = Node(recogniser, SHARES[:2]), Node(recogniser, SHARES[2:])
    app = make_client_app(lambda context: nodes[context.node_id - 1])

    def mad(message: Message, context: Context) -> Message:
        if context.node_id == 1 and message.metadata.message_type != HELLO:
            return Message(content, reply_to=message)
        return app(message, context)

    grid = InlineGrid(mad, 2)
    members = meet(grid, kind_of(recogniser), 10)
    with open_run(recogniser, members, {}, given(rounds=1, tolerance=0.5), (), tmp_path, "local", False, None) as run:
        assert set(drive(run, members, grid).rows[0].failures) == {"s0", "s1"}


def test_messages_that_are_pushed_are_worked_off_when_they_are_pulled():
    grid = grid_of(Node(wav2vec2(), SHARES[:1]))
    pushed = list(grid.push_messages([grid.create_message(RecordDict(), HELLO, 1, "")]))
    (reply,) = grid.pull_messages(pushed)
    assert reply.metadata.reply_to_message_id == pushed[0]
    assert reply.metadata.src_node_id == 1
