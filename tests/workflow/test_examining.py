"""What takes many passes stands beside what one pass gives, and never costs it."""

import numpy as np
import pytest

from otoscope.errors import OtoscopeError
from otoscope.measures.measure import Result, Row
from otoscope.models.loading import load
from otoscope.speech.corpus import Corpus
from otoscope.workflow import examining
from otoscope.workflow.diagnosing import diagnose
from otoscope.workflow.examining import Passes
from otoscope.workflow.importance_needs import NAMES
from otoscope.workflow.importance_stages import Importance
from tests.diagnosis.small_speech import small_speech
from tests.models.small import CASES


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    case = next(case for case in CASES if case.name == "wavlm-group")
    return load(case.write(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def corpus():
    draw = np.random.default_rng(0)
    return Corpus.from_arrays([(0.1 * draw.standard_normal(9600)).astype(np.float32) for _ in range(3)])


def test_a_group_without_ground_is_skipped_and_the_rest_is_kept(model, corpus):
    one = corpus.subset([corpus[0].id])
    found = diagnose(model, one, "globalness,importance")
    assert set(found.table["measure"]) == {"globalness"}
    assert any(skip["measure"] == "importance" and skip["reason"] for skip in found.provenance["skipped"])


def test_what_is_asked_for_by_name_is_an_error_where_there_is_no_ground(model, corpus):
    with pytest.raises(OtoscopeError):
        diagnose(model, corpus.subset([corpus[0].id]), ["globalness", "pruning-phone"])


def test_context_mixing_adds_rows_and_says_so_before_it_starts(model, corpus):
    lines = []
    found = diagnose(
        model, corpus, ["globalness", "mixing-norm"], passes=Passes(utterances=2), tell=lines.append
    )  # fmt: skip
    assert {"globalness", "mixing-norm"} == set(found.table["measure"])
    assert found.provenance["measures"] == ["globalness", "mixing-norm"]
    assert lines == ["Context mixing (norm) of 2 utterances, one by one"]
    assert found.measure("mixing-norm")["n"].unique().to_list() == [2]
    assert found.provenance["notes"]["mixing-norm"]["limit"] == 2


def test_signs_take_what_the_same_diagnosis_found(model, corpus, monkeypatch):
    """Rows of one pass reach the sign tests of many, and only what was named is run."""
    given = {}

    def examined(*args, **options):
        given.update(options)
        return Importance(Result([Row("importance-l1", "layer.1", 1, 0, value=1.0)]))

    monkeypatch.setattr(examining, "examine_importance", examined)
    found = diagnose(model, corpus, ["globalness", "importance-l1", "span-head"])
    assert sorted(given["wanted"]) == ["importance-l1", "span-head"]
    assert set(given["beside"].table["measure"]) == {"globalness"}
    assert set(found.table["measure"]) == {"globalness", "importance-l1"}
    diagnose(model, corpus, "globalness,importance")
    assert set(given["wanted"]) == set(NAMES)


def test_words_are_mixed_by_their_name(model):
    found = diagnose(model, small_speech(3), ["globalness", "mixing-attention-words"])
    assert set(found.measure("mixing-attention-words")["target"]) >= {"distance", "own-share"}
    assert found.provenance["notes"]["mixing-attention-words"]["distance_in"] == "words"
