"""Edited copies that begin at their first edit give the bits of a full run, for every family and every edit."""

import numpy as np
import pytest
import torch

from otoscope.evaluation import CTCLoss, WordErrorRate
from otoscope.evaluation.self_supervised import ContrastiveLoss
from otoscope.interventions.engine import BASE, Engine, frames_of, parts_of
from otoscope.interventions.replay import Player, Tape
from otoscope.models import load
from otoscope.models.recogniser import Recogniser
from otoscope.surgery import Bypass, CutHeads, Gate, Redraw, ReplaceMap, Span, apply, prepared, record, undo
from tests.evaluation.speaking import VOCABULARY, small_recogniser
from tests.evaluation.speaking import speech as spoken
from tests.models.small import CASES
from tests.surgery.cases import feed_forward, run, same_bits, speech

CORPUS = speech(0.3, 0.45)
BY_FAMILY = list({case.family: case for case in CASES}.values())


def variants_of(model, turn=0):
    """Edits of every kind, first edits at every depth; some for all models, the others by turns."""
    variants = {
        "head of layer 1": [Gate("layer.1.head.0")],
        "head of layer 2": [Gate("layer.2.head.1")],
        "head of layer 3": [Gate("layer.3.head.2", 0.5)],
        "spans of layers 2 and 3": [Span("layer.2", 2), Span("layer.3", 1, "banded")],
        "borrowed map": [ReplaceMap("layer.3", "layer", source=1)],
        "bypassed layer": [Bypass("layer.2")],
        "bypassed branch": [Bypass(f"layer.3.{feed_forward(model.family.name)}")],
        "cut heads": [CutHeads("layer.3.head.0,2")],
        "new weights": [Redraw("layer.2.attention", seed=3)],
    }
    always = ("head of layer 2", "spans of layers 2 and 3", "borrowed map")
    others = [name for name in variants if name not in always]
    return {name: variants[name] for name in (*always, others[turn % len(others)], others[(turn + 3) % len(others)])}


def later(model):
    """Streams of parts that are recorded as a whole; convolutions are within one."""
    return [name for name in model.anatomy.streams if not name.startswith("conv.")]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def model(request):
    return load(request.param.build().eval())


def test_every_stream_of_every_variant_is_that_of_a_full_run(request, model):
    variants = variants_of(model, CASES.index(request.node.callspec.params["model"]))
    streams = later(model)
    found = Engine(model, variants).run(CORPUS, lambda one, part: run(one, part, streams=streams).streams)
    assert same_bits(found.found[BASE], run(model, CORPUS, streams=streams).streams)
    for name, edits in variants.items():
        full = run(apply(model, edits, share=True), CORPUS, streams=streams).streams
        assert same_bits(found.found[name], full), name
        assert not torch.equal(full[streams[-1]], found.found[BASE][streams[-1]]), name


@pytest.mark.parametrize("case", BY_FAMILY, ids=lambda case: case.name)
def test_parts_before_the_first_edit_do_not_run(case):
    model = load(case.build().eval())
    engine = Engine(model, {"late": [Gate("layer.3.head.2")], "early": [Gate("layer.1.head.2")]})
    ran = set()
    for name, (variant, _) in engine._variants.items():
        for number in (1, 2, 3):
            attention = variant.family.attention
            layer = variant.encoder.get_submodule(f"{variant.family.layers}.{number - 1}.{attention}")
            layer.register_forward_hook(lambda *_, key=(name, number): ran.add(key))
    engine.run(CORPUS, lambda one, part: run(one, part, streams=["layer.3"]).streams)
    assert sorted(ran) == [("early", 1), ("early", 2), ("early", 3), ("late", 3)]


@pytest.mark.parametrize("case", BY_FAMILY, ids=lambda case: case.name)
def test_the_model_under_its_head_is_replayed_too(case):
    """Self-supervised losses run the model as transformers has it, around its own encoder."""
    model = load(case.build().eval())
    encoder = model.family.encoder
    inputs = model.frontend.inputs([CORPUS[1].read()])

    def take(one, part):
        with torch.no_grad():
            return {"out": encoder(one.source.eval())(**inputs).last_hidden_state}

    variants = {name: variants_of(model)[name] for name in ("head of layer 2", "borrowed map")}
    found = Engine(model, variants).run(CORPUS, take).found
    full = Engine(model, variants, reuse=False).run(CORPUS, take).found
    for name in (BASE, *variants):
        assert same_bits(found[name], full[name]), name


def test_other_inputs_run_as_a_whole():
    model = load(CASES[0].build().eval())
    changed = apply(model, [Gate("layer.3")], share=True)
    tape = Tape(model.encoder, model.family.layers)
    player = Player(tape, changed.encoder)
    with tape.recording():
        run(model, CORPUS)
    full = run(changed, speech(0.3, 0.45, seed=1)).streams
    with player.playing():
        assert same_bits(run(changed, speech(0.3, 0.45, seed=1)).streams, full)
    assert same_bits(run(changed, speech(0.3, 0.45, seed=1)).streams, full)


def test_a_variant_that_changes_what_no_part_owns_runs_as_a_whole():
    whisper = next(case for case in CASES if case.name == "whisper")
    model = load(whisper.build().eval())
    edits = [Redraw("embed_positions", seed=7), Gate("layer.3")]
    other = [Redraw("conv1", seed=7)]
    engine = Engine(model, {"positions": edits, "front-end": other})
    found = engine.run(CORPUS, lambda one, part: run(one, part).streams)
    for name, chosen in {"positions": edits, "front-end": other}.items():
        assert same_bits(found.found[name], run(apply(model, chosen), CORPUS).streams)


@pytest.mark.parametrize(
    ("name", "metric"),
    [("wav2vec2-ctc", WordErrorRate()), ("wavlm-ctc-stable", CTCLoss()), ("conformer-rotary-ctc", CTCLoss())],
)
def test_metrics_of_recognition_are_those_of_a_full_run(name, metric):
    recogniser, corpus = small_recogniser(name), spoken()
    variants = {"one": [Gate("layer.2.head.1")], "other": [Span("layer.3", 1)]}

    def take(one, part):
        return metric.values(Recogniser(one, VOCABULARY), part).numerator

    for part in parts_of(corpus, 2.0, spoken=True):
        found = Engine(recogniser.model, variants).run(part, take).found
        for which, edits in variants.items():
            full = metric.values(Recogniser(apply(recogniser.model, edits), VOCABULARY), part).numerator
            assert np.array_equal(found[which], full)


def test_the_contrastive_loss_is_that_of_a_full_run():
    model = load(next(case for case in CASES if case.name == "wav2vec2-pretraining").build().eval())
    corpus = speech(0.5, 0.7, 0.6)
    edits = [Gate("layer.2.head.0-2")]
    found = Engine(model, {"gated": edits}).run(corpus, lambda one, part: ContrastiveLoss().values(one, part).numerator)
    full = ContrastiveLoss().values(apply(model, edits), corpus).numerator
    assert np.array_equal(found.found["gated"], full)
    assert not np.array_equal(found.found[BASE], full)


def test_copies_of_a_prepared_model_are_those_of_the_model_itself(monkeypatch):
    model, edits = load(CASES[4].build().eval()), [Gate("layer.2.head.1")]
    wanted = apply(model, edits)
    base = prepared(model)
    read = []
    monkeypatch.setattr("otoscope.surgery.applying.take_weights", lambda *_: read.append(True))
    copies = [apply(base, edits, share=True), apply(apply(base, [Gate("layer.3")], share=True), edits, share=True)]
    monkeypatch.undo()
    assert not read  # what reads all weights is done once, for the prepared model
    assert record(copies[0].source) == record(wanted.source)
    assert copies[0].fingerprint() == wanted.fingerprint()
    assert record(model.source) is None
    back = undo(copies[1], model)
    assert same_bits(run(back, CORPUS).streams, run(model, CORPUS).streams)


def test_variants_that_are_not_kept_are_made_anew(monkeypatch):
    monkeypatch.setattr("otoscope.interventions.engine.HELD", 1)
    model = load(CASES[0].build().eval())
    variants = {"one": [Gate("layer.2")], "other": [Gate("layer.3")]}
    found = Engine(model, variants).run(CORPUS, lambda one, part: run(one, part, streams=["layer.3"]).streams).found
    for name, edits in variants.items():
        assert same_bits(found[name], run(apply(model, edits), CORPUS, streams=["layer.3"]).streams)


def test_frames_of_variants_are_those_of_the_edited_models():
    model, corpus = load(CASES[0].build().eval()), speech(0.3, 0.5, 0.4, 0.6)
    seen = {}
    for part in frames_of(model, corpus, {"gated": [Gate("layer.2")]}, "layer.3", batch_seconds=1.0):
        assert len(part.corpus) <= 2
        for name, found in part.found.items():
            seen.setdefault(name, {}).update(found)
    assert set(seen["gated"]) == {one.id for one in corpus}
    gated = apply(model, [Gate("layer.2")])
    for one in corpus:
        alone = run(gated, corpus.subset([one.id])).frames("layer.3", 0).numpy()
        assert np.allclose(seen["gated"][one.id], alone, atol=2e-5)


def test_stretches_of_a_corpus_keep_its_batches_and_hold_words():
    corpus = spoken(seconds=(0.9, 0.8, 0.5, 0.4), transcripts=("a", "", "b", ""))
    assert [[u.id for u in part] for part in parts_of(corpus, 0.9)] == [["0000"], ["0001"], ["0002"], ["0003"]]
    assert [[u.id for u in part] for part in parts_of(corpus, 0.9, spoken=True)] == [["0000"], ["0001", "0002", "0003"]]
