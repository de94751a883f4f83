import gc
import itertools
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otoscope.errors import AudioError, CorpusError
from otoscope.speech import Corpus, Utterance, batches, read_batches, read_corpus
from otoscope.speech.audio import AudioSource
from otoscope.speech.batching import readable


def make(lengths):
    return [
        Utterance(f"{i:03d}", None, None, n, {}, AudioSource(Path("none"), 16000, 0, n)) for i, n in enumerate(lengths)
    ]


@given(st.lists(st.integers(400, 100_000), max_size=40), st.floats(0.1, 20), st.randoms())
def test_batches(lengths, seconds, random):
    utterances = make(lengths)
    dealt = list(batches(utterances, seconds))
    flat = [u for batch in dealt for u in batch]
    assert sorted(u.id for u in flat) == [u.id for u in utterances]
    assert [u.n_samples for u in flat] == sorted(lengths, reverse=True)
    for batch in dealt:
        assert len(batch) == 1 or len(batch) * batch[0].n_samples <= seconds * 16000
    for batch, following in itertools.pairwise(dealt):
        assert (len(batch) + 1) * batch[0].n_samples > seconds * 16000
        assert batch[-1].n_samples >= following[0].n_samples
    shuffled = list(utterances)
    random.shuffle(shuffled)
    assert list(batches(shuffled, seconds)) == dealt


def readers():
    return [t for t in threading.enumerate() if t.name.startswith("otoscope-read")]


@pytest.fixture
def corpus(noise):
    return Corpus.from_arrays([noise(400 * (1 + i), i) for i in range(20)])


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_samples_come_with_their_utterances(corpus, workers):
    reader = read_batches(corpus, 0.5, workers)
    expected = list(batches(corpus, 0.5))
    assert len(reader) == len(expected)
    assert reader.seconds == corpus.seconds
    for _ in range(2):
        got = list(reader)
        assert [b.utterances for b in got] == expected
        for batch in got:
            assert len(batch) == len(batch.samples)
            for utterance, samples in zip(batch.utterances, batch.samples, strict=True):
                np.testing.assert_array_equal(samples, utterance.read())
        assert abs(sum(b.seconds for b in got) - corpus.seconds) < 1e-9
    assert not readers()


def test_abandoned_iterators_end_their_threads(corpus):
    for _ in read_batches(corpus, 0.1):
        break
    iterator = iter(read_batches(corpus, 0.1))
    next(iterator)
    del iterator
    gc.collect()
    assert not readers()

    def stop_in_the_middle():
        for _ in read_batches(corpus, 0.1):
            raise KeyError

    with pytest.raises(KeyError):
        stop_in_the_middle()
    gc.collect()
    assert not readers()


def test_reading_ahead_is_bounded(corpus, monkeypatch):
    read = []
    original = Utterance.recording
    monkeypatch.setattr(Utterance, "recording", lambda self: (read.append(self.id), original(self))[1])
    reader = read_batches(corpus, 0.01, workers=2)
    assert len(reader) == 20
    iterator = iter(reader)
    next(iterator)
    time.sleep(0.05)
    assert len(read) <= 4
    iterator.close()


def test_what_shows_only_in_the_samples(audio, noise, tmp_path):
    for i in range(4):
        audio(f"good{i}.wav", 800 + i)
    data = noise(1000)
    data[3] = np.nan
    audio("bad.wav", data, subtype="FLOAT")
    long = audio("cut.flac", 50000)
    loud = noise(600)
    loud[:5] = 1.0
    audio("loud.wav", loud)
    corpus = read_corpus(tmp_path)
    long.write_bytes(long.read_bytes()[:3000])
    with pytest.raises(AudioError, match=r"cut\.flac"):
        list(read_batches(corpus))
    with pytest.raises(AudioError, match=r"bad\.wav"):
        list(read_batches(corpus.subset(lambda u: u.id != "cut")))
    assert not readers()
    reader = read_batches(corpus, 0.01, skip_bad=True)
    for _ in range(2):
        got = [u.id for batch in reader for u in batch.utterances]
        assert got == ["good3", "good2", "good1", "good0", "loud"]
        assert [x.id for x in reader.left_out] == ["cut", "bad"]
        assert reader.counts == {"clipped_samples": 5, "clipped_utterances": 1}


def test_what_can_be_read_is_found_before_it_is_used(audio, tmp_path):
    for name in ("a", "b", "c"):
        audio(f"{name}.flac", 50000)
    corpus = read_corpus(tmp_path)
    (tmp_path / "b.flac").write_bytes((tmp_path / "b.flac").read_bytes()[:3000])
    kept, left_out = readable(corpus.utterances)
    assert [one.id for one in kept] == ["a", "c"]
    assert [one.id for one in left_out] == ["b"]
    assert "b.flac cannot be decoded" in left_out[0].reason


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_bad_budget(corpus, seconds):
    with pytest.raises(CorpusError, match="seconds"):
        read_batches(corpus, seconds)


def test_bad_workers(corpus):
    with pytest.raises(CorpusError, match="0 workers"):
        read_batches(corpus, workers=0)


def test_empty():
    assert list(read_batches([])) == []
