"""Annotations of otoscope are checked in the tests: of arguments, results, axes and data classes."""

import inspect
from dataclasses import dataclass

import numpy as np
import pytest
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import Float, TypeCheckError

from otoscope.measures.layers.similarity import plain, spearman
from otoscope.speech.utterance import Interval
from tests.strict import checked

Rows = Float[np.ndarray, "n d"]


def test_what_is_imported_is_checked():
    with pytest.raises(BeartypeCallHintViolation):
        plain(1)
    with pytest.raises(TypeCheckError):
        spearman(np.zeros(3), np.zeros(4))
    with pytest.raises(BeartypeCallHintViolation):
        Interval("0", 1, "a")


def test_arguments_and_results_are_checked():
    @checked
    def doubled(value: float) -> int:
        return value * 2

    assert doubled(2) == 4
    assert inspect.signature(doubled).return_annotation is int
    with pytest.raises(BeartypeCallHintViolation, match="value"):
        doubled("2")
    with pytest.raises(BeartypeCallHintViolation, match="return"):
        doubled(2.5)


@pytest.mark.parametrize("annotation", [Rows, Rows | None, dict[str, list[Rows]]])
def test_axes_agree_within_a_call(annotation):
    def wrapped(rows):
        return {"a": [rows]} if annotation == dict[str, list[Rows]] else rows

    def function(one, other):
        return one

    function.__annotations__ = {"one": annotation, "other": Rows, "return": annotation}
    same = checked(function)
    same(wrapped(np.zeros((3, 2))), np.zeros((3, 2)))
    with pytest.raises(TypeCheckError):
        same(wrapped(np.zeros((3, 2))), np.zeros((4, 2)))
    with pytest.raises(TypeCheckError):
        same(wrapped(np.zeros(3)), np.zeros((3, 2)))


def test_a_name_that_is_not_there_is_anything_and_the_others_are_checked():
    @checked
    def mixed(one: "NotThere", other: int) -> None:
        return None

    mixed("x", 1)
    with pytest.raises(BeartypeCallHintViolation, match="other"):
        mixed("x", "y")


def test_a_data_class_is_checked():
    @checked
    @dataclass
    class Point:
        x: int

    assert Point(1).x == 1
    with pytest.raises(BeartypeCallHintViolation):
        Point("1")
