"""Successive halving and fronts, against definitions and exhaustive search."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otoscope.errors import EvaluationError, PlanError
from otoscope.plans.halving import Point, crowding_distances, pareto_front, sorted_by_fronts, successive_halving

values = st.integers(0, 5).map(float)
points = st.dictionaries(st.text("abcdefgh", min_size=1, max_size=2), st.builds(Point, values, values), min_size=1)


@settings(max_examples=40)
@given(points)
def test_the_front_is_what_no_other_betters(found):
    front = pareto_front(found)

    def bettered(one):
        return any(
            other.error <= one.error and other.cost <= one.cost and (other.error, other.cost) != (one.error, one.cost)
            for other in found.values()
        )

    assert set(front) == {name for name, one in found.items() if not bettered(one)}
    assert [found[name].cost for name in front] == sorted(found[name].cost for name in front)


@settings(max_examples=40)
@given(points)
def test_fronts_follow_one_another(found):
    order = sorted_by_fronts(found)
    assert sorted(order) == sorted(found)
    for k, name in enumerate(order):
        assert not any(found[later].betters(found[name]) for later in order[k + 1 :])


def test_within_a_front_ends_and_the_loneliest_come_first():
    line = [Point(0.0, 10.0), Point(1.0, 9.0), Point(2.0, 8.0), Point(10.0, 0.0)]
    # By hand: over extents of 10 the second has 2/10 + 2/10, the third 9/10 + 9/10.
    assert crowding_distances(line) == pytest.approx([math.inf, 0.4, 1.8, math.inf])
    names = dict(zip("abcd", line, strict=True))
    assert sorted_by_fronts(names) == ["a", "d", "c", "b"]
    assert crowding_distances([Point(1.0, 1.0)] * 3)[1] == 0.0


def test_rounds_halve_and_the_budget_rises():
    asked = []

    def evaluate(candidate, budget):
        asked.append((candidate, budget))
        return Point(candidate + 1 / budget, 1.0)

    found = successive_halving({str(k): float(k) for k in range(7)}, evaluate, [1, 10, 100])
    assert [len(came) for _, came in found.rounds] == [7, 4, 2]
    assert sorted(candidate for candidate, budget in asked if budget == 100) == [0.0, 1.0]
    assert found.left == ["0", "1"]
    assert found.front == ["0"]
    assert found.points["0"] == Point(0.01, 1.0)


def test_the_cheap_and_the_good_both_go_on():
    candidates = {
        "good": Point(0.1, 9.0),
        "cheap": Point(0.3, 1.0),
        "neither": Point(0.4, 9.5),
        "poor": Point(0.5, 8.0),
    }
    found = successive_halving(candidates, lambda one, budget: one, [1, 2])
    assert found.front == ["cheap", "good"]
    assert set(found.rounds[1][1]) == {"good", "cheap"}


def test_what_fails_is_out_with_the_reason():
    def evaluate(candidate, budget):
        if candidate == "broken":
            raise EvaluationError("It has no head", "Give one.")
        if candidate == "torn" and budget == 2:
            raise RuntimeError("out of memory")
        return Point(float("nan") if candidate == "silent" else 0.1, 1.0)

    names = ["broken", "torn", "silent", "whole"]
    found = successive_halving({name: name for name in names}, evaluate, [1, 2], fewest=4)
    assert found.left == ["whole"]
    assert found.failed["broken"] == "It has no head. Give one."
    assert found.failed["torn"] == "out of memory"
    assert "nan" in found.failed["silent"]
    nothing = successive_halving({"broken": "broken"}, evaluate, [1, 2])
    assert (nothing.left, nothing.front, list(nothing.failed)) == ([], [], ["broken"])


def test_what_is_no_fault_of_a_candidate_goes_through():
    def evaluate(candidate, budget):
        raise KeyError("a slip of the program")

    with pytest.raises(KeyError):
        successive_halving({"a": 1}, evaluate, [1])


def test_equals_are_ordered_by_the_seed_alone():
    names = [f"c{k}" for k in range(9)]

    def run(seed, order):
        return successive_halving({name: name for name in order}, lambda *_: Point(1.0, 1.0), [1, 2], seed=seed).left

    assert run(0, names) == run(0, names[::-1])
    assert len({tuple(run(seed, names)) for seed in range(5)}) > 1


@pytest.mark.parametrize(
    ("candidates", "budgets", "more", "told"),
    [
        ({}, [1], {}, "no candidate"), ({"a": 1}, [], {}, "do not rise"), ({"a": 1}, [2, 2], {}, "do not rise"),
        ({"a": 1}, [1], {"eta": 1.0}, "eta"), ({"a": 1}, [1], {"fewest": 0}, "go on"),
    ],
)  # fmt: skip
def test_what_makes_no_search_is_refused(candidates, budgets, more, told):
    with pytest.raises(PlanError, match=told):
        successive_halving(candidates, lambda *_: Point(0.0, 0.0), budgets, **more)
