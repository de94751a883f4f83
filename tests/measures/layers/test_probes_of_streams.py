from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from otoscope.errors import CorpusError, MeasureError, StateError
from otoscope.measures.layers.labelled import SPAN_OF, choose_frames
from otoscope.measures.layers.probing import PARTS, Probes
from otoscope.speech import Corpus, Interval
from tests.measures.layers.labelled_speech import ANATOMY, STREAMS, capture, corpus, ids, two_speakers


def prepared(target: str, parts: tuple[str, ...] = ("linear",), **options: int) -> Probes:
    measure = Probes(target, parts=parts, **options)
    measure.prepare(ANATOMY, two_speakers() if target == "speaker" else corpus(), seed=0)
    return measure


@cache
def whole(target: str, parts: tuple[str, ...]) -> Probes:
    measure = prepared(target, parts)
    for a, b in pairwise([0, 5, 12]):
        measure.update(capture(ids()[a:b], target.removeprefix("frame-")))
    return measure


@cache
def result_of(target: str, parts: tuple[str, ...]):
    return whole(target, parts).compute()


def rows_of(target: str, parts: tuple[str, ...]) -> dict:
    return {(row.measure, row.stream): row for row in result_of(target, parts).rows}


def test_every_part_finds_the_layer_that_holds_the_phone():
    rows = rows_of("phone", PARTS)
    assert {measure for measure, _ in rows} == set(Probes("phone").yields)
    for name in ("probe-phone", "probe-mlp-phone"):
        assert rows[name, "layer.2"].value > 0.99
        for stream in ("input", "layer.1", "final_norm"):
            assert rows[name, stream].value == pytest.approx(0.2, abs=0.1)
        assert 0.1 < rows[name, "layer.2"].floor < 0.35
    for name in ("selectivity-phone", "selectivity-mlp-phone"):
        # Types are pairs of phones, of which a middle frame shows but one.
        assert rows[name, "layer.2"].value > 0.3
        assert abs(rows[name, "layer.1"].value) < 0.12
    assert rows["mdl-phone", "layer.2"].value > 3
    assert rows["mdl-phone", "layer.1"].value == pytest.approx(rows["mdl-phone", "layer.1"].floor, abs=0.1)
    assert rows["probe-weighted-phone", None].value > 0.95
    weights = {stream: rows["weight-phone", stream].value for stream in ("input", "layer.1", "layer.2")}
    assert sum(weights.values()) == pytest.approx(1)
    assert max(weights, key=weights.__getitem__) == "layer.2"


def test_rows_are_whole():
    for (measure, stream), row in rows_of("phone", PARTS).items():
        assert row.target == "phone"
        assert row.layer == {"layer.1": 1, "layer.2": 2}.get(stream)
        assert row.low <= row.value <= row.high
        assert row.n == len(whole("phone", PARTS).segments)
        assert row.floor is not None
        assert row.ceiling == (None if measure == "mdl-phone" else 1)
    result = result_of("phone", PARTS)
    assert result.arrays["probe-phone.weights"].shape == (3, 3)
    bits = result.arrays["probe-phone.bits"]
    assert bits.shape[0] == len(STREAMS)
    found = rows_of("phone", PARTS)["mdl-phone", "layer.2"]
    assert found.value == pytest.approx(found.n * np.log2(5) / bits[STREAMS.index("layer.2")].sum())
    notes = result.notes
    assert (notes["folds"], notes["folds_by"], notes["labels"]) == (3, "speaker", 5)
    assert notes["labels_left_out"] == notes["rows_left_out"] == 0
    assert notes["weights_without"] == ["final_norm"]
    assert 0.9 < notes["control_types_known"] <= 1


@pytest.mark.parametrize("target", ["word", "frame-phone", "speaker"])
def test_other_targets(target):
    rows = rows_of(target, ("linear",))
    assert rows[f"probe-{target}", "layer.2"].value > 0.9
    assert rows[f"probe-{target}", "layer.1"].value < (0.9 if target == "speaker" else 0.5)
    assert ((f"selectivity-{target}", "layer.2") in rows) == (target != "speaker")
    assert result_of(target, ("linear",)).notes["folds_by"] == ("utterance" if target == "speaker" else "speaker")


def test_accuracy_is_that_of_probes_held_out_by_speaker():
    measure = whole("phone", PARTS)
    rows = measure.rows()
    speaker = [one.speaker for one in measure.seen_segments()]
    assert all(len({f for s, f in zip(speaker, rows.folds, strict=True) if s == name}) == 1 for name in set(speaker))
    from otoscope.functional import linear_probe

    x, right = measure.vectors("layer.1"), 0
    for fold in range(3):
        fit, held = rows.folds != fold, rows.folds == fold
        right += (linear_probe(x[fit], rows.labels[fit], x[held], 5).argmax(1) == rows.labels[held]).sum()
    assert rows_of("phone", PARTS)["probe-phone", "layer.1"].value == right / len(x)


def test_control_labels_are_fixed_by_the_label_and_the_one_before():
    measure, found = whole("phone", PARTS), {}
    for one, control in zip(measure.seen_segments(), measure.rows().controls, strict=True):
        tier = corpus()[one.utterance].tiers["phone"]
        pair = (tier[one.place - 1].label if one.place else None, one.label)
        assert found.setdefault(pair, control) == control
    assert len({control for pair, control in found.items() if pair[1] == "t"}) > 1


@given(order=st.permutations(ids()), cut=st.integers(0, 12))
@settings(max_examples=5)
def test_any_order_and_split_gives_the_same(order, cut):
    parts = [prepared("phone"), prepared("phone")]
    for k, name in enumerate(order):
        parts[k < cut].update(capture((name,)))
    parts[0].merge(parts[1])
    for name, array in whole("phone", ("linear",)).state().items():
        np.testing.assert_array_equal(parts[0].state()[name], array)
    loaded = prepared("phone")
    loaded.load_state(parts[0].state())
    np.testing.assert_array_equal(loaded.rows().labels, whole("phone", PARTS).rows().labels)


def test_computing_again_gives_the_same():
    assert whole("word", ("linear", "weights")).compute().rows == result_of("word", ("linear", "weights")).rows


def test_frames_are_chosen_by_what_they_are_and_not_by_their_order():
    found = choose_frames(corpus(), "phone", 0, 50)
    backwards = Corpus("back", corpus().utterances[::-1])
    assert len(found) == 50
    assert sorted(map(repr, found)) == sorted(map(repr, choose_frames(backwards, "phone", 0, 50)))
    assert found != choose_frames(corpus(), "phone", 1, 50)
    every = choose_frames(corpus(), "phone", 0, 10**6)
    inside = sum((x.end - x.start) // 320 for u in corpus() for x in u.tiers["phone"] if x.label != "sil")
    assert len(every) == inside
    for one in found:
        (x,) = [x for x in corpus()[one.utterance].tiers["phone"] if x.start <= one.start < x.end]
        assert (one.label, one.end) == (x.label, one.start + 1)
    with pytest.raises(CorpusError, match="no tier 'word'"):
        choose_frames(Corpus.from_arrays([np.zeros(8000)]), "word", 0, 5)


@pytest.mark.parametrize(("target", "most"), [("phone", 40), ("word", 40), ("frame-phone", 60), ("speaker", 11)])
def test_what_is_beyond_the_limits_is_counted(target, most):
    told, every = prepared(target, most=most).told(), prepared(target, most=10**6)
    assert len(prepared(target, most=most).segments) + told["rows_left_out"] == most
    capped = every.told()["rows_not_drawn"]  # words beyond 15 of a kind
    assert told["rows_not_drawn"] == capped + len(every.segments) - most


def test_rare_labels_are_left_out_and_counted():
    tiers = [{"phone": (*(Interval(k * 800, (k + 1) * 800, "ab"[k % 2]) for k in range(8)),)} for _ in range(4)]
    tiers[0] = {"phone": (*tiers[0]["phone"], Interval(6400, 7200, "c"), Interval(7200, 8000, "sil"))}
    few = Corpus.from_arrays([np.zeros(8000)] * 4, speakers=["p", "q", "r", "s"], tiers=tiers)
    measure = Probes("phone")
    measure.prepare(ANATOMY, few, 0)
    assert measure.told()["labels"] == 2
    assert (measure.told()["labels_left_out"], measure.told()["rows_left_out"]) == (1, 1)
    assert measure.told()["rows_not_drawn"] == measure.told()["utterances_without_tier"] == 0
    assert len(measure.segments) == 32


def test_what_cannot_be_probed_is_refused():
    with pytest.raises(MeasureError, match="labelled 'mel'"):
        Probes("mel")
    with pytest.raises(MeasureError, match="no part 'deep'"):
        Probes("phone", parts=("linear", "deep"))
    with pytest.raises(MeasureError, match="No part"):
        Probes("phone", parts=())
    bare = Corpus.from_arrays([np.zeros(16000)] * 12)
    with pytest.raises(CorpusError, match="no tier 'phone'"):
        Probes("frame-phone").prepare(ANATOMY, bare, 0)
    with pytest.raises(MeasureError, match="name their speakers"):
        Probes("speaker").prepare(ANATOMY, bare, 0)
    with pytest.raises(MeasureError, match="Of 6 labels"):
        Probes("speaker").prepare(ANATOMY, corpus(), 0)
    measure = prepared("word")
    measure.update(capture(ids()[:1]))
    with pytest.raises(MeasureError, match="in 1 folds"):
        measure.compute()
    with pytest.raises(StateError, match="not prepared"):
        Probes("word").compute()


def test_a_constant_stream_is_answered_by_the_floor():
    # Two labels may be equally frequent among the rows that are fitted on, and either is right to name.
    measure = prepared("phone", ("linear", "codelength"))
    for name in ids():
        batch = capture((name,))
        batch.streams["layer.1"] = torch.full_like(batch.streams["layer.1"], 0.3)
        measure.update(batch)
    rows = {(r.measure, r.stream): r for r in measure.compute().rows}
    assert rows["probe-phone", "layer.1"].value == pytest.approx(rows["probe-phone", "layer.1"].floor, abs=0.05)
    assert rows["mdl-phone", "layer.1"].value == pytest.approx(rows["mdl-phone", "layer.1"].floor, abs=0.05)


def test_every_target_has_a_span():
    assert set(SPAN_OF) == {"phone", "word", "speaker", "frame-phone"}
    assert Probes("speaker").yields == ("probe-speaker", "probe-mlp-speaker", "mdl-speaker", "probe-weighted-speaker",
                                        "weight-speaker")  # fmt: skip
