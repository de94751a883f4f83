"""Adapters and stand-ins as treatments: what is trained, what is refused without a model, folding into stock weights."""

import pytest
import torch

import otoscope as oto
from otoscope.errors import SurgeryError, TreatmentError
from otoscope.models import load
from otoscope.surgery import fingerprint
from otoscope.treatments import (
    Freeze,
    LearningRate,
    LimitSpan,
    LowRank,
    PruneHeads,
    Reinitialise,
    RemoveBlocks,
    ReplaceAttention,
    Sizes,
    fit,
    from_dict,
    merged,
    record_of,
    save_treated,
    training_of,
    treated,
)
from tests.diagnosis.small_speech import small_speech
from tests.models.small import CASES
from tests.surgery.cases import differences, run, speech

CORPUS = speech(0.3, 0.45)


def loaded(name):
    return load(next(case for case in CASES if case.name == name).build().eval(), name=name)


def learnt(model, treatments):
    """A treated copy whose adapters change something."""
    made = treated(model, treatments)
    draw = torch.Generator().manual_seed(3)
    for name, value in made.source.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(value, 0, 0.5, generator=draw)
    return made


def test_the_units_own_weights_are_not_trained_and_adapters_are():
    model = loaded("parakeet-ctc")
    made = treated(model, [LowRank("layer.2", 4), Freeze("layer.*"), LearningRate("layer.2", 3.0)])
    asked = training_of(made.source)
    within = {name for name, _ in made.source.named_parameters() if name.startswith("encoder.layers.")}
    adapters = {name for name in within if ".lora_" in name}
    assert len(adapters) == 4
    assert asked.frozen == within - adapters
    assert {asked.rates[name] for name in adapters} == {3.0}
    alone = training_of(treated(model, [LowRank("layer.2.attention", 4)]).source).frozen
    assert alone == {name for name in within - adapters if name.startswith("encoder.layers.1.self_attn.")}


@pytest.mark.parametrize("name", ["wav2vec2-ctc", "wavlm-ctc-stable", "parakeet-ctc"])
def test_adapters_fold_into_weights_that_transformers_reads(tmp_path, name):
    model = loaded(name)
    made = learnt(model, [LowRank("layer.1-2", 4, targets="query,key,value,output,feed_forward")])
    for frozen in training_of(made.source).frozen:  # as a training of the adapters leaves it
        made.source.get_parameter(frozen).requires_grad_(False)
    folded = merged(made)
    assert record_of(folded.source) is None
    assert all(one.requires_grad for one in folded.source.parameters())
    assert training_of(folded.source).frozen == frozenset()
    assert max(differences(run(made, CORPUS), run(folded, CORPUS)).values()) < 1e-4
    assert max(differences(run(model, CORPUS), run(folded, CORPUS)).values()) > 1e-2
    assert record_of(made.source) is not None
    folded.source.save_pretrained(tmp_path / "stock")
    stock, told = type(model.source).from_pretrained(tmp_path / "stock", output_loading_info=True)
    assert not any(told.values())
    inputs = model.frontend.inputs([CORPUS[0].read()])
    with torch.inference_mode():
        one, two = (source.eval()(**inputs).logits for source in (folded.source, stock))
    assert torch.allclose(one, two, atol=1e-5)


def test_what_else_was_done_stays_with_the_folded_model(tmp_path):
    model = loaded("hubert-group")
    others = (RemoveBlocks("layer.1"), PruneHeads("layer.2.head.0"), LimitSpan("layer.3", 4))
    made = learnt(model, [*others, LowRank("layer.2-3", 2)])
    folded = merged(made)
    assert record_of(folded.source).treatments == others
    assert record_of(folded.source).fingerprint == record_of(made.source).fingerprint
    save_treated(folded, tmp_path / "folded")
    again = load(tmp_path / "folded")
    assert again.anatomy == made.anatomy
    assert max(differences(run(made, CORPUS), run(again, CORPUS)).values()) < 1e-4
    with pytest.raises(TreatmentError, match="no low-rank adapters"):
        merged(folded)


def test_learnt_adapters_are_stored_and_read(tmp_path):
    made = learnt(loaded("wavlm-group"), [LowRank("layer.2", 4, targets="query,output", dropout=0.5)])
    save_treated(made, tmp_path / "model")
    again = load(tmp_path / "model")
    assert max(differences(run(made, CORPUS), run(again, CORPUS)).values()) == 0
    assert fingerprint(again.source) == fingerprint(made.source)


def test_treated_models_are_examined():
    model = loaded("wavlm-ctc-stable")
    made = treated(model, [ReplaceAttention("layer.1", "convolution", width=2), LowRank("layer.3", 2)])
    diagnosis = oto.diagnose(made, small_speech(), ["globalness"])
    rows = list(diagnosis.table.iter_rows(named=True))
    assert {row["stream"] for row in rows} == {"layer.2", "layer.3"}
    assert made.macs_per_second() > 0
    assert Sizes.of_description(made.describe()) == Sizes.of(made)


@pytest.mark.parametrize(
    ("treatments", "told"),
    [
        ([LowRank("layer.1.feed_forward")], "no linear map called query or value"),
        ([LowRank("layer.1.attention", targets="feed_forward")], "no linear map called feed_forward"),
        ([PruneHeads("layer.1"), LowRank("layer.1")], "no linear map called query or value"),
        ([ReplaceAttention("layer.1", "feed-forward"), LowRank("layer.1")], "no linear map called query or value"),
        ([RemoveBlocks("layer.2"), LowRank("layer.2")], "taken out"),
        ([LowRank("layer.1.head.2")], "of the kind 'head'"),
        ([ReplaceAttention("layer.3", "layer", source=2), ReplaceAttention("layer.2", "feed-forward")], "layer 2"),
        ([ReplaceAttention("layer.2", "feed-forward"), ReplaceAttention("layer.2", "uniform")], "no heads"),
        ([ReplaceAttention("layer.2", "feed-forward"), LimitSpan("layer.2", 3)], "without heads"),
    ],
)
def test_what_does_not_fit_is_refused_with_and_without_the_model(treatments, told):
    model = loaded("wav2vec2-group")
    with pytest.raises((SurgeryError, TreatmentError), match=told):
        fit(treatments, Sizes.of(model))
    with pytest.raises((SurgeryError, TreatmentError), match=told):
        treated(model, treatments)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"treatment": "low-rank", "units": "layer.1", "rank": 0}, "rank of an adapter is 0"),
        ({"treatment": "low-rank", "units": "layer.1", "targets": "value,kee"}, "Did you mean key"),
        ({"treatment": "replace-attention", "units": "layer.1", "by": "convolution"}, "sees one frame"),
    ],
)
def test_values_that_are_none(values, told):
    with pytest.raises((SurgeryError, TreatmentError), match=told):
        from_dict(values)


def test_a_layer_that_begins_anew_forgets_its_adapters():
    model = loaded("wav2vec2-ctc")
    made = learnt(model, [LowRank("layer.2", 4)])
    again = treated(made, [Reinitialise("layer.2", seed=3)])
    expected = treated(model, [Reinitialise("layer.2", seed=3)])
    assert max(differences(run(expected, CORPUS), run(again, CORPUS)).values()) < 1e-5
