"""Floors by a network with fresh weights; what measures are given where nothing is given."""

import numpy as np
import pytest
import torch

import otoscope as oto
from otoscope.diagnosis import Diagnosis, Observation
from otoscope.diagnosis.floors import with_floors
from otoscope.diagnosis.options import LEXICON, Options
from otoscope.errors import MeasureError, ModelError
from otoscope.models import load
from otoscope.models.randomised import randomised
from otoscope.speech.corpus import Corpus
from otoscope.surgery import Bypass, CutHeads, Gate, Redraw, Span, apply
from tests.diagnosis.small_speech import small_speech
from tests.models.small import CASES


@pytest.fixture(scope="module")
def model():
    return load(CASES[0].build(3))


def test_fresh_weights_are_seeded_and_the_model_stays(model):
    before = model.fingerprint()
    first, again, other = randomised(model), randomised(model), randomised(model, 1)
    assert model.fingerprint() == before
    assert first.fingerprint() == again.fingerprint() != other.fingerprint()
    assert first.fingerprint() != before
    assert first.anatomy == model.anatomy
    state = torch.random.get_rng_state()
    randomised(model, 5)
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize(
    "edit", [CutHeads("layer.1.head.0"), Gate("layer.1.head.0"), Span("layer.2.head.1", 3), Bypass("layer.3")],
    ids=lambda edit: edit.kind,
)  # fmt: skip
def test_the_fresh_network_of_an_edited_model_is_refused(model, edit):
    with pytest.raises(ModelError, match="edited"):
        randomised(apply(model, [edit]))


def test_an_edit_of_weights_alone_has_a_fresh_network(model):
    assert randomised(apply(model, [Redraw("layer.1", 9)])).fingerprint() == randomised(model).fingerprint()


def test_floors_are_the_fresh_network_s_values(model):
    corpus = small_speech()
    measures = "cca-phone,cka,globalness"
    permuted = oto.diagnose(model, corpus, measures)
    found = oto.diagnose(model, corpus, measures, floor="random")
    observation = Observation.prepare(randomised(model), corpus, measures)
    observation.update()
    fresh = observation.compute().table
    assert found.table["floor"].to_list() == fresh["value"].to_list()
    assert found.table.drop("floor").equals(permuted.table.drop("floor"))
    assert found.provenance["floor"] == {"kind": "fresh weights", "model": randomised(model).fingerprint(), "seed": 0}
    assert found.table["floor"].to_list() != permuted.table["floor"].to_list()


def test_rows_without_a_counterpart_have_no_floor(model):
    found = oto.diagnose(model, small_speech(), "cca-phone,globalness")
    fresh = oto.diagnose(model, small_speech(), "cca-phone")
    joined = with_floors(found, fresh)
    assert joined.measure("globalness")["floor"].null_count() == joined.measure("globalness").height
    assert joined.measure("cca-phone")["floor"].to_list() == fresh.table["value"].to_list()
    # A floor by permuted labels never stands beside floors by fresh weights.
    less = Diagnosis(fresh.table.head(1), {}, fresh.provenance)
    assert with_floors(found, less).measure("cca-phone")["floor"].null_count() == fresh.table.height - 1


def test_progress_runs_once_through_both_passes(model):
    told = []
    oto.diagnose(
        model, small_speech(), "globalness", floor="random", progress=lambda done, whole: told.append(done / whole)
    )
    assert told == sorted(told)
    assert told[-1] == pytest.approx(1)
    with pytest.raises(MeasureError, match="no floor 'none'"):
        oto.diagnose(model, small_speech(), floor="none")


def test_the_lexicon_serves_where_nothing_is_given():
    words = [u.transcript for u in oto.Corpus.from_arrays([np.ones(800)] * 2, transcripts=["the dog ran", "a cat sat"])]
    corpus = Corpus.from_arrays([np.ones(16000, np.float32)] * 30, transcripts=words * 15)
    options = Options(corpus=corpus)
    assert options.table("semantic") is not None
    assert "dog" in options.table("syntactic").words
    assert options.table("glove") is None
    assert options.pairs_of_words() == {}, "no tier of words"
    assert set(options.pairs_of_sentences()) <= {LEXICON}
    given = {"mine": [("a", "b", 1.0), ("a", "c", 2.0)]}
    assert Options(word_pairs=given, corpus=corpus).pairs_of_words() == given
    assert Options().pairs_of_sentences() == {}


def test_the_embedded_speech_has_pairs_of_its_own():
    corpus = oto.read_corpus("embedded")
    options = Options(corpus=corpus)
    pairs = options.pairs_of_words()[LEXICON]
    spoken = {x.label for u in corpus for x in u.tiers["word"]}
    assert len(pairs) > 100
    assert {w for a, b, _ in pairs for w in (a, b)} <= spoken
    ids = {u.id for u in corpus}
    assert {u for a, b, _ in options.pairs_of_sentences()[LEXICON] for u in (a, b)} <= ids
    assert Options(corpus=corpus).pairs_of_sentences() == options.pairs_of_sentences()
