"""Exact maps: those of the tap, layer by layer, within the room they are given."""

import threading

import numpy as np
import pytest

from otoscope import surgery
from otoscope.errors import CaptureError
from otoscope.models import load
from otoscope.models.reductions import WholeMap
from otoscope.reporting.viewer import ExactMaps, examine
from otoscope.reporting.viewer.overview import restored
from otoscope.speech.corpus import Corpus
from tests.diagnosis.small_speech import small_speech
from tests.models.small import CASES

NAMES = ("wav2vec2-group", "wavlm-ctc-stable", "conformer-relative", "bert-relative-key", "whisper", "parakeet")


@pytest.fixture(scope="module")
def utterance():
    return small_speech(1).utterances[0]


def exact_maps(case, utterance, **settings):
    model = load(case.build())
    return ExactMaps(model, utterance, utterance.read(), **settings)


@pytest.mark.parametrize("case", [case for case in CASES if case.name in NAMES], ids=lambda case: case.name)
def test_each_layer_has_the_maps_of_the_whole_pass(case, utterance):
    maps = exact_maps(case, utterance)
    capture = maps.model.capture([utterance], [utterance.read()], (), (WholeMap,))
    for layer in (3, 1, 2):
        np.testing.assert_array_equal(maps.layer(layer), capture.attention[layer][0]["whole-map"].numpy())


def test_the_pass_ends_at_the_layer(utterance):
    maps = exact_maps(CASES[0], utterance)
    ran = []
    for k, module in enumerate(maps.model.encoder.encoder.layers, start=1):
        module.register_forward_hook(lambda *_, k=k: ran.append(k))
    maps.layer(2)
    assert ran == [1]  # layer 2 ends in its attention
    assert all(one.observation is None for one in maps.model._taps)
    maps.model.capture([utterance], [utterance.read()])
    assert ran == [1, 1, 2, 3]


def test_layers_are_kept_while_there_is_room(utterance):
    maps = exact_maps(CASES[0], utterance)
    assert maps.layer(1) is maps.layer(1)
    maps.room = 2 * maps.layer_bytes
    first, second = maps.layer(1), maps.layer(2)
    assert maps.layer(1) is first
    maps.layer(3)  # drops layer 2, which was asked for longest ago
    assert maps.layer(1) is first
    assert maps.layer(2) is not second
    assert maps.most_bytes == 2 * maps.layer_bytes
    assert first.nbytes == maps.layer_bytes


def test_one_layer_is_kept_whatever_its_size(utterance):
    maps = exact_maps(CASES[0], utterance, room=1)
    assert maps.layer(1) is maps.layer(1)
    assert maps.most_bytes == maps.layer_bytes


def test_threads_wait_for_each_other_also_where_both_sides_are_one_model(utterance):
    one = exact_maps(CASES[0], utterance)
    other = ExactMaps(one.model, utterance, utterance.read())
    expected = {layer: one.layer(layer).copy() for layer in (1, 2, 3)}
    one._kept.clear()
    wrong: list[object] = []

    def ask(maps, layer):
        if not np.array_equal(maps.layer(layer), expected[layer]):
            wrong.append(layer)

    threads = [threading.Thread(target=ask, args=(maps, layer)) for layer in (3, 1, 2) for maps in (one, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("layer", [0, 4, -1])
def test_layers_that_are_not_there_are_refused(utterance, layer):
    with pytest.raises(CaptureError, match="has no layer"):
        exact_maps(CASES[0], utterance).layer(layer)


@pytest.mark.parametrize("case", [case for case in CASES if case.name in NAMES[:2]], ids=lambda case: case.name)
def test_a_model_that_lost_heads_is_shown_by_the_numbers_they_had(case, utterance):
    cut = surgery.apply(
        load(case.build(), name="cut"), [surgery.CutHeads("layer.2"), surgery.CutHeads("layer.3.head.0,2")]
    )
    corpus = Corpus.from_arrays([utterance.read()], tiers=[utterance.tiers])
    side = examine(cut, corpus, "globalness")
    assert side.heads == [(1, 0), (1, 1), (1, 2), (1, 3), (3, 1), (3, 3)]
    assert set(side.metrics["globalness"]) == {f"{layer}.{head}" for layer, head in side.heads}
    exact = ExactMaps(cut, utterance, utterance.read())
    shown = restored(side.layers[2], side.largest[2])
    assert side.layers[1].shape[0] == 0
    assert exact.layer(2).shape[0] == 0
    assert abs(shown - exact.layer(3)).max() <= side.largest[2].max() / 255
    assert len(side.relations) == len(side.profiles) == len(side.thumbnails[0]) == 6
