"""What is embedded is what the recipe promises, and the recipe runs."""

import ctypes.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from otoscope.embedded import MODELS, SPEECH, embedded_model
from otoscope.errors import CorpusError, ModelError
from otoscope.evaluation import WordErrorRate
from otoscope.models import load
from otoscope.models.recogniser import load_recogniser
from otoscope.speech.synthesis.speakers import speakers
from otoscope.workflow import read_corpus
from recipes.embedded.telling import tables
from recipes.embedded.voices import made_up_voices

ROOT = Path(__file__).resolve().parents[2]
EMBEDDED = MODELS["embedded"].parents[1]
OUTCOME = json.loads((EMBEDDED / "outcome.json").read_text())
NAMES = sorted(set(MODELS) - {"embedded"})


@pytest.fixture(scope="module")
def exam():
    return read_corpus("embedded")


@pytest.fixture(scope="module")
def train():
    return read_corpus("embedded:train")


@pytest.mark.parametrize("family", ["wav2vec2", "wavlm"])
def test_error_rates_are_those_that_are_told(family, exam):
    name = f"embedded:{family}"
    told = OUTCOME["recognition"][name]
    scores = WordErrorRate().values(load_recogniser(name), exam)
    assert scores.value == pytest.approx(told["wer_all"][0], abs=0.003)
    assert scores.value < 0.3
    by_voice = {row["speaker"]: row["value"] for row in scores.by_speaker().to_dicts()}
    assert by_voice == pytest.approx(told["wer_by_voice"], abs=0.02)
    assert told["wer_espeak_without_attention"] > 2 * told["wer_espeak"][0]


@pytest.mark.parametrize("name", NAMES)
def test_models_are_as_they_are_described(name):
    model = load(name)
    assert model.name == name
    assert (model.anatomy.n_layers, set(model.anatomy.heads)) == (8, {4})
    assert 3.5e6 < model.parameters < 4e6
    with safe_open(MODELS[name] / "model.safetensors", "pt") as stored:
        assert {stored.get_tensor(key).dtype for key in stored.keys()} == {torch.float16}  # noqa: SIM118


def test_training_moved_every_layer():
    for family in ("wav2vec2", "wavlm"):
        initial, pretrained, trained = (
            load(name).family.encoder(load(name).source).state_dict()
            for name in (f"embedded:{family}-initial", f"embedded:{family}-pretrained", f"embedded:{family}")
        )
        for key, value in trained.items():
            if key.endswith("q_proj.weight"):
                assert not torch.equal(value, pretrained[key])
                assert not torch.equal(pretrained[key], initial[key])


def test_the_page_tells_what_was_measured():
    assert tables(OUTCOME) in (ROOT / "docs" / "embedded.md").read_text()


def test_names_lead_to_models_and_others_are_refused():
    assert embedded_model("embedded") == MODELS["embedded"]
    assert embedded_model("some/model") is None
    with pytest.raises(ModelError, match="no embedded model 'embedded:whisper'.*embedded:wavlm-initial"):
        load("embedded:whisper")
    with pytest.raises(CorpusError, match="no embedded speech 'embedded:test'.*embedded:train"):
        read_corpus("embedded:test")


def test_speech_is_as_long_as_it_should_be_and_has_times(exam, train):
    assert 350 <= exam.seconds <= 420
    assert 600 <= train.seconds <= 700
    assert (len(exam.speakers), len(train.speakers)) == (9, 12)
    for utterance in (*exam, *train):
        assert set(utterance.tiers) == {"phone", "word"}
        assert " ".join(one.label for one in utterance.tier("word")) == utterance.transcript


def test_exam_shares_no_voice_and_no_sentence_with_train(exam, train):
    table = {split: speakers(split, True) for split in ("train", "dev", "exam")}
    assert {one.name for one in table["exam"]} == set(exam.speakers)
    assert {one.name for one in table["train"]} >= set(train.speakers)
    voices = {split: {one.variant for one in part} for split, part in table.items()}
    assert not voices["exam"] & (voices["train"] | voices["dev"])
    assert not {u.transcript for u in exam} & {u.transcript for u in train}


def test_made_up_voices_are_of_the_training_voices_alone():
    made_up = made_up_voices()
    assert len({one.name for one in made_up}) == len(made_up) == 48
    assert made_up == made_up_voices()
    recorded = {one.variant for one in speakers("train", True) if one.engine == "flite"}
    assert {one.variant for one in made_up} == recorded
    assert {one.split for one in made_up} == {"train"}


def test_what_is_shipped_is_small():
    assert sum(path.stat().st_size for path in EMBEDDED.rglob("*") if path.is_file()) <= 70e6
    assert all(path.exists() for path in (*MODELS.values(), *SPEECH.values()))


@pytest.mark.slow
@pytest.mark.skipif(
    (ctypes.util.find_library("espeak-ng") is None or shutil.which("flite") is None)
    and not os.environ.get("OTOSCOPE_NOTHING_SKIPPED"),
    reason="needs the Debian packages espeak-ng and flite",
)
def test_the_recipe_runs_in_small(tmp_path):
    work, output = tmp_path / "work", tmp_path / "embedded"
    command = [sys.executable, "-m", "recipes.embedded", "--hours", "0.7", "--scale", "0.004", "--work", str(work)]
    subprocess.run([*command, "--output", str(output)], check=True, cwd=ROOT, capture_output=True)
    for name, path in MODELS.items():
        assert load(output / path.relative_to(EMBEDDED)).anatomy.n_layers == 8, name
    assert len(read_corpus(output / "speech" / "exam").speakers) == 9
