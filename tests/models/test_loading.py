"""Loading: every way it can fail is a named error, and no weight is ever left random."""

import json
import logging

import pytest
import torch
import transformers as T
from safetensors.torch import load_file, save_file

from otoscope.errors import CheckpointError, ModelError, UnknownFamilyError
from otoscope.models import load
from tests.models.small import _GROUP, _WAVE, CASES

CTC = next(case for case in CASES if case.name == "wav2vec2-ctc")


@pytest.fixture
def folder(tmp_path):
    return CTC.write(tmp_path / "model")


def test_no_such_folder(tmp_path):
    with pytest.raises(CheckpointError, match="no model folder"):
        load(tmp_path / "absent")


def test_folder_without_config(tmp_path):
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        load(tmp_path)


def test_broken_config(folder):
    (folder / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="not JSON"):
        load(folder)


def test_no_weights(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load(folder)


def test_truncated_weights(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load(folder)


@pytest.mark.parametrize("name", ["wav2vec2.encoder.layers.1.attention.q_proj.weight", "lm_head.weight"])
def test_missing_weights_are_named(folder, name):
    weights = load_file(folder / "model.safetensors")
    del weights[name]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=rf"lacks weights.*{name.rsplit('.', 2)[-2]}"):
        load(folder)


def test_a_weight_that_is_used_in_training_only_may_be_absent(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["wav2vec2.masked_spec_embed"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert load(folder).anatomy.n_layers == 3


def test_weights_of_another_shape(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 80}))
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load(folder)


@pytest.mark.parametrize("kind", ["sew-d", "speecht5"])
def test_refused_family_says_why(tmp_path, kind):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    with pytest.raises(UnknownFamilyError, match="refused.*attention"):
        load(tmp_path)


def test_unknown_family(tmp_path):
    T.BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32).save_pretrained(
        tmp_path
    )
    with pytest.raises(UnknownFamilyError, match="no table for models of type 'bert'.*wav2vec2"):
        load(tmp_path)


def test_a_module_without_configuration():
    with pytest.raises(ModelError, match="no transformers configuration"):
        load(torch.nn.Linear(2, 2))


def test_unreachable_hub(monkeypatch):
    logging.disable(logging.CRITICAL)
    try:
        with pytest.raises(CheckpointError, match=r"'nobody/no-such-model' is no local folder.*connection"):
            load("nobody/no-such-model")
    finally:
        logging.disable(logging.NOTSET)


def test_another_head_is_left_off(tmp_path):
    config = T.Wav2Vec2Config(**_WAVE, **_GROUP, num_labels=3, classifier_proj_size=8)
    source = T.Wav2Vec2ForSequenceClassification(config).eval()
    source.save_pretrained(tmp_path)
    assert load(tmp_path).fingerprint() == load(source.wav2vec2).fingerprint()


def test_half_precision_weights_are_computed_in_float32(tmp_path):
    model = CTC.build().half()
    model.save_pretrained(tmp_path)
    ready = load(tmp_path)
    assert next(ready.source.parameters()).dtype == torch.float32
    assert ready.describe()["dtype"] == "float32"


def test_a_fingerprint_does_not_hang_on_what_is_random(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["wav2vec2.masked_spec_embed"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    prints = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        prints.append(load(folder).fingerprint())
    assert prints[0] == prints[1]


def test_a_fingerprint_tells_how_the_input_is_prepared(folder):
    before = load(folder).fingerprint()
    T.Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(folder)
    assert load(folder).fingerprint() != before


def test_more_weights_than_the_configuration_has_layers(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 2}))
    with pytest.raises(CheckpointError, match=r"no layer for.*layers\.2"):
        load(folder)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "cannot be read"),
        ('{"feature_extractor_type": "Nope"}', "cannot be read"),
        ('{"feature_extractor_type": "WhisperFeatureExtractor"}', "does not prepare the input of wav2vec2"),
        ('{"feature_extractor_type": "Wav2Vec2FeatureExtractor", "sampling_rate": 8000}', "8000 samples a second"),
    ],
)
def test_an_unfit_preprocessor_is_refused(folder, text, told):
    (folder / "preprocessor_config.json").write_text(text)
    with pytest.raises(CheckpointError, match=told):
        load(folder)


@pytest.mark.parametrize("device", ["nowhere", "meta", "cuda:99"])
def test_no_such_device(device):
    with pytest.raises(ModelError, match="cannot be put on device"):
        load(CTC.build(), device=device)


@pytest.mark.parametrize(
    "change", [{"hidden_size": "abc"}, {"conv_dim": [8, 8]}, {"hidden_act": "nothing"}, {"model_type": 3}]
)
def test_a_bad_configuration_is_a_named_error(folder, change):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(CheckpointError):
        load(folder)


def test_foreign_code_is_never_run(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": {"AutoConfig": "own.Own"}}))
    with pytest.raises(UnknownFamilyError, match="no table for models of type 'own'"):
        load(tmp_path)


def test_preprocessing_follows_what_lies_beside_the_weights(folder):
    assert load(folder).frontend.description["do_normalize_from"] == "the library's default"
    T.Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(folder)
    told = load(folder).frontend.description
    assert told["do_normalize"] is False
    assert told["do_normalize_from"] == "Wav2Vec2FeatureExtractor"


def test_normalisation_equals_the_librarys():
    import numpy as np

    wave = np.random.default_rng(0).normal(2, 3, 4000).astype(np.float32)
    expected = T.Wav2Vec2FeatureExtractor(do_normalize=True)(
        wave, sampling_rate=16000, return_tensors="pt"
    ).input_values
    assert torch.allclose(load(CTC.build()).frontend.inputs([wave])["input_values"], expected, atol=1e-5)
