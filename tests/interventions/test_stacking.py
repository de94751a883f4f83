"""Variants that are run as one batch give what they give one by one, for every family; what cannot be is run alone."""

import numpy as np
import pytest
import torch

from otoscope.errors import EvaluationError
from otoscope.evaluation import CTCLoss
from otoscope.evaluation.self_supervised import ContrastiveLoss
from otoscope.interventions.engine import BASE, Engine
from otoscope.interventions.scoring import scores_of_variants
from otoscope.models import load
from otoscope.surgery import Bypass, CutHeads, Gate, Redraw, ReplaceMap, Span
from tests.evaluation.speaking import small_recogniser
from tests.evaluation.speaking import speech as spoken
from tests.models.small import CASES
from tests.surgery.cases import run, same_bits, speech

CORPUS = speech(0.3, 0.45)
ALONE = speech(0.4)
# All begin at layer 2; one has edits behind it, where the others' own layer 3 is that of the unedited model.
VARIANTS = {
    "drawn": [Redraw("layer.2", seed=3)],
    "cut": [CutHeads("layer.2.head.0,2")],
    "bypassed": [Bypass("layer.2")],
    "narrow": [Span("layer.2", 1), Span("layer.3", 2, "banded")],
    "drawn again": [Redraw("layer.2", seed=4)],
    "gated": [Gate("layer.2.head.1")],
}
WITHOUT_PADDING = ("wavlm-group", "conformer-relative", "bert-relative-key")  # a batch of one, as positions are


def case(name):
    return load(next(one for one in CASES if one.name == name).build().eval())


def output(one, part):
    with torch.inference_mode():
        return {"out": one.encode([utterance.read() for utterance in part]).clone()}


def counted(engine, number):
    """How often a layer of the unedited model runs."""
    calls = []
    path = f"{engine.base.family.layers}.{number - 1}"
    engine.base.encoder.get_submodule(path).register_forward_hook(lambda *_: calls.append(number))
    return calls


def close(one, other):
    scale = max(1.0, float(other["out"].abs().max()))
    return torch.allclose(one["out"], other["out"], rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize(
    ("one", "corpus"),
    [*((one, CORPUS) for one in CASES), *((one, ALONE) for one in CASES if one.name in WITHOUT_PADDING)],
    ids=lambda value: value.name,
)
def test_variants_of_every_family_are_those_that_run_alone(one, corpus):
    model = load(one.build().eval())
    engine = Engine(model, VARIANTS, together=3)
    calls = counted(engine, 3)
    found = engine.run(corpus, output).found
    assert len(calls) == 3  # the unedited model, three variants, one variant; alone, they would not run its layers
    full = Engine(model, VARIANTS, reuse=False).run(corpus, output).found
    for name in (BASE, *VARIANTS):
        assert close(found[name], full[name]), name
        assert name == BASE or not close(found[name], found[BASE]), name
    assert list(found) == [BASE, *VARIANTS]


def test_maps_that_are_lent_are_run_one_by_one():
    model = case("wav2vec2-group")
    variants = {f"lent to {k}": [ReplaceMap(f"layer.{k}", "layer", source=1)] for k in (2, 3)}
    engine = Engine(model, variants, together=2)
    assert engine._groups(list(variants)) == [["lent to 2", "lent to 3"]]  # both begin at the layer that lends
    calls = counted(engine, 2)
    found = engine.run(CORPUS, output).found
    assert len(calls) == 1  # the unedited model alone: nothing was run together
    full = Engine(model, variants, reuse=False).run(CORPUS, output).found
    for name in variants:
        assert same_bits(found[name], full[name])


def test_streams_of_single_layers_are_those_of_each_variant():
    model = case("wav2vec2-group")
    streams = ["input", "layer.1", "layer.2", "layer.3"]

    def take(one, part):
        return {"out": output(one, part)["out"], **run(one, part, streams=streams).streams}

    found = Engine(model, VARIANTS, together=6).run(CORPUS, take).found
    full = Engine(model, VARIANTS, reuse=False).run(CORPUS, take).found
    for name in (BASE, *VARIANTS):
        assert close(found[name], full[name])
        for stream in streams:
            assert torch.equal(found[name][stream], full[name][stream]), (name, stream)


@pytest.mark.parametrize(("name", "metric"), [("wav2vec2-ctc", CTCLoss()), ("wav2vec2-pretraining", ContrastiveLoss())])
def test_metrics_are_those_of_variants_that_run_alone(name, metric):
    variants = {one: VARIANTS[one] for one in ("drawn", "gated", "bypassed")}
    model, corpus = (small_recogniser(name), spoken()) if name.endswith("ctc") else (case(name), speech(0.5, 0.7, 0.6))
    alone, together = (
        scores_of_variants(model, corpus, variants, metric, batch_seconds=2.0, together=count) for count in (1, 3)
    )
    assert np.array_equal(alone.before.numerator, together.before.numerator)
    for one in variants:
        assert np.allclose(alone.after[one].numerator, together.after[one].numerator, rtol=1e-5, atol=1e-4)
        assert not np.array_equal(alone.before.numerator, together.after[one].numerator)


def test_what_takes_more_room_than_there_is_left_is_run_one_by_one():
    model = case("wav2vec2-group")
    variants = {name: VARIANTS[name] for name in ("drawn", "gated")}
    needed = _held(Engine(model, variants))
    tight, ample = (Engine(model, variants, together=2, cache_gb=(needed + more) / 1e9) for more in (1000, 10**6))
    for engine, least in ((tight, 0), (ample, 1)):
        held = []

        def take(one, part, engine=engine, held=held):
            held.append([len(player.answers) for _, players in engine._variants.values() for player in players])
            return output(one, part)

        found = engine.run(CORPUS, take).found
        assert max(held[1]) == least
        assert close(found["drawn"], Engine(model, variants).run(CORPUS, output).found["drawn"])


def _held(engine):
    sizes = []
    engine.run(CORPUS, lambda one, part: (sizes.append(engine._room.held), output(one, part)))
    return max(sizes)


def test_no_variant_at_a_time_is_refused():
    with pytest.raises(EvaluationError, match="0 variants in a batch"):
        Engine(case("wav2vec2-group"), VARIANTS, together=0)
