"""Settings, sizes and new models: numbers out of range are refused, weights follow from the seed."""

import dataclasses

import pytest
import torch
from transformers import HubertModel, Wav2Vec2ForPreTraining, WavLMModel

from otoscope.errors import TrainingError
from otoscope.models.loading import load
from otoscope.models.mockingjay import MockingjayForPreTraining
from otoscope.training.architectures import FAMILIES, Size, make_config, seeded
from otoscope.training.settings import TrainingSettings
from tests.training.small_training import TINY


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 0), ("accumulate", 0), ("save_every", 0), ("evaluate_every", -1), ("log_every", 0),
        ("batch_seconds", 0.0), ("batch_seconds", float("nan")), ("learning_rate", -1e-3), ("clip", 0.0),
        ("warmup", -0.1), ("warmup", 0.9), ("hold", 1.1), ("last_rate", 2.0), ("last_rate", -1.0),
        ("weight_decay", -0.1), ("seed", -1), ("patience", -1), ("precision", "int8"), ("keep", (1000,)), ("keep", (0,)),
    ],
)  # fmt: skip
def test_a_number_out_of_range_is_named(name, value):
    with pytest.raises(TrainingError, match=str(name).replace("keep", "cannot be kept")) as error:
        TrainingSettings(**{name: value})
    assert error.value.cure


def test_settings_as_plain_values_are_all_of_them():
    told = TrainingSettings(keep=(3, 5)).to_dict()
    assert told.keys() == {field.name for field in dataclasses.fields(TrainingSettings)}
    assert told["keep"] == [3, 5]


@pytest.mark.parametrize(
    "wrong",
    [{"width": 100}, {"width": 96, "heads": 5}, {"layers": 0}, {"heads": -1}, {"convolutions": (16, 16)},
     {"convolutions": (0,) * 7}, {"dropout": 1.5}, {"dropout": -0.1}],
)  # fmt: skip
def test_sizes_that_make_no_model_are_refused(wrong):
    with pytest.raises(TrainingError):
        Size(**wrong)


MADE = {
    "wav2vec2": Wav2Vec2ForPreTraining, "hubert": HubertModel, "wavlm": WavLMModel, "mockingjay": MockingjayForPreTraining,
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_a_new_model_has_the_size_asked_for_and_the_usual_frames(family):
    model = load(seeded(0, lambda: MADE[family](make_config(family, TINY))))
    assert model.anatomy.n_layers == 2
    assert model.anatomy.heads == (2, 2)
    assert model.anatomy.widths["input"] == 32
    if family == "mockingjay":
        assert (model.anatomy.grid.hop, model.anatomy.grid.field) == (480, 2000)
    else:
        assert model.anatomy.widths["conv.7"] == 16
        assert (model.anatomy.grid.hop, model.anatomy.grid.field) == (320, 400)


def test_an_unknown_family_is_named_with_the_known_ones():
    with pytest.raises(TrainingError, match="'whisper'") as error:
        make_config("whisper", TINY)
    assert all(family in error.value.cure for family in FAMILIES)


def test_initial_weights_follow_from_the_seed_and_are_exact_in_float16():
    def make():
        return HubertModel(make_config("hubert", TINY))

    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = seeded(3, make), seeded(3, make), seeded(4, make)
    assert torch.equal(torch.get_rng_state(), before)
    for (name, a), b in zip(first.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
        assert a.dtype == torch.float32
        assert torch.equal(a, a.half().float()), name
    assert any(not torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))
