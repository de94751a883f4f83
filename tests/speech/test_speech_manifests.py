import numpy as np
import pytest

from otoscope.errors import AudioError, CorpusError, TranscriptError
from otoscope.speech import Interval, read_corpus


def test_keys(audio, manifest, tmp_path):
    audio("wavs/a.wav")
    audio("wavs/b.wav")
    path = manifest(
        {"audio_filepath": "wavs/a.wav", "text": " One  two ", "speaker": 7, "duration": 1.0, "lang": "en"},
        "",
        {"audio_filepath": str(tmp_path / "wavs/b.wav"), "id": "named"},
    )
    corpus = read_corpus(path)
    assert [(u.id, u.speaker, u.transcript) for u in corpus] == [("a", "7", "One two"), ("named", None, None)]
    assert corpus.name == "list"


@pytest.mark.parametrize("rate", [16000, 44100])
def test_stretches(audio, manifest, noise, rate):
    data = noise(2 * rate)
    audio("talk.wav", data, rate, subtype="FLOAT")
    corpus = read_corpus(
        manifest(
            {"audio_filepath": "talk.wav", "duration": 0.29},
            {"audio_filepath": "talk.wav", "offset": 0.29, "duration": 0.5},
            {"audio_filepath": "talk.wav", "offset": 1.0},
        )
    )
    assert [u.id for u in corpus] == ["talk", "talk@0.29+0.5", "talk@1"]
    assert [u.n_samples for u in corpus] == [4640, 8000, 16000]
    for utterance in corpus:
        assert utterance.read().shape == (utterance.n_samples,)
    if rate == 16000:
        np.testing.assert_array_equal(corpus["talk@0.29+0.5"].read(), data[4640:12640])


def test_times_follow_the_stretch(audio, manifest, textgrid):
    audio("talk.wav", 32000)
    audio("other.wav", 32000)
    textgrid("talk.TextGrid", {"words": [("0", "0.5", "a"), ("0.5", "1.1", "b"), ("1.1", "2", "c")]}, "2")
    textgrid("alignments/mine.TextGrid", {"words": [("0.1", "0.5", "d")]})
    corpus = read_corpus(
        manifest(
            {"audio_filepath": "talk.wav", "offset": 0.5, "duration": 0.8},
            {"audio_filepath": "other.wav", "offset": 0.5, "duration": 0.8, "id": "mine"},
        )
    )
    # The TextGrid has the recording's name: its times are those of the whole recording; "c" is broken off.
    assert corpus["talk@0.5+0.8"].tier("word") == (Interval(0, 9600, "b"),)
    assert corpus.counts == {"straddling_intervals": 1}
    # This one has the utterance's own name: its times count from the start of the stretch.
    assert corpus["mine"].tier("word") == (Interval(1600, 8000, "d"),)


@pytest.mark.parametrize(
    ("line", "error", "says"),
    [
        ("{broken", CorpusError, "not JSON"),
        ("[1, 2]", CorpusError, "audio_filepath"),
        ({"text": "x"}, CorpusError, "audio_filepath"),
        ({"audio_filepath": "a.wav", "text": 3, "id": "b"}, TranscriptError, "'text'"),
        ({"audio_filepath": "a.wav", "offset": -1, "id": "b"}, AudioError, "'offset' is -1"),
        ({"audio_filepath": "a.wav", "offset": "0.5", "id": "b"}, AudioError, "'offset' is 0.5"),
        ('{"audio_filepath": "a.wav", "duration": NaN, "id": "b"}', AudioError, "'duration' is nan"),
        ('{"audio_filepath": "a.wav", "duration": 1e999999999, "id": "b"}', AudioError, "'duration'"),
        ({"audio_filepath": "none.wav"}, AudioError, "No recording at"),
        ({"audio_filepath": "a.wav", "offset": 0.5, "duration": 0.6, "id": "b"}, AudioError, "past its end"),
        ({"audio_filepath": "a.wav", "offset": 1.0, "id": "b"}, AudioError, "past its end"),
        ({"audio_filepath": "a.wav", "duration": 0, "id": "b"}, AudioError, "empty"),
        ({"audio_filepath": "a.wav", "duration": 0.02, "id": "b"}, AudioError, "320 sample"),
    ],
)
def test_bad_lines_are_named(audio, manifest, line, error, says):
    audio("a.wav")
    path = manifest({"audio_filepath": "a.wav"}, line)
    with pytest.raises(error, match=says) as caught:
        read_corpus(path)
    assert "line 2" in str(caught.value)
    corpus = read_corpus(path, skip_bad=True)
    assert [u.id for u in corpus] == ["a"]
    assert len(corpus.left_out) == 1
    assert says in corpus.left_out[0].reason


def test_a_stretch_may_pass_the_end_by_a_frame(audio, manifest):
    audio("a.wav")
    corpus = read_corpus(manifest({"audio_filepath": "a.wav", "duration": 1.02}))
    assert corpus[0].n_samples == 16000
    assert corpus[0].read().shape == (16000,)


def test_ids_are_unique(audio, manifest):
    audio("x/a.wav")
    audio("y/a.wav")
    corpus = read_corpus(manifest({"audio_filepath": "x/a.wav"}, {"audio_filepath": "y/a.wav"}))
    assert [u.id for u in corpus] == ["x/a", "y/a"]
    path = manifest({"audio_filepath": "x/a.wav", "id": "n"}, {"audio_filepath": "y/a.wav", "id": "n"})
    with pytest.raises(CorpusError, match=r"2 utterances have the id 'n': .*line 1 and .*line 2"):
        read_corpus(path)


def test_no_text(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"\xff\xfe\x80")
    with pytest.raises(CorpusError, match="cannot be read"):
        read_corpus(path)
