"""Self-supervised losses as metrics: the same masks for every model, one utterance at a time, figures by hand."""

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from otoscope.errors import CheckpointError, EvaluationError, HeadError
from otoscope.evaluation.clusters import fit_clusters, mfcc_features, stream_features
from otoscope.evaluation.masked_prediction import read_prediction_head, write_prediction_head
from otoscope.evaluation.masking import draw_negatives, span_mask
from otoscope.evaluation.pretext import own_generator
from otoscope.evaluation.self_supervised import (
    ContrastiveAccuracy,
    ContrastiveLoss,
    MaskedPredictionAccuracy,
    MaskedPredictionLoss,
    labels_of,
)
from otoscope.models.loading import load
from otoscope.speech.corpus import Corpus
from tests.diagnosis.small_speech import small_speech
from tests.models.small import CASES


def _model(name):
    return load(next(case for case in CASES if case.name == name).build())


@pytest.fixture(scope="module")
def pretrained():
    return _model("wav2vec2-pretraining")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A model of the kind of HuBERT with a head and clusters beside it."""
    folder = tmp_path_factory.mktemp("hubert")
    next(case for case in CASES if case.name == "hubert-group").write(folder)
    model, corpus = load(folder), small_speech(6)
    clusters = fit_clusters(mfcc_features(corpus.utterances, model).items(), 8, 0, "mfcc")
    torch.manual_seed(0)
    write_prediction_head(nn.Linear(48, 8), clusters, folder)
    return model


def test_the_contrastive_loss_of_an_utterance_by_hand(pretrained):
    corpus = small_speech(3)
    scores = ContrastiveLoss(share=0.5, span=4, seed=5).values(pretrained, corpus)
    source = pretrained.source
    for k, utterance in enumerate(corpus):
        samples = utterance.read()
        draw = own_generator(5, utterance.id, "mask")
        mask = span_mask(pretrained.frontend.frames(len(samples)), 0.5, draw, 4)
        negatives = draw_negatives(int(mask.sum()), source.config.num_negatives, draw)
        wave = (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)
        with torch.no_grad():
            out = source.eval()(torch.from_numpy(wave)[None], mask_time_indices=torch.from_numpy(mask)[None])
        c, q = (F.normalize(x[0][torch.from_numpy(mask)], dim=-1) for x in
                (out.projected_states, out.projected_quantized_states))  # fmt: skip
        total = 0.0
        for i in range(len(c)):
            logits = [float(c[i] @ q[i])]
            logits += [float(c[i] @ q[j]) for j in negatives[i] if not torch.equal(q[i], q[j])]
            logits = np.array(logits) / source.config.contrastive_logits_temperature
            total += math.log(np.exp(logits).sum()) - logits[0]
        assert scores.numerator[k] == pytest.approx(total, rel=1e-4)
        assert scores.denominator[k] == mask.sum()


def test_figures_do_not_depend_on_what_else_is_in_the_corpus(pretrained):
    corpus = small_speech(6)
    part = corpus.subset(["u04", "u01"])
    for metric in (ContrastiveLoss(), ContrastiveAccuracy()):
        whole, some = metric.values(pretrained, corpus), metric.values(pretrained, part)
        np.testing.assert_array_equal(whole.numerator[[1, 4]], some.numerator)


def test_another_seed_draws_other_masks_and_the_model_is_left_as_it_was(pretrained):
    corpus = small_speech(3)
    pretrained.source.train()
    one, again, other = (ContrastiveLoss(seed=seed).values(pretrained, corpus).numerator for seed in (0, 0, 1))
    assert pretrained.source.training
    np.testing.assert_array_equal(one, again)
    assert (one != other).all()


def test_progress_counts_all_speech(pretrained):
    corpus, seen = small_speech(3), []
    ContrastiveLoss().values(pretrained, corpus, progress=lambda done, total: seen.append((done, total)))
    assert len(seen) == 3
    assert seen[-1][0] == pytest.approx(seen[-1][1])
    assert seen[-1][1] == pytest.approx(corpus.seconds)


def test_an_untrained_head_knows_no_more_than_chance_and_a_perfect_one_all(encoder):
    corpus = small_speech(6)
    loss = MaskedPredictionLoss().values(encoder, corpus)
    assert 0.5 * math.log(8) < loss.value < 3 * math.log(8)
    accuracy = MaskedPredictionAccuracy().values(encoder, corpus)
    assert 0 <= accuracy.value <= 1
    assert accuracy.denominator.tolist() == loss.denominator.tolist()


def test_a_head_that_always_names_one_cluster_hits_as_often_as_that_cluster_comes(encoder, tmp_path):
    corpus = small_speech(6)
    _, clusters = read_prediction_head(Path(encoder.source.name_or_path))
    head = nn.Linear(48, 8)
    nn.init.zeros_(head.weight)
    with torch.no_grad():
        head.bias.copy_(torch.tensor([0.0, 0, 5, 0, 0, 0, 0, 0]))
    write_prediction_head(head, clusters, tmp_path)
    metric = MaskedPredictionAccuracy(tmp_path)
    scores = metric.values(encoder, corpus)
    labels, hits = labels_of(clusters, encoder, corpus), 0
    for utterance in corpus:
        mask = span_mask(encoder.frontend.frames(utterance.n_samples), 0.65, own_generator(0, utterance.id, "mask"))
        hits += int((labels[utterance.id][mask] == 2).sum())
    assert scores.numerator.sum() == hits
    wanted = math.log(math.exp(5) + 7)
    loss = MaskedPredictionLoss(tmp_path).values(encoder, corpus)
    assert loss.numerator.sum() == pytest.approx(loss.denominator.sum() * wanted - 5 * hits, rel=1e-5)


def test_labels_of_a_stream_come_from_the_model_that_is_named(encoder):
    corpus = small_speech(4)
    place = encoder.source.name_or_path
    features = stream_features(corpus.utterances, encoder, "layer.2", encoder.anatomy.grid)
    clusters = fit_clusters(features.items(), 5, 0, f"{place}:layer.2")
    found = labels_of(clusters, encoder, corpus)
    for name, values in features.items():
        np.testing.assert_array_equal(found[name], clusters.assign(values))


def test_models_without_what_is_needed_are_refused(encoder, pretrained):
    corpus = small_speech(2)
    with pytest.raises(HeadError, match="no quantiser"):
        ContrastiveLoss().values(encoder, corpus)
    with pytest.raises(CheckpointError, match="no head for masked prediction"):
        MaskedPredictionLoss().values(_model("wavlm-group"), corpus)
    with pytest.raises(HeadError, match="no vector that stands for masked frames"):
        MaskedPredictionLoss(encoder.source.name_or_path).values(_model("parakeet"), corpus)


def test_a_model_that_masks_nothing_is_refused_since_its_figures_would_be_too_good(encoder):
    silent = copy.deepcopy(encoder.source)
    silent.config.apply_spec_augment = False
    with pytest.raises(HeadError, match="apply_spec_augment"):
        MaskedPredictionLoss(encoder.source.name_or_path).values(load(silent), small_speech(2))
    pretrained = _model("wav2vec2-pretraining")
    pretrained.source.config.apply_spec_augment = False
    with pytest.raises(HeadError, match="apply_spec_augment"):
        ContrastiveLoss().values(pretrained, small_speech(2))


def test_a_head_of_another_width_is_refused(encoder, tmp_path):
    _, clusters = read_prediction_head(Path(encoder.source.name_or_path))
    write_prediction_head(nn.Linear(40, 8), clusters, tmp_path)
    with pytest.raises(HeadError, match="takes vectors of 40"):
        MaskedPredictionLoss(tmp_path).values(encoder, small_speech(2))


def test_an_empty_corpus_and_wrong_masks_are_refused(pretrained):
    with pytest.raises(EvaluationError, match="no utterance"):
        ContrastiveLoss().values(pretrained, Corpus("none", ()))
    with pytest.raises(EvaluationError, match="cannot be drawn"):
        ContrastiveLoss(share=1.5)
