"""Stopping: the interval holds under continuous looking, and clear effects stop early."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from otoscope.errors import EvaluationError
from otoscope.interventions.sequential import Stopping, half_width

TAU = 0.02  # as of a word error rate
CORPORA, BATCHES, LEAST = 2000, 60, 10
DRAW = np.random.default_rng(0)
WORDS = DRAW.integers(60, 90, (CORPORA, BATCHES)).astype(float)
AT_TAU = {
    "normal": TAU * WORDS + DRAW.normal(0, 5, WORDS.shape),
    "rare errors": 4.0 * DRAW.poisson(TAU / 4 * WORDS),
    "errors either way": (DRAW.poisson(0.05 * WORDS) - DRAW.poisson(0.03 * WORDS)).astype(float),
    "exponential": TAU * WORDS * DRAW.exponential(1, WORDS.shape),
}
ALLOWED = 0.05 + 3 * math.sqrt(0.05 * 0.95 / CORPORA)


def first_decision(stop, differences, denominators):
    """After how many batches a variant stops; None where it does not."""
    for n in range(1, len(differences) + 1):
        if stop.decided(differences[:n], denominators[:n]):
            return n
    return None


def looks(differences, denominators, tau, side):
    """Whether each look decides that a difference is below (1) or above (-1) tau, for many corpora at once."""
    values = differences - np.reshape(tau, (-1, 1)) * denominators
    n = np.arange(1, values.shape[1] + 1)
    means = values.cumsum(1) / n
    squares = np.maximum((values**2).cumsum(1) - n * means**2, 0)
    one_more = 2 * np.maximum(np.maximum.accumulate(values, 1) - means, means - np.minimum.accumulate(values, 1))
    spread = np.sqrt((squares + one_more**2 * n / (n + 1)) / n)  # of n + 1 values
    reach = spread * [half_width(k + 1, at=LEAST) for k in n.tolist()]
    enough = (differences != 0).cumsum(1) >= LEAST
    return (side * (means + side * one_more / (n + 1)) + reach < 0) & enough


@pytest.mark.parametrize("side", [1, -1])
@pytest.mark.parametrize("name", AT_TAU)
def test_a_difference_of_tau_is_decided_in_no_more_corpora_than_the_level_allows(name, side):
    assert looks(AT_TAU[name], WORDS, TAU, side).any(1).mean() <= ALLOWED


@pytest.mark.parametrize("side", [1, -1])
def test_without_replacement_the_difference_is_that_of_the_corpus_itself(side):
    skewed = DRAW.lognormal(0, 1, (CORPORA, 40)) * WORDS[:, :40]
    assert looks(skewed, WORDS[:, :40], skewed.sum(1) / WORDS[:, :40].sum(1), side).any(1).mean() <= ALLOWED


@pytest.mark.parametrize("name", AT_TAU)
def test_looks_at_many_corpora_are_those_at_one(name):
    """The simulations above are of the rule itself; near 0.6 tau and 1.4 tau some are decided and some are not."""
    for side, tau in ((1, 1.4 * TAU), (-1, 0.6 * TAU)):
        stop = Stopping(tau, math.inf) if side == 1 else Stopping(-math.inf, tau)
        many = looks(AT_TAU[name][:12], WORDS[:12], tau, side)
        for k in range(12):
            found = first_decision(stop, AT_TAU[name][k], WORDS[k])
            assert found == (int(many[k].argmax()) + 1 if many[k].any() else None)


def test_one_look_too_many_is_what_an_interval_for_one_look_would_decide():
    """The test above can fail: 1.96 standard errors, looked at after every batch, are left far too often."""
    values = AT_TAU["normal"] - TAU * WORDS
    n = np.arange(10, BATCHES + 1)
    means = values.cumsum(1)[:, 9:] / n
    spread = np.sqrt((values**2).cumsum(1)[:, 9:] / n - means**2)
    assert ((means + 1.96 * spread / np.sqrt(n)) < 0).any(1).mean() > 0.1


def test_clear_effects_stop_as_soon_as_they_may():
    words = WORDS[0]
    noise = DRAW.normal(0, 0.05, BATCHES)
    stop = Stopping(0.01, 0.2)
    assert first_decision(stop, 0.9 * words + noise, words) == 10
    assert first_decision(stop, -0.3 * words + noise, words) == 10
    assert first_decision(stop, noise, words) == 10
    assert first_decision(stop, 0.1 * words + noise, words) is None  # it lies between the two
    assert first_decision(Stopping(0.01, 0.2, least=3), 0.9 * words + noise, words) <= 5


def test_batches_in_which_nothing_differs_do_not_count():
    words = WORDS[0]
    stop = Stopping(0.01, 0.2)
    assert first_decision(stop, np.zeros(BATCHES), words) is None
    rare = np.where(np.arange(BATCHES) % 3 == 0, 0.01, 0.0)
    assert first_decision(stop, rare, words) == 28  # the tenth that differs


def test_the_same_difference_in_every_batch_has_no_spread():
    ones = np.ones(12)
    assert Stopping(0.5, 0.9).decided(ones, ones)
    assert not Stopping(0.5, 1.0).decided(ones, ones)


def test_bounds_at_infinity_never_stop():
    words = WORDS[0]
    noise = DRAW.normal(0, 0.05, BATCHES)
    assert first_decision(Stopping(-math.inf, 0.2), noise, words) is None
    assert first_decision(Stopping(-math.inf, 0.2), 0.9 * words + noise, words) == 10
    assert first_decision(Stopping(-math.inf, math.inf), 0.9 * words + noise, words) is None


@pytest.mark.parametrize("at", [5, 40])
def test_the_half_width_is_that_of_the_mixture_and_narrowest_where_it_was_asked_to_be(at):
    """The mixture of normal densities over rho gives exp(S^2 rho^2 / 2 (n rho^2 + 1)) / sqrt(n rho^2 + 1) = 1 / alpha."""
    alpha = 0.1

    def reach(log_rho2, n):
        scaled = n * math.exp(log_rho2) + 1
        return math.sqrt(2 * scaled * math.log(math.sqrt(scaled) / alpha) / math.exp(log_rho2)) / n

    best = minimize_scalar(lambda one: reach(one, at), bounds=(-15, 10), method="bounded", options={"xatol": 1e-9})
    assert half_width(at, 1 - alpha, at) == pytest.approx(best.fun, rel=1e-9)
    for n in (2, 17, 300):
        assert half_width(n, 1 - alpha, at) == pytest.approx(reach(best.x, n), rel=1e-4)


def test_the_order_is_drawn_by_the_seed():
    assert sorted(Stopping(0, 1).order(50)) == list(range(50))
    assert Stopping(0, 1).order(50) == Stopping(0, 1).order(50) != Stopping(0, 1, seed=1).order(50)


def test_rules_that_cannot_be_followed_are_refused():
    for wrong_rule, told in (
        ({"tau_low": 1.0, "tau_high": 0.0}, "below 1.0 or above 0.0"),
        ({"tau_low": math.nan, "tau_high": 0.0}, "below nan"),
        ({"tau_low": 0.0, "tau_high": 1.0, "least": 1}, "after 1 batches"),
        ({"tau_low": 0.0, "tau_high": 1.0, "level": 1.0}, "A level of 1.0"),
    ):
        with pytest.raises(EvaluationError, match=told):
            Stopping(**wrong_rule)
