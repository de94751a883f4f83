import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from otoscope.errors import EvaluationError
from otoscope.evaluation.cost import cost_of, peak_memory, stored_bytes
from otoscope.evaluation.timing import compare_time, median_interval
from otoscope.models import load
from otoscope.models.recogniser import Recogniser, ctc_head
from tests.evaluation.speaking import VOCABULARY, small_recogniser, speech
from tests.models.small import CASES

CPU = torch.device("cpu")


def test_peak_memory_of_a_chain_is_known():
    """Of a chain of maps without gradients two neighbouring results live at once."""
    widths = [100, 400, 50, 300]
    chain = nn.Sequential(*(nn.Linear(a, b, bias=False) for a, b in pairwise(widths)))
    weights = 4 * sum(parameter.numel() for parameter in chain.parameters())
    held = torch.zeros(8, 100)

    def run():
        with torch.inference_mode():
            chain(held)

    assert peak_memory([chain], run, CPU) == weights + 4 * 8 * (400 + 50)
    assert peak_memory([chain], lambda: chain[0].weight.t(), CPU) == weights  # a view of a weight is counted with it


def test_results_are_counted_until_they_are_let_go():
    kept = []

    def keep():
        for _ in range(5):
            kept.append(torch.ones(1000) + 1)

    def drop():
        for _ in range(5):
            torch.ones(1000)

    assert peak_memory([], keep, CPU) == 4000 * 6  # the last sum stands beside its summand
    assert peak_memory([], drop, CPU) == 4000
    views = torch.ones(10)
    assert peak_memory([], lambda: [torch.ones(1000)[k:] for k in range(3)], CPU) == 12000
    assert peak_memory([], lambda: views.add_(1), CPU) <= 40


def test_peak_memory_is_the_same_on_every_run():
    recogniser = small_recogniser()
    assert cost_of(recogniser) == cost_of(recogniser)


def test_bytes_are_those_of_a_file():
    model = next(case for case in CASES if case.name == "wav2vec2-ctc").build()
    held = {name: value.contiguous() for name, value in model.state_dict().items()}
    header = 8 + int.from_bytes(save(held)[:8], "little")
    assert stored_bytes([model], 4) == len(save(held)) - header
    half = {name: value.half() for name, value in held.items()}
    assert stored_bytes([model], 2) == sum(value.nbytes for value in half.values())


def test_shared_weights_and_whole_numbers():
    one = nn.Linear(4, 4, bias=False)
    assert stored_bytes([one, one], 4) == 64
    norm = nn.BatchNorm1d(3)
    assert stored_bytes([norm], 2) == 4 * 3 * 2 + 8  # the number of batches is a 64-bit integer


@pytest.mark.parametrize("name", ["wav2vec2-ctc", "parakeet-ctc"])
def test_cost_of_a_recogniser(name):
    recogniser = small_recogniser(name) if name != "parakeet-ctc" else None
    if recogniser is None:
        model = load(next(case for case in CASES if case.name == name).build())
        found = cost_of(model)
        assert found.parameters == model.parameters
        assert found.head_macs_per_second is None
    else:
        found = cost_of(recogniser)
        head = sum(parameter.numel() for parameter in ctc_head(recogniser.model).parameters())
        assert found.parameters == recogniser.model.parameters + head
        assert found.bytes_float32 == 4 * found.parameters
        assert found.bytes_float16 == 2 * found.parameters
        modules = (recogniser.model.encoder, ctc_head(recogniser.model))
        ten = np.zeros(160_000, np.float32)
        assert found.peak_bytes == peak_memory(modules, lambda: recogniser.log_probabilities([ten]), CPU)
    assert found.peak_bytes > found.bytes_float32
    assert found.macs_per_second > 0
    assert (found.device, found.peak_seconds) == ("cpu", 10.0)
    json.dumps(found.to_dict())


@pytest.mark.parametrize("name", ["wav2vec2-ctc", "parakeet-ctc", "bert-relative-ctc"])
def test_the_head_is_counted_beside_the_encoder(name):
    """PyTorch's own counter, on a run of 10 s."""
    source = next(case for case in CASES if case.name == name).build()
    source.config.pad_token_id = 0
    recogniser = Recogniser(load(source), VOCABULARY)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        recogniser._head(torch.zeros(1, recogniser.frames(160_000), 48))
    found = cost_of(recogniser)
    assert found.head_macs_per_second == int(counter.get_total_flops() / 2 / 10) > 0
    assert found.macs_per_second == cost_of(recogniser.model).macs_per_second


def test_fewer_layers_cost_less():
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    settings = dict(hidden_size=48, num_attention_heads=4, intermediate_size=64, conv_dim=(16,) * 7,
                    num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4)  # fmt: skip
    small, large = (cost_of(load(Wav2Vec2Model(Wav2Vec2Config(num_hidden_layers=n, **settings)))) for n in (1, 4))
    for name in ("parameters", "macs_per_second", "bytes_float32", "peak_bytes"):
        assert getattr(small, name) < getattr(large, name)


class Sleeper:
    """Takes turns with another: notes its name, and takes a while."""

    def __init__(self, name, seconds, log, monkeypatch_clock):
        self.name, self.seconds, self.log, self.clock = name, seconds, log, monkeypatch_clock

    def __call__(self, samples):
        self.log.append(self.name)
        self.clock[0] += self.seconds * len(samples)


@pytest.fixture
def two(monkeypatch):
    """Two models whose runs take 1 s and 0.6 s an utterance, on a clock that slows down as it goes."""
    from otoscope.evaluation import timing

    log, clock = [], [0.0]
    a, b = small_recogniser(), small_recogniser()
    runs = {id(a): Sleeper("a", 1.0, log, clock), id(b): Sleeper("b", 0.6, log, clock)}
    monkeypatch.setattr(timing, "runner", lambda model: runs[id(model)])
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    return a, b, log


def test_time_is_taken_in_turn(two):
    a, b, log = two
    samples = [one.read() for one in speech()]
    found = compare_time(a, b, samples, repeats=6, batch=2)
    assert log == ["a", "a", "b", "b"] * 7  # once before the clock is started
    assert found.ratio == pytest.approx(0.6)
    assert found.low == pytest.approx(0.6)
    assert found.seconds_a == pytest.approx((4.0,) * 6)
    assert found.speech_seconds == pytest.approx(3.2)
    assert found.real_time_factors == pytest.approx((4 / 3.2, 2.4 / 3.2))
    assert found.threads == torch.get_num_threads()
    assert "0.600" in str(found)
    json.dumps(found.to_dict())


def test_a_model_against_itself_takes_the_same_time():
    recogniser = small_recogniser()
    found = compare_time(recogniser, recogniser, [speech()[0].read()], repeats=21)
    assert found.low <= 1.2
    assert found.high >= 0.8
    assert found.level >= 0.95


def test_too_few_runs_are_refused():
    recogniser = small_recogniser()
    with pytest.raises(EvaluationError, match="5 pairs"):
        compare_time(recogniser, recogniser, [np.zeros(16000, np.float32)], repeats=5)
    with pytest.raises(EvaluationError, match=r"0 utterance\(s\)"):
        compare_time(recogniser, recogniser, [])


@pytest.mark.parametrize(
    ("n", "rank", "level"), [(6, 0, 0.96875), (10, 1, 0.978516), (15, 3, 0.964844), (20, 5, 0.958611)]
)
def test_median_interval_is_the_tabled_one(n, rank, level):
    low, high, reached = median_interval(np.random.default_rng(n).permutation(n).astype(float))
    assert (low, high) == (rank, n - 1 - rank)
    assert reached == pytest.approx(level, abs=1e-6)


def test_median_interval_covers():
    draws = np.random.default_rng(0).lognormal(size=(1000, 15))
    covered = np.mean([low <= 1 <= high for low, high, _ in map(median_interval, draws)])
    assert covered == pytest.approx(0.964844, abs=0.02)
    with pytest.raises(EvaluationError, match="5 values"):
        median_interval(np.arange(5.0))
