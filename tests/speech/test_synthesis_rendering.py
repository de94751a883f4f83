"""A speaker's folder: whole or not there, labelled wholly, and the same whatever else is rendered."""

import ctypes.util
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from otoscope.errors import SpeechError
from otoscope.speech import read_corpus
from otoscope.speech.synthesis import rendering
from otoscope.speech.synthesis.effects import Effects
from otoscope.speech.synthesis.planning import plan, split_seconds
from otoscope.speech.synthesis.rendering import Job, read_tally, render, render_apart
from otoscope.speech.synthesis.sentences import Sentences
from otoscope.speech.synthesis.speakers import SPLITS, speakers

espeak = pytest.mark.skipif(ctypes.util.find_library("espeak-ng") is None, reason="needs the Debian package espeak-ng")
flite = pytest.mark.skipif(shutil.which("flite") is None, reason="needs the Debian package flite")


def job(folder, name="m3_rp", seconds=6.0, split="train", **more):
    speaker = next(one for one in speakers(split) if one.name == name)
    draw = Sentences(5)
    return Job(speaker, [draw.new() for _ in range(30)], seconds, 1, str(folder), **more)


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()}


@pytest.mark.parametrize(
    ("name", "split"),
    [pytest.param("m3_rp", "train", marks=espeak), pytest.param("slt_high", "train", marks=flite),
     pytest.param("rms", "exam", marks=flite)],
)  # fmt: skip
def test_a_folder_reads_back_as_one_speaker_with_every_word_timed(tmp_path, name, split):
    render(job(tmp_path, name, split=split))
    corpus = read_corpus(tmp_path)
    assert {one.speaker for one in corpus} == {name}
    assert [path.name for path in tmp_path.iterdir()] == [name]
    for one in corpus:
        assert [word.label for word in one.tier("word")] == one.transcript.split()
        assert (tmp_path / name / "1" / f"{one.id}.flac").is_file()
    tally = read_tally(tmp_path / name)
    samples = [one.n_samples for one in corpus]
    assert tally.samples == sum(samples) >= 6 * 16000 > sum(samples) - max(samples)
    assert tally.sentences == len(samples)
    assert tally.words == sum(len(one.transcript.split()) for one in corpus)


@espeak
def test_processes_of_their_own_give_the_same_bytes(tmp_path):
    for place in ("one", "two"):
        render_apart(job(tmp_path / place))
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


@espeak
def test_a_process_that_comes_second_to_a_speaker_changes_nothing(tmp_path):
    render_apart(job(tmp_path))
    before = contents(tmp_path)
    render_apart(job(tmp_path))
    assert contents(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["m3_rp"]


@espeak
def test_a_folder_of_something_else_is_not_taken_for_the_speaker(tmp_path):
    (tmp_path / "m3_rp").mkdir()
    (tmp_path / "m3_rp" / "letter.txt").write_text("mine")
    with pytest.raises(SpeechError, match="Directory not empty"):
        render_apart(job(tmp_path))
    assert {str(path) for path in contents(tmp_path)} == {"m3_rp/letter.txt"}


@espeak
def test_sentences_that_do_not_last_are_an_error(tmp_path):
    with pytest.raises(SpeechError, match="m3_rp said only"):
        render_apart(job(tmp_path, seconds=500.0))
    assert not (tmp_path / "m3_rp").exists()


@espeak
def test_noise_and_rooms_leave_labels_where_they_are(tmp_path):
    render_apart(job(tmp_path / "talkers", "f5_rp"))
    render_apart(job(tmp_path / "clean"))
    talkers = [str(tmp_path / "talkers" / "f5_rp")]
    effects = Effects(("babble", "pink", "white"), (10.0, 20.0))
    render_apart(job(tmp_path / "noisy", effects=effects, talkers=talkers))
    render_apart(job(tmp_path / "room", effects=Effects(rt60=(0.2, 0.4))))
    clean = list(read_corpus(tmp_path / "clean"))
    told = json.loads((tmp_path / "noisy" / "m3_rp" / "speaker.json").read_text())["effects"]
    for place in ("noisy", "room"):
        changed = list(read_corpus(tmp_path / place))
        assert changed == clean  # all but the samples
        assert not any(np.array_equal(a.read(), b.read()) for a, b in zip(changed, clean, strict=True))
    for a, b in zip(read_corpus(tmp_path / "noisy"), clean, strict=True):
        speech, noisy = b.read().astype(float), a.read().astype(float)
        gain = (speech @ noisy) / (speech @ speech)
        noise = noisy - gain * speech
        measured = 10 * np.log10((gain * speech @ (gain * speech)) / (noise @ noise))
        assert measured == pytest.approx(told[a.id]["snr_db"], abs=0.3)


def test_a_job_travels_as_json(tmp_path, monkeypatch, capsys):
    sent, seen = job(tmp_path, effects=Effects(("pink",), (1.0, 2.0), (0.1, 0.2)), talkers=["a"]), []
    monkeypatch.setattr(rendering.sys, "stdin", io.StringIO(json.dumps(rendering.asdict(sent))))
    monkeypatch.setattr(rendering, "render", seen.append)
    rendering.main()
    assert seen == [sent]

    def fail(job):
        raise SpeechError("It is hoarse", "Wait.")

    monkeypatch.setattr(rendering.sys, "stdin", io.StringIO(json.dumps(rendering.asdict(sent))))
    monkeypatch.setattr(rendering, "render", fail)
    with pytest.raises(SystemExit) as stopped:
        rendering.main()
    assert stopped.value.code == 2
    assert json.loads(capsys.readouterr().out) == {"problem": "It is hoarse", "cure": "Wait."}


@espeak
def test_a_process_that_breaks_names_the_speaker(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(SpeechError, match="Speaker m3_rp could not be rendered: .*File exists"):
        render_apart(job(tmp_path / "file"))


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    return plan(tmp_path_factory.getbasetemp(), 0.33, 0, True, Effects(("babble",)))


def test_no_sentence_is_dealt_twice_and_everybody_speaks_equally_long(planned):
    jobs, babble = planned
    dealt = [text for part in (*jobs.values(), babble) for one in part for text in one.sentences]
    assert len(dealt) == len(set(dealt))
    for split in SPLITS:
        assert len({one.seconds for one in jobs[split]}) == 1
        assert sum(one.seconds for one in jobs[split]) == pytest.approx(split_seconds(0.33)[split])
    assert len(jobs["train"]) == len(speakers("train"))


def test_noise_does_not_change_what_is_said(tmp_path):
    said = [plan(tmp_path, 0.002, 0, True, Effects(noise))[0]["exam"][0].sentences for noise in ((), ("babble",))]
    assert said[0] == said[1]


def test_those_who_babble_are_of_the_split_and_have_other_voices(planned):
    voices = {split: {one.name: one.variant for one in speakers(split)} for split in SPLITS}
    for split in SPLITS:
        for one in planned[0][split]:
            names = [Path(talker).name for talker in one.talkers]
            assert len(names) >= 4
            assert one.speaker.variant not in [voices[split][name] for name in names]


@pytest.mark.parametrize(
    ("hours", "dev", "exam"), [(10, 1800, 1800), (1, 180, 360), (0.05, 180, 180), (0.01, 36, 36), (100, 18000, 18000)]
)
def test_lengths_of_splits(hours, dev, exam):
    assert split_seconds(hours) == pytest.approx({"train": hours * 3600, "dev": dev, "exam": exam})
