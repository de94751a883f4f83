"""Clipped deltas are no longer than they may be, noise has the deviation that is accounted for, and epsilon is a bound."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import kstest
from scipy.stats import norm as normal

from otoscope.errors import FederationError
from otoscope.federation.channels import exchanged, groups_of
from otoscope.federation.privacy import clip, epsilon, layer_of, noise
from otoscope.federation.submodels import Aggregate, Contribution, full, scatter_aggregate
from tests.federation.small import wav2vec2

NAMES = (
    "encoder.layers.0.a.weight",
    "encoder.layers.0.b.weight",
    "encoder.layers.1.a.weight",
    "head.weight",
    "head.bias",
)


def _delta(seed=0, scale=1.0) -> dict[str, torch.Tensor]:
    draw = np.random.default_rng(seed)
    return {name: torch.tensor(draw.normal(0, scale, (3, k + 1)), dtype=torch.float32) for k, name in enumerate(NAMES)}


def _norm(delta) -> float:
    return math.sqrt(sum(float(tensor.double().square().sum()) for tensor in delta.values()))


@given(st.integers(0, 100), st.floats(1e-12, 1e12), st.floats(1e-6, 1e6), st.sampled_from(["model", "layer"]))
def test_a_clipped_delta_is_never_longer_than_the_norm(seed, scale, norm, per):
    delta = _delta(seed, scale)
    clipped, before = clip(delta, norm, per)
    assert before == pytest.approx(_norm(delta), rel=1e-12)
    assert _norm(clipped) <= norm
    if before < norm / 2:
        assert per == "layer" or all(torch.equal(clipped[name], delta[name]) for name in NAMES)


def test_clipping_the_model_keeps_the_direction_and_fills_the_norm():
    delta = _delta()
    clipped, before = clip(delta, 0.5)
    assert _norm(clipped) == pytest.approx(0.5, rel=1e-5)
    for name in NAMES:
        torch.testing.assert_close(clipped[name], delta[name] * (0.5 / before), rtol=1e-5, atol=0)


def test_clipping_by_layer_bounds_each_layer_and_leaves_short_ones():
    delta = _delta()
    delta["head.weight"] *= 1e-6
    delta["head.bias"] *= 1e-6
    clipped, _ = clip(delta, 0.6, "layer")
    bound = 0.6 / math.sqrt(3)
    for layer in ("encoder.layers.0", "encoder.layers.1"):
        inside = {name: clipped[name] for name in NAMES if name.startswith(layer)}
        assert _norm(inside) == pytest.approx(bound, rel=1e-5)
    assert torch.equal(clipped["head.weight"], delta["head.weight"])
    ratio = clipped[NAMES[0]] / delta[NAMES[0]]
    torch.testing.assert_close(clipped[NAMES[1]], delta[NAMES[1]] * ratio[0, 0], rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("encoder.layers.11.attention.k_proj.bias", "encoder.layers.11"),
        ("wav2vec2.feature_extractor.conv_layers.0.conv.weight", "wav2vec2.feature_extractor.conv_layers.0"),
        ("layers.2.conv.norm.weight", "layers.2"),
        ("wav2vec2.masked_spec_embed", "wav2vec2"),
        ("lm_head.weight", "lm_head"),
    ],
)
def test_layers_are_known_by_name(name, layer):
    assert layer_of(name) == layer


def test_nothing_is_clipped_to_nothing_and_zero_stays_zero():
    zero = {"a": torch.zeros(3)}
    clipped, before = clip(zero, 1.0)
    assert (before, clipped["a"].tolist()) == (0.0, [0.0, 0.0, 0.0])
    for norm in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(FederationError, match="norm"):
            clip(zero, norm)
    with pytest.raises(FederationError, match="'tensor'"):
        clip(zero, 1.0, "tensor")
    with pytest.raises(FederationError, match="not finite"):
        clip({"a": torch.tensor([math.nan])}, 1.0)


def _aggregate() -> Aggregate:
    covered = torch.zeros(400, 1, dtype=torch.bool)
    covered[::2] = True
    return Aggregate(
        {"some": torch.zeros(400, 50), "whole": torch.full((30_000,), 3.0), "held": torch.ones(5)},
        {"some": covered, "whole": torch.ones(1, dtype=torch.bool), "held": torch.zeros(1, dtype=torch.bool)},
    )


def test_noise_is_normal_with_the_stated_deviation():
    given = _aggregate()
    found = noise(given, 2.0, 0.5, 4, 7)
    for name, mean in (("some", 0.0), ("whole", 3.0)):
        drawn = (found.delta[name].double() - mean).flatten().numpy() / (2.0 * 0.5 / 4)
        assert kstest(drawn, "norm").pvalue > 1e-3
        assert bool(found.covered[name].all())
    assert (given.delta["some"] == 0).all()  # the given one is left as it is
    assert (
        float(torch.corrcoef(torch.stack([found.delta["some"].flatten(), found.delta["whole"][:20_000]]))[0, 1]) < 0.03
    )


def test_noise_follows_from_the_seed_and_the_name():
    one, again, other = (noise(_aggregate(), 1.0, 1.0, 2, seed) for seed in (0, 0, 1))
    alone = Aggregate({"whole": torch.full((30_000,), 3.0)}, {"whole": torch.ones(1, dtype=torch.bool)})
    assert torch.equal(one.delta["whole"], again.delta["whole"])
    assert torch.equal(one.delta["whole"], noise(alone, 1.0, 1.0, 2, 0).delta["whole"])
    assert not torch.equal(one.delta["whole"], other.delta["whole"])


def test_noise_stays_off_what_nobody_ever_trains_and_on_request_off_what_nobody_held():
    given = _aggregate()
    found = noise(given, 1.0, 1.0, 2, 0, everywhere=False, still={"whole"})
    covered = given.covered["some"].expand(400, 50)
    assert (found.delta["some"][~covered] == 0).all()
    assert (found.delta["some"][covered] != 0).all()
    assert torch.equal(found.covered["some"], given.covered["some"])
    assert torch.equal(found.delta["whole"], given.delta["whole"])
    assert torch.equal(found.delta["held"], given.delta["held"])
    everywhere = noise(given, 1.0, 1.0, 2, 0, still={"held"})
    assert (everywhere.delta["some"] != 0).all()
    assert torch.equal(everywhere.covered["held"], given.covered["held"])


def test_running_statistics_get_no_noise():
    given = Aggregate({"bn.running_var": torch.ones(2)}, {"bn.running_var": torch.ones(1, dtype=torch.bool)})
    with pytest.raises(FederationError, match="bn.running_var is a running statistic") as error:
        noise(given, 1.0, 1.0, 2, 0)
    assert "group_norm" in error.value.cure
    assert torch.equal(noise(given, 0.0, 1.0, 2, 0).delta["bn.running_var"], torch.ones(2))
    assert torch.equal(noise(given, 1.0, 1.0, 2, 0, still={"bn.running_var"}).delta["bn.running_var"], torch.ones(2))


def test_one_client_more_changes_the_sum_by_the_norm_at_most():
    """What `noise` and `epsilon` take for granted of deltas that were clipped, weigh the same and share a denominator."""
    model = wav2vec2().model
    server, groups = exchanged(model), groups_of(model)
    clients = []
    for k in range(4):
        draw = torch.Generator().manual_seed(k)
        delta = {name: torch.randn(value.shape, generator=draw) * 10.0**k for name, value in server.items()}
        clients.append(Contribution(f"client.{k}", 1.0, full(), clip(delta, 0.7)[0]))
    most, least = (scatter_aggregate(server, some, groups, "cohort").delta for some in (clients, clients[:3]))
    # Means are over those who answered: put back to sums.
    change = {name: most[name].double() * 4 - least[name].double() * 3 for name in server}
    assert _norm(change) == pytest.approx(0.7, rel=1e-4)


def _exact(multiplier: float, rounds: int, delta: float) -> float:
    """Epsilon of the Gaussian mechanism, exactly (Balle and Wang 2018, theorem 8); all rounds are one with less noise."""
    shift = math.sqrt(rounds) / multiplier

    def beyond(epsilon: float) -> float:
        upper = normal.cdf(shift / 2 - epsilon / shift)
        return float(upper - math.exp(epsilon + normal.logcdf(-shift / 2 - epsilon / shift)) - delta)

    return float(brentq(beyond, 0.0, shift**2 / 2 + 20 * shift + 20))


@pytest.mark.parametrize("multiplier", [0.8, 2.0, 8.0])
@pytest.mark.parametrize("rounds", [1, 20])
def test_epsilon_without_sampling_is_a_close_bound_of_the_exact_one(multiplier, rounds):
    exact, found = _exact(multiplier, rounds, 1e-5), epsilon(multiplier, 1.0, rounds, 1e-5)
    assert exact <= found <= 1.2 * exact


def _moment(multiplier: float, rate: float, order: float) -> float:
    """Renyi divergence of the sampled Gaussian mechanism by adding up its integral on a grid."""
    x = np.linspace(-30 * multiplier, 30 * multiplier + order, 8_001)
    log_ratio = np.logaddexp(math.log1p(-rate), math.log(rate) + (2 * x - 1) / (2 * multiplier**2))
    logs = normal.logpdf(x, 0, multiplier) + order * log_ratio
    return float((np.logaddexp.reduce(logs) + math.log(x[1] - x[0])) / (order - 1))


@pytest.mark.parametrize("rate", [0.02, 0.3])
def test_epsilon_with_sampling_is_that_of_the_integrals(rate):
    orders = [1.5, *range(2, 40)]
    bounds = [  # Canonne, Kamath and Steinke 2020, proposition 12
        30 * _moment(1.3, rate, order) + math.log1p(-1 / order) - (math.log(1e-5) + math.log(order)) / (order - 1)
        for order in orders
    ]
    found = epsilon(1.3, rate, 30, 1e-5)
    assert found <= min(bounds) + 1e-6  # more orders than here
    assert found == pytest.approx(min(bounds), rel=0.01)


def test_epsilon_grows_with_rounds_and_rate_and_shrinks_with_noise():
    one = epsilon(1.0, 0.2, 10, 1e-5)
    assert epsilon(1.0, 0.2, 11, 1e-5) > one
    assert epsilon(1.0, 0.21, 10, 1e-5) > one
    assert epsilon(1.01, 0.2, 10, 1e-5) < one
    assert epsilon(1.0, 0.2, 10, 1e-4) < one
    assert epsilon(1.0, 0.2, 0, 1e-5) == 0
    assert epsilon(0.0, 0.2, 1, 1e-5) == math.inf


@pytest.mark.parametrize("given", [(-1, 1, 1, 0.1), (1, 0, 1, 0.1), (1, 1.1, 1, 0.1), (1, 1, -1, 0.1), (1, 1, 1, 0.0)])
def test_numbers_out_of_range_are_named(given):
    with pytest.raises(FederationError, match="no epsilon"):
        epsilon(*given)
    with pytest.raises(FederationError, match="Noise of"):
        noise(_aggregate(), -1.0, 1.0, 2, 0)
    with pytest.raises(FederationError, match="over 0 clients"):
        noise(_aggregate(), 1.0, 1.0, 0, 0)
