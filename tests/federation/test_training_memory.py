"""Bytes of a training step, counted by hand."""

import pytest
import torch
from torch import nn

from otoscope.federation.training_memory import training_memory

ROWS, IN, OUT = 7, 5, 3


def _step(model, optimiser, batch):
    def run():
        model(batch).square().sum().backward()
        optimiser.step()

    return run


def _linear(bias=True):
    torch.manual_seed(0)
    return nn.Linear(IN, OUT, bias=bias)


@pytest.mark.parametrize(
    ("make", "copies"),
    [
        (lambda p: torch.optim.SGD(p, 0.1), 0),
        (lambda p: torch.optim.SGD(p, 0.1, momentum=0.9), 1),
        (lambda p: torch.optim.AdamW(p, 0.1), 2),
    ],
)
def test_a_linear_layer_is_counted_by_hand(make, copies):
    model = _linear()
    optimiser = make(model.parameters())
    found = training_memory(model, optimiser, _step(model, optimiser, torch.ones(ROWS, IN)))
    weights = 4 * (IN * OUT + OUT)
    # The input for the weight's gradient, and the output for the square's.
    activations = 4 * (ROWS * IN + ROWS * OUT)
    assert (found.weights, found.gradients, found.moments) == (weights, weights, copies * weights)
    assert found.activations == activations
    assert found.peak == (2 + copies) * weights + activations


def test_what_is_not_trained_needs_neither_gradients_nor_its_input():
    model = nn.Sequential(_linear(), nn.Linear(OUT, 2))
    model[0].requires_grad_(False)
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 0.1)
    found = training_memory(model, optimiser, _step(model, optimiser, torch.ones(ROWS, IN)))
    trained = 4 * (OUT * 2 + 2)
    assert (found.gradients, found.moments) == (trained, 2 * trained)
    assert found.weights == 4 * (IN * OUT + OUT) + trained
    assert found.activations == 4 * (ROWS * OUT + ROWS * 2)


def test_views_of_one_storage_and_shared_weights_count_once():
    model = _linear(bias=False)
    twice = nn.ModuleList([model, model])
    optimiser = torch.optim.SGD(model.parameters(), 0.1)
    batch = torch.ones(ROWS, IN)

    def run():
        (model(batch) + model(batch[:, :])).sum().backward()
        optimiser.step()

    found = training_memory(twice, optimiser, run)
    assert (found.weights, found.gradients) == (4 * IN * OUT, 4 * IN * OUT)
    assert found.activations == 4 * ROWS * IN


def test_a_longer_batch_needs_more_and_the_step_is_the_same():
    batches = [torch.ones(n, IN) for n in (4, 8)]
    found, after = [], []
    for batch in batches:
        model = _linear()
        optimiser = torch.optim.SGD(model.parameters(), 0.1)
        found.append(training_memory(model, optimiser, _step(model, optimiser, batch)))
        plain = _linear()
        descent = torch.optim.SGD(plain.parameters(), 0.1)
        _step(plain, descent, batch)()
        after.append(torch.equal(plain.weight, model.weight))
    assert after == [True, True]
    assert found[1].activations == 2 * found[0].activations
    assert found[1].weights == found[0].weights


def test_gradients_of_before_are_not_added():
    model = _linear()
    optimiser = torch.optim.SGD(model.parameters(), 0.0)
    step = _step(model, optimiser, torch.ones(ROWS, IN))
    step()
    first = model.weight.grad.clone()
    training_memory(model, optimiser, step)
    assert torch.equal(model.weight.grad, first)


if torch.cuda.is_available():  # where there is no GPU there is no such test, rather than one that is skipped

    def test_on_a_gpu_the_peak_is_measured_and_other_memory_is_taken_off():
        found = []
        for other in (0, 2**26):
            held = torch.zeros(other, dtype=torch.uint8, device="cuda")
            model = nn.Linear(512, 512).cuda()
            optimiser = torch.optim.AdamW(model.parameters(), 0.1)
            found.append(
                training_memory(model, optimiser, _step(model, optimiser, torch.ones(1024, 512, device="cuda")))
            )
            del held
        one, beside = found
        assert beside.peak == pytest.approx(one.peak, rel=0.05)
        assert one.weights + one.gradients + one.moments + one.activations <= 1.5 * one.peak
        assert one.peak <= 3 * (one.weights + one.gradients + one.moments + one.activations)
