"""`finetune`: a copy of a model learns to spell, and everything that must stop it."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import HubertModel

from otoscope.errors import (
    AudioError,
    CheckpointError,
    EvaluationError,
    HeadError,
    OtoscopeError,
    TrainingError,
    TranscriptError,
    VocabularyError,
)
from otoscope.models.loading import load
from otoscope.models.recogniser import load_recogniser
from otoscope.speech.corpus import Corpus
from otoscope.surgery import CutHeads, apply
from otoscope.training.architectures import make_config, seeded
from otoscope.training.augmentation import Augmentation
from otoscope.training.ctc import CtcSettings
from otoscope.workflow import evaluate, finetune
from tests.diagnosis.small_speech import small_speech
from tests.models.small import CASES
from tests.training.small_training import TINY, same, settings, spelt_speech, stopping_at, tree, weights

SPEECH = spelt_speech()
QUICK = {"settings": settings(steps=3, save_every=2), "hold_out": 0.25}
FULL = {"ctc": CtcSettings(0.1, 3, False, 1), "augmentation": Augmentation(noise=0.5, speed=(0.9, 1.1))}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder")
    seeded(0, lambda: HubertModel(make_config("hubert", TINY))).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def recogniser(encoder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("recogniser") / "m"
    return folder, finetune(encoder, SPEECH, folder, **QUICK, **FULL)


def test_the_result_is_a_recogniser_with_the_figures_that_were_told(recogniser):
    folder, outcome = recogniser
    made = load_recogniser(folder)
    assert made.vocabulary.tokens == ("<pad>", "|", "a", "b", "c", "d")
    assert (outcome.objective, outcome.trained_on, outcome.watched) == ("ctc", 9, 3)
    speakers = sorted({u.speaker for u in SPEECH})
    found = [
        evaluate(folder, SPEECH.subset(lambda u, s=s: u.speaker == s), metrics=["wer", "cer"]).scores for s in speakers
    ]
    figures = [{name: scores.value for name, scores in one.items()} for one in found]
    assert any(one == pytest.approx(outcome.held_out) for one in figures)
    rows = [json.loads(line) for line in (folder / "run" / "log.jsonl").read_text().splitlines()]
    assert rows[0].keys() >= {"loss", "ctc", "phone", "phone_accuracy", "minutes_left"}


def test_an_interrupted_run_ends_as_the_unbroken_one(encoder, recogniser, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        finetune(encoder, SPEECH, tmp_path, report=stopping_at(3), **QUICK, **FULL)
    assert not (tmp_path / "config.json").exists()
    again = finetune(encoder, SPEECH, tmp_path, resume=True, **QUICK, **FULL)
    assert same(tmp_path, recogniser[0])
    assert again.held_out == recogniser[1].held_out


def test_the_initial_model_is_the_encoder_with_a_fresh_head(encoder, recogniser):
    initial, before = weights(recogniser[0] / "initial"), weights(encoder)
    for name, value in before.items():
        assert torch.equal(initial[f"hubert.{name}"], value)
    assert torch.equal(initial["lm_head.weight"], initial["lm_head.weight"].half().float())


def test_a_model_that_was_passed_in_is_not_changed(encoder, tmp_path):
    model = load(encoder)
    before = model.fingerprint()
    outcome = finetune(model, SPEECH, tmp_path / "a", **QUICK)
    assert model.fingerprint() == before
    live = model.source
    finetune(live, SPEECH, tmp_path / "b", **QUICK)
    assert same(tmp_path / "a", tmp_path / "b")
    frozen = [name for name in weights(tmp_path / "a") if "feature_extractor" in name]
    assert all(torch.equal(weights(outcome.folder)[name], weights(encoder)[name[7:]]) for name in frozen)


def test_a_model_with_a_head_keeps_it_and_its_vocabulary(recogniser, tmp_path):
    folder, _ = recogniser
    spelt = replace(SPEECH, utterances=tuple(replace(u, transcript=u.transcript.upper().replace("D", "a"))
                                             for u in SPEECH))  # fmt: skip
    finetune(folder, spelt, tmp_path / "m", **QUICK)
    assert same(tmp_path / "m" / "initial", folder)
    assert load_recogniser(tmp_path / "m").vocabulary == load_recogniser(folder).vocabulary


def test_characters_outside_the_vocabulary_are_named_or_left_out(recogniser, tmp_path):
    first, *others = SPEECH.utterances
    odd = replace(SPEECH, utterances=(replace(first, transcript="abc é"), *others))
    with pytest.raises(VocabularyError, match=f"{first.id}.*'é'"):
        finetune(recogniser[0], odd, tmp_path / "m", **QUICK)
    assert not (tmp_path / "m").exists()
    outcome = finetune(recogniser[0], odd, tmp_path / "m", skip_bad=True, **QUICK)
    assert [one.id for one in outcome.left_out] == [first.id]
    assert "é" in outcome.left_out[0].reason


def test_what_shows_only_in_the_samples_is_named_or_left_out(encoder, tmp_path):
    bad = _with("abc")
    for k in range(4):
        bad[f"bad{k}"].source[100] = np.nan
    with pytest.raises(AudioError, match="NaN") as error:
        finetune(encoder, bad, tmp_path / "m", **QUICK)
    assert "--skip-bad" in error.value.cure
    outcome = finetune(encoder, bad, tmp_path / "left", skip_bad=True, **QUICK)
    # Of the speakers to watch with not all utterances need be watched with.
    assert {one.id for one in outcome.left_out} == {f"bad{k}" for k in range(4)}


def _with(transcript, seconds=1.0):
    """The speech with a bad utterance at the end of every speaker's."""
    draw = np.random.default_rng(0)
    bad = [
        replace(SPEECH[0], id=f"bad{k}", speaker=f"s{k}", transcript=transcript, tiers={}, n_samples=int(16000 * seconds),
                source=draw.standard_normal(int(16000 * seconds)).astype(np.float32) * 0.1)
        for k in range(4)
    ]  # fmt: skip
    return replace(SPEECH, utterances=(*SPEECH.utterances, *bad))


@pytest.mark.parametrize(
    ("corpus", "error", "told"),
    [
        (small_speech(), TrainingError, "has no transcripts"),
        (_with(None), TranscriptError, "no transcript"),
        (_with(""), TranscriptError, "empty transcript"),
        (_with("abcd" * 20), EvaluationError, "needs 80"),
        (_with("a|b"), TrainingError, "parts words"),
        (_with("ab", 0.05), OtoscopeError, "fewer than"),
        ("embedded", TrainingError, "examination"),
        ("/no/such/speech", OtoscopeError, "/no/such/speech"),
    ],
)
def test_speech_that_cannot_be_trained_on_is_refused_before_anything_is_written(corpus, error, told, encoder, tmp_path):
    with pytest.raises(error, match=told) as raised:
        finetune(encoder, corpus, tmp_path / "m", **QUICK)
    assert raised.value.cure
    assert not (tmp_path / "m").exists()


def test_no_utterance_that_is_left_is_told(encoder, tmp_path):
    corpus = Corpus.from_arrays([np.zeros(8000)] * 4, transcripts=["abcd" * 20, "ab" * 40, "a", "b"], ids=list("wxyz"))
    short = replace(corpus, utterances=corpus.utterances[:2])
    with pytest.raises(TrainingError, match=r"No utterance is left to .* the first for this: .*no CTC alignment"):
        finetune(encoder, short, tmp_path / "m", skip_bad=True, **QUICK)
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("settings_of_ctc", "told"),
    [(CtcSettings(phone_layer=7), "no layer 7"), (CtcSettings(phone_layer=1), "corpus has none")],
)
def test_a_phone_loss_that_cannot_be_is_refused(settings_of_ctc, told, encoder, tmp_path):
    bare = replace(SPEECH, utterances=tuple(replace(u, tiers={}) for u in SPEECH))
    with pytest.raises(TrainingError, match=told):
        finetune(encoder, bare if "none" in told else SPEECH, tmp_path / "m", ctc=settings_of_ctc, **QUICK)
    assert not (tmp_path / "m").exists()


def test_models_that_cannot_be_trained_for_ctc_are_refused(encoder, recogniser, tmp_path):
    next(case for case in CASES if case.name == "whisper").write(tmp_path / "whisper")
    with pytest.raises(HeadError, match="no CTC head"):
        finetune(tmp_path / "whisper", SPEECH, tmp_path / "m", **QUICK)
    for place in (encoder, recogniser[0]):
        with pytest.raises(HeadError, match="edited copy"):
            finetune(apply(load(place), [CutHeads("layer.1.head.0")]), SPEECH, tmp_path / "m", **QUICK)
    with pytest.raises(CheckpointError):
        finetune(tmp_path / "none", SPEECH, tmp_path / "m", **QUICK)
    assert not (tmp_path / "m").exists()


def test_a_checkpoint_of_another_shape_is_refused(encoder, tmp_path):
    for name in ("model.safetensors", "config.json"):
        (tmp_path / name).write_bytes((encoder / name).read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "intermediate_size": 80}))
    with pytest.raises(CheckpointError):
        finetune(tmp_path, SPEECH, tmp_path / "m", **QUICK)


def test_a_run_is_taken_up_only_with_the_same_model_and_settings(encoder, recogniser, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        finetune(encoder, SPEECH, tmp_path / "m", report=stopping_at(1), **QUICK)
    before = tree(tmp_path / "m")
    other = seeded(0, lambda: HubertModel(make_config("hubert", replace(TINY, layers=1))))
    with pytest.raises(TrainingError, match="model.num_hidden_layers = 2, not 1"):
        finetune(other, SPEECH, tmp_path / "m", resume=True, **QUICK)
    with pytest.raises(TrainingError, match="freeze_convolutions = True, not False"):
        finetune(encoder, SPEECH, tmp_path / "m", resume=True, ctc=CtcSettings(freeze_convolutions=False), **QUICK)
    assert tree(tmp_path / "m") == before


def test_the_folder_is_looked_at_before_the_model_is_read(recogniser):
    with pytest.raises(TrainingError, match="holds a model already"):
        finetune("/no/such/model", SPEECH, recogniser[0], **QUICK)


@pytest.mark.slow
def test_minutes_of_training_learn_to_spell_tones(tmp_path):
    speech = spelt_speech(120, speakers=6)
    model = seeded(0, lambda: HubertModel(make_config("hubert", replace(TINY, dropout=0.0))))
    given = settings(
        steps=400, batch_seconds=20.0, learning_rate=3e-3, save_every=400, evaluate_every=200, log_every=50
    )
    ctc = CtcSettings(mask=0.0, freeze_convolutions=False, phone_layer=2)
    outcome = finetune(model, speech, tmp_path, settings=given, ctc=ctc, hold_out=0.17)
    assert outcome.held_out["cer"] < 0.3
