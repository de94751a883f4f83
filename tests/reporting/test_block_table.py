"""The table of blocks in the terminal."""

import dataclasses
import io

import polars as pl
import pytest
from rich.console import Console

from otoscope.reporting import render_summary
from otoscope.reporting.block_table import MOST_LINES, block_tables
from otoscope.reporting.values import rows_by_measure
from tests.reporting.synthetic_blocks import synthetic_blocks
from tests.reporting.synthetic_diagnosis import frame, synthetic

OWN = ("abnormality", "block-verdict", "block-intervention", "criticality", "relative-profile")


def of(*found):
    return rows_by_measure(frame(list(found)))


def printed(diagnosis, width=80):
    stream = io.StringIO()
    render_summary(diagnosis, Console(file=stream, width=width, color_system=None))
    return stream.getvalue()


def blocks_only(layers):
    whole = synthetic_blocks(layers)
    return dataclasses.replace(whole, table=whole.table.filter(pl.col("measure").is_in(OWN)))


def line_of(text, block, table=1):
    lines = text.split(" block ")[table].splitlines()
    return next(line.split() for line in lines if line.split()[:1] == [str(block)])


def test_each_block_has_a_line_with_its_verdict_and_label():
    text = printed(blocks_only(6))
    assert line_of(text, 1)[:3] == ["1", "normal", "normal"]
    assert line_of(text, 3) == ["3", "uniform", "harmful", "−0.8", "[−1.2,", "−0.4]"]
    assert line_of(text, 1, 2)[:2] == ["1", "critical"]
    assert len(line_of(text, 1, 2)) == 5
    assert line_of(text, 6, 2)[1] == "ambient"
    assert "change of WER" in text
    assert "change of CTC loss" in text
    assert "Verdicts go by WER; its change is by what decided, or what is mildest." in text
    assert "Labels go by CTC loss, blocks re-initialised one at a time." in text
    assert "Changes in points, with 95 % intervals." in text


@pytest.mark.parametrize("layers", [1, 6, 24, 48])
def test_it_fits_80_columns_and_keeps_the_odd_blocks(layers):
    text = printed(blocks_only(layers))
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    if layers > MOST_LINES:
        assert line_of(text, 3)[2] == "harmful"
        assert line_of(text, layers - 1)[0] == str(layers - 1)
        assert f"{layers - MOST_LINES} further blocks stand in the report." in text


def test_patterns_alone_have_no_column_of_changes():
    found = of(
        {"measure": "abnormality", "layer": 1, "label": "abnormal", "target": "uniform; rank-one", "value": 0.01},
        {"measure": "abnormality", "layer": 2, "label": "normal", "value": 1.0},
    )
    [(table, words)] = block_tables(found)
    assert [column.header for column in table.columns] == ["block", "pattern"]
    assert [str(cell) for cell in table.columns[1].cells] == ["uniform, rank-one", "normal"]
    assert words == []


def test_labels_alone_show_what_the_reset_changes():
    place = {"measure": "criticality", "target": "ctc-loss"}
    found = of(
        place | {"stream": "layer.1", "layer": 1, "other": "mean", "value": 9.0, "label": "critical"},
        place | {"stream": "layer.1", "layer": 1, "other": "bypass", "label": "ambient"}
        | {"value": 0.5, "low": 0.4, "high": 0.6},
        place | {"stream": "layer.1.attention", "layer": 1, "other": "bypass", "value": 7.0, "label": "critical"},
        place | {"stream": "layer.2", "layer": 2, "other": "bypass", "value": 0.0, "label": "ambient", "target": "wer"},
    )  # fmt: skip
    [(table, words)] = block_tables(found)
    assert [str(column.header) for column in table.columns] == ["block", "label", "change of CTC loss"]
    assert [str(cell) for cell in table.columns[2].cells] == ["+0.500 [+0.400, +0.600]"]
    assert words == [
        "Labels go by CTC loss, blocks bypassed one at a time.", "Changes in nats per token, with 95 % intervals.",
    ]  # fmt: skip


def test_without_any_there_is_no_table():
    assert block_tables({}) == []
    assert block_tables(rows_by_measure(synthetic(3, 2).table)) == []
    assert block_tables(of({"measure": "abnormality", "layer": 1})) == []
