"""The summary in the terminal."""

import io

import pytest
from rich.console import Console

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
