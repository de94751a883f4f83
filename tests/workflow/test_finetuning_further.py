"""`finetune` with pieces of words, subsets, plans and an opening encoder: from the call to the folder that is read."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from otoscope.errors import (
    EvaluationError,
    OtoscopeError,
    PlanError,
    TrainingError,
    VocabularyError,
)
from otoscope.models.loading import load
from otoscope.models.recogniser import load_recogniser
from otoscope.plans.plan import Line, Plan
from otoscope.speech.corpus import Corpus
from otoscope.training.ctc import CtcSettings
from otoscope.treatments import Freeze, LimitSpan, PruneHeads, RemoveBlocks, Sizes, record_of
from otoscope.workflow import evaluate, finetune
from tests.training.small_ctc import tiny_encoder
from tests.training.small_training import settings, spelt_speech, weights

SPEECH = spelt_speech()
QUICK = {"settings": settings(steps=3, save_every=2), "hold_out": 0.25}
PLAN = [PruneHeads("layer.1.head.0"), LimitSpan("layer.2", 4), Freeze("layer.1")]


def _settings(folder):
    return json.loads((folder / "run" / "settings.json").read_text())


@pytest.fixture(scope="module")
def spelling_pieces(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pieces") / "m"
    return folder, finetune(tiny_encoder(), SPEECH, folder, vocabulary="bpe:16", **QUICK)


def test_pieces_are_learnt_stored_and_evaluated(spelling_pieces):
    folder, outcome = spelling_pieces
    found = load_recogniser(folder)
    assert len(found.vocabulary) == 16
    assert found.vocabulary.pieces is not None
    assert load(folder).source.config.vocab_size == 16
    assert AutoTokenizer.from_pretrained(folder).decode(found.vocabulary.encode("abc dab")) == "abc dab"
    scores = evaluate(folder, SPEECH, metrics=["wer"]).scores
    assert scores["wer"].value > 0
    assert outcome.held_out.keys() == {"wer", "cer"}
    assert _settings(folder)["vocabulary"] == list(found.vocabulary.tokens)


def test_a_model_that_spells_pieces_is_gone_on_with(spelling_pieces, tmp_path):
    folder, _ = spelling_pieces
    finetune(folder, SPEECH, tmp_path / "m", **QUICK)
    before, after = (load_recogniser(place).vocabulary for place in (folder, tmp_path / "m"))
    assert before == after
    assert after.encode("dad cab") == before.encode("dad cab")
    with pytest.raises(VocabularyError, match="'z'"):
        finetune(folder, _with_transcript("abz"), tmp_path / "n", **QUICK)


def test_a_vocabulary_that_is_named_puts_a_fresh_head_in_place_of_the_old_one(spelling_pieces, tmp_path):
    folder, _ = spelling_pieces
    finetune(folder, SPEECH, tmp_path / "m", vocabulary="characters", **QUICK)
    found = load_recogniser(tmp_path / "m")
    assert found.vocabulary.tokens == ("<pad>", "|", "a", "b", "c", "d")
    start, old = weights(tmp_path / "m" / "initial"), weights(folder)
    assert all(torch.equal(start[name], old[name]) for name in old if name.startswith("hubert."))
    own = finetune(tiny_encoder(), SPEECH, tmp_path / "n", vocabulary=load_recogniser(folder).vocabulary, **QUICK)
    assert load_recogniser(own.folder).vocabulary == load_recogniser(folder).vocabulary


def _with_transcript(text, seconds=1.0):
    draw = np.random.default_rng(0)
    wave = (draw.standard_normal(int(16000 * seconds)) * 0.1).astype(np.float32)
    bad = [
        replace(SPEECH[0], id=f"bad{k}", speaker=f"s{k}", transcript=text, tiers={}, n_samples=len(wave), source=wave)
        for k in range(4)
    ]
    return replace(SPEECH, utterances=(*SPEECH.utterances, *bad))


@pytest.mark.parametrize(
    ("changes", "error", "told"),
    [
        ({"vocabulary": "words"}, TrainingError, "no vocabulary of the kind"),
        ({"vocabulary": "bpe:4"}, TrainingError, "4 pieces cannot hold the 7 characters"),
        ({"vocabulary": "bpe:9000"}, TrainingError, "pieces, not 9000"),
        ({"vocabulary": "bpe:16", "corpus": _with_transcript("ab cd " * 60)}, EvaluationError, "no CTC alignment"),
        ({"subset": "1h"}, TrainingError, "A subset of 1.00 h cannot be taken of"),
        ({"subset": "much"}, TrainingError, "no amount of speech"),
        ({"ctc": CtcSettings(open_at=3)}, TrainingError, "opened at step 3 of 3"),
        ({"plan": "/no/plan.toml"}, PlanError, "/no/plan.toml"),
        ({"plan": [RemoveBlocks("layer.9")]}, PlanError, "layer.9"),
        ({"plan": Plan((Line(LimitSpan("layer.1", 2)),), model={"family": "wavlm"})}, PlanError, "another architecture"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_before_anything_is_written(changes, error, told, tmp_path):
    given = {"corpus": SPEECH, **QUICK, **changes}
    with pytest.raises(error, match=told) as raised:
        finetune(tiny_encoder(), given.pop("corpus"), tmp_path / "m", **given)
    assert isinstance(raised.value, OtoscopeError)
    assert raised.value.cure
    assert not (tmp_path / "m").exists()


def test_a_subset_is_trained_on_and_stands_in_the_settings(tmp_path):
    outcome = finetune(tiny_encoder(), SPEECH, tmp_path, subset=4.0, **QUICK)
    told = _settings(tmp_path)["subset"]
    assert told["asked_seconds"] == 4.0
    assert 4.0 <= told["seconds"] < 5.5
    assert told["utterances"] == outcome.trained_on == 4
    assert told["speakers"] == 3  # one of four is held out
    assert outcome.watched == 3


def test_short_utterances_can_be_withheld(tmp_path):
    """All four speakers say as much; one of them is held out whole."""
    between = float(np.median([one.seconds for one in SPEECH])) + 1e-6
    outcome = finetune(tiny_encoder(), SPEECH, tmp_path / "long", at_least=between, **QUICK)
    held = finetune(tiny_encoder(), SPEECH, tmp_path / "all", **QUICK)
    assert 0 < outcome.trained_on < held.trained_on
    assert outcome.trained_on <= sum(one.seconds >= between for one in SPEECH)
    assert outcome.watched == held.watched
    with pytest.raises(TrainingError, match="as long as 99 s"):
        finetune(tiny_encoder(), SPEECH, tmp_path / "none", at_least=99.0, **QUICK)
    assert not (tmp_path / "none").exists()


def test_empty_transcripts_do_not_count_into_a_subset(tmp_path):
    """What is left out is left out before the subset is taken, so that it is as long as was asked for."""
    odd = replace(SPEECH, utterances=tuple(
        replace(u, transcript="" if k % 3 == 0 else u.transcript) for k, u in enumerate(SPEECH)
    ))  # fmt: skip
    outcome = finetune(tiny_encoder(), odd, tmp_path, subset=4.0, skip_bad=True, **QUICK)
    assert _settings(tmp_path)["subset"]["seconds"] >= 4.0
    assert len(outcome.left_out) == 4


def test_a_plan_is_carried_out_before_the_training(tmp_path):
    model = tiny_encoder()
    Plan(tuple(map(Line, PLAN)), model=model.describe()).save(tmp_path / "plan.toml")
    before = model.fingerprint()
    outcomes = [
        finetune(model, SPEECH, tmp_path / name, plan=plan, **QUICK)
        for name, plan in (("file", tmp_path / "plan.toml"), ("list", PLAN))
    ]
    assert model.fingerprint() == before
    assert outcomes[0].held_out == outcomes[1].held_out
    one, other = (load(tmp_path / name) for name in ("file", "list"))
    assert one.fingerprint() == other.fingerprint()
    assert record_of(one.source).treatments == tuple(PLAN)
    assert Sizes.of(one).head_names == ((1,), (0, 1))
    start = load(tmp_path / "file" / "initial").source.state_dict()
    frozen = [name for name in start if ".layers.0." in name]
    assert frozen
    assert all(torch.equal(one.source.state_dict()[name], start[name]) for name in frozen)


def test_a_treated_recogniser_is_repaired_and_treated_again(spelling_pieces, tmp_path):
    folder, _ = spelling_pieces
    finetune(folder, SPEECH, tmp_path / "a", plan=PLAN[:1], **QUICK)
    finetune(tmp_path / "a", SPEECH, tmp_path / "b", plan=[RemoveBlocks("layer.2")], **QUICK)
    found = load_recogniser(tmp_path / "b")
    assert record_of(found.model.source).treatments == (PLAN[0], RemoveBlocks("layer.2"))
    assert found.vocabulary == load_recogniser(folder).vocabulary
    assert evaluate(tmp_path / "b", Corpus("one", SPEECH.utterances[:2]), metrics=["wer"]).scores["wer"].value >= 0
    assert not (tmp_path / "b" / "vocab.json").exists()


def test_a_fresh_head_does_not_take_the_tokenizer_of_the_origin_along(spelling_pieces, tmp_path):
    folder, _ = spelling_pieces
    finetune(folder, SPEECH, tmp_path / "m", plan=PLAN[:1], vocabulary="characters", **QUICK)
    assert load_recogniser(tmp_path / "m").vocabulary.tokens[2:] == ("a", "b", "c", "d")
    assert not (tmp_path / "m" / "tokenizer.json").exists()
