import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from otoscope.errors import AudioError, CorpusError
from otoscope.speech import Corpus, Interval, read_corpus, write_corpus
from otoscope.speech.phones import ARPABET_39


@st.composite
def tiers(draw):
    """Word and phone tiers of 16000 samples: phones without gaps, words with gaps and quotes."""
    borders = sorted(draw(st.sets(st.integers(1, 15999), max_size=12)) | {0, 16000})
    pairs = list(itertools.pairwise(borders))
    phones = [Interval(a, b, draw(st.sampled_from([*sorted(ARPABET_39), "sil"]))) for a, b in pairs]
    words = [Interval(a, b, draw(st.sampled_from(["a", 'o"k', "it's", "ü"]))) for a, b in pairs[::2]]
    return {"phone": tuple(phones), "word": tuple(words)}


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(drawn=tiers())
def test_tiers_come_back(drawn, noise, tmp_path_factory):
    folder = tmp_path_factory.mktemp("written") / "c"
    corpus = Corpus.from_arrays([noise()], ids=["s-1"], speakers=["s"], transcripts=["x"], tiers=[drawn])
    back = read_corpus(write_corpus(corpus, folder))
    for name, intervals in drawn.items():
        # An interval of one sample at the very start cannot be written.
        kept = [x for x in intervals if x.end > 1]
        assert len(back[0].tier(name)) == len(kept)
        for mine, theirs in zip(kept, back[0].tier(name), strict=True):
            assert mine.label == theirs.label
            assert abs(mine.start - theirs.start) <= 1
            assert mine.end == theirs.end


@pytest.fixture
def corpus(noise):
    voices = ["en-us+m3", "en-us+m3", "b", None]
    return Corpus.from_arrays(
        [noise(8000 + 17 * i, i) for i in range(4)],
        ids=["en-us+m3-0000", "en-us+m3-0001", "b/0000", "alone"],
        speakers=voices,
        transcripts=["ONE", "Two three", None, "four"],
        tiers=[{"word": [Interval(0, 800, "one")], "phone": [Interval(0, 8000, "w")]}, {}, {}, {}],
    )


@pytest.mark.parametrize(("format", "tolerance"), [("flac", 2**-15), ("wav", 2**-15), ("opus", None)])
def test_round_trip(corpus, tmp_path, format, tolerance):
    folder = write_corpus(corpus, tmp_path / "deep" / "c", format)
    assert sorted(p.name for p in folder.iterdir()) == sorted([f"alone.{format}", "alone.txt", "b", "en-us+m3"])
    back = read_corpus(folder)
    assert [(u.id, u.speaker, u.transcript) for u in back] == [
        ("alone", None, "four"),
        ("b-b_0000", "b", None),
        ("en-us+m3-0000", "en-us+m3", "ONE"),
        ("en-us+m3-0001", "en-us+m3", "Two three"),
    ]
    assert back["en-us+m3-0000"].tiers == corpus["en-us+m3-0000"].tiers
    assert sorted(u.n_samples for u in back) == sorted(u.n_samples for u in corpus)
    if tolerance is not None:
        for utterance in corpus.subset(lambda u: u.id in {"alone", "en-us+m3-0000"}):
            np.testing.assert_allclose(back[utterance.id].read(), utterance.read(), atol=tolerance)


def test_one_speaker_is_kept(noise, tmp_path):
    corpus = Corpus.from_arrays([noise()], ids=["s-1"], speakers=["s"])
    assert read_corpus(write_corpus(corpus, tmp_path / "c")).speakers == ("s",)


def test_writing_is_whole_or_not_at_all(noise, tmp_path):
    good = Corpus.from_arrays([noise()], ids=["s-1"], speakers=["s"])
    broken = Corpus.from_arrays([noise()], ids=["s-2"], speakers=["s"])
    broken[0].source[3] = np.nan
    with pytest.raises(AudioError, match="NaN"):
        write_corpus([*good, *broken], tmp_path / "c")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(corpus, tmp_path):
    write_corpus(corpus, tmp_path / "c")
    with pytest.raises(CorpusError, match="not empty"):
        write_corpus(corpus, tmp_path / "c")
    (tmp_path / "empty").mkdir()
    write_corpus(corpus, tmp_path / "empty")


@pytest.mark.parametrize(
    ("ids", "speakers", "says"),
    [
        (["a/b", "a_b"], ["s", "s"], "Two utterances"),
        ([".a", "b"], ["s", "s"], "cannot name a file"),
        (["a", "b"], ["s/t", "s"], "cannot name a folder"),
        (["a b", "b"], ["s", "s"], "space"),
    ],
)
def test_names_that_cannot_be_written(noise, tmp_path, ids, speakers, says):
    corpus = Corpus.from_arrays([noise(), noise()], ids=ids, speakers=speakers)
    with pytest.raises(CorpusError, match=says):
        write_corpus(corpus, tmp_path / "c")
    with pytest.raises(CorpusError, match="no format 'mp4'"):
        write_corpus(corpus, tmp_path / "c", "mp4")
