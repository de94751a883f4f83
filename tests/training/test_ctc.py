"""CTC fine-tuning: the loss of transformers, phones at the centres of frames, and a head on a copy of the encoder."""

import copy
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import Wav2Vec2Config, Wav2Vec2ForCTC, Wav2Vec2Model

from otoscope.errors import EvaluationError, HeadError, TrainingError, TranscriptError, VocabularyError
from otoscope.models.loading import load
from otoscope.models.model import SpeechModel
from otoscope.models.recogniser import Recogniser
from otoscope.models.vocabulary import Vocabulary
from otoscope.speech.corpus import Corpus
from otoscope.speech.utterance import Interval
from otoscope.surgery import CutHeads, Redraw, apply
from otoscope.training.augmentation import Augmentation
from otoscope.training.ctc import PHONE_SHARE, Ctc, CtcSettings
from otoscope.training.ctc_head import with_ctc_head
from otoscope.treatments import PruneHeads, treated
from tests.diagnosis.small_speech import PHONES
from tests.models.small import _GROUP, _WAVE, CASES
from tests.training.small_training import spelt_speech

VOCABULARY = Vocabulary(("<pad>", "|", "a", "b", "c", "d"), 0)
CORPUS = spelt_speech(4)
WITHOUT_CTC = {"whisper", "whisper-generation", "mockingjay", "mockingjay-pretraining"}


def _model(name="hubert-group") -> SpeechModel:
    return load(next(case for case in CASES if case.name == name).build())


def _ctc(name="hubert-group", settings=None, **other) -> Ctc:
    ready = _model(name)
    made = with_ctc_head(ready, VOCABULARY, 0)
    return Ctc(Recogniser(SpeechModel(made, ready.family, ready.frontend, name), VOCABULARY), settings, **other)


def _batch(made, utterances=CORPUS.utterances, seed=0):
    return made.assemble(utterances, [u.read() for u in utterances], np.random.default_rng(seed))


@pytest.mark.parametrize("case", [c for c in CASES if c.name not in WITHOUT_CTC], ids=lambda case: case.name)
def test_a_head_is_put_on_a_copy_of_the_encoder_bit_for_bit(case):
    ready = load(case.build())
    before = {name: value.clone() for name, value in ready.source.state_dict().items()}
    made = with_ctc_head(ready, VOCABULARY, 3)
    assert type(made).__name__.endswith("ForCTC")
    assert (made.config.vocab_size, made.config.pad_token_id) == (6, 0)
    theirs, own = (ready.family.encoder(model).state_dict() for model in (ready.source, made))
    assert theirs.keys() == own.keys()
    for name, value in theirs.items():
        assert torch.equal(value, own[name]), name
        assert value.data_ptr() != own[name].data_ptr()
    for name, value in ready.source.state_dict().items():
        assert torch.equal(value, before[name])
    recogniser = Recogniser(SpeechModel(made, ready.family, ready.frontend, "made"), VOCABULARY)
    samples = CORPUS[0].read()
    (scores,) = recogniser.log_probabilities([samples])
    assert scores.shape == (recogniser.frames(len(samples)), 6)


def test_the_head_follows_from_the_seed():
    one, again, other = (with_ctc_head(_model(), VOCABULARY, seed).lm_head.weight for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("name", sorted(WITHOUT_CTC))
def test_families_without_ctc_are_refused(name):
    with pytest.raises(HeadError, match="no CTC model for the family (whisper|mockingjay)"):
        with_ctc_head(_model(name), VOCABULARY, 0)


def test_an_edited_model_is_refused_since_its_edits_could_not_be_stored():
    edited = apply(_model(), [CutHeads("layer.1.head.0")])
    with pytest.raises(HeadError, match="edited copy") as error:
        with_ctc_head(edited, VOCABULARY, 0)
    assert "plan" in error.value.cure
    beyond = apply(treated(_model(), [PruneHeads("layer.1.head.0")]), [CutHeads("layer.2.head.0")])
    with pytest.raises(HeadError, match="edited copy"):
        with_ctc_head(beyond, VOCABULARY, 0)


def test_new_weights_alone_are_no_edit_that_has_to_be_told():
    with_ctc_head(apply(_model(), [Redraw("layer.1")]), VOCABULARY, 0)


def test_a_model_in_half_precision_is_trained_in_float32():
    made = with_ctc_head(load(_model().source.half()), VOCABULARY, 0)
    assert {parameter.dtype for parameter in made.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    "name", ["wav2vec2-stable", "hubert-group", "wavlm-group", "conformer-relative", "bert-relative-key"]
)
def test_the_loss_is_that_of_transformers(name):
    made = _ctc(name).eval()
    batch = _batch(made)
    texts = torch.nn.utils.rnn.pad_sequence(batch["targets"].split(batch["target_lengths"].tolist()), True, -100)
    inputs = {key: value for key, value in batch.items() if key in ("input_values", "input_features", "attention_mask")}
    made.model.config.ctc_loss_reduction = "mean"
    with torch.no_grad():
        own = made(torch.tensor(0.0), **batch)["loss"]
        theirs = made.model(**inputs, labels=texts).loss
    torch.testing.assert_close(own, theirs)


def test_a_model_with_an_adapter_has_its_own_number_of_frames():
    source = Wav2Vec2ForCTC(Wav2Vec2Config(**{**_WAVE, **_GROUP, "vocab_size": 6}, add_adapter=True, num_adapter_layers=1,
                                           output_hidden_size=48))  # fmt: skip
    made = Ctc(Recogniser(load(source), VOCABULARY)).eval()
    batch = _batch(made)
    with torch.no_grad():
        assert batch["frames"].max() == made.model(batch["input_values"]).logits.shape[1]
        assert torch.isfinite(made(torch.tensor(0.0), **batch)["loss"])


def test_silence_between_words_is_the_delimiter():
    batch = _batch(_ctc(), CORPUS.utterances[:2])
    texts = [u.transcript for u in CORPUS.utterances[:2]]
    assert batch["target_lengths"].tolist() == [len(text) for text in texts]
    assert batch["targets"].tolist() == [" abcd".index(c) + 1 for text in texts for c in text]


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_convolutions_stay_bit_for_bit_and_all_else_moves(frozen):
    made = _ctc("hubert-group", CtcSettings(mask=0.2, mask_span=2, freeze_convolutions=frozen)).train()
    made.model.config.layerdrop = 0.0
    before = {name: value.clone() for name, value in made.model.named_parameters()}
    descent = torch.optim.SGD([p for p in made.parameters() if p.requires_grad], 0.1)
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - transformers draws its masks there
    made(torch.tensor(0.0), **_batch(made))["loss"].backward()
    descent.step()
    for name, value in made.model.named_parameters():
        moved = not torch.equal(value, before[name])
        if "feature_extractor" in name:
            assert moved != frozen, name
        elif not name.endswith("k_proj.bias"):  # adds the same to all scores of a frame
            assert moved, name


def _one(intervals, n_samples):
    tiers = {"phone": tuple(Interval(*x) for x in intervals)}
    return Corpus.from_arrays([np.zeros(n_samples)], tiers=[tiers])[0]


@given(st.lists(st.tuples(st.integers(0, 900), st.integers(1, 900), st.sampled_from(PHONES)), min_size=1, max_size=12),
       st.sampled_from([1.0, 0.75, 1.25]))  # fmt: skip
def test_the_phone_of_a_frame_is_the_one_at_its_centre(pieces, speed):
    intervals, at = [], 0
    for gap, length, label in pieces:
        intervals.append((at + gap, at + gap + length, label))
        at += gap + length
    utterance = _one(intervals, max(at, 800))
    frames = 12
    found = _LABELLED.phone_labels(utterance, frames, speed)
    for k in range(frames):
        centre = Fraction(320 * k + 200) * Fraction(speed)
        wanted = [label for start, end, label in intervals if start <= centre < end]
        assert found[k] == (PHONES.index(wanted[0]) if wanted else -100)


_LABELLED = _ctc("hubert-group", CtcSettings(phone_layer=2), phones=PHONES)


def test_labels_at_borders_are_exact():
    utterance = _one([(200, 520, "aa"), (520, 521, "iy"), (839, 840, "s"), (1160, 1161, "zh")], 1600)
    assert _LABELLED.phone_labels(utterance, 4).tolist() == [0, 1, -100, -100]  # 840 is beyond s; zh is no phone here


def test_a_phone_that_is_heard_faster_is_found_where_it_went():
    samples = np.zeros(16000, np.float32)
    t = np.arange(1600) / 16000
    samples[8000:9600] = 0.5 * np.sin(2 * np.pi * 500 * t)
    utterance = _one([(8000, 9600, "s")], 16000)
    for speed in (0.8, 1.25):
        heard, told = Augmentation(speed=(speed, speed)).apply(samples, np.random.default_rng(0))
        frames = (len(heard) - 400) // 320 + 1
        energy = [np.square(heard[320 * k + 180 : 320 * k + 220]).sum() for k in range(frames)]
        loud = np.array(energy) > 0.2 * max(energy)
        np.testing.assert_array_equal(_LABELLED.phone_labels(utterance, frames, told) == PHONES.index("s"), loud)


def test_the_phone_loss_is_the_cross_entropy_of_a_layer_and_weighs_less_later():
    made = _ctc("hubert-group", CtcSettings(phone_layer=2), phones=PHONES).eval()
    batch = _batch(made)
    with torch.no_grad():
        early, late = (made(torch.tensor(at), **batch) for at in (0.0, PHONE_SHARE))
        total, n = 0.0, 0
        for k, utterance in enumerate(CORPUS):
            wave = made.frontend.inputs([utterance.read()])
            if len(CORPUS) > 1:  # the batch is padded, and group norm would see the padding
                wave = {"input_values": batch["input_values"], "attention_mask": batch["attention_mask"]}
            hidden = made.model(**wave, output_hidden_states=True).hidden_states[2][k]
            scores = torch.log_softmax(made.phone_head(hidden), -1)
            for frame, label in enumerate(made.phone_labels(utterance, int(batch["frames"][k]))):
                if label >= 0:
                    total, n = total - float(scores[frame, label]), n + 1
    assert float(early["phone"]) == pytest.approx(total / n, rel=1e-5)
    torch.testing.assert_close(early["loss"], early["ctc"] + early["phone"])
    torch.testing.assert_close(late["loss"], late["ctc"] + 0.3 * late["phone"])


def test_a_batch_without_any_phone_is_trained_by_ctc_alone():
    made = _ctc("hubert-group", CtcSettings(phone_layer=2), phones=["zh"]).train()
    parts = made(torch.tensor(0.0), **_batch(made))
    torch.testing.assert_close(parts["loss"], parts["ctc"])
    parts["loss"].backward()
    assert torch.isfinite(parts["loss"])
    assert all(torch.isfinite(p.grad).all() for p in made.parameters() if p.grad is not None)


def test_dropped_layers_do_not_move_the_phone_loss_to_another_layer():
    made = _ctc("hubert-group", CtcSettings(phone_layer=3), phones=PHONES).train()
    for _ in range(4):
        made(torch.tensor(0.0), **_batch(made))
    assert made.model.config.layerdrop == 0


def test_masks_longer_than_the_speech_are_cut_short():
    made = _ctc("hubert-group", CtcSettings(mask=0.3, mask_span=40)).train()
    short = Corpus.from_arrays([np.random.default_rng(0).standard_normal(3000)], transcripts=["ab"])
    assert torch.isfinite(made(torch.tensor(0.0), **_batch(made, short.utterances))["loss"])
    assert made.model.config.mask_time_length == 40


def test_masks_that_would_hide_nothing_are_refused():
    source = Wav2Vec2Model(Wav2Vec2Config(**{**_WAVE, **_GROUP, "mask_time_prob": 0.0}))
    ready = load(source)
    recogniser = Recogniser(
        SpeechModel(with_ctc_head(ready, VOCABULARY, 0), ready.family, ready.frontend, "w"), VOCABULARY
    )
    with pytest.raises(TrainingError, match=r"Wav2Vec2ForCTC\) has no vector .* a mask of 0\.05 would") as error:
        Ctc(recogniser)
    assert "--mask 0" in error.value.cure
    made = Ctc(recogniser, CtcSettings(mask=0.0)).train()
    assert torch.isfinite(made(torch.tensor(0.0), **_batch(made))["loss"])


@pytest.mark.parametrize("name", ["hubert-group", "bert-relative-key", "parakeet"])
def test_masks_wider_than_all_features_are_refused(name):
    widest = 80 if name == "parakeet" else 48
    _ctc(name, CtcSettings(feature_mask=0.1, feature_span=widest))
    with pytest.raises(TrainingError, match=f"has {widest} features to mask, and a mask is {widest + 1} wide"):
        _ctc(name, CtcSettings(feature_mask=0.1, feature_span=widest + 1))


@pytest.mark.parametrize("name", ["hubert-group", "wavlm-group", "conformer-relative", "bert-relative-key"])
def test_channels_are_masked_by_transformers(name):
    """Whole channels of what enters the layers are zero in training, and none otherwise."""
    made = _ctc(name, CtcSettings(mask=0.0, feature_mask=0.5, feature_span=6))
    encoder = made.model.base_model
    masked = []
    np.random.seed(0)  # noqa: NPY002 - transformers draws its masks there
    original = encoder._mask_hidden_states
    encoder._mask_hidden_states = lambda *args, **kwargs: _seen(original(*args, **kwargs), masked)
    with torch.no_grad():
        made.train()(torch.tensor(0.0), **_batch(made))
        made.eval()(torch.tensor(0.0), **_batch(made))
    training, still = masked
    assert 6 <= training.sum(-1).float().mean() <= 24
    for row in training:
        runs = np.diff(np.flatnonzero(np.diff(np.r_[0, row.int().numpy(), 0])))[::2]
        assert (runs >= 6).all()
    assert not still.any()


def _seen(states, masked):
    masked.append((states == 0).all(1))
    return states


def test_a_family_without_masks_of_its_own_gets_them_on_its_features():
    made = _ctc("parakeet", CtcSettings(mask=0.3, mask_span=2, feature_mask=0.3, feature_span=8))
    plain = _ctc("parakeet", CtcSettings(mask=0.0))
    with_masks, without = (_batch(one)["input_features"] for one in (made, plain))
    frames = _batch(plain)["attention_mask"].sum(-1).tolist()
    hidden = (with_masks == 0) & (without != 0)
    assert torch.equal(with_masks[~hidden], without[~hidden])
    for k, n in enumerate(frames):
        rows, bands = hidden[k, :n].all(1), hidden[k, :n].all(0)
        assert torch.equal(hidden[k, :n], rows[:, None] | bands[None])
        assert not hidden[k, n:].any()
    assert hidden.any()
    again, other = (_batch(made, seed=seed)["input_features"] for seed in (0, 1))
    assert torch.equal(again, with_masks)
    assert not torch.equal(other, with_masks)
    assert torch.isfinite(made.train()(torch.tensor(0.0), **_batch(made))["loss"])
    assert not hasattr(made.model.config, "mask_time_length")


def test_masks_hide_frames_in_training_and_a_share_of_nothing_hides_none():
    def outputs(mask):
        made = _ctc("hubert-group", CtcSettings(mask=mask, mask_span=5))
        made.model.config.layerdrop = 0.0
        for module in made.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
            elif isinstance(getattr(module, "dropout", None), float):
                module.dropout = 0.0
        torch.manual_seed(0)
        with torch.no_grad():
            return [float(made.train(on)(torch.tensor(0.0), **_batch(made))["loss"]) for on in (True, False)]

    for mask, alike in ((0.0, True), (0.5, False)):
        training, still = outputs(mask)
        assert (training == pytest.approx(still, rel=1e-5)) is alike


@pytest.mark.parametrize(
    ("transcript", "seconds", "error", "told"),
    [
        (None, 1.0, TranscriptError, "no transcript"),
        ("  ", 1.0, TranscriptError, "empty transcript"),
        ("abz", 1.0, VocabularyError, "'z'"),
        ("abcd" * 12, 0.9, EvaluationError, "needs 48"),
        ("aaaa" * 6, 0.9, EvaluationError, "needs 47"),
    ],
)
def test_speech_that_cannot_be_trained_on_is_named(transcript, seconds, error, told):
    utterance = Corpus.from_arrays([np.zeros(int(16000 * seconds))], transcripts=[transcript], ids=["mine"])[0]
    with pytest.raises(error, match="mine.*" + told):
        _LABELLED.check(utterance)


def test_a_transcript_must_fit_at_the_highest_speed_too():
    utterance = Corpus.from_arrays([np.zeros(16000)], transcripts=["abcd" * 10], ids=["mine"])[0]
    _ctc().check(utterance)
    with pytest.raises(EvaluationError, match="needs 40"):
        _ctc(augmentation=Augmentation(speed=(0.9, 1.3))).check(utterance)


@pytest.mark.parametrize(
    ("settings", "phones", "told"),
    [(CtcSettings(phone_layer=4), PHONES, "no layer 4"), (CtcSettings(phone_layer=0), PHONES, "no layer 0"),
     (CtcSettings(phone_layer=1), (), "corpus has none")],
)  # fmt: skip
def test_a_phone_loss_that_cannot_be_is_refused(settings, phones, told):
    with pytest.raises(TrainingError, match=told):
        _ctc("hubert-group", settings, phones=phones)


@pytest.mark.parametrize("wrong", [{"mask": 1.0}, {"mask": -0.1}, {"mask_span": 0}, {"mask": float("nan")}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(TrainingError):
        CtcSettings(**wrong)


def test_figures_on_held_out_speech_are_those_of_the_weights_as_they_are():
    made = _ctc()
    first = made.held_out(CORPUS.utterances)
    assert first.keys() == {"wer", "cer"}
    assert made.held_out(CORPUS.utterances) == first
    with torch.no_grad():
        made.model.lm_head.weight.zero_()
        made.model.lm_head.bias.copy_(torch.tensor([9.0, 0, 0, 0, 0, 0]))
    assert made.held_out(CORPUS.utterances) == {"wer": 1.0, "cer": 1.0}  # nothing but blanks


def test_what_is_written_is_a_recogniser(tmp_path):
    from otoscope.models.recogniser import load_recogniser

    made = _ctc("wavlm-group")
    made.write(tmp_path)
    again = load_recogniser(tmp_path)
    assert again.vocabulary == VOCABULARY
    samples = CORPUS[0].read()
    torch.testing.assert_close(
        again.log_probabilities([samples])[0], made.recogniser.log_probabilities([samples])[0], rtol=0, atol=0
    )


def test_the_configuration_of_the_model_that_was_given_is_left_alone():
    ready = _model()
    before = copy.deepcopy(ready.source.config.to_dict())
    made = with_ctc_head(ready, VOCABULARY, 0)
    Ctc(Recogniser(SpeechModel(made, ready.family, ready.frontend, "x"), VOCABULARY), CtcSettings(mask=0.4))
    assert ready.source.config.to_dict() == before
