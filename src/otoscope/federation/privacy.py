"""Differential privacy for each client: deltas of bounded norm, noise on their mean, and what both are worth."""

from __future__ import annotations

import math
import re
import warnings
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping

import torch

from otoscope.errors import FederationError, MissingPackageError
from otoscope.federation.channels import is_statistic
from otoscope.federation.submodels import Aggregate
from otoscope.statistics.hashing import uniform

_LAYER = re.compile(r"(?:^|.*[._])layers\.\d+(?=\.)")
_ORDERS = [*(1 + k / 10 for k in range(1, 100)), *range(11, 64), *(2**k for k in range(6, 11))]


def clip(delta: Mapping[str, torch.Tensor], norm: float, per: str = "model") -> tuple[dict[str, torch.Tensor], float]:
    """A delta that is no longer than a norm.

    "model" scales all of it by min(1, C / |delta|) (McMahan et al. 2018, arXiv 1710.06963, flat clipping). "layer" clips
    each of the H layers of the delta to C / sqrt(H), so that the whole stays within C (their per-layer clipping, which
    helps where layers move unequally far). A layer is a transformer layer or a convolution over samples; elsewhere the
    tensors of one module are taken together.

    It is to be taken of what the server decoded, since fewer bits can make a delta longer. What one client can change
    is bounded only where clients weigh the same in the mean and its denominator is the same whoever takes part: give
    every contribution the weight 1, and `scatter_aggregate` the denominator "cohort".

    Args:
        delta: tensors by name; left as they are.
        norm: C, the longest that is let through.
        per: "model" or "layer".

    Returns:
        The clipped delta in float32, and the norm of all of it before.

    Raises:
        FederationError: the norm is not above zero, a value is not finite, or there is no such way.
    """
    if not 0 < norm < math.inf:
        raise FederationError(f"A delta cannot be clipped to the norm {norm}", "Give a finite number above zero.")
    if per not in ("model", "layer"):
        raise FederationError(f"Nothing is clipped per {per!r}", "Choose one of model, layer.")
    squares: dict[str, float] = defaultdict(float)
    for name, tensor in delta.items():
        squares["" if per == "model" else layer_of(name)] += float(tensor.double().square().sum())
    before = math.sqrt(sum(squares.values()))
    if not math.isfinite(before):
        raise FederationError(
            "A delta that is not finite has no norm", "Lower the clients' learning rate, or clip their gradients."
        )
    # Rounding to float32 must not take a clipped delta beyond the norm.
    most = norm * (1 - 1e-6) / math.sqrt(max(len(squares), 1))
    factors = {part: min(1.0, most / max(math.sqrt(square), 1e-300)) for part, square in squares.items()}
    clipped = {
        name: (tensor.double() * factors["" if per == "model" else layer_of(name)]).float()
        for name, tensor in delta.items()
    }
    return clipped, before


def layer_of(name: str) -> str:
    """What a tensor is clipped together with, by its name.

    >>> layer_of("hubert.encoder.layers.3.attention.q_proj.weight"), layer_of("lm_head.bias")
    ('hubert.encoder.layers.3', 'lm_head')
    """
    found = _LAYER.match(name)
    return found.group() if found else name.rpartition(".")[0]


def noise(
    aggregate: Aggregate,
    multiplier: float,
    norm: float,
    cohort: int,
    seed: int,
    *,
    everywhere: bool = True,
    still: Collection[str] = (),
) -> Aggregate:
    """A mean of clipped deltas with Gaussian noise of the standard deviation multiplier * norm / cohort on each element.

    The sum of deltas of norm C changes by C at most if one client takes part or does not; noise of z C on the sum is the
    Gaussian mechanism that `epsilon` accounts for (McMahan et al. 2018, arXiv 1710.06963). It is added to a mean over
    `cohort` clients: the number that the round was planned with, whoever answered.

    Which elements were covered would tell who took part where clients hold different ones. So all elements get noise,
    and count as covered.

    Args:
        aggregate: see `clip` for what it has to be the mean of; left as it is.
        multiplier: z.
        norm: C.
        cohort: clients that the mean is over.
        seed: of the noise; another one every round.
        everywhere: False adds noise to covered elements alone. That is right where which are covered does not depend on
            who takes part, as when all clients of a round hold the same.
        still: tensors that no client ever trains; they get none.

    Raises:
        FederationError: a number is out of its range, or running statistics of batch norms are among the tensors.
    """
    if not (0 <= multiplier < math.inf and 0 < norm < math.inf and cohort >= 1):
        raise FederationError(
            f"Noise of {multiplier} times the norm {norm} over {cohort} clients",
            "Give a multiplier of zero or more, a norm above zero and one client or more.",
        )
    if multiplier:
        check_noise(aggregate.delta, still)
    made = Aggregate({}, {})
    for name, delta in aggregate.delta.items():
        covered = aggregate.covered[name]
        if name not in still:
            # By name, so that the noise of a tensor does not depend on which others there are.
            draw = torch.Generator().manual_seed(int(uniform(seed, name, purpose="privacy") * 2**53))
            drawn = torch.randn(delta.shape, generator=draw, dtype=torch.float64) * (multiplier * norm / cohort)
            noisy = (delta.double() + drawn.to(delta.device)).float()
            delta, covered = (noisy, torch.ones_like(covered)) if everywhere else (
                torch.where(covered, noisy, delta), covered
            )  # fmt: skip
        made.delta[name], made.covered[name] = delta, covered
    return made


def check_noise(names: Iterable[str], still: Collection[str] = ()) -> None:
    """Makes sure that tensors can take noise.

    Args:
        names: of all that travel.
        still: of those that get none.

    Raises:
        FederationError: running statistics of batch norms are among them.
    """
    statistics = [name for name in names if is_statistic(name) and name not in still]
    if statistics:
        raise FederationError(
            f"{statistics[0]} is a running statistic of a batch norm, which noise could make a variance below zero",
            "Replace the batch norms first: plan the treatment group_norm.",
        )


def epsilon(multiplier: float, rate: float, rounds: int, delta: float) -> float:
    """The epsilon of (epsilon, delta)-differential privacy for each client after rounds of `noise`.

    By Renyi differential privacy of the sampled Gaussian mechanism (Mironov, Talwar and Zhang 2019, arXiv 1908.10530)
    through the accountant of Opacus. A rate below 1 holds where every client takes part in a round by a chance of its own
    (Poisson sampling) that nobody else learns; two federations are then neighbours where one has one client more. Take 1
    where cohorts have a fixed number or are known. One client more would there take another's place, or change what the
    mean is divided by: neighbours are two federations of the same clients, in one of which all that one client sends is
    zero (Kairouz et al. 2021, arXiv 2103.00039).

    Args:
        multiplier: standard deviation of the noise over the norm.
        rate: chance of a client to take part in a round.
        rounds: how many there were.
        delta: probability for which epsilon need not hold.

    Returns:
        Epsilon; infinite without noise, or with so little that it is beyond the numbers; zero before the first round.

    Raises:
        FederationError: a number is out of its range.
        MissingPackageError: Opacus is not installed.
    """
    if not (0 <= multiplier < math.inf and 0 < rate <= 1 and rounds >= 0 and 0 < delta < 1):
        raise FederationError(
            f"There is no epsilon for a noise multiplier of {multiplier}, a rate of {rate}, {rounds} rounds and a delta of "
            f"{delta}",
            "Give a multiplier of zero or more, a rate above 0 up to 1, rounds of zero or more and a delta below 1.",
        )
    if not rounds:
        return 0.0
    if not multiplier:
        return math.inf
    try:
        from opacus.accountants import RDPAccountant
    except ImportError as error:
        raise MissingPackageError("Opacus is not installed", "Install otoscope[federation].") from error
    accountant = RDPAccountant()
    for _ in range(rounds):
        accountant.step(noise_multiplier=multiplier, sample_rate=rate)
    with warnings.catch_warnings():
        # An optimum at the end of the orders gives a bound that holds, though a lower one may.
        warnings.filterwarnings("ignore", message="Optimal order is the", category=UserWarning)
        try:
            return float(accountant.get_epsilon(delta, alphas=_ORDERS))
        except (OverflowError, ZeroDivisionError):  # the square of the multiplier is zero
            return math.inf
