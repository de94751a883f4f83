"""Batches of a run: fixed by seed and number, every utterance once an epoch, within the budget, nothing lost."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from otoscope.errors import TrainingError
from otoscope.speech.corpus import Corpus
from otoscope.training import batches
from otoscope.training.batches import BatchPlan

RATE = 16000


def _assemble(utterances, waves, draw):
    return {
        "names": torch.tensor([int(u.id) for u in utterances]),
        "sums": torch.tensor([float(wave.sum()) for wave in waves]),
        "drawn": torch.from_numpy(draw.random(3)),
    }


def _corpus(lengths) -> Corpus:
    draw = np.random.default_rng(0)
    return Corpus.from_arrays([draw.uniform(-0.5, 0.5, int(n)).astype(np.float32) for n in lengths])


def _plan(lengths, seconds=3.0, length=8, seed=0) -> BatchPlan:
    return BatchPlan(_corpus(lengths).utterances, seconds, length, seed, _assemble)


LENGTHS = [8000, 12000, 20000, 9000, 16000, 31000, 11000, 25000]


def _equal(a, b):
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=0)


def test_an_item_depends_on_seed_and_number_alone():
    first, second = _plan(LENGTHS), _plan(LENGTHS)
    items = [first[k] for k in range(8)]
    for k in (5, 0, 7, 5, 3):
        _equal(second[k], items[k])
    drawn = torch.stack([item["drawn"] for item in items])
    assert len(torch.unique(drawn)) == drawn.numel()


def test_a_longer_run_begins_as_the_shorter_one():
    short, long = _plan(LENGTHS, length=5), _plan(LENGTHS, length=11)
    for k in range(5):
        one, other = short[k], long[k]
        assert float(one.pop("progress")) == pytest.approx(k / 5)
        assert float(other.pop("progress")) == pytest.approx(k / 11)
        _equal(one, other)


def test_another_seed_gives_other_batches():
    first, second = _plan(LENGTHS), _plan(LENGTHS, seed=1)
    assert any(first[k]["names"].tolist() != second[k]["names"].tolist() for k in range(8))
    assert not torch.equal(first[0]["drawn"], second[0]["drawn"])


@given(st.lists(st.integers(400, 40000), min_size=1, max_size=30), st.integers(0, 99), st.floats(0.5, 6.0))
def test_an_epoch_holds_every_utterance_once_within_the_budget(lengths, seed, seconds):
    made = batches._epoch(lengths, seconds, np.random.default_rng(seed))
    assert sorted(i for batch in made for i in batch) == list(range(len(lengths)))
    for batch in made:
        padded = len(batch) * max(lengths[i] for i in batch)
        assert padded <= seconds * RATE or len(batch) == 1


def test_every_epoch_has_an_order_of_its_own():
    epoch = len(batches._epoch(LENGTHS, 2.5, np.random.default_rng(0)))
    plan = _plan(LENGTHS, 2.5, length=3 * epoch + 40)
    names = [plan[k]["names"].tolist() for k in range(len(plan))]
    counts = np.bincount(np.concatenate(names), minlength=len(LENGTHS))
    assert counts.max() - counts.min() <= 1
    assert names[:epoch] != names[epoch : 2 * epoch]


def test_batches_of_like_lengths_waste_little():
    lengths = np.random.default_rng(0).integers(16000, 160000, 400).tolist()
    made = batches._epoch(lengths, 60.0, np.random.default_rng(0))
    padded = sum(len(batch) * max(lengths[i] for i in batch) for batch in made)
    assert sum(lengths) / padded > 0.9


@pytest.mark.parametrize("kind", ["sixteen-bit", "float", "full-scale"])
def test_held_samples_are_the_ones_that_were_read(kind):
    draw = np.random.default_rng(1)
    samples = {
        "sixteen-bit": (draw.integers(-32767, 32768, 8000) / 32768).astype(np.float32),
        "float": draw.uniform(-1, 1, 8000).astype(np.float32),
        "full-scale": np.where(draw.random(8000) < 0.5, -1.0, 1.0).astype(np.float32),
    }[kind]
    corpus = Corpus.from_arrays([samples])
    wanted = corpus[0].read()
    plan = BatchPlan(corpus.utterances, 1.0, 1, 0, _assemble)
    for _ in range(2):
        np.testing.assert_array_equal(plan._wave(0), wanted)
    assert plan._held[0].dtype == (np.int16 if kind == "sixteen-bit" else np.float32)


def test_what_is_handed_out_can_be_written_to():
    plan = _plan([8000])
    plan._wave(0)
    first = plan._wave(0).copy()
    if (wave := plan._wave(0)).dtype == np.float32:
        wave[:] = 0
    np.testing.assert_array_equal(_plan([8000])._wave(0), first)


def test_no_more_is_held_than_there_is_room_for(monkeypatch):
    monkeypatch.setattr(batches, "_HELD_BYTES", 9000 * 4)
    plan = _plan([8000, 8000, 500])
    for i in range(3):
        plan._wave(i)
    assert set(plan._held) == {0, 2}


def test_no_speech_is_refused():
    with pytest.raises(TrainingError, match="no utterance to train on"):
        BatchPlan([], 1.0, 1, 0, _assemble)
