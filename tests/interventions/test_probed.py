"""Curves of probes: what is read from variants, by probes that are trained anew and by those of the whole model."""

import numpy as np
import pytest
import torch

from otoscope.errors import MeasureError, ResultError
from otoscope.interventions.orders import Order
from otoscope.interventions.probed import (
    ProbedCurves,
    Variant,
    features_of,
    probe_curves,
    pruning_variants,
    span_variants,
)
from otoscope.models.loading import load
from otoscope.surgery import Gate, apply
from otoscope.training.probes import make_task, probed_speech
from tests.models.small import CASES
from tests.training.probe_material import corpus_of, noise_of, one_hot, quick, speech_of

HEADS = tuple((layer, head) for layer in (1, 2, 3) for head in range(4))
ORDERS = [Order("diagonality", HEADS), Order("globalness", HEADS[::-1]), Order("verticality", HEADS[1:] + HEADS[:1])]


def synthetic(spoil, tasks=("phone", "speaker")) -> ProbedCurves:
    """Curves over features that hold phone and speaker of each frame, of which `spoil(name, amount)` says what is left.

    It gives "whole", "no phones", "no speakers", "moved" (its dimensions are), or "nothing" (a constant).
    """
    speech = speech_of(corpus_of())
    made = [quick(make_task(name, speech)) for name in tasks]
    phones = one_hot(make_task("phone", speech), make_task("phone", speech).targets)
    # Not much louder than the noise: in the folds of phones a held-out speaker's dimension was noise alone.
    speakers = 0.2 * one_hot(make_task("speaker", speech), make_task("speaker", speech).targets)
    variants = pruning_variants(ORDERS, 3) | span_variants((50, 25, 1))
    kinds = {
        "whole": torch.cat([phones, speakers], 1),
        "no phones": torch.cat([torch.zeros_like(phones), speakers], 1),
        "no speakers": torch.cat([phones, torch.zeros_like(speakers)], 1),
        "moved": torch.cat([phones.roll(1, 1), speakers], 1),
        "nothing": torch.ones(len(speech), 8),
    }
    called = {}
    for variant, edits in variants.items():
        called.setdefault(edits, variant)

    def features(wanted):
        for edits in wanted:
            noise = 0.04 * noise_of(speech, seed=len(edits))
            variant = called.get(tuple(edits))
            found = "whole" if variant is None else spoil(variant.name, variant.amount)
            yield kinds[found] + (0 if found == "nothing" else noise)

    return probe_curves(features, made, variants, len(HEADS))


@pytest.fixture(scope="module")
def curves():
    def spoil(name, amount):
        if amount == 12:
            return "nothing"
        return {"diagonality": "no phones", "globalness": "moved", "literal": "no speakers"}.get(name, "whole")

    return synthetic(spoil)


def test_what_is_taken_away_is_missed_and_nothing_else(curves):
    for task in ("phone", "speaker"):
        assert curves.whole[task].value > 0.98
    step = Variant("pruning", "diagonality", 4)
    assert curves.scores(step, "phone").value < curves.floors["phone"].value + 0.1
    assert curves.scores(step, "speaker").value > 0.98
    assert curves.scores(Variant("span", "literal", 25), "speaker").value < 0.5
    assert curves.scores(Variant("span", "literal", 25), "phone").value > 0.98


def test_with_all_heads_removed_a_constant_is_left_and_the_floor_is_reached(curves):
    last = Variant("pruning", "verticality", 12)
    assert curves.scores(last, "phone").numerator.tolist() == curves.floors["phone"].numerator.tolist()


def test_trained_and_frozen_probes_answer_different_questions(curves):
    step = Variant("pruning", "globalness", 4)
    assert curves.scores(step, "phone", "trained").value > 0.98
    assert curves.scores(step, "phone", "frozen").value < 0.3
    assert curves.change(step, "phone", "frozen").value < -0.7
    assert abs(curves.change(step, "phone").value) < 0.02


def test_permuted_labels_are_at_the_floor(curves):
    for task in ("phone", "speaker"):
        assert curves.permuted[task].value < curves.floors[task].value + 0.12


def test_rows_of_the_table(curves):
    rows = curves.result().rows
    names = {row.measure for row in rows}
    assert names == {
        f"{kind}-{task}{frozen}{change}"
        for kind in ("pruning", "span") for task in ("phone", "speaker")
        for frozen in ("", "-frozen") for change in ("", "-change")
    }  # fmt: skip
    one = {(r.measure, r.target, r.other): r for r in rows}
    assert len(one) == len(rows)
    found = one["pruning-phone", "diagonality", "4"]
    step = Variant("pruning", "diagonality", 4)
    assert found.value == curves.scores(step, "phone").value
    assert (found.floor, found.ceiling) == (curves.floors["phone"].value, 1.0)
    change, paired = one["pruning-phone-change", "diagonality", "4"], curves.change(step, "phone")
    assert (change.value, change.low, change.high) == (paired.value, paired.low, paired.high)
    assert change.value == pytest.approx(found.value - one["pruning-phone", "diagonality", "0"].value)
    assert one["span-speaker", "literal", "full"].value == curves.whole["speaker"].value
    assert one["span-speaker-change", "literal", "full"].value == 0
    assert all(row.stream is row.layer is row.head is None for row in rows)
    assert curves.result().notes["stream"] == "layer.1"


def test_same_seed_same_numbers():
    one, same = (synthetic(lambda name, amount: "moved", ("phone",)) for _ in range(2))
    for key, scores in one.points.items():
        assert scores.numerator.tolist() == same.points[key].numerator.tolist()


def test_variants_with_the_same_heads_are_run_once():
    variants = pruning_variants(ORDERS, 2)
    whole = [edits for variant, edits in variants.items() if variant.amount == 12]
    assert whole[0] == whole[1] == whole[2]
    speech = speech_of(corpus_of(each=2))
    task = quick(make_task("speaker", speech))
    asked = []

    def features(wanted):
        asked.extend(wanted)
        return iter([noise_of(speech)] * len(wanted))

    found = probe_curves(features, [task], variants, len(HEADS))
    assert len(asked) == 1 + len(set(variants.values())) == len(set(asked))
    assert len(found.points) == 2 * len(variants)


def test_a_run_that_was_cut_off_goes_on(tmp_path):
    speech = speech_of(corpus_of(each=2))
    task = quick(make_task("speaker", speech))
    variants = pruning_variants(ORDERS[:1], 3)
    asked = []

    def features(wanted, fail=False):
        for edits in wanted:
            asked.append(edits)
            if fail and len(asked) == 4:
                raise KeyboardInterrupt
            yield noise_of(speech, seed=len(edits))

    whole = probe_curves(features, [task], variants, len(HEADS))
    asked.clear()
    with pytest.raises(KeyboardInterrupt):
        probe_curves(lambda wanted: features(wanted, True), [task], variants, len(HEADS), store=tmp_path / "kept")
    asked.clear()
    again = probe_curves(features, [task], variants, len(HEADS), store=tmp_path / "kept")
    assert asked == [(), list(variants.values())[-1]]
    assert again.points.keys() == whole.points.keys()
    for key, scores in whole.points.items():
        assert again.points[key].numerator.tolist() == scores.numerator.tolist()
        assert again.points[key].denominator.tolist() == scores.denominator.tolist()


def test_kept_scores_of_another_run_are_refused(tmp_path):
    speech = speech_of(corpus_of(each=2))
    task = quick(make_task("speaker", speech))
    variants = pruning_variants(ORDERS[:1], 1)

    def features(wanted):
        return (noise_of(speech, seed=len(edits)) for edits in wanted)

    probe_curves(features, [task], variants, len(HEADS), store=tmp_path)
    with pytest.raises(ResultError, match="scores of other probes"):
        probe_curves(features, [task], variants, len(HEADS), seed=1, store=tmp_path)
    (place,) = (path for path in tmp_path.iterdir() if path.name != "run.json")
    for text in ("{", "[]", '{"scores": [["speaker", "trained", ["x"]]]}', '{"scores": []}'):
        place.write_text(text)
        with pytest.raises(ResultError, match="Remove it, and run again"):
            probe_curves(features, [task], variants, len(HEADS), store=tmp_path)
    with pytest.raises(ResultError, match="cannot be written"):
        probe_curves(features, [task], variants, len(HEADS), store=place / "below")


def test_the_first_step_is_nearest_to_a_sixth_of_the_heads(curves):
    assert curves.first_step("globalness").amount == 4
    with pytest.raises(MeasureError, match="no pruning curve by 'weight'"):
        curves.first_step("weight")


def test_points_that_were_not_examined_are_named(curves):
    with pytest.raises(MeasureError, match="not probed for 'mel'"):
        curves.scores(Variant("span", "literal", 25), "mel")


@pytest.mark.parametrize(
    "orders",
    [
        [Order("a", HEADS), Order("b", HEADS[:-1])],
        [Order("a", HEADS), Order("a", HEADS[::-1])],
        [Order("a", (*HEADS, HEADS[0]))],
        [],
    ],
)
def test_orders_that_do_not_match_are_refused(orders):
    with pytest.raises(MeasureError, match="do not each name all heads once"):
        pruning_variants(orders)


def test_tasks_are_given_once_each():
    speech = speech_of(corpus_of(each=2))
    task = make_task("speaker", speech)
    for tasks in ([], [task, task]):
        with pytest.raises(MeasureError, match="each once"):
            probe_curves(lambda wanted: iter(()), tasks, {}, 12)


def test_features_are_those_of_each_variant_run_by_itself(tmp_path):
    model = load(CASES[0].write(tmp_path))
    speech = probed_speech(model, corpus_of(speakers=2, each=2, frames=20), stream="layer.3")
    edits = [(), (Gate("layer.1.head.0"),), (Gate("layer.3.head.1,2"),)]
    wanted = []
    for one in edits:
        variant, parts = apply(model, one, share=True) if one else model, []
        for utterance in speech.corpus:
            capture = variant.capture([utterance], [utterance.read()], [speech.stream])
            parts.append(capture.frames(speech.stream, 0))
        wanted.append(torch.cat(parts))
    for most_bytes in (1, 2**28):  # one variant at a time, and all at once
        found = list(features_of(model, speech, most_bytes=most_bytes)(edits))
        assert len(found) == 3
        for one, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert not np.allclose(found[0], found[1])
