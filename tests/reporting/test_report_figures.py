"""What the figures and tables say about the rows they are drawn from."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otoscope.reporting.blocks import lift_figure, profile_figures, profiles
from otoscope.reporting.facts import duration, flat, heads_in_words, magnitude
from otoscope.reporting.figures import band, runs
from otoscope.reporting.heads import category_table, extreme_heads, head_figure, heads_by_place, scatter_figure
from otoscope.reporting.layers import layer_panels, short_titles, tick_names
from otoscope.reporting.maps import stream_maps
from otoscope.reporting.values import (
    CATEGORIES,
    best_stream,
    category_counts,
    cca_rows,
    finite,
    interval,
    number,
    ordered_streams,
    rows_by_measure,
)
from tests.reporting.synthetic_diagnosis import frame, synthetic

STREAMS = ["conv.1", "conv.2", "conv.10", "mixer", "input", "layer.1", "layer.2", "layer.10", "final_norm"]


@given(st.permutations(STREAMS))
def test_streams_stand_in_the_order_of_the_signal(shuffled: list[str]) -> None:
    assert ordered_streams(shuffled) == STREAMS


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, None), (math.nan, None), (math.inf, None), ("1", None), (True, None), (2, 2.0), (-0.5, -0.5)],
)
def test_finite(value: object, expected: float | None) -> None:
    assert finite(value) == expected


def test_numbers_as_text() -> None:
    assert [number(-1.25, 1), number(-0.0001), number(None), number(math.nan)] == ["−1.2", "0.000", "–", "–"]
    assert interval({"value": 0.5, "low": 0.25, "high": None}) == "0.500"
    assert interval({"value": -0.5, "low": -0.75, "high": -0.25}, 2) == "−0.50 [−0.75, −0.25]"


numbers = st.one_of(st.none(), st.just(math.nan), st.floats(-1, 1))


@given(st.lists(st.tuples(numbers, numbers), max_size=20))
def test_runs_hold_exactly_the_whole_intervals(pairs: list[tuple[float | None, float | None]]) -> None:
    low, high = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    covered = [place for first, last in runs(low, high) for place in range(first, last)]
    assert covered == [
        place for place, pair in enumerate(pairs) if finite(pair[0]) is not None and finite(pair[1]) is not None
    ]


def test_band_goes_up_one_way_and_back_the_other() -> None:
    trace = band([0, 1, 2, 3], [0.1, 0.2, None, 0.3], [0.5, 0.6, 0.7, 0.8], "#000000")
    assert trace["x"][:4] == [0, 1, 1, 0]
    assert trace["y"][:4] == [0.1, 0.2, 0.6, 0.5]
    assert trace["x"][4] is None
    assert trace["x"][5] < 3 < trace["x"][6]
    assert trace["y"][5:] == [0.3, 0.3, 0.8, 0.8]


def test_curves_carry_the_values_of_the_table() -> None:
    table = synthetic(6, 6).table
    (panel,) = layer_panels(table)
    figure = panel.figure
    named = {trace["name"]: trace for trace in figure.data if "name" in trace}
    assert list(named) == panel.names == ["mel", "phone", "word"]
    assert named["phone"]["y"] == [row["value"] for row in cca_rows(rows_by_measure(table), "phone").values()]
    assert figure.layout["xaxis"]["ticktext"][:8] == ["c1", "c2", "c3", "c4", "c5", "c6", "c7", "in"]
    assert [figure.layout["xaxis"]["ticktext"][place] for place in named["phone"]["x"]][-2:] == ["6", "norm"]
    shaded = [shape for shape in figure.layout["shapes"] if shape["type"] == "rect"]
    assert [(shape["x0"], shape["x1"]) for shape in shaded] == [(-0.5, 6.5)]
    ceiling = [shape for shape in figure.layout["shapes"] if shape["type"] == "line"]
    assert [shape["y0"] for shape in ceiling] == [1.0]
    assert len({trace["line"]["color"] for trace in named.values()}) == 3
    low, high = figure.layout["yaxis"]["range"]
    assert low <= min(min(trace["y"]) for trace in named.values())
    assert high > 1.0


def test_the_best_stream_is_ringed_and_bold() -> None:
    table = synthetic(6, 6).table
    (panel,) = layer_panels(table)
    best = best_stream(cca_rows(rows_by_measure(table), "word"))
    column = panel.names.index("word")
    assert [stream for stream, cells in panel.lines if cells[column]["best"]] == [best]


def test_of_error_rates_the_lowest_is_best_and_that_is_said() -> None:
    rows = [
        {"measure": "confusion", "stream": f"layer.{k}", "target": "a", "value": value, "floor": 0.5, "ceiling": 0.0}
        for k, value in ((1, 0.3), (2, 0.1), (3, 0.2))
    ]
    (panel,) = layer_panels(frame(rows))
    assert [stream for stream, (cell,) in panel.lines if cell["best"]] == ["layer.2"]
    assert panel.low_is_good == ["confusion"]


def test_measures_of_one_unit_share_a_panel_and_many_are_dealt_into_several() -> None:
    rows = [
        {"measure": measure, "stream": f"layer.{k}", "target": target, "value": k / 10}
        for measure, target in (
            *((f"cca-{name}", name) for name in ("mel", "intra", "phone", "word", "speaker", "semantic", "syntactic")),
            ("mean-cca-phone", "phone"), ("similarity", "pairs"), ("similarity", "triples"),
        )
        for k in (1, 2)
    ]  # fmt: skip
    panels = layer_panels(frame(rows))
    assert [panel.names for panel in panels] == [
        ["mel", "intra", "phone", "word"], ["speaker", "semantic", "syntactic"],
        ["mean-cca-phone"], ["similarity (pairs)", "similarity (triples)"],
    ]  # fmt: skip
    assert len({panel.figure.id for panel in panels}) == 4
    for panel in panels:
        colours = [trace["line"]["color"] for trace in panel.figure.data if "name" in trace]
        assert len(set(colours)) == len(colours)
    assert dict(panels[0].tells)["phone"] == "how well phones are told apart"
    assert short_titles([("cca-word", "word"), ("cca-word-centre", "word")]) == {
        ("cca-word", "word"): "word",
        ("cca-word-centre", "word"): "word-centre",
    }


def test_streams_against_streams_are_a_map_and_no_curve() -> None:
    names = ["input", "layer.1", "layer.2"]
    rows = [
        {"measure": "cka", "stream": a, "other": b, "target": "B", "value": i * 3 + j, "low": 0.0, "high": 9.0}
        for i, a in enumerate(names)
        for j, b in enumerate(names)
    ]
    matched = [{"measure": "cca-inter", "stream": a, "other": a, "target": "B", "value": 0.5} for a in names]
    table = frame([*rows, *matched])
    (figure,) = stream_maps(rows_by_measure(table))
    assert figure.title == "cka"
    assert figure.data[0]["z"] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert figure.layout["xaxis"]["title"]["text"] == "stream of B"
    assert "layer.1</b> with layer.2<br>5.000 [0.000, 9.000]" in figure.data[0]["hovertext"][1][2]
    assert [panel.names for panel in layer_panels(table)] == [["cca-inter"]]
    assert stream_maps(rows_by_measure(frame(matched))) == []


def test_other_targets_get_colours_of_their_own() -> None:
    table = frame(
        [
            {"measure": f"cca-{name}", "target": name, "stream": "layer.1", "value": 0.5}
            for name in ("speaker", "phone", "mel")
        ]
    )
    (panel,) = layer_panels(table)
    named = {trace["name"]: trace["line"]["color"] for trace in panel.figure.data if "name" in trace}
    assert list(named) == ["mel", "phone", "speaker"]
    assert len(set(named.values())) == 3


def test_many_layers_thin_their_labels() -> None:
    deep = ["input", *(f"layer.{i}" for i in range(1, 49)), "final_norm"]
    names = tick_names(["conv.1", "conv.2", "conv.3", "conv.4", *deep])
    assert names[:9] == ["c1", "", "", "c4", "in", "", "2", "", "4"]
    assert names[-4:] == ["46", "", "", "norm"]
    assert tick_names(["input", "layer.1", "layer.2"]) == ["in", "1", "2"]


def test_category_colour_grows_with_the_margin_and_stays_in_its_section() -> None:
    rows = rows_by_measure(
        frame(
            [
                {"measure": "category", "layer": 1, "head": head, "label": label, "value": margin}
                for head, (label, margin) in enumerate(
                    [("global", 0.0), ("vertical", 4.0), ("diagonal", 8.0), (None, None)]
                )
            ]
        )
    )
    figure = head_figure(rows)
    assert figure is not None
    assert figure.choices == ["category"]
    cells = figure.data[0]["z"][0]
    assert cells[:3] == [0.0, pytest.approx(1.49), pytest.approx(2.98)]
    assert cells[3] is None
    scale = [at for at, _ in figure.data[0]["colorscale"]]
    assert scale == sorted(scale)
    assert (scale[0], scale[-1]) == (0, 1)


def test_pruned_layers_leave_gaps_in_the_grid() -> None:
    rows = rows_by_measure(
        frame(
            [
                {"measure": "diagonality", "layer": layer, "head": head, "value": -0.1 * layer}
                for layer, head in ((1, 0), (1, 3), (3, 1))
            ]
        )
    )
    figure = head_figure(rows)
    assert figure is not None
    assert figure.data[0]["y"] == [1, 3]
    assert figure.data[0]["z"] == [[-0.1, None, None, -0.1], [None, pytest.approx(-0.3), None, None]]
    assert figure.data[0]["text"][0] == ["1.0", "", "", "1.3"]


def test_one_grid_is_shown_and_only_the_first_holds_the_words() -> None:
    figure = head_figure(rows_by_measure(synthetic(3, 4).table))
    assert figure is not None
    assert [trace["visible"] for trace in figure.data] == [True] + [False] * (len(figure.choices) - 1)
    assert len(figure.choices) == len(figure.data) == 7
    assert ["hovertext" in trace for trace in figure.data] == [True] + [False] * 6
    words = figure.data[0]["hovertext"][2][1]
    for expected in (
        "head 3.1",
        "globalness G",
        "verticality V",
        "diagonality D",
        "information I",
        "[",
        "nat",
    ):
        assert expected in words


def test_counts_add_up_to_the_heads() -> None:
    rows = rows_by_measure(synthetic(5, 4).table)
    table = category_table(rows)
    assert table is not None
    assert table["total"] == len(heads_by_place(rows)) == 20
    assert sum(table["totals"].values()) == 20
    assert [total for _, _, total in table["rows"]] == [4] * 5
    assert list(category_counts(rows)[1]) == list(CATEGORIES)


def test_extreme_heads_are_the_largest() -> None:
    rows = rows_by_measure(synthetic(5, 4).table)
    largest = max(rows["diagonality"], key=lambda row: row["value"])
    assert extreme_heads(rows)[2]["heads"][0][0] == f"{largest['layer']}.{largest['head']}"


def test_scatter_has_every_head_once() -> None:
    figure = scatter_figure(rows_by_measure(synthetic(5, 4).table))
    assert figure is not None
    assert sum(len(trace["x"]) for trace in figure.data if "name" in trace) == 20
    assert all(min(trace["error_x"]["array"]) >= 0 for trace in figure.data if "name" in trace)


def test_profiles_are_sorted_and_keep_their_tails() -> None:
    found = profiles(rows_by_measure(synthetic(3, 2, reach=5).table.sample(fraction=1, shuffle=True, seed=1)))
    assert [profile.layer for profile in found] == [1, 2, 3]
    for profile in found:
        assert profile.offsets == tuple(range(-5, 6))
        assert profile.before is not None
        assert profile.after is not None
        assert sum(profile.mass) + profile.before + profile.after == pytest.approx(1)  # type: ignore[arg-type]


def profile_rows(masses: dict[int, float | None], uniform: float = 0.25) -> dict[str, list[dict]]:
    return rows_by_measure(
        frame(
            [
                {
                    "measure": "relative-profile",
                    "layer": 1,
                    "target": str(offset),
                    "value": mass,
                    "floor": uniform,
                }
                for offset, mass in masses.items()
            ]
        )
    )


def test_offsets_become_milliseconds_and_lift_a_logarithm() -> None:
    rows = profile_rows({-1: 0.125, 0: 0.5, 1: 0.25})
    figure = lift_figure(rows, 20.0)
    assert figure is not None
    assert figure.data[0]["x"] == [-20.0, 0.0, 20.0]
    assert figure.data[0]["z"] == [[-1.0, 1.0, 0.0]]
    small = profile_figures(rows, 20.0)[0]
    assert small.data[-1]["y"] == [0.125, 0.5, 0.25]
    assert small.note == "peak 0 ms"
    low, high = small.layout["meta"]["log"]
    assert low < math.log10(0.125) < math.log10(0.5) < high


def test_zero_mass_stands_at_the_lower_edge_of_the_logarithmic_axis() -> None:
    small = profile_figures(profile_rows({0: 1.0, 1: 0.0, 2: None}), None)[0]
    mass = small.data[-1]["y"]
    assert mass[1] == pytest.approx(10 ** small.layout["meta"]["log"][0])
    assert mass[2] is None


def test_words_for_sizes() -> None:
    assert [magnitude(value) for value in (950, 3_180_000, 95_043_712, 2.1e9, None)] == [
        "950",
        "3.18 M",
        "95 M",
        "2.1 G",
        "–",
    ]
    assert [duration(value) for value in (3.04, 89, 600, 19_400, None)] == [
        "3.0 s",
        "89 s",
        "10.0 min",
        "5.39 h",
        "–",
    ]
    assert heads_in_words([8, 8]) == "8 in each layer"
    assert heads_in_words([8, 6, 1]) == "1 to 8 in a layer, 15 in all"


def test_nested_provenance_is_flattened() -> None:
    assert flat({"a": {"b": [1, 2], "c": None}, "d": []}) == [("a.b", "1, 2"), ("a.c", "–"), ("d", "none")]
