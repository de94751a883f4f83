"""Steps of the server against naive loops, Flower's own FedAdam and algorithm 2 of LAMB; what is not covered stays."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from otoscope.errors import FederationError
from otoscope.federation.server_updates import SERVERS, FedAdam, FedAvg, Lamb
from otoscope.federation.submodels import Aggregate
from tests.surgery.cases import same_bits

SHAPES = {"w": (3, 4), "b": (4,), "scale": (), "norm.running_mean": (4,), "norm.running_var": (4,)}
AXES = {"w": (3, 1), "b": (4,), "scale": (), "norm.running_mean": (4,), "norm.running_var": (1,)}


def drawn(seed, factor=1.0):
    draw = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=draw) * factor for name, shape in SHAPES.items()}


def server():
    return {name: value.abs() if "var" in name else value for name, value in drawn(0).items()}


def aggregate(seed, share=1.0, factor=0.1):
    draw = torch.Generator().manual_seed(1000 + seed)
    covered = {name: torch.rand(shape, generator=draw) < share for name, shape in AXES.items()}
    delta = {name: torch.where(covered[name], value, 0.0) for name, value in drawn(seed, factor).items()}
    return Aggregate(delta, covered)


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.integers(1, 50), st.floats(0.0, 1.0)), min_size=1, max_size=6), st.sampled_from(list(SERVERS))
)
def test_what_was_not_covered_keeps_its_value_and_what_is_remembered_of_it(steps, name):
    update, state = SERVERS[name](), server()
    before = {key: value.clone() for key, value in state.items()}
    for seed, share in steps:
        given_ = aggregate(seed, share)
        memory = {key: value.clone() for key, value in update.state().items()}
        moved = update.step(state, given_)
        for key, old in state.items():
            open_ = ~given_.covered[key].expand(old.shape)
            assert torch.equal(moved[key][open_], old[open_])
            assert moved[key].dtype == old.dtype
        for key, value in update.state().items():
            _, _, tensor = key.partition("/")
            open_ = ~given_.covered[tensor].expand(value.shape)
            if key in memory:
                assert torch.equal(value[open_], memory[key][open_])
        state = moved
    assert same_bits(server(), before)


def test_federated_averaging_adds_the_mean_delta():
    state, given_ = server(), aggregate(1)
    for rate in (1.0, 0.5):
        moved = FedAvg(rate).step(state, given_)
        assert torch.equal(moved["w"], state["w"] + rate * given_.delta["w"])
    assert FedAvg().state() == {}


@pytest.mark.parametrize("name", list(SERVERS))
def test_running_statistics_take_the_plain_mean_and_a_variance_stays_one(name):
    state, given_ = server(), aggregate(1)
    given_.delta["norm.running_var"] = torch.tensor([0.5, -0.1, -5.0, 0.0])
    state["norm.running_var"] = torch.tensor([1.0, 1.0, 4.999, 1.0])
    given_.covered["norm.running_var"] = torch.tensor([True])
    moved = SERVERS[name](0.123).step(state, given_)
    assert moved["norm.running_var"].tolist() == pytest.approx([1.5, 0.9, 0.0, 1.0])
    assert moved["norm.running_var"][2] == 0
    assert torch.equal(moved["norm.running_mean"], state["norm.running_mean"] + given_.delta["norm.running_mean"])


def test_adam_is_algorithm_2_of_reddi_element_by_element():
    rate, beta1, beta2, tau = 0.03, 0.8, 0.95, 0.01
    update, state = FedAdam(rate, beta1, beta2, tau), server()
    x = state["w"].double().numpy().copy()
    m, v = np.zeros_like(x), np.full_like(x, tau**2)
    for seed in range(1, 8):
        given_ = aggregate(seed, 0.6)
        covered = given_.covered["w"].expand(3, 4).numpy()
        delta = given_.delta["w"].double().numpy()
        for i in range(3):
            for j in range(4):
                if covered[i, j]:
                    m[i, j] = beta1 * m[i, j] + (1 - beta1) * delta[i, j]
                    v[i, j] = beta2 * v[i, j] + (1 - beta2) * delta[i, j] ** 2
                    x[i, j] += rate * m[i, j] / (math.sqrt(v[i, j]) + tau)
        state = update.step(state, given_)
    assert np.allclose(state["w"].numpy(), x, rtol=1e-5, atol=1e-6)


def test_adam_takes_flowers_step_but_for_its_start_and_its_correction():
    """Flower's FedAdam begins squares at 0 and corrects the bias of the rate; both are undone here."""
    strategy = pytest.importorskip("flwr.serverapp.strategy")
    app = pytest.importorskip("flwr.app")
    rate, beta1, beta2, tau = 0.05, 0.9, 0.99, 1e-3
    theirs = strategy.FedAdam(eta=rate, beta_1=beta1, beta_2=beta2, tau=tau)
    ours = FedAdam(rate, beta1, beta2, tau)
    x = torch.randn(5, generator=torch.Generator().manual_seed(0))
    ours.restore({"mean/w": torch.zeros(5), "square/w": torch.zeros(5)})
    for round in range(1, 5):
        delta = torch.randn(5, generator=torch.Generator().manual_seed(round)) * 0.1
        theirs.current_arrays = {"w": x.numpy().astype(np.float64)}
        sent = app.RecordDict({
            "arrays": app.ArrayRecord({"w": app.Array((x + delta).numpy().astype(np.float64))}),
            "metrics": app.MetricRecord({"num-examples": 1.0}),
        })  # fmt: skip
        reply = SimpleNamespace(content=sent, has_error=lambda: False)  # a message can be made within a run alone
        arrays, _ = theirs.aggregate_train(round, [reply])
        step = arrays["w"].numpy() - x.numpy()
        correction = math.sqrt(1 - beta2 ** (round + 1)) / (1 - beta1 ** (round + 1))
        moved = ours.step({"w": x}, Aggregate({"w": delta}, {"w": torch.tensor([True])}))["w"]
        assert np.allclose((moved - x).numpy() * correction, step, rtol=1e-4, atol=1e-7)
        x = moved


def test_lamb_is_algorithm_2_of_you_where_all_is_covered():
    rate, beta1, beta2, epsilon, decay = 0.02, 0.9, 0.99, 1e-4, 0.1
    update, state = Lamb(rate, beta1, beta2, epsilon, decay), server()
    x = state["w"].double().numpy().copy()
    m, v = np.zeros_like(x), np.zeros_like(x)
    for t in range(1, 6):
        given_ = aggregate(t)
        gradient = -given_.delta["w"].double().numpy()
        m, v = beta1 * m + (1 - beta1) * gradient, beta2 * v + (1 - beta2) * gradient**2
        r = m / (1 - beta1**t) / (np.sqrt(v / (1 - beta2**t)) + epsilon) + decay * x
        x = x - rate * np.linalg.norm(x) / np.linalg.norm(r) * r
        state = update.step(state, given_)
        assert np.allclose(state["w"].numpy(), x, rtol=1e-5, atol=1e-6)


def test_lamb_counts_the_steps_of_each_element_and_norms_what_is_held():
    update = Lamb(0.1, 0.5, 0.5, 1e-6)
    state = {"w": torch.tensor([[3.0, 4.0], [6.0, 8.0]])}
    rows = [torch.tensor([[True], [False]]), torch.tensor([[True], [True]])]
    delta = torch.full((2, 2), 0.25)
    first = update.step(state, Aggregate({"w": torch.where(rows[0], delta, 0.0)}, {"w": rows[0]}))
    # The first row alone: |x| = 5, u = (1, 1) to the epsilon, so that each element moves by 0.1 * 5 / sqrt(2).
    assert torch.allclose(first["w"][0], state["w"][0] + 0.5 / 2**0.5, atol=1e-4)
    second = update.step(first, Aggregate({"w": delta}, {"w": rows[1]}))
    # The second row is held for the first time, and its step is as free of the bias as the other's.
    assert torch.allclose((second["w"] - first["w"])[1], (second["w"] - first["w"])[0], atol=1e-5)
    assert update.state()["steps/w"].tolist() == [[2.0], [1.0]]
    zero = {"w": torch.zeros(2)}
    assert Lamb(0.1).step(zero, Aggregate({"w": torch.ones(2)}, {"w": torch.tensor([True])}))[
        "w"
    ].tolist() == pytest.approx([0.1, 0.1], rel=1e-4)


@pytest.mark.parametrize("name", list(SERVERS))
def test_what_is_remembered_brings_a_step_back_bit_for_bit(name):
    whole, state = SERVERS[name](), server()
    for seed in (1, 2):
        state = whole.step(state, aggregate(seed, 0.7))
    kept = {key: value.clone() for key, value in whole.state().items()}
    again = SERVERS[name]()
    again.restore(kept)
    one, other = (update.step(state, aggregate(3, 0.7)) for update in (whole, again))
    assert same_bits(one, other)
    assert same_bits(whole.state(), again.state())
    again.restore({})
    assert again.state() == {}
    assert same_bits(again.step(server(), aggregate(1)), SERVERS[name]().step(server(), aggregate(1)))


def test_weights_in_half_precision_stay_so():
    state = {"w": torch.ones(2, dtype=torch.bfloat16)}
    moved = FedAvg().step(state, Aggregate({"w": torch.full((2,), 0.5)}, {"w": torch.tensor([True])}))["w"]
    assert moved.dtype == torch.bfloat16
    assert moved.tolist() == [1.5, 1.5]


def test_what_does_not_fit_is_refused():
    for kind, values, told in (
        (FedAvg, {"rate": 0.0}, "rate is 0.0"),
        (FedAvg, {"rate": math.nan}, "rate is nan"),
        (FedAdam, {"beta1": 1.0}, "beta1 of the server's step is 1.0"),
        (FedAdam, {"tau": 0.0}, "tau of the server's step is 0.0"),
        (Lamb, {"decay": -1.0}, "decay of the server's step is -1.0"),
        (Lamb, {"epsilon": math.inf}, "epsilon of the server's step is inf"),
    ):
        with pytest.raises(FederationError, match=told):
            kind(**values)
    with pytest.raises(FederationError, match="'w' is of one of them alone"):
        FedAvg().step({"w": torch.ones(1)}, Aggregate({}, {}))
    with pytest.raises(FederationError, match="'fedavg' remembers no 'mean/w'"):
        FedAvg().restore({"mean/w": torch.ones(1)})
