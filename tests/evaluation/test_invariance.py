import json

import numpy as np
import pytest
import torch
import transformers as T

from otoscope.errors import EvaluationError, HeadError
from otoscope.evaluation.invariance import _distance, check_batch_invariance, uneven_batches
from otoscope.models import load
from otoscope.models.recogniser import load_recogniser
from tests.evaluation.speaking import VOCABULARY, small_recogniser, speech
from tests.models.small import CASES

SECONDS = (0.7, 1.1, 0.5, 0.9)
CTC = [case.name for case in CASES if case.model_class.endswith("ForCTC") and case.family != "parakeet"]


@pytest.mark.parametrize("name", CTC)
def test_otoscopes_way_does_not_depend_on_the_batch(name):
    found = check_batch_invariance(small_recogniser(name), speech(SECONDS))
    assert found.holds
    assert found.largest < 1e-3
    assert found.changed == {}
    assert (found.utterances, found.path) == (4, "otoscope")


def test_transformers_way_depends_on_it_with_group_norm():
    found = check_batch_invariance(small_recogniser("wav2vec2-ctc"), speech(SECONDS), plain=True)
    assert not found.holds
    assert found.largest > 0.01
    assert found.path == "transformers"
    assert "depends on the batch" in str(found)
    json.dumps(found.to_dict())


def test_transformers_way_holds_with_layer_norm():
    assert check_batch_invariance(small_recogniser("hubert-ctc-stable"), speech(SECONDS), plain=True).holds


def test_other_hypotheses_are_listed():
    recogniser = small_recogniser("wav2vec2-ctc")
    found = check_batch_invariance(recogniser, speech(SECONDS), plain=True, tolerance=1e9)
    assert found.holds == (not found.changed)
    for alone, batched in found.changed.values():
        assert alone != batched


def test_the_extractor_beside_the_weights_is_used(tmp_path):
    case = next(case for case in CASES if case.name == "wav2vec2-ctc")
    case.build().save_pretrained(tmp_path)
    T.Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=True).save_pretrained(tmp_path)
    recogniser = load_recogniser(tmp_path, VOCABULARY)
    plain = check_batch_invariance(recogniser, speech(SECONDS), plain=True)
    own = check_batch_invariance(recogniser, speech(SECONDS))
    assert own.holds
    assert not plain.holds


def test_features_have_their_own_extractor():
    found = check_batch_invariance(small_recogniser("bert-relative-ctc"), speech(SECONDS), plain=True)
    assert np.isfinite(found.largest)


def test_a_token_counts_where_it_is_probable_in_one_of_the_two():
    one, other = (torch.tensor([[p, 1 - p]], dtype=torch.float64).log() for p in (0.5, 1e-5))
    assert _distance(one, other) == _distance(other, one) == pytest.approx(np.log(0.5 / 1e-5))
    rare = torch.tensor([[2e-5, 1 - 2e-5]], dtype=torch.float64).log()
    assert _distance(other, rare) < 2e-5


def test_what_is_no_number_does_not_hold():
    recogniser = small_recogniser("hubert-ctc-stable")
    with torch.no_grad():
        recogniser.model.source.lm_head.bias[3] = float("nan")
    found = check_batch_invariance(recogniser, speech(SECONDS), plain=True)
    assert not found.holds
    assert found.largest == float("inf")


def test_half_precision_runs_plainly_too():
    case = next(case for case in CASES if case.name == "hubert-ctc-stable")
    recogniser = load_recogniser(case.build().to(torch.bfloat16), VOCABULARY, dtype=torch.bfloat16)
    assert np.isfinite(check_batch_invariance(recogniser, speech(SECONDS), plain=True).largest)


def test_batches_are_uneven_and_whole():
    corpus = speech(tuple(0.3 + 0.1 * k for k in range(9)), ["a"] * 9)
    for seconds in (0.1, 2, 3, 60):
        batches = list(uneven_batches(corpus, seconds))
        assert sorted(one.id for batch in batches for one in batch) == [one.id for one in corpus]
        assert all(len(batch) >= 2 for batch in batches)
        assert {one.id for one in batches[0]} >= {"0008", "0000"}
        for batch in batches[:-1]:  # the last may hold one more, which would be alone otherwise
            assert len(batch) == 2 or len(batch) * max(one.n_samples for one in batch) <= seconds * 16000


def test_what_cannot_be_checked_is_refused():
    with pytest.raises(EvaluationError, match="One utterance makes no batch"):
        check_batch_invariance(small_recogniser(), speech((0.5,), ["a"]))
    with pytest.raises(HeadError):
        check_batch_invariance(load(CASES[0].build()), speech(), VOCABULARY)
