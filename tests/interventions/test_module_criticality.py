"""Module criticality: the least point of a grid by brute force, a closed form, noise by its seed, bad input."""

import copy
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from otoscope.errors import EvaluationError, SurgeryError
from otoscope.evaluation.metric import Metric
from otoscope.evaluation.scores import Scores
from otoscope.interventions.criticality.module import (
    ALPHAS,
    NAME,
    SIGMAS,
    Perturbed,
    least_borne,
    module_criticality,
)
from otoscope.interventions.criticality.weights import weights_of
from otoscope.models import load
from otoscope.surgery import apply
from otoscope.surgery.units import Parts
from tests.interventions.planted_resets import HARDLY, MUCH, UNTRAINED, FromTeacher, case, noise, planted

CORPUS = noise(4, speakers=2)


@pytest.fixture(scope="module")
def models():
    return planted()


def parts_of(model):
    return Parts(model.family.encoder(model.source), model.family)


def test_the_grids_are_eleven_by_eleven():
    assert (len(ALPHAS), len(SIGMAS)) == (11, 11)
    assert (ALPHAS[0], ALPHAS[-1], SIGMAS[0]) == (0, 1, 1e-16)
    assert SIGMAS[1] == pytest.approx(1e-3)
    assert SIGMAS[-1] == pytest.approx(1)


@given(st.dictionaries(st.tuples(st.integers(0, 4), st.integers(1, 4)), st.floats(0, 2)), st.floats(0, 2))
def test_the_least_point_is_that_of_brute_force_whatever_the_loss(table, bound):
    alphas, sigmas = [k / 4 for k in range(5)], [k / 4 for k in range(1, 5)]

    def loss(alpha, sigma):
        return table.get((round(4 * alpha), round(4 * sigma)), 1.0)

    borne = [(a / s) ** 2 * 3.0 for a, s in itertools.product(alphas, sigmas) if loss(a, s) <= bound]
    found = least_borne(loss, bound, 3.0, alphas, sigmas)
    assert found.value == min(borne, default=float("inf"))
    if borne:
        assert found.loss == loss(found.alpha, found.sigma) <= bound
    else:
        assert (found.alpha, found.sigma, found.loss, found.evaluated) == (None, None, None, 20)


def test_nothing_is_looked_at_beyond_the_first_point_that_will_do():
    looked = []

    def loss(alpha, sigma):
        looked.append((alpha, sigma))
        return 0.0

    found = least_borne(loss, 1.0, 2.0)
    assert looked == [(0.0, 1e-16)]
    assert (found.value, found.evaluated) == (0, 1)


class MeanSquare(Metric):
    """Mean square of a layer's parameters about a centre: the expected value under noise is known."""

    name, unit = "mean-square", "squared weight"

    def __init__(self, unit, centre):
        self.paths, self.centre = unit.paths, centre

    def values(self, model, corpus, *, batch_seconds=30.0, progress=None):
        state = dict(model.source.named_parameters())
        found = [
            (value.detach() - self.centre[name]).double().flatten()
            for name, value in state.items()
            if name.startswith(f"{self.paths[0]}.")
        ]
        value = float(torch.cat(found).square().mean())
        n = len(corpus)
        return Scores(
            self.name, self.unit, False, tuple(u.id for u in corpus), tuple(u.speaker for u in corpus),
            np.full(n, value), np.ones(n),
        )  # fmt: skip


def test_a_loss_whose_expectation_is_known(models):
    """L = mean (theta - c)^2 with c = theta_F - e: E L = mean((1 - alpha) d + e)^2 + sigma^2, d = theta_0 - theta_F."""
    trained, initial = models
    parts = parts_of(trained)
    own, start = dict(trained.source.named_parameters()), dict(initial.source.named_parameters())
    offset = 0.05
    metric = MeanSquare(parts.units[MUCH], {name: value.detach() - offset for name, value in own.items()})
    names = [name for name in own if name.startswith("encoder.layers.1.")]
    d = torch.cat([(start[name] - own[name]).detach().double().flatten() for name in names])
    alphas, sigmas, slack = (0.0, 0.5, 0.9), (0.01, 0.03, 0.1), 1.5
    bound = slack * offset**2

    def expected(alpha, sigma):
        return float(((1 - alpha) * d + offset).square().mean()) + sigma**2

    table = {(a, s): expected(a, s) for a, s in itertools.product(alphas, sigmas)}
    assert min(abs(value / bound - 1) for value in table.values()) > 0.05  # no point that noise could tip
    assert any(value <= bound for value in table.values())
    wanted = min((a / s) ** 2 for (a, s), value in table.items() if value <= bound) * float(d.square().sum())
    result = module_criticality(
        trained, CORPUS, metric, initial, MUCH, alphas=alphas, sigmas=sigmas, samples=2, slack=slack
    )
    (row,) = result.rows
    assert (row.measure, row.stream, row.layer, row.target) == (NAME, MUCH, 2, "mean-square")
    assert row.value == pytest.approx(wanted, rel=1e-5)
    point = result.notes[NAME]["points"][MUCH]
    assert point["loss"] == pytest.approx(table[point["alpha"], point["sigma"]], rel=0.02)
    assert point["distance"] == pytest.approx(float(d.square().sum().sqrt()), rel=1e-6)
    assert result.notes[NAME]["epsilon"] == pytest.approx(bound, rel=1e-5)


def test_an_untrained_layer_costs_nothing_and_a_trained_one_more_than_one_hardly_trained(models, tmp_path):
    trained, initial = models
    before = {name: value.clone() for name, value in trained.source.state_dict().items()}
    teacher = FromTeacher(trained, CORPUS)
    teacher.wanted = {name: value + 0.2 for name, value in teacher.wanted.items()}  # so that the loss is not zero
    told = []
    options = {"alphas": (0.0, 1.0), "sigmas": (1e-16, 1e-4), "samples": 2, "store": tmp_path}
    result = module_criticality(
        trained, CORPUS, teacher, initial, progress=lambda done, total: told.append((done, total)), **options
    )
    values = {row.stream: row.value for row in result.rows}
    points = result.notes[NAME]["points"]
    assert values[UNTRAINED] == values[HARDLY] == 0
    assert values[MUCH] > 0
    assert (points[UNTRAINED]["evaluated"], points[HARDLY]["evaluated"]) == (0, 1)
    assert points[MUCH]["alpha"] == 1
    assert result.notes[NAME]["sum"] == sum(values.values())
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert all(torch.equal(value, before[name]) for name, value in trained.source.state_dict().items())
    again = module_criticality(trained, CORPUS, teacher, initial, **options)
    assert again.rows == result.rows


def test_where_the_loss_is_borne_nowhere_there_is_no_value(models):
    trained, initial = models
    teacher = FromTeacher(trained, CORPUS)
    result = module_criticality(trained, CORPUS, teacher, initial, MUCH, alphas=(0.5,), sigmas=(1.0,), samples=1)
    assert result.rows[0].value is None
    assert result.notes[NAME]["sum"] is None


def test_noise_hangs_on_unit_alpha_sigma_and_draw_alone(models):
    trained, initial = models
    weights = weights_of(parts_of(trained), initial, "initial")

    def tensor(*settings, unit=MUCH, layer=1, name="attention.q_proj.weight"):
        source = apply(trained, [Perturbed(unit, weights, *settings)], share=True).source
        return source.get_parameter(f"encoder.layers.{layer}.{name}")

    one = tensor(0.5, 0.1, 1)
    assert torch.equal(one, tensor(0.5, 0.1, 1))
    path = "encoder.layers.1.attention.q_proj.weight"
    own, start = (model.source.get_parameter(path) for model in models)
    middle = (own + start) / 2
    assert (one - middle).std().item() == pytest.approx(0.1, rel=0.05)
    noises = [one, tensor(0.5, 0.1, 2), tensor(0.5, 0.1, 1, 7), tensor(0.5, 0.11, 1) * 1.0]
    for a, b in itertools.combinations([(each - middle).flatten() for each in noises], 2):
        assert abs(torch.corrcoef(torch.stack([a, b]))[0, 1]) < 0.1
    assert torch.equal(tensor(1.0, 1e-16, 1), own)
    assert torch.equal(tensor(0.0, 1e-16, 1), start)


def test_statistics_of_batch_norms_are_taken_along_without_noise():
    initial = case("conformer-relative").build(1).eval()
    trained = copy.deepcopy(initial)
    trained.encoder.layers[1].conv_module.batch_norm.running_var.fill_(3.0)
    model = load(trained)
    weights = weights_of(parts_of(model), initial.state_dict(), "initial")
    norm = apply(model, [Perturbed(MUCH, weights, 0.25, 0.5, 1)]).source.encoder.layers[1].conv_module.batch_norm
    assert torch.allclose(norm.running_var, torch.full_like(norm.running_var, 0.75 * 1 + 0.25 * 3))
    assert norm.weight.std() > 0.3


def test_what_has_no_meaning_is_refused(models):
    trained, initial = models
    metric = FromTeacher(trained, CORPUS)

    def run(given=metric, start=initial, granularity="block", **options):
        return module_criticality(trained, CORPUS, given, start, granularity, **options)

    with pytest.raises(EvaluationError, match="is no loss"):
        run(FromTeacher(trained, CORPUS, -1.0))
    with pytest.raises(EvaluationError, match="initial checkpoint"):
        run(start=None)
    with pytest.raises(SurgeryError, match="weights of the model itself"):
        run(start=trained)
    with pytest.raises(EvaluationError, match="shares its tensors"):
        run(granularity="layer.1.head.0")
    with pytest.raises(EvaluationError, match=r"0 draw\(s\) with a slack of 1.01"):
        run(samples=0)
    with pytest.raises(EvaluationError, match="slack of 0.5"):
        run(slack=0.5)
    for grids in ({"sigmas": (0.0,)}, {"sigmas": ()}, {"alphas": (1.5,)}):
        with pytest.raises(EvaluationError, match="The grid of"):
            run(layers=[2], **grids)
