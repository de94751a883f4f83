"""What the viewer shows of a model is what the measures and the pure functions say of the same maps."""

import numpy as np
import pytest

from otoscope.errors import AudioError, MeasureError, ResultError
from otoscope.measures.blocks.profile import relative_profile
from otoscope.measures.heads.globalness import globalness
from otoscope.measures.heads.relation import relation_map, relative_relation
from otoscope.models import load
from otoscope.models.reductions import WholeMap
from otoscope.reporting.viewer import Scene, check_length, examine
from otoscope.reporting.viewer.overview import restored
from otoscope.reporting.viewer.relations import REST
from otoscope.reporting.viewer.scene import sound_bytes
from otoscope.reporting.viewer.side import REACH, by_head, metric_facts
from otoscope.speech.corpus import Corpus
from otoscope.speech.utterance import Interval
from otoscope.workflow import diagnose
from tests.diagnosis.small_speech import small_speech
from tests.models.small import CASES

WAV2VEC2 = next(case for case in CASES if case.name == "wav2vec2-group")


@pytest.fixture(scope="module")
def model():
    return load(WAV2VEC2.build(), name="small")


@pytest.fixture(scope="module")
def corpus():
    return small_speech(1)


@pytest.fixture(scope="module")
def side(model, corpus):
    return examine(model, corpus)


@pytest.fixture(scope="module")
def maps(model, corpus):
    """(layers * heads, T, T)."""
    utterance = corpus.utterances[0]
    found = model.capture([utterance], [utterance.read()], (), (WholeMap,)).attention
    return np.concatenate([found[layer][0]["whole-map"].numpy() for layer in sorted(found)])


def test_overviews_of_a_short_utterance_are_its_maps_in_bytes(side, maps):
    shown = np.concatenate([restored(cells, most) for cells, most in zip(side.layers, side.largest, strict=True)])
    assert side.span == 1
    assert shown.shape == maps.shape
    assert abs(shown - maps).max() <= maps.max() / 255
    np.testing.assert_allclose(np.concatenate(side.peaks), maps.max((1, 2)), rtol=1e-6)
    assert side.heads[:5] == [(1, 0), (1, 1), (1, 2), (1, 3), (2, 0)]


def test_numbers_are_those_of_the_measures(side, maps, model, corpus):
    expected = globalness(maps.astype(np.float64))
    found = [side.metrics["globalness"][f"{layer}.{head}"]["value"] for layer, head in side.heads]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    table = diagnose(model, corpus, ["category"]).table
    for row in table.to_dicts():
        assert side.metrics["category"][f"{row['layer']}.{row['head']}"]["label"] == row["label"]


def test_profiles_are_those_of_the_pure_function(side, maps):
    expected = relative_profile(maps.astype(np.float64), REACH)[:, 1:-1]
    np.testing.assert_allclose(side.profiles, expected, atol=1e-6)


def test_relations_are_those_of_the_pure_function_on_shares_of_frames(side, maps, model, corpus):
    utterance, grid = corpus.utterances[0], model.anatomy.grid
    labels, shares = side.labels
    frames = maps.shape[-1]
    # Shares of each frame's time by brute force, sample by sample; the last label goes on beyond the end.
    names = [""] * utterance.n_samples
    for one in utterance.tiers["phone"]:
        names[one.start : one.end] = [one.label] * one.duration
    names = [name or REST for name in names]
    held = np.zeros((frames, len(labels)))
    for t in range(frames):
        begin = grid.offset + (grid.field - grid.hop) // 2 + t * grid.hop
        for sample in range(begin, begin + grid.hop):
            held[t, labels.index(names[min(max(sample, 0), len(names) - 1)])] += 1 / grid.hop
    p, uniform = relation_map(maps.astype(np.float64), held, len(labels))
    np.testing.assert_allclose(side.relations, p, atol=1e-6)
    np.testing.assert_allclose(np.outer(shares, shares), uniform, atol=1e-9)
    assert np.isfinite(relative_relation(p, uniform)).all()
    np.testing.assert_allclose(side.relations.sum((1, 2)), 1, atol=1e-5)


def test_an_utterance_without_phones_has_no_relations(model):
    side = examine(model, small_speech(1, tiers=False))
    assert side.labels[0] == []
    assert side.relations.shape == (12, 0, 0)
    described = Scene(small_speech(1, tiers=False).utterances[0], np.zeros(16000, np.float32), [side]).describe()
    assert described["utterance"]["tiers"] == {}


def test_coarser_and_fewer_shades_change_the_overviews_alone(side):
    coarse = side.with_coarser(2)
    assert coarse.span == 2
    assert coarse.layers[0].shape[-1] == -(-side.frames // 2)
    fewer = side.with_fewer_shades()
    assert len(np.unique(np.concatenate([one.ravel() for one in fewer.layers]))) <= 52
    assert max(abs(a.astype(int) - b).max() for a, b in zip(fewer.layers, side.layers, strict=True)) <= 2
    for other in (coarse, fewer):
        assert other.metrics is side.metrics
        assert other.thumbnails is side.thumbnails


def test_measures_are_taken_by_name_and_refused_where_they_give_no_number_a_head(model, corpus):
    assert list(examine(model, corpus, "verticality").metrics) == ["verticality"]
    with pytest.raises(MeasureError, match="no numbers by head"):
        examine(model, corpus, ["relative-profile"])
    with pytest.raises(MeasureError, match="no measure or group"):
        examine(model, corpus, "vertigo")


def test_metrics_come_from_a_diagnosis_of_the_same_model(model, corpus):
    diagnosis = diagnose(model, small_speech(3), ["globalness", "category"])
    side = examine(model, corpus, diagnosis=diagnosis)
    row = diagnosis.measure("globalness").to_dicts()[5]
    found = side.metrics["globalness"][f"{row['layer']}.{row['head']}"]
    assert found == {"value": row["value"], "low": row["low"], "high": row["high"]}
    assert side.source == "the diagnosis on tones (3 utterances)"
    with pytest.raises(ResultError, match="whose weights are not those of other"):
        examine(load(WAV2VEC2.build(seed=1), name="other"), corpus, diagnosis=diagnosis)
    with pytest.raises(ResultError, match="no numbers by head"):
        examine(model, corpus, diagnosis=diagnose(model, small_speech(3), ["relative-profile"]))


def test_a_few_targets_are_a_metric_each_and_many_are_left_out():
    row = {"layer": 1, "head": 0, "target": None, "other": None, "value": 1.0, "low": None, "high": None, "label": None}
    rows = [
        {**row, "measure": "one"}, {**row, "measure": "two", "target": "ctc"}, {**row, "measure": "two", "target": "mel"},
        {**row, "measure": "block", "head": None}, {**row, "measure": "word", "value": None, "label": "global"},
        {**row, "measure": "nothing", "value": None}, {**row, "measure": "pair", "other": "layer.2"},
        *({**row, "measure": "many", "target": f"phone {k}"} for k in range(13)),
    ]  # fmt: skip
    one = {"1.0": {"value": 1.0}}
    assert by_head(rows) == {"one": one, "two: ctc": one, "two: mel": one, "word": {"1.0": {"label": "global"}}}
    assert metric_facts(["globalness: x", "unheard-of"])[0]["unit"] == "nat, 0 to ln T"


def test_too_long_is_refused_with_the_limit():
    long = Corpus.from_arrays([np.zeros(61 * 16000, np.float32)])
    with pytest.raises(AudioError, match="60 s at most"):
        check_length(long.utterances[0])


def test_sound_is_sixteen_bits_without_wrapping_round():
    found = np.frombuffer(sound_bytes(np.array([0, 1, -1, 1.7, -2, 0.5], np.float32)), "<i2")
    assert found.tolist() == [0, 32767, -32767, 32767, -32767, 16384]


def test_the_description_places_frames_tiers_and_heads(side, corpus):
    utterance = corpus.utterances[0]
    scene = Scene(utterance, utterance.read(), [side])
    about = scene.describe()
    assert about["utterance"]["samples"] == utterance.n_samples
    assert list(about["utterance"]["tiers"]) == ["phone", "word"]
    assert about["utterance"]["tiers"]["phone"][0] == [0, 1600, utterance.tiers["phone"][0].label]
    (told,) = about["models"]
    assert told["grid"] == {"hop": 320, "field": 400, "offset": 0}
    assert [(one["layer"], one["head"]) for one in told["heads"]] == side.heads
    blocks = scene.blocks()
    assert len(blocks["m0/overview/2"]()) == 4 * told["cells"] ** 2
    assert len(blocks["m0/thumbnails"]()) == 12 * told["thumbnail"]["cells"] ** 2
    assert len(blocks["spectrogram"]()) == about["spectrogram"]["frames"] * about["spectrogram"]["bands"]
    assert len(blocks["audio"]()) == 2 * utterance.n_samples


def test_tiers_beside_phones_and_words_are_shown_too(side, corpus):
    utterance = corpus.utterances[0]
    tiers = {**utterance.tiers, "accent": (Interval(0, 800, "H*"),)}
    other = type(utterance)(utterance.id, None, None, utterance.n_samples, tiers, utterance.source)
    assert list(Scene(other, utterance.read(), [side]).describe()["utterance"]["tiers"]) == ["phone", "accent", "word"]
