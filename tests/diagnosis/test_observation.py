"""The pass: the same result for any order and split; what cannot be measured is skipped and said."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from otoscope.diagnosis import CATALOGUE, Observation, choose
from otoscope.diagnosis.catalogue import ON_REQUEST
from otoscope.diagnosis.options import Options
from otoscope.errors import AudioError, CorpusError, MeasureError, StateError
from otoscope.models import load
from otoscope.speech.corpus import Corpus
from tests.diagnosis.small_speech import small_speech
from tests.models.small import CASES

# One utterance a batch, so that every utterance goes through the model in the same shape whatever the split.
ALONE = 0.1


@pytest.fixture(scope="module")
def model():
    return load(CASES[0].build())


@pytest.fixture(scope="module")
def corpus():
    return small_speech()


def observe(model, corpus, part=None, seed=0, measures=None, seconds=ALONE):
    observation = Observation.prepare(model, corpus, measures, seed)
    observation.update(part, batch_seconds=seconds)
    return observation


@pytest.fixture(scope="module")
def whole(model, corpus):
    return observe(model, corpus)


@pytest.fixture(scope="module")
def told(whole):
    return whole.compute()


def close(a, b, tolerance):
    assert a.drop("value", "low", "high", "floor").equals(b.drop("value", "low", "high", "floor"))
    for column in ("value", "low", "high", "floor"):
        x, y = a[column].to_numpy(), b[column].to_numpy()
        assert np.allclose(x, y, rtol=tolerance, atol=tolerance, equal_nan=True), column


GROUNDLESS = (
    "cca-speaker", "cca-semantic", "cca-syntactic", "word-segmentation", "word-similarity", "sentence-similarity",
)  # fmt: skip
"""What three utterances a speaker of three numbers, with pauses between, give no ground for."""


def test_every_measure_of_the_catalogue_gives_rows(whole, told):
    wanted = [entry for entry, _ in choose(None)]
    assert {entry.group for entry in wanted} == {"layers", "heads", "blocks"}
    # Three blocks of so little speech follow no trend, and depart from none.
    untold = {*GROUNDLESS, "neighbour-deviation", "trend-residual"}
    assert set(told.table["measure"]) == {entry.name for entry in wanted} - untold
    assert {one["measure"] for one in told.provenance["skipped"]} == set(GROUNDLESS)
    assert told.provenance["measures"] == [entry.name for entry in wanted if entry.name not in GROUNDLESS]
    heads = told.measure("globalness")
    assert heads.height == 12
    assert heads["head"].to_list()[:5] == [0, 1, 2, 3, 0]
    assert heads["n"].to_list() == [12] * 12
    assert (heads["low"] <= heads["value"]).all()
    assert (heads["high"] >= heads["value"]).all()
    mel = told.measure("cca-mel")
    assert mel["stream"].to_list() == list(whole.model.anatomy.streams)
    assert told.measure("relative-profile").height == 3 * 103


def test_any_order_gives_the_same(model, corpus, told):
    order = np.random.default_rng(0).permutation(len(corpus))
    shuffled = replace(corpus, utterances=tuple(corpus[int(k)] for k in order))
    again = observe(model, shuffled).compute()
    assert again.table.equals(told.table)


@pytest.mark.parametrize("parts", [2, pytest.param(5, marks=pytest.mark.slow), 12])
def test_any_split_merges_to_the_same(model, corpus, whole, parts, told):
    pieces = [observe(model, corpus, corpus.subset([u.id for u in list(corpus)[k::parts]])) for k in range(parts)]
    merged = pieces[-1]
    for piece in pieces[:-1]:
        merged.merge(piece)
    assert merged.seen == whole.seen
    close(merged.compute().table, told.table, 1e-9)


def test_states_merge_to_ten_digits(model, corpus, whole):
    first, second = (observe(model, corpus, corpus.subset([u.id for u in list(corpus)[k::2]])) for k in range(2))
    first.merge(second)
    for name, measure in whole.measures.items():
        mine = first.measures[name].state()
        for key, array in measure.state().items():
            scale = np.abs(np.nan_to_num(array.astype(float))).max() if array.size else 0
            assert np.allclose(mine[key], array, rtol=1e-10, atol=1e-10 * scale, equal_nan=True), (name, key)


def test_padded_batches_change_the_result_by_rounding_only(model, corpus, told):
    close(observe(model, corpus, seconds=60).compute().table, told.table, 2e-3)


def test_saved_states_read_back(model, corpus, whole, tmp_path, told):
    whole.save(tmp_path / "states.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["states.safetensors"]
    again = Observation.prepare(model, corpus)
    again.load(tmp_path / "states.safetensors")
    assert again.compute().table.equals(told.table)


def test_states_of_another_preparation_are_refused(model, corpus, whole, tmp_path):
    whole.save(tmp_path / "s")
    with pytest.raises(StateError, match="another seed"):
        Observation.prepare(model, corpus, seed=1).load(tmp_path / "s")
    with pytest.raises(StateError, match="another corpus"):
        Observation.prepare(model, small_speech(seed=5)).load(tmp_path / "s")
    (tmp_path / "broken").write_bytes(b"nothing")
    with pytest.raises(StateError, match="holds no observation"):
        Observation.prepare(model, corpus).load(tmp_path / "broken")


def test_seeing_an_utterance_twice_is_refused(model, corpus, whole):
    with pytest.raises(StateError, match="observed before"):
        observe(model, corpus, measures="heads").update()
    other = observe(model, corpus, corpus.subset(["u00"]))
    with pytest.raises(StateError, match="both saw 'u00'"):
        other.merge(whole)


def test_other_seeds_do_not_merge(model, corpus):
    with pytest.raises(StateError):
        observe(model, corpus, corpus.subset(["u00"])).merge(observe(model, corpus, corpus.subset(["u01"]), seed=1))


def test_other_models_do_not_merge(corpus):
    halves = [corpus.subset([u.id for u in list(corpus)[k::2]]) for k in range(2)]
    first, second = (observe(load(CASES[0].build(seed)), corpus, halves[seed], measures="heads") for seed in range(2))
    with pytest.raises(StateError, match="prepared with another model"):
        first.merge(second)


def test_other_corpora_do_not_merge(model, corpus):
    other = small_speech(seed=9)
    first = observe(model, corpus, corpus.subset(["u00"]), measures="heads")
    with pytest.raises(StateError, match="prepared with another corpus"):
        first.merge(observe(model, other, other.subset(["u01"]), measures="heads"))


def test_a_stranger_is_refused(model, corpus):
    observation = Observation.prepare(model, corpus, "heads")
    stranger = Corpus.from_arrays([np.ones(16000, np.float32) * 0.1], ids=["stranger"])
    with pytest.raises(StateError, match="'stranger' is not in the corpus"):
        observation.update(stranger)


def test_a_pass_that_broke_midway_is_not_used(model, corpus, monkeypatch):
    observation = Observation.prepare(model, corpus, "heads")

    def fail(capture):
        raise MeasureError("no number")

    monkeypatch.setattr(observation.measures["verticality"], "update", fail)
    with pytest.raises(MeasureError, match="no number"):
        observation.update()
    for use in (observation.compute, observation.update, lambda: observation.save("/tmp/x")):
        with pytest.raises(StateError, match="failed midway"):
            use()


def test_states_that_cannot_be_written(whole, tmp_path):
    for place in (tmp_path, tmp_path / "absent" / "states"):
        with pytest.raises(StateError, match="cannot be written"):
            whole.save(place)


def test_when_all_are_left_out_the_reason_is_told(model):
    silent = Corpus.from_arrays([np.ones(500, np.float32) * 0.1] * 3)
    with pytest.raises(CorpusError, match=r"3 were left out, the first \(0000\) because.*fewer than two frames"):
        Observation.prepare(model, silent, skip_bad=True)


def test_without_tiers_phones_and_words_are_skipped_and_said(model):
    diagnosis = observe(model, small_speech(tiers=False)).compute()
    taken = {entry.name for entry, _ in choose("layers")} - {one["measure"] for one in diagnosis.provenance["skipped"]}
    assert taken == {"cca-mel", "cca-intra", "cka", "procrustes"}
    reasons = {one["measure"]: one["reason"] for one in diagnosis.provenance["skipped"]}
    assert "no tier 'phone'" in reasons["cca-phone"]
    assert "no tier 'word'" in reasons["awd"]
    assert set(diagnosis.table["measure"]) >= taken


def test_a_measure_asked_for_by_name_must_be_there(model):
    with pytest.raises(CorpusError, match="no tier 'phone'"):
        Observation.prepare(model, small_speech(tiers=False), "cca-phone")


def test_a_single_utterance_still_has_heads(model, corpus):
    diagnosis = observe(model, corpus.subset(["u03"])).compute()
    assert {one["measure"] for one in diagnosis.provenance["skipped"]} >= {"cca-mel", "cca-phone", "cca-word"}
    assert diagnosis.measure("cka")["low"].null_count() == diagnosis.measure("cka").height > 0
    assert diagnosis.measure("diagonality")["low"].null_count() == 12


def test_utterances_the_model_cannot_take(model, corpus):
    short = Corpus.from_arrays([np.zeros(500, np.float32) + 0.1], ids=["short"])
    mixed = replace(corpus, utterances=(*corpus, *short))
    with pytest.raises(AudioError, match="short.*fewer than two frames"):
        Observation.prepare(model, mixed)
    observation = Observation.prepare(model, mixed, skip_bad=True)
    observation.update(batch_seconds=5, skip_bad=True)
    told = observation.compute().provenance["corpus"]
    assert told["utterances"] == 12
    assert [one["id"] for one in told["left_out"]] == ["short"]


def test_an_empty_corpus_is_refused(model):
    with pytest.raises(CorpusError, match="no utterance"):
        Observation.prepare(model, Corpus("nothing", ()))


def test_nothing_observed_is_refused(model, corpus):
    with pytest.raises(StateError, match="Nothing was observed"):
        Observation.prepare(model, corpus).compute()


def test_choosing_measures():
    everything = [entry.name for entry, _ in choose(None)]
    assert everything == [e.name for e in CATALOGUE if e.group not in ON_REQUEST and not e.needs and e.make is not None]
    assert "cca-word-centre" not in everything
    assert next(entry.name for entry, _ in choose("word-spans")) == "cca-word-centre"
    assert choose("cca-inter")[0][1] is True, "by name even where the other model is absent: the measure says so"
    assert {entry.group for entry, _ in choose("heads")} == {"heads"}
    assert choose(["cca-mel"])[0][1] is True
    for wrong in ("nothing", "", "heads,nothing"):
        with pytest.raises(MeasureError, match="Groups are layers, variants"):
            choose(wrong)
    with pytest.raises(MeasureError, match="Did you mean globalness"):
        choose("globalnes")


def test_a_stream_that_holds_the_phone_scores_one_and_noise_scores_nothing(model, corpus):
    """The whole chain on streams whose answer is known: the label itself, and noise."""
    measure = next(entry for entry in CATALOGUE if entry.name == "cca-phone").make(Options())
    measure.prepare(model.anatomy, corpus, 0)
    names = sorted({i.label for u in corpus for i in u.tier("phone")})
    draw = torch.Generator().manual_seed(0)
    for utterance in corpus:
        capture = model.capture([utterance], [utterance.read()], measure.streams)
        frames = capture.lengths["input"][0]
        known = torch.randn(1, frames, 48, generator=draw) * 1e-4
        for one in utterance.tier("phone"):
            first, last = one.start // 320, -(-one.end // 320)
            known[0, first:last, names.index(one.label)] += 1
        streams = {name: torch.randn(1, frames, 48, generator=draw) for name in capture.streams}
        measure.update(replace(capture, streams={**streams, "layer.2": known}))
    rows = {row.stream: row for row in measure.compute().rows}
    assert rows["layer.2"].value > 0.99
    for stream in ("input", "layer.1", "layer.3"):
        assert abs(rows[stream].value) < 0.3
        assert rows[stream].low < 0.1
