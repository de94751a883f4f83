"""Every kind of model gets the metrics of its own head; one without a head gets a phone probe, or an error."""

import numpy as np
import pytest
import torch

from otoscope.errors import EvaluationError, HeadError, VocabularyError
from otoscope.evaluation.clusters import fit_clusters, mfcc_features
from otoscope.evaluation.masked_prediction import write_prediction_head
from otoscope.interventions.blocks import block_interventions, suited_metrics
from otoscope.models import load
from otoscope.models.recogniser import Recogniser
from otoscope.speech.corpus import Corpus
from tests.diagnosis.small_speech import small_speech
from tests.evaluation.speaking import VOCABULARY, speech
from tests.models.small import CASES

TONES = small_speech(8)
SPOKEN = speech()


def _model(name, folder=None):
    case = next(case for case in CASES if case.name == name)
    return load(case.build().eval() if folder is None else case.write(folder))


@pytest.mark.parametrize(
    ("name", "corpus", "metrics"),
    [
        ("wavlm-ctc-stable", SPOKEN, ["wer", "ctc-loss"]),
        ("conformer-rotary-ctc", SPOKEN, ["wer", "ctc-loss"]),
        ("wav2vec2-pretraining", SPOKEN, ["contrastive-loss"]),
        ("mockingjay-pretraining", SPOKEN, ["reconstruction"]),
        ("wav2vec2-group", TONES, ["probe-phone"]),
        ("wavlm-ctc-stable", TONES, ["probe-phone"]),  # no transcripts
    ],
)
def test_metrics_of_models(name, corpus, metrics):
    found, heard = suited_metrics(_model(name), corpus, vocabulary=VOCABULARY)
    assert [metric.name for metric in found] == metrics
    assert {u.id for u in heard} <= {u.id for u in corpus}
    assert len(heard) > 1


def test_clusters_beside_a_model_give_masked_prediction(tmp_path):
    model = _model("hubert-group", tmp_path)
    clusters = fit_clusters(mfcc_features(SPOKEN.utterances, model).items(), 4, 0, "mfcc")
    write_prediction_head(torch.nn.Linear(48, 4), clusters, tmp_path)
    assert [metric.name for metric in suited_metrics(model, SPOKEN)[0]] == ["masked-prediction-loss"]


def test_a_recogniser_brings_its_vocabulary_and_a_model_without_one_is_refused():
    recogniser = Recogniser(_model("wav2vec2-ctc"), VOCABULARY)
    metrics, heard = suited_metrics(recogniser, SPOKEN)
    assert metrics[1].values(recogniser, heard).metric == "ctc-loss"
    with pytest.raises(VocabularyError, match="not read from a folder"):
        suited_metrics(recogniser.model, SPOKEN)


def test_what_gives_no_ground_is_refused():
    with pytest.raises(HeadError, match="no head that corpus noise gives ground for, and no phone probe"):
        suited_metrics(_model("wav2vec2-group"), SPOKEN)
    with pytest.raises(EvaluationError, match="holds no utterance"):
        suited_metrics(_model("wav2vec2-group"), TONES.subset([]))


def test_interventions_are_taken_by_a_probe_on_the_utterances_that_it_knows():
    silent = Corpus.from_arrays([np.full(16000, 0.01, np.float32)], ids=["zz"], speakers=["s9"], name="silence")
    corpus = Corpus("both", (*TONES.utterances, *silent.utterances), TONES.root)
    model = _model("wav2vec2-group")
    metrics, heard = suited_metrics(model, corpus, seed=1)
    assert "zz" not in {u.id for u in heard}
    found = block_interventions(model, heard, metrics, layers=[3])
    assert {row.n for row in found.rows} == {len(heard)}
    told = found.notes["block-intervention"]["metrics"]["probe-phone"]
    assert told["criterion"]["higher_is_better"]
    assert told["before"] > 0.3  # four tones, one of which is guessed a quarter of the time
