"""A synthesised corpus: the same for the same settings, gone on with where it stopped, refused where it is another."""

import ctypes.util
import json
import shutil

import pytest

from otoscope.errors import CorpusError, MissingPackageError, SpeechError
from otoscope.speech import read_corpus
from otoscope.speech.locking import alone_in
from otoscope.speech.synthesis import espeak as espeak_module
from otoscope.speech.synthesis import planning
from otoscope.workflow import synthesising
from otoscope.workflow.synthesising import synthesise
from tests.speech.test_synthesis_rendering import contents

espeak = pytest.mark.skipif(ctypes.util.find_library("espeak-ng") is None, reason="needs the Debian package espeak-ng")
SETTINGS = dict(hours=0.0058, seed=2, flite=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synthesis") / "speech"
    seen = []
    return synthesise(folder, **SETTINGS, workers=1, progress=lambda done, total: seen.append((done, total))), seen


@espeak
def test_workers_do_not_change_a_byte(made, tmp_path):
    synthesise(tmp_path / "two", **SETTINGS, workers=2)
    assert contents(tmp_path / "two") == contents(made[0].folder)


@espeak
def test_the_corpus_is_what_the_summary_says(made):
    result, seen = made
    texts = []
    for split, told in result.splits.items():
        corpus = read_corpus(result.folder / split)
        assert told["sentences"] == len(corpus)
        assert told["speakers"] == len({one.speaker for one in corpus}) == 2
        assert told["hours"] * 3600 == pytest.approx(sum(one.seconds for one in corpus))
        assert told["hours"] >= 0.0058
        assert told["words"] == sum(len(one.transcript.split()) for one in corpus)
        texts += [one.transcript for one in corpus]
    assert len(set(texts)) == len(texts)
    assert seen[0][0] == 0
    assert seen[-1][0] == pytest.approx(seen[-1][1])
    manifest = json.loads((result.folder / "corpus.json").read_text())
    assert manifest["complete"]
    assert manifest["seed"] == 2
    assert manifest["programs"]["espeak-ng"]
    assert {one["split"] for one in manifest["splits"]["exam"]["speakers"]} == {"exam"}


@espeak
def test_another_seed_says_other_things(made, tmp_path):
    other = synthesise(tmp_path / "other", **{**SETTINGS, "hours": 0.001, "seed": 3})
    texts = [{one.transcript for one in read_corpus(folder)} for folder in (other.folder, made[0].folder)]
    assert not texts[0] & texts[1]


@espeak
def test_a_run_goes_on_where_it_stopped(made, tmp_path):
    folder = tmp_path / "speech"
    shutil.copytree(made[0].folder, folder)
    speaker = sorted((folder / "dev").iterdir())[0]
    shutil.rmtree(speaker)
    half = folder / "dev" / f".{speaker.name}.x1.partial"
    half.mkdir()
    (half / "junk.flac").write_bytes(b"half")
    kept = next((folder / "train").iterdir()) / "speaker.json"
    before = kept.stat().st_mtime_ns
    again = synthesise(folder, **SETTINGS)
    assert again.rendered == 1
    assert kept.stat().st_mtime_ns == before
    assert contents(folder) == contents(made[0].folder)
    assert synthesise(folder, **SETTINGS).rendered == 0


@espeak
def test_two_runs_do_not_render_into_one_folder(made):
    before = contents(made[0].folder)
    with alone_in(made[0].folder), pytest.raises(CorpusError, match="Another process renders into"):
        synthesise(made[0].folder, **SETTINGS)
    assert contents(made[0].folder) == before
    assert synthesise(made[0].folder, **SETTINGS).rendered == 0


@espeak
@pytest.mark.parametrize(
    ("other", "told"),
    [({"hours": 0.005}, "holds a corpus with hours 0.0058, not 0.005"), ({"seed": 1}, "seed 2, not 1"),
     ({"noise": ["pink"]}, "effects None, not")],
)  # fmt: skip
def test_a_corpus_of_other_settings_is_refused(made, other, told):
    before = contents(made[0].folder)
    with pytest.raises(CorpusError, match=told):
        synthesise(made[0].folder, **{**SETTINGS, **other})
    assert contents(made[0].folder) == before


@espeak
def test_a_folder_with_other_things_is_refused(tmp_path):
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(CorpusError, match="exists and holds no corpus of otoscope's"):
        synthesise(tmp_path, 0.001, flite=False)
    (tmp_path / "corpus.json").write_text("{")
    with pytest.raises(CorpusError, match="corpus.json cannot be read"):
        synthesise(tmp_path, 0.001, flite=False)
    with pytest.raises(CorpusError, match="cannot be written"):
        synthesise(tmp_path / "letter.txt" / "speech", 0.001, flite=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus.json", "letter.txt"]


@pytest.mark.parametrize("hours", [0, -1.0, float("nan"), float("inf"), 1e-6, 1e6])
def test_hours_that_make_no_sense_are_refused(tmp_path, hours):
    with pytest.raises(CorpusError, match="hours cannot be rendered"):
        synthesise(tmp_path / "speech", hours)
    with pytest.raises(CorpusError, match="0 workers"):
        synthesise(tmp_path / "speech", 1, workers=0)
    with pytest.raises(SpeechError, match="no noise 'brown'"):
        synthesise(tmp_path / "speech", 1, noise=["brown"])
    assert not (tmp_path / "speech").exists()


@espeak
def test_without_flite_the_error_names_the_package_and_the_way_round(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"apt-get install flite.*--no-flite"):
        synthesise(tmp_path / "speech", 1)
    assert not (tmp_path / "speech").exists()


def test_without_espeak_the_error_names_the_package(tmp_path, monkeypatch):
    espeak_module._library.cache_clear()
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: "libnothing.so.9")
    with pytest.raises(MissingPackageError, match="apt-get install espeak-ng"):
        synthesise(tmp_path / "speech", 1)
    espeak_module._library.cache_clear()
    assert not (tmp_path / "speech").exists()


@espeak
def test_babble_is_cleared_away(tmp_path, monkeypatch):
    monkeypatch.setattr(planning, "_TALKERS", 2)
    monkeypatch.setattr(planning, "_TALK", 2.0)
    made = synthesise(tmp_path / "speech", 0.001, flite=False, noise=["babble"], rooms=True)
    assert sorted(path.name for path in made.folder.iterdir()) == ["corpus.json", "dev", "exam", "train"]
    told = json.loads(next((made.folder / "exam").iterdir()).joinpath("speaker.json").read_text())
    assert all(one["noise"] == "babble" and 0.2 <= one["rt60"] <= 0.8 for one in told["effects"].values())


@espeak
def test_a_speaker_that_fails_stops_the_run(tmp_path, monkeypatch):
    from otoscope.speech.synthesis import rendering

    def fail(job):
        raise SpeechError("It is hoarse", "Wait.")

    monkeypatch.setattr(rendering, "render_apart", fail)
    with pytest.raises(SpeechError, match="hoarse"):
        synthesise(tmp_path / "speech", 0.01, flite=False)
    assert not json.loads((tmp_path / "speech" / synthesising.MANIFEST).read_text())["complete"]
