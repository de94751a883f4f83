"""Index sets follow from seed, round and client: counts, orders, scopes, widths and frozen variables."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otoscope.errors import FederationError
from otoscope.federation.channels import Group
from otoscope.federation.drawing import Drawing, units_kept
from otoscope.federation.submodels import check_submodel

GROUPS = {
    name: Group(name, layer, kind, count, (), count * 10)
    for name, layer, kind, count in (
        ("layer.1.attention", 1, "heads", 4),
        ("layer.1.feed_forward", 1, "rows", 30),
        ("layer.2.attention", 2, "heads", 4),
        ("layer.2.feed_forward", 2, "rows", 30),
    )
}
HALF = dict.fromkeys(GROUPS, 0.5)
ROWS = "layer.2.feed_forward"


def kept(drawing, round=1, client="a", rates=HALF, **other):
    return drawing.submodel(GROUPS, rates, round, client, **other).kept


@given(st.integers(1, 5000), st.integers(1, 100))
def test_shares_in_hundredths_are_rounded_as_integers_are(count, hundredths):
    rate = hundredths / 100
    assert units_kept(rate, count) == max(count * hundredths // 100, 1)
    assert units_kept(rate, count, up=True) == -(-count * hundredths // 100)


@given(st.integers(1, 100_000), st.data())
def test_a_share_of_whole_units_is_these_units(count, data):
    units = data.draw(st.integers(1, count))
    assert units_kept(units / count, count) == units_kept(units / count, count, up=True) == units


@given(
    st.integers(-5, 5), st.sampled_from(["random", "prefix", "rolling"]), st.integers(0, 9), st.text(max_size=3),
    st.lists(st.floats(0.01, 1.0), min_size=4, max_size=4),
)  # fmt: skip
def test_as_many_units_as_the_rate_says_and_the_same_again(seed, order, round, client, rates):
    by_group = dict(zip(GROUPS, rates, strict=True))
    drawing = Drawing(seed, order)
    submodel = drawing.submodel(GROUPS, by_group, round, client)
    check_submodel(submodel, GROUPS)
    assert submodel == Drawing(seed, order).submodel(GROUPS, by_group, round, client)
    for name, group in GROUPS.items():
        wanted = units_kept(by_group[name], group.count, up=order == "prefix")
        assert len(submodel.kept.get(name, range(group.count))) == wanted
        assert (name in submodel.kept) == (wanted < group.count)


def test_what_is_not_named_is_whole_and_so_is_a_rate_of_one():
    assert set(kept(Drawing(0), rates={ROWS: 0.5, "layer.1.attention": 1.0})) == {ROWS}
    assert kept(Drawing(0), rates={}) == {}


def test_other_machines_and_processes_draw_the_same():
    heads = {"layer.1.attention": Group("layer.1.attention", 1, "heads", 12, (), 12)}
    found = Drawing(7).submodel(heads, {"layer.1.attention": 0.5}, 3, "Ø 1").kept
    assert found == {"layer.1.attention": (1, 2, 3, 4, 5, 11)}


def test_more_of_the_same_units_are_drawn_at_a_higher_rate():
    less, more = (kept(Drawing(3), rates={ROWS: rate})[ROWS] for rate in (0.3, 0.7))
    assert set(less) < set(more)


def test_seeds_rounds_clients_and_groups_are_drawn_apart_and_every_unit_as_often():
    found = [kept(Drawing(seed), round, client)[name] for seed in (0, 1) for round in (1, 2) for client in "ab"
             for name in ("layer.1.feed_forward", ROWS)]  # fmt: skip
    assert len(set(found)) == len(found)
    times = Counter(unit for round in range(400) for unit in kept(Drawing(0), round, rates={ROWS: 0.5})[ROWS])
    # Each is in half of 400 draws, with a standard deviation of 10.
    assert all(abs(times[unit] - 200) < 45 for unit in range(30))


def test_scopes_say_who_holds_the_same():
    places = [(1, "a"), (1, "b"), (2, "a")]
    for scope, same in (("client-round", 3), ("round", 2), ("client", 2)):
        assert len({kept(Drawing(0, scope=scope), *place)[ROWS] for place in places}) == same
    by_round, by_client = Drawing(0, scope="round"), Drawing(0, scope="client")
    assert kept(by_round, 1, "a") == kept(by_round, 1, "b") != kept(by_round, 2, "a")
    assert kept(by_client, 1, "a") == kept(by_client, 2, "a") != kept(by_client, 1, "b")


def test_prefixes_are_nested_and_round_up():
    drawing = Drawing(0, "prefix")
    assert kept(drawing, rates={ROWS: 0.11})[ROWS] == (0, 1, 2, 3)  # ceil(3.3)
    assert kept(drawing, 5, "z") == kept(drawing, 1, "a")


def test_a_window_rolls_on_by_a_unit_a_round_and_covers_everything_evenly():
    drawing = Drawing(0, "rolling")
    assert kept(drawing, 0, rates={ROWS: 0.1})[ROWS] == (0, 1, 2)
    assert kept(drawing, 29, rates={ROWS: 0.1})[ROWS] == (0, 1, 29)
    assert kept(drawing, 29, "b") == kept(drawing, 29, "a")
    times = Counter(unit for round in range(60) for unit in kept(drawing, round, rates={ROWS: 0.1})[ROWS])
    assert set(times.values()) == {6}


def test_a_width_is_drawn_among_those_that_a_client_bears():
    drawing = Drawing(0, "prefix", widths=(0.2, 0.4, 0.6, 1.0))
    widths = [kept(drawing, round, client, rates=dict.fromkeys(GROUPS, 0.6)) for round in range(40) for client in "ab"]
    assert {len(one[ROWS]) for one in widths} == {6, 12, 18}
    assert all(len(one["layer.1.feed_forward"]) == len(one[ROWS]) for one in widths)
    # A group whose own rate is lower stays at that.
    mixed = HALF | {ROWS: 0.1}
    assert {len(kept(drawing, round, rates=mixed)[ROWS]) for round in range(20)} == {3}
    assert len({str(kept(Drawing(0, "prefix", "client", (0.2, 0.5)), round)) for round in range(20)}) == 1
    with pytest.raises(FederationError, match=r"No width of 0\.6, 1\.0 is as small as the highest rate, 0\.5"):
        kept(Drawing(0, widths=(1.0, 0.6)))


def test_frozen_variables_are_as_large_as_was_asked_for_at_most():
    variables = {f"w{k}": 100 if k < 5 else 10 for k in range(20)}
    found = [Drawing(0, frozen=0.5).submodel(GROUPS, {}, round, "a", variables).frozen for round in range(60)]
    sizes = [sum(variables[name] for name in one) for one in found]
    assert max(sizes) <= 325
    assert min(sizes) > 325 - 100
    assert len(set(found)) > 50
    assert {name for one in found for name in one} == set(variables)
    assert not Drawing(0).submodel(GROUPS, HALF, 1, "a", variables).frozen
    by_client = Drawing(0, scope="client", frozen=0.5)
    assert by_client.submodel(GROUPS, {}, 1, "a", variables) == by_client.submodel(GROUPS, {}, 2, "a", variables)
    with pytest.raises(FederationError, match="none are given that may be"):
        Drawing(0, frozen=0.5).submodel(GROUPS, {}, 1, "a")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"order": "suffix"}, "no order 'suffix'"),
        ({"scope": "server"}, "no scope 'server'"),
        ({"seed": True}, "seed of the drawing is True"),
        ({"widths": (0.5, 0.0)}, "A width of the drawing is 0.0"),
        ({"frozen": 1.0}, "frozen is 1.0"),
        ({"frozen": float("nan")}, "frozen is nan"),
    ],
)
def test_settings_outside_their_range_are_refused(settings, told):
    with pytest.raises(FederationError, match=told):
        Drawing(**{"seed": 0, **settings})


def test_rates_outside_their_range_and_of_unknown_groups_are_refused():
    for rate in (0.0, 1.01, float("nan")):
        with pytest.raises(FederationError, match=r"The rate of layer\.1\.attention is"):
            kept(Drawing(0), rates={"layer.1.attention": rate})
    with pytest.raises(FederationError, match=r"nearest names are layer\.1\.attention"):
        kept(Drawing(0), rates={"layer.1.attn": 0.5})
