"""The conformance suite of surgery for edits that only Conformers take: norms of convolution modules, causal layers."""

import copy
import json
import pickle

import pytest
import torch

from otoscope.models import load
from otoscope.surgery import Causal, Gate, GroupNorm, NoNorm, ReplaceMap, apply, edited, from_dict
from tests.models.small import CASES
from tests.surgery.cases import run
from tests.surgery.test_conformance import (  # noqa: F401 - inherited tests
    CORPUS,
    test_a_training_step_works,
    test_an_edit_changes_its_copy_and_is_undone_bit_by_bit,
    test_maps_are_those_of_the_edited_model_and_padding_does_not_leak,
    test_the_copy_runs_by_itself_as_it_does_through_the_tap,
    test_twice_is_once,
)

EDITS = {
    "group-norm": [GroupNorm("layer.*", 8)],
    "group-norm-causal": [Causal("layer.*"), GroupNorm("layer.*", 4, "frame")],
    "no-norm-causal": [NoNorm("layer.*"), Causal("layer.*")],
    "some": [GroupNorm("layer.1-2.convolution", 2), NoNorm("layer.3"), Causal("layer.2")],
    "with-others": [
        Causal("layer.*"),
        Gate("layer.1.head.0", 0.5),
        ReplaceMap("layer.2", "uniform"),
        GroupNorm("layer.*"),
    ],
}
CONFORMERS = [case for case in CASES if case.family in ("wav2vec2-conformer", "parakeet")]
PAIRS = [(case, name) for k, case in enumerate(CONFORMERS) for j, name in enumerate(EDITS) if (k + j) % 2 == 0]


@pytest.fixture(scope="module", params=PAIRS, ids=lambda pair: f"{pair[0].name}-{pair[1]}")
def pair(request):
    return request.param


@pytest.fixture(scope="module")
def model(pair):
    return load(pair[0].build().eval(), name=pair[0].name)


@pytest.fixture(scope="module")
def before(model):
    return run(model, CORPUS)


@pytest.fixture(scope="module")
def edits(pair):
    return EDITS[pair[1]]


@pytest.fixture(scope="module")
def changed(model, edits):
    return apply(model, edits)


@pytest.fixture(scope="module")
def after(changed):
    return run(changed, CORPUS)


def test_edits_are_plain_values_and_copies_of_a_copy_compute_the_same(model, edits):
    inputs = model.frontend.inputs([CORPUS[0].read()])

    def out(module):
        with torch.inference_mode():
            return model.family.encoder(module)(**inputs).last_hidden_state

    changed = edited(model.source, edits)
    expected = out(changed)
    stored = [from_dict(one) for one in json.loads(json.dumps([edit.to_dict() for edit in edits]))]
    assert stored == edits
    copies = [copy.deepcopy(changed), edited(model.source, [*edits, *edits], share=True), edited(model.source, stored)]
    if not any("parametrizations" in path for path in model.source.state_dict()):  # torch does not pickle these
        copies.append(pickle.loads(pickle.dumps(changed)))
    assert all(torch.equal(out(one), expected) for one in copies)
