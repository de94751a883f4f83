"""Clients made for a memory: sizes known in closed form, and no training that holds more than it may."""

from functools import partial
from pathlib import Path

import pytest

from otoscope.errors import FederationError
from otoscope.federation.channels import exchanged, groups_of
from otoscope.federation.client import Client, LocalSettings
from otoscope.federation.drawing import Drawing
from otoscope.federation.fitting import StepPeak, at_memory, heaviest
from otoscope.federation.partition import partition
from otoscope.federation.schedules import schedule, size
from otoscope.federation.settings import FederationSettings
from otoscope.federation.submodels import extract
from otoscope.speech.audio import AudioSource
from otoscope.speech.utterance import Utterance
from tests.federation.small import conformer, speech, wav2vec2

SHARES = partition(speech(), "speaker")
SETTINGS = FederationSettings(rounds=1, local=LocalSettings(batch_seconds=2.5, optimiser="adamw", learning_rate=1e-3))


def _batch(*seconds: int) -> tuple[Utterance, ...]:
    found = []
    for k, samples in enumerate(one * 16_000 for one in seconds):
        source = AudioSource(Path("none"), 16_000, 0, samples)
        found.append(Utterance(str(k), None, None, samples, {}, source))
    return tuple(found)


def test_batches_that_no_other_surpasses():
    wide, both, long, short = _batch(1, 1, 1, 1), _batch(2, 2), _batch(3), _batch(1, 1)
    assert heaviest([short, long, both, wide]) == [both, long]
    assert heaviest([wide, short]) == [wide]
    assert heaviest([]) == []


@pytest.mark.parametrize(("memory", "elements"), [(3_000, 1_000), (1_500, 500), (999, 333), (311, 103)])
def test_a_size_that_is_known(memory, elements):
    """A step that holds three bytes an element."""
    found = at_memory(lambda most: {"unit": most / 1_000}, lambda rates: round(rates["unit"] * 3_000), memory, 1_000)
    assert elements - 1_000 / 256 - 1 <= found["unit"] * 1_000 <= elements


def _not_below(most: int, least: int) -> dict[str, float]:
    if most < least:
        raise FederationError("too small", "")
    return {"unit": most / 1_000}


def test_a_schedule_with_a_smallest_client():
    make = partial(_not_below, least=400)
    found = at_memory(make, lambda rates: round(rates["unit"] * 3_000), 1_500, 1_000)
    assert 0.495 <= found["unit"] <= 0.5
    with pytest.raises(FederationError, match=r"holds 0\.0 MiB, and may hold 0\.0"):
        at_memory(make, lambda rates: round(rates["unit"] * 3_000), 1_100, 1_000)


def test_what_no_size_mends_is_told_as_it_is():
    def make(most):
        raise FederationError("There is no diagnosis", "")

    with pytest.raises(FederationError, match="no diagnosis"):
        at_memory(make, lambda rates: 1, 1_000, 1_000)


@pytest.mark.parametrize("made", [wav2vec2, conformer])
def test_no_client_holds_more_than_it_may(made):
    template = made(layers=1)
    groups, state = groups_of(template.model), exchanged(template.model)
    peak, total = StepPeak(template, SHARES, SETTINGS), sum(tensor.numel() for tensor in state.values())
    whole, least = peak({}), peak(dict.fromkeys(groups, 1e-09))
    assert least < whole
    memory = (whole + least) // 2
    solve = partial(schedule, "uniform", groups, elsewhere=total - size(groups, {}))
    rates = at_memory(lambda elements: solve(elements=elements), peak, memory, total)
    assert memory - (whole - least) / 20 < peak(rates) <= memory
    needed = []
    for number, share in enumerate(SHARES, start=1):
        submodel = Drawing(0).submodel(groups, rates, number, share.client)
        client = Client(template, share, SETTINGS.local)
        told = client.train(extract(state, submodel, groups), submodel, number, 0).metrics["peak_training_bytes"]
        assert told == client.memory(submodel).peak
        needed.append(told)
    assert max(needed) <= memory


def test_frozen_variables_and_widths_make_no_promise():
    """What is drawn anew every round may be the largest in another."""
    template = wav2vec2()
    drawn = FederationSettings(rounds=1, local=SETTINGS.local, drawing=Drawing(0, widths=(0.25, 1.0), frozen=0.5))
    assert StepPeak(template, SHARES, drawn)({}) == StepPeak(template, SHARES, SETTINGS)({})
