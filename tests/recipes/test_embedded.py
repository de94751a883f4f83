"""What is embedded is what the recipe promises, and the recipe runs."""

import ctypes.util
import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import jiwer
import pytest
import torch

from otoscope.embedded import EXAM, INITIAL, MODEL
from otoscope.models import load
from otoscope.speech import read_corpus
from recipes.embedded import voices
from recipes.embedded.sentences import sentence

ROOT = Path(__file__).resolve().parents[2]
OUTCOME = json.loads((MODEL.parent / "outcome.json").read_text())


def transcribe(model, vocabulary, utterance):
    import numpy as np

    wave = utterance.read()
    wave = (wave - wave.mean()) / np.sqrt(wave.var() + 1e-7)
    with torch.inference_mode():
        best = model(torch.from_numpy(wave)[None]).logits[0].argmax(-1)
    letters = "".join(vocabulary[k] for k in torch.unique_consecutive(best).tolist() if k)
    return letters.replace("|", " ").strip()


def error_rate(model, corpus):
    vocabulary = {k: c for c, k in json.loads((MODEL / "vocab.json").read_text()).items()}
    pairs = [(u.transcript, transcribe(model, vocabulary, u) or "-") for u in corpus if u.speaker != "flite-awb"]
    return jiwer.wer([a for a, _ in pairs], [b for _, b in pairs])


@pytest.fixture(scope="module")
def exam():
    return read_corpus(EXAM)


def test_error_rate_on_voices_never_heard(exam):
    assert error_rate(load(MODEL).source.eval(), exam) <= 0.08


def test_attention_matters(exam):
    model = load(MODEL).source.eval()
    spoken = error_rate(model, exam)
    for layer in model.wav2vec2.encoder.layers:
        layer.attention.register_forward_hook(lambda module, args, out: (torch.zeros_like(out[0]), *out[1:]))
    assert error_rate(model, exam) >= 3 * spoken
    assert OUTCOME["wer_espeak"] == pytest.approx(spoken, abs=0.003)


def test_the_model_is_as_it_is_described():
    model, initial = load(MODEL), load(INITIAL)
    assert 2e6 < model.parameters < 4e6
    assert model.anatomy.n_layers >= 6
    assert min(model.anatomy.heads) >= 4
    assert model.fingerprint() != initial.fingerprint()
    assert [tuple(p.shape) for p in model.source.parameters()] == [tuple(p.shape) for p in initial.source.parameters()]


def test_exam_is_six_minutes_with_times(exam):
    assert 330 <= exam.seconds <= 400
    assert exam.tiers == ("phone", "word")
    for utterance in exam:
        assert " ".join(one.label for one in utterance.tier("word")) == utterance.transcript


def test_exam_voices_were_never_trained_on(exam):
    heard = {name.lower() for name in (*voices.TRAIN_VARIANTS, *voices.DEV_VARIANTS, *voices.TRAIN_FLITE)}
    assert not {voice.variant.lower() for voice in voices.EXAM} & heard
    assert voices.EXAM_FLITE not in heard
    assert set(exam.speakers) == {voice.name for voice in voices.EXAM} | {f"flite-{voices.EXAM_FLITE}"}


def test_what_is_shipped_is_small():
    size = sum(path.stat().st_size for path in MODEL.parent.rglob("*") if path.is_file())
    assert size <= 25e6


def test_sentences_follow_from_the_seed():
    first, second = ([sentence(random.Random(3)) for _ in range(20)] for _ in range(2))
    assert first == second


@pytest.mark.slow
@pytest.mark.skipif(
    ctypes.util.find_library("espeak-ng") is None or shutil.which("flite") is None,
    reason="needs the Debian packages espeak-ng and flite",
)
def test_the_recipe_runs_in_small(tmp_path):
    command = (
        f"{sys.executable} -m recipes.embedded --steps 4 --espeak-sentences 40 --flite-sentences 6 --exam-seconds 20 "
        f"--work {tmp_path}/work --output {tmp_path}/out"
    )
    done = subprocess.run(command.split(), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert load(tmp_path / "out" / "model").anatomy.n_layers == 6
    assert len(read_corpus(tmp_path / "out" / "exam").speakers) == 9
    assert {"wer", "wer_by_voice", "dev_cost_of_head"} <= json.loads(
        (tmp_path / "out" / "outcome.json").read_text()
    ).keys()
