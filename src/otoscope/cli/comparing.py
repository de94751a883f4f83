"""The command that sets diagnoses side by side: compare."""

import json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from otoscope.cli.app import Flag, Json, Output, app


@app.command
def compare(
    *diagnoses: Path,
    output: Output = None,
    report: Path | None = None,
    measures: Annotated[str | None, Parameter(name=["--measures", "-m"])] = None,
    names: str | None = None,
    other_speech: Flag = False,
    as_json: Json = False,
) -> None:
    """Set saved diagnoses side by side: where each property peaks, and at which depth the models differ.

    All are compared with the first. Streams of models of different depth are matched by relative depth.

    Examples:

        otoscope compare pretrained finetuned
        otoscope compare step-300 step-700 final --report compare.html -o comparison
        otoscope compare base large --measures cca-phone,cca-word --names Base,Large

    Parameters
    ----------
    diagnoses
        Two or more folders that `otoscope diagnose -o` wrote.
    output
        Folder for the result: table.parquet, peaks.parquet, comparison.json and, of criticality, stability.parquet and
        stability-units.parquet.
    report
        Where a self-contained HTML page goes.
    measures
        Names and groups of measures, separated by commas. Default: all that two of the diagnoses hold.
    names
        What to call the diagnoses, separated by commas. Default: the names of their folders.
    other_speech
        Allow diagnoses of different speech: their curves stand side by side, and no difference is taken.
    as_json
        Print the result as JSON rather than as text.
    """
    from otoscope.diagnosis.comparison import Comparison
    from otoscope.reporting import check_place, render_comparison_summary, write_comparison
    from otoscope.workflow import compare as run

    if output is not None:
        Comparison.check_place(output)
    if report is not None:
        check_place(report)
    console = Console(stderr=as_json)
    found = run(list(diagnoses), measures, names=None if names is None else names.split(","), other_speech=other_speech)
    if output is not None:
        found.save(output)
    if report is not None:
        write_comparison(found, report)
    if as_json:
        places = {"output": output, "report": report}
        told = {
            "sentences": found.sentences(),
            "rows": found.table.to_dicts(),
            "peaks": found.peaks.to_dicts(),
            "stability": [] if found.stability is None else found.stability.figures.to_dicts(),
            "units": [] if found.stability is None else found.stability.units.to_dicts(),
            **found.provenance,
            **{name: None if place is None else str(place) for name, place in places.items()},
        }
        print(json.dumps(told, ensure_ascii=False))
        return
    render_comparison_summary(found, console)
    for what, place in (("Saved in", output), ("Report:", report)):
        if place is not None:
            console.print(f"{what} [bold]{place}[/bold]", highlight=False)
