"""The summary in the terminal."""

import io

import pytest
from rich.console import Console

from otoscope.diagnosis.result import table_of
from otoscope.measures.measure import Row
from otoscope.reporting import render_summary
from tests.reporting.synthetic_diagnosis import SyntheticDiagnosis, frame, synthetic


def printed(diagnosis: SyntheticDiagnosis, width: int = 80) -> str:
    stream = io.StringIO()
    render_summary(diagnosis, Console(file=stream, width=width, color_system=None))
    return stream.getvalue()


@pytest.mark.parametrize("layers", [2, 6, 24, 48])
def test_it_fits_80_columns_and_a_screen(layers: int) -> None:
    lines = printed(synthetic(layers, 6)).splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) < 45
    assert "…" not in "".join(lines)


def test_sentences_best_streams_and_counts_are_there() -> None:
    text = printed(synthetic(6, 6))
    assert "embedded on exam" in text
    assert "Phones are best read at layer 4" in text
    assert text.count(" * ") >= 3
    assert "2 utterances were left out" in text
    assert "cca-speaker was skipped: the corpus names no speakers" in text
    row = next(line for line in text.splitlines() if line.strip().startswith("layer.3"))
    counts = [int(word.replace("·", "0")) for word in row.split()[-3:]]
    assert sum(counts) == 6


def test_measures_that_were_skipped_for_one_reason_share_a_line() -> None:
    diagnosis = synthetic(2, 2)
    none, few = "there is no tier 'word'", "too few pairs"
    diagnosis.provenance["skipped"] = [
        {"measure": name, "reason": reason} for name, reason in (("awd", none), ("abx-across", few), ("mi-word", none))
    ]  # fmt: skip
    text = printed(diagnosis)
    assert f"awd, mi-word were skipped: {none}" in text
    assert f"abx-across was skipped: {few}" in text


def test_what_has_neither_sentence_nor_table_is_named() -> None:
    diagnosis = synthetic(2, 2)
    diagnosis.lines = []
    names = ["mixing-norm", *(f"made-up-{k}" for k in range(5))]
    diagnosis.table = table_of([Row(name, stream="layer.1", layer=1, target="distance", value=0.5) for name in names])
    assert "Taken: mixing-norm, made-up-0, made-up-1, made-up-2 and 2 more." in printed(diagnosis, 200)


def test_the_best_head_for_segmentation_is_told() -> None:
    diagnosis = synthetic(2, 2)
    place = {"stream": "layer.2", "layer": 2, "head": 1}
    diagnosis.table = table_of(
        [
            Row("head-segmentation", **place, target="r-value", value=0.5),
            Row("head-segmentation", **place, target="best-head", value=0.5, floor=0.25),
        ]
    )
    assert "Head 2.1 was the best on the validation utterances" in printed(diagnosis, 200)


def test_square_brackets_are_no_markup() -> None:
    diagnosis = synthetic(2, 2, model="[red]model[/red]", corpus="[/]")
    diagnosis.lines = ["[bold]words[/bold] [/nothing]"]
    text = printed(diagnosis)
    assert "[red]model[/red] on [/]" in text
    assert "[bold]words[/bold] [/nothing]" in text


@pytest.mark.parametrize("without", [("cca-",), ("category",), ("cca-", "category")])
def test_missing_measures(without: tuple[str, ...]) -> None:
    text = printed(synthetic(3, 2, without=without))
    assert ("mel" in text) == ("cca-" not in without)
    assert ("diagonal: heads" in text) == ("category" not in without)


def test_an_empty_diagnosis() -> None:
    assert "a model without a name" in printed(SyntheticDiagnosis(frame([])))
