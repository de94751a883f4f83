"""The contrastive loss: closed forms, chance, and equality with transformers' own."""

import math

import numpy as np
import pytest
import torch
from transformers import Wav2Vec2ForPreTraining

from otoscope.evaluation.contrastive import contrastive_logits, contrastive_terms, diversity_loss, equal_to_target
from otoscope.evaluation.masking import draw_negatives, span_mask
from tests.models.small import CASES


def test_orthogonal_vectors():
    m, k, temperature = 6, 4, 0.5
    targets = torch.eye(m)
    negatives = torch.tensor([[j for j in range(m) if j != i][:k] for i in range(m)])
    logits = contrastive_logits(3.0 * targets, targets, targets, negatives, temperature)
    torch.testing.assert_close(logits, torch.tensor([[1 / temperature] + [0.0] * k]).expand(m, -1))
    loss, hits = contrastive_terms(logits)
    torch.testing.assert_close(loss, torch.full((m,), math.log(1 + k * math.exp(-1 / temperature))))
    assert hits.tolist() == [1.0] * m
    _, hits = contrastive_terms(contrastive_logits(-targets, targets, targets, negatives, temperature))
    assert hits.tolist() == [0.0] * m


@pytest.mark.parametrize("k", [1, 10, 100])
def test_a_codebook_that_has_collapsed_scores_chance_exactly(k):
    targets = torch.ones(8, 3)
    negatives = torch.from_numpy(draw_negatives(8, k, np.random.default_rng(0)))
    loss, hits = contrastive_terms(contrastive_logits(torch.randn(8, 3), targets, targets, negatives))
    torch.testing.assert_close(hits, torch.full((8,), 1 / (1 + k)))
    assert loss.tolist() == [0.0] * 8


def test_predictions_that_know_nothing_score_chance():
    torch.manual_seed(0)
    m, k = 4000, 19
    targets, predicted = torch.randn(m, 16), torch.randn(m, 16)
    negatives = torch.from_numpy(draw_negatives(m, k, np.random.default_rng(0)))
    _, hits = contrastive_terms(contrastive_logits(predicted, targets, targets, negatives))
    deviation = math.sqrt((1 / 20) * (19 / 20) / m)
    assert abs(float(hits.mean()) - 1 / 20) < 4 * deviation


def test_a_tie_with_another_vector_is_no_hit():
    targets = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    logits = contrastive_logits(torch.tensor([[1.0, 0.0]]), targets[:1], targets, torch.tensor([[1]]))
    assert contrastive_terms(logits)[1].tolist() == [0.0]


def test_which_negatives_are_equal_by_brute_force():
    draw = torch.Generator().manual_seed(0)
    targets = torch.randint(0, 2, (30, 3), generator=draw).float()
    negatives = torch.randint(0, 30, (30, 12), generator=draw)
    wanted = (targets[negatives] == targets[:, None]).all(-1)
    assert wanted.any()
    assert torch.equal(equal_to_target(targets, targets, negatives), wanted)


def test_the_order_and_length_of_vectors_do_not_count():
    torch.manual_seed(1)
    predicted, targets = torch.randn(10, 5), torch.randn(10, 5)
    negatives = torch.from_numpy(draw_negatives(10, 6, np.random.default_rng(0)))
    base = contrastive_logits(predicted, targets, targets, negatives)
    torch.testing.assert_close(contrastive_logits(7 * predicted, 0.1 * targets, targets, negatives), base)
    order = torch.randperm(10)
    moved = contrastive_logits(predicted, targets, targets[order], torch.argsort(order)[negatives])
    torch.testing.assert_close(moved, base)


@pytest.mark.parametrize("training", [False, True])
def test_the_loss_is_that_of_transformers(training):
    model = next(case for case in CASES if case.name == "wav2vec2-pretraining").build()
    assert isinstance(model, Wav2Vec2ForPreTraining)
    model.config.num_negatives, model.config.diversity_loss_weight = 7, 0.3
    model.config.layerdrop = 0.0
    model.train(training)
    draw = np.random.default_rng(0)
    samples = torch.from_numpy(draw.standard_normal((2, 9600)).astype(np.float32))
    frames = 29
    masks = np.stack([span_mask(frames, 0.6, draw, 4) for _ in range(2)])
    indices, own, first = np.zeros((2, frames, 7), int), [], 0
    for row, mask in enumerate(masks):
        drawn = draw_negatives(int(mask.sum()), 7, draw)
        indices[row, mask] = np.flatnonzero(mask)[drawn] + row * frames  # into all frames of the batch, end to end
        own.append(drawn + first)
        first += int(mask.sum())
    where = torch.from_numpy(masks)
    torch.manual_seed(3)  # dropout, and the noise of the quantiser
    with torch.no_grad():
        out = model(samples, mask_time_indices=where, sampled_negative_indices=torch.from_numpy(indices))
    targets = out.projected_quantized_states[where]
    logits = contrastive_logits(
        out.projected_states[where], targets, targets, torch.from_numpy(np.concatenate(own)),
        model.config.contrastive_logits_temperature,
    )  # fmt: skip
    loss, _ = contrastive_terms(logits)
    torch.testing.assert_close(loss.sum(), out.contrastive_loss)
    spread = diversity_loss(out.codevector_perplexity, 2 * model.config.num_codevectors_per_group)
    torch.testing.assert_close(spread * masks.sum(), out.diversity_loss)
    torch.testing.assert_close((loss.mean() + 0.3 * spread) * masks.sum(), out.loss)


def test_diversity_is_lost_where_one_code_is_used():
    assert float(diversity_loss(torch.tensor(128.0), 128)) == 0
    assert float(diversity_loss(torch.tensor(2.0), 128)) == pytest.approx(126 / 128)
