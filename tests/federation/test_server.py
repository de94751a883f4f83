import json
import sys
from dataclasses import replace
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some

from otoscope.errors import FederationError, MissingPackageError
from otoscope.federation.channels import groups_of
from otoscope.federation.client import LocalSettings, held_still
from otoscope.federation.drawing import Drawing
from otoscope.federation.schedules import uniform
from otoscope.federation.server import Server, fingerprint
from otoscope.federation.settings import FederationSettings, PrivacySettings
from otoscope.federation.submodels import Submodel
from tests.federation.answers import FAULTS, NAMES, answer, answers, spoilt
from tests.federation.small import conformer, wav2vec2

MODEL = wav2vec2().model
HALF = dict(uniform(groups_of(MODEL), 0.5))


def server(rates=None, **settings):
    return Server(MODEL, NAMES, HALF if rates is None else rates, FederationSettings(**settings))


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def trained(made, rounds):
    for round in range(made.done + 1, made.done + rounds + 1):
        made.receive(round, answers(made, round))
    return made


def test_whole_models_are_averaged_by_weight():
    made = server({})
    before, replies = made.state, answers(made, 1)
    made.receive(1, replies)
    for name, value in made.state.items():
        total = sum(one.weight * one.delta[name].double() for one in replies)  # in order of name
        assert torch.equal(value, before[name] + (total / sum(one.weight for one in replies)).float())


@settings(max_examples=6)
@given(some.permutations(range(len(NAMES))))
def test_who_answers_first_does_not_count(order):
    made = server(server="fedadam")
    replies = answers(made, 1)
    made.receive(1, [replies[k] for k in order])
    assert same(made.state, in_order())


@cache
def in_order():
    return trained(server(server="fedadam"), 1).state


def test_a_row_tells_what_travelled():
    made = server()
    orders = list(made.orders(1))
    row = made.receive(1, [answer(one) for one in orders], seconds=2.0)
    held = sum(value.numel() for value in orders[0].arrays.values())
    assert row.clients == NAMES
    assert row.download == row.upload == 4 * held
    assert row.share == held / made.elements
    assert (row.memory, row.seconds, row.loss, row.failures) == (1000, 2.0, 1.0, {})


@pytest.mark.parametrize("make", [wav2vec2, conformer])
def test_at_half_the_rate_about_half_of_what_can_be_dropped_travels(make):
    model = make().model
    rates = uniform(groups_of(model), 0.5)
    whole, half = Server(model, ["ann"], {}), Server(model, ["ann"], rates)
    droppable = sum(group.elements for group in whole.groups.values())
    sent = [sum(value.numel() for value in next(one.orders(1)).arrays.values()) for one in (whole, half)]
    assert sent[0] - sent[1] >= 0.48 * droppable


def test_the_model_that_is_given_stays_and_the_servers_moves():
    before = {name: value.clone() for name, value in MODEL.source.state_dict().items()}
    made = trained(server(), 1)
    now = made.model().source.state_dict()
    assert same(before, MODEL.source.state_dict())
    assert all(torch.equal(now[name], value) for name, value in made.state.items())
    assert not same(before, now)


def test_cohorts_follow_from_seed_and_round():
    made, again, other = server(cohort=2), server(cohort=2), server(cohort=2, seed=1)
    drawn = [made.cohort(round) for round in range(1, 30)]
    assert drawn == [again.cohort(round) for round in range(1, 30)]
    assert {len(one) for one in drawn} == {2}
    assert set().union(*drawn) == set(NAMES)
    assert drawn != [other.cohort(round) for round in range(1, 30)]
    assert made.receive(1, answers(made, 1)).clients == drawn[0]


@pytest.mark.parametrize("how", FAULTS)
def test_a_faulty_client_stops_the_round_and_nothing_moves(how):
    made = server(server="fedadam")
    before, replies = made.state, answers(made, 1)
    with pytest.raises(FederationError, match=FAULTS[how]):
        made.receive(1, [*replies[:1], *spoilt(replies[1], how), *replies[2:]])
    assert made.done == 0
    assert made.state is before
    assert made.update.state() == {}
    made.receive(1, replies)  # the round can be trained again


@pytest.mark.parametrize("how", FAULTS)
def test_a_round_that_bears_it_goes_on_without_the_faulty_client(how):
    made, other = (server(tolerance=0.5) for _ in range(2))
    replies = answers(made, 1)
    row = made.receive(1, [*replies[:1], *spoilt(replies[1], how), *replies[2:]])
    other.receive(1, [*replies[:1], *replies[2:]], {"bob": "it died"})
    assert same(made.state, other.state)
    assert row.clients == ("ann", "cleo", "dan")
    assert FAULTS[how] in " ".join(row.failures.values())


def test_reasons_of_the_engine_are_kept_and_count():
    made = server(tolerance=0.25)
    replies = answers(made, 1)
    row = made.receive(1, replies[1:], {"ann": "its machine is gone"})
    assert row.failures == {"ann": "its machine is gone"}
    with pytest.raises(FederationError, match=r"In round 2 2 of 4 clients failed \(ann: gone; bob: gone\)"):
        made.receive(2, answers(made, 2)[2:], {"bob": "gone", "ann": "gone"})
    assert made.done == 1


def test_if_all_fail_no_tolerance_helps():
    with pytest.raises(FederationError, match="4 of 4 clients failed"):
        server(tolerance=0.99).receive(1, [], dict.fromkeys(NAMES, "gone"))


def test_a_step_that_is_not_finite_is_not_taken():
    made = trained(server(server="fedadam", rate=1.0), 1)
    before, memory = made.state, made.update.state()
    made.update.rate = 3e38
    with pytest.raises(FederationError, match="not finite"):
        made.receive(2, [answer(one, size=1e3) for one in made.orders(2)])
    assert made.state is before
    assert same(made.update.state(), memory)


@pytest.mark.parametrize("kind", ["fedavg", "fedadam", "lamb"])
def test_what_is_restored_goes_on_as_if_nothing_had_been(kind):
    whole = trained(server(server=kind), 4)
    part = trained(server(server=kind), 2)
    again = server(server=kind)
    again.restore({name: value.clone() for name, value in part.tensors().items()}, 2)
    assert same(trained(again, 2).tensors(), whole.tensors())


def test_the_state_of_another_model_is_refused():
    with pytest.raises(FederationError, match="other tensors"):
        server().restore(Server(wav2vec2(layers=1).model, NAMES, {}).tensors(), 1)


def test_rounds_come_in_order():
    with pytest.raises(FederationError, match="round 1 was to be trained"):
        server().receive(2, [])


PRIVATE = {"denominator": "cohort", "privacy": PrivacySettings(norm=1e-2, multiplier=1e-9, seed=3)}


def test_under_privacy_clients_are_clipped_and_weigh_the_same():
    pytest.importorskip("opacus")
    made = server({}, tolerance=0.5, **PRIVATE)
    before, replies = made.state, [answer(one, weight=5.0 + k) for k, one in enumerate(made.orders(1))]
    row = made.receive(1, replies[:3])
    moved = {name: made.state[name] - before[name] for name in before}
    expected = dict.fromkeys(before, 0.0)
    for one in replies[:3]:
        norm = sum(value.double().square().sum() for value in one.delta.values()).sqrt()
        assert norm > 1e-2
        for name, value in one.delta.items():
            expected[name] = expected[name] + value * (1e-2 / norm) / 4  # over all that were asked
    for name, value in moved.items():
        torch.testing.assert_close(value, expected[name].float(), atol=2e-7, rtol=0)
    assert row.epsilon > 0


def test_noise_is_of_its_size_and_follows_from_its_own_seed():
    pytest.importorskip("opacus")
    loud = PrivacySettings(norm=1.0, multiplier=2.0, seed=3)
    states = []
    for privacy in (loud, loud, replace(loud, seed=4), replace(loud, seed=None), replace(loud, seed=None)):
        made = server({}, denominator="cohort", privacy=privacy)
        before = made.state
        row = made.receive(1, [answer(one, size=0.0) for one in made.orders(1)])
        still = held_still(MODEL, made.settings.local)
        assert still
        assert all(torch.equal(made.state[name], before[name]) for name in still)
        moved = [(made.state[name] - before[name]).flatten() for name in before if name not in still]
        states.append(torch.cat(moved))
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])
    assert not torch.equal(states[3], states[4])
    assert abs(float(states[0].std()) / (2.0 * 1.0 / 4) - 1) < 0.05
    assert made.receive(2, answers(made, 2)).epsilon > row.epsilon


def test_losses_weigh_as_deltas_do():
    made = server({})
    replies = [replace(answer(one, weight=1.0 + k), metrics={"loss": float(k)}) for k, one in enumerate(made.orders(1))]
    assert made.receive(1, replies).loss == (0 * 1 + 1 * 2 + 2 * 3 + 3 * 4) / 10


def test_a_noise_seed_of_another_round_is_another_and_lies_where_it_is_needed():
    """Noise differs between rounds, and where all clients of a round hold the same it stays off what nobody held."""
    pytest.importorskip("opacus")
    loud, still = PrivacySettings(norm=1.0, multiplier=2.0, seed=3), held_still(MODEL, LocalSettings())
    name = "wav2vec2.encoder.layers.0.feed_forward.intermediate_dense.weight"
    for scope, quiet in (("round", True), ("client-round", False)):
        drawing = Drawing(0, scope=scope)
        made = server({"layer.1.feed_forward": 0.25}, denominator="cohort", privacy=loud, drawing=drawing)
        moves = []
        for round in (1, 2):
            before, held = made.state, made.submodels(round)
            assert (len({tuple(one.kept.items()) for one in held.values()}) == 1) == quiet
            made.receive(round, [answer(one, size=0.0) for one in made.orders(round)])
            moves.append({key: made.state[key] - before[key] for key in before if key not in still})
        assert not torch.equal(moves[0]["lm_head.weight"], moves[1]["lm_head.weight"])
        untouched = (moves[0][name] == 0).all(1).sum()
        assert int(untouched) == (48 if quiet else 0)


def test_privacy_that_cannot_be_is_refused_before_anything_is_trained(monkeypatch):
    pytest.importorskip("opacus")
    given = FederationSettings(**PRIVATE)
    with pytest.raises(FederationError, match="running statistic of a batch norm"):
        Server(conformer().model, NAMES, {}, given)
    for least in (1e-155, 1e-170):
        with pytest.raises(FederationError, match=f"A noise of {least:g} times the norm gives no privacy"):
            server({}, denominator="cohort", privacy=PrivacySettings(multiplier=least))
    made = server({}, **PRIVATE)
    monkeypatch.setitem(sys.modules, "opacus.accountants", None)
    with pytest.raises(MissingPackageError, match="Opacus"):
        Server(MODEL, NAMES, {}, given)
    before = made.state
    with pytest.raises(MissingPackageError, match="Opacus"):
        made.receive(1, answers(made, 1))
    assert made.state is before
    assert made.done == 0


@pytest.mark.parametrize(("tolerance", "failed"), [(0.29, 29), (0.57, 57)])
def test_a_tolerance_is_a_decimal_number(tolerance, failed):
    names = [f"c{k:02d}" for k in range(100)]
    made = Server(MODEL, names, {}, FederationSettings(tolerance=tolerance))
    replies = [answer(made.order(1, name)) for name in names[failed - 1 :]]
    with pytest.raises(FederationError, match=f"{failed + 1} of 100 clients failed"):
        made.receive(1, replies[2:])
    assert len(made.receive(1, replies[1:]).failures) == failed


def test_privacy_wants_a_denominator_that_bounds_a_client():
    with pytest.raises(FederationError, match="not bounded"):
        FederationSettings(privacy=PrivacySettings())


def test_settings_come_back_from_json():
    given = FederationSettings(
        rounds=3, drawing=Drawing(5, widths=(0.5, 1.0)), local=LocalSettings(learning_rate=0.1), **PRIVATE
    )
    assert FederationSettings.from_dict(json.loads(json.dumps(given.to_dict()))) == given
    assert FederationSettings(seed=4).draws == Drawing(4)
    with pytest.raises(FederationError, match="lack 'rounds'"):
        FederationSettings.from_dict({k: v for k, v in given.to_dict().items() if k != "rounds"})


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"rounds": 0}, "rounds is 0"), ({"tolerance": 1.0}, "tolerance is 1.0"), ({"server": "sgd"}, "no server 'sgd'"),
        ({"dtype": "int8"}, "no dtype"), ({"timeout": float("nan")}, "timeout"), ({"cohort": -1}, "cohort is -1"),
        ({"rate": 0.0}, "rate is 0.0"), ({"denominator": "half"}, "no denominator"),
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(wrong, match):
    with pytest.raises(FederationError, match=match):
        FederationSettings(**wrong)


@pytest.mark.parametrize(
    ("clients", "rates", "settings", "match"),
    [
        ([], {}, {}, "no client"), (["ann", "ann"], {}, {}, "Two clients are called 'ann'"),
        (["ann"], {}, {"cohort": 2}, "2 clients a round"), (["ann"], {"layer.1.atention": 0.5}, {}, "atention"),
    ],
)  # fmt: skip
def test_servers_that_cannot_be(clients, rates, settings, match):
    with pytest.raises(FederationError, match=match):
        Server(MODEL, clients, rates, FederationSettings(**settings))


def test_fingerprints_tell_submodels_apart():
    assert fingerprint(Submodel({"a": (0, 1)})) == fingerprint(Submodel({"a": (0, 1)}))
    others = Submodel({"a": (0, 1)}), Submodel({"a": (1,)}), Submodel({}, frozenset({"a"}))
    assert len({fingerprint(one) for one in others}) == 3
