"""What is said of relation maps of heads and of context mixing."""

import pytest

from otoscope.diagnosis.head_sentences import mixing_sentences, relation_sentences
from otoscope.diagnosis.result import Diagnosis, table_of
from otoscope.measures.measure import Row


def diagnosis(*rows):
    return Diagnosis(table_of(rows), {}, {"notes": {}})


def extreme(layer, head, value, label, key="phone", **more):
    return Row(f"relation-{key}", f"layer.{layer}", layer, head, target="phone", value=value, label=label, **more)


def operation(layer, head, label, key="phone"):
    return Row(f"operation-{key}", f"layer.{layer}", layer, head, target="phone", value=0.5, label=label)


def test_what_heads_do_and_the_most_extreme_of_them():
    found = diagnosis(
        extreme(1, 0, 0.4, "aa"), extreme(3, 2, -0.9, "sil", low=-0.95, high=-0.8, floor=-0.1), extreme(1, 1, None, None),
        operation(1, 0, "attends aa, b"), operation(1, 1, "attends s"), operation(3, 2, "not silence"),
        operation(3, 1, "none seen"), operation(3, 0, "stays near"),
        Row("relation-verticality-phone", target="phone", value=0.5, label="positive"),
    )  # fmt: skip
    assert relation_sentences(found) == [
        "Of 5 heads 3 do something clear with phones: 2 attend some labels, 1 neglects silence. Head 3.2 neglects 'sil' "
        "most of all (concentration -0.90, 95 % -0.95 to -0.80; permuted labels -0.10)."
    ]


def test_extremes_alone_and_labels_of_words():
    assert relation_sentences(diagnosis(extreme(2, 1, 1.5, "the", "word"))) == [
        "Head 2.1 focuses on 'the' most of all (concentration 1.50)."
    ]
    both = diagnosis(
        extreme(1, 0, 0.4, "aa"),
        extreme(1, 0, 0.2, "b", "phone-exclude-run"),
        operation(1, 0, "same phone", "phone-exclude-run"),
    )
    lines = relation_sentences(both)
    assert len(lines) == 2
    assert lines[1].startswith(
        "Of 1 head 1 does something clear with phones (without a query's own run): 1 attends the same phone."
    )


def test_without_relation_maps_nothing_is_said():
    assert relation_sentences(diagnosis()) == []
    assert relation_sentences(diagnosis(extreme(1, 0, None, None))) == []
    assert relation_sentences(diagnosis(Row("relation-phone", target="phone", value=1.0))) == []


def own(method, layer, value, low=None, high=None):
    return Row(f"mixing-{method}", f"layer.{layer}", layer, target="own-share", value=value, low=low, high=high)


def test_how_much_comes_from_others_by_what_is_carried_and_by_raw_weights():
    found = diagnosis(
        own("attention", 1, 0.1), own("attention", 2, 0.05),
        own("norm", 1, 0.8, 0.75, 0.86), own("norm", 2, 0.6, 0.58, 0.63),
        Row("mixing-norm", "layer.2", 2, target="distance", value=30.0),
    )  # fmt: skip
    assert mixing_sentences(found) == [
        "Layer 2 mixes most: 40% (95 % 37% to 42%) of a frame comes from other frames, by the norm of what they carry, where "
        "raw attention weights say 95%; layer 1 mixes least, 20% (95 % 14% to 25%)."
    ]


def test_value_zeroing_comes_before_norms_and_raw_weights_alone_say_nothing():
    rows = [own("norm", 1, 0.8), own("value-zeroing", 1, 0.3)]
    assert mixing_sentences(diagnosis(*rows)) == [
        "Layer 1 mixes most: 70% of a frame comes from other frames, by what changes when others' values are zero."
    ]
    assert mixing_sentences(diagnosis(own("attention", 1, 0.2))) == []


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ("silence to speech, speech to silence", "attends speech from silence and silence from speech"),
        ("silence to silence, speech to speech", "attends silence from silence and speech from speech"),
        ("own segment", "attends the query's own segment"),
        ("attends silence", "attends silence"),
        ("not the same phone", "neglects the same phone"),
        ("not s, sh", "neglects some labels"),
    ],
)
def test_operations_are_told_as_what_a_head_does(label, said):
    found = diagnosis(extreme(1, 0, 0.4, "aa"), operation(1, 0, label), operation(1, 1, label))
    assert f"2 do something clear with phones: 2 {said.replace('s ', ' ', 1)}. " in relation_sentences(found)[0]
    found = diagnosis(extreme(1, 0, 0.4, "aa"), operation(1, 0, label), operation(1, 1, "none seen"))
    assert f"1 does something clear with phones: 1 {said}. " in relation_sentences(found)[0]
