"""Commands that examine a model: demo, diagnose, report."""

import json
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console

from otoscope.cli.app import Flag, Json, Output, app, progress_bar, use_threads
from otoscope.errors import MeasureError

Given = Annotated[tuple[str, ...], Parameter(consume_multiple=False, negative=())]
"""An option that may be given more than once."""


@app.command
def demo(
    *,
    output: Output = Path("report.html"),
    seed: int = 0,
    as_json: Json = False,
) -> None:
    """Diagnose the embedded model on the embedded speech, and write a report.

    Examples:

        otoscope demo
        otoscope demo -o my-report.html

    Parameters
    ----------
    output
        Where the report goes.
    seed
        Seed of folds, groups and floors.
    as_json
        Print the result as JSON rather than as text.
    """
    import torch

    from otoscope.reporting import check_place
    from otoscope.workflow.demo import run_demo

    output = check_place(output or Path("report.html"))
    torch.set_num_threads(1)  # the embedded model is so small that a second thread costs more than it gives
    console = Console(stderr=as_json)
    with progress_bar(console) as progress:
        diagnosis, seconds = run_demo(seed, progress)
    _write_report(diagnosis, output)
    if as_json:
        _print_json(diagnosis, report=str(output))
        return
    _summary(diagnosis, console)
    console.print(f"\nReport: [bold]{output}[/bold]   ({seconds:.0f} s)", highlight=False)
    console.print(
        "Next: [bold]otoscope diagnose MODEL CORPUS -o DIR[/bold] with a model and speech of your own.",
        highlight=False,
    )


@app.command
def diagnose(
    model: str = "embedded",
    corpus: str = "embedded",
    *,
    output: Output = None,
    measures: Annotated[str | None, Parameter(name=["--measures", "-m"])] = None,
    seed: int = 0,
    skip_bad: Flag = False,
    alignments: Path | None = None,
    phone_set: str = "arpabet39",
    folds: int = 5,
    folds_by: str = "speaker",
    floor: str = "permuted",
    against: str | None = None,
    table: Given = (),
    word_pairs: Given = (),
    sentence_pairs: Path | None = None,
    many_seconds: float = 120.0,
    many_utterances: int = 20,
    metrics: str | None = None,
    store: Path | None = None,
    batch_seconds: float = 30.0,
    device: str | None = None,
    threads: int | None = None,
    list_: Annotated[bool, Parameter(name="--list", negative=())] = False,
    as_json: Json = False,
) -> None:
    """Examine a model on speech: in one pass over the audio, and in many where a group is named that takes them.

    Examples:

        otoscope diagnose
        otoscope diagnose facebook/hubert-base-ls960 LibriSpeech/dev-clean -o hubert
        otoscope diagnose my-model my-speech --measures heads,cca-phone --skip-bad -o result
        otoscope diagnose my-model my-speech --measures layers --floor random --table glove=glove.6B.300d.txt
        otoscope diagnose embedded:wavlm --measures cca-inter --against embedded:wavlm-pretrained
        otoscope diagnose embedded:wavlm --measures heads,importance --metrics wer
        otoscope diagnose --list

    Parameters
    ----------
    model
        Folder, Hub name, or `embedded`.
    corpus
        Folder, manifest, recording, or `embedded`.
    output
        Folder for the result: table.parquet, arrays.safetensors, diagnosis.json. Without it the result is only printed.
    measures
        Names and groups (layers, heads, blocks), separated by commas. Default: all that one pass gives. Groups that are
        taken only where they are named: variants, word-spans, probes, relations, segmentation, and in many passes
        importance and mixing.
    seed
        Seed of folds, groups and floors.
    skip_bad
        Leave out utterances that cannot be used, and list them in the result.
    alignments
        Folder of TextGrids, or a CTM file, with phone and word times.
    phone_set
        What phone labels are folded to: arpabet39, arpabet61, timit39, or none.
    folds
        Folds that held-out scores rotate through; fewer speakers give fewer.
    folds_by
        speaker: no speaker (else no utterance) is in two folds; row: rows at random, stratified by label.
    floor
        permuted: the score of labels that are not there; random: that of the same architecture with fresh weights, in a
        second pass.
    against
        Another model, folder, Hub name or embedded one, for the measures that compare two models.
    table
        Vectors of words as NAME=PATH, such as glove=glove.6B.300d.txt, agwe=agwe.npy; may be given more than once.
        glove=lexicon takes vectors that are made by rule, not learned from text.
    word_pairs
        Word pairs with similarities as NAME=PATH, such as wordsim=combined.csv; may be given more than once.
    sentence_pairs
        Sentence pairs with similarities.
    many_seconds
        At most so much speech is used to rank heads and to prune them (importance).
    many_utterances
        At most so many utterances are looked at for context mixing (mixing).
    metrics
        Metrics that importance takes of every variant beside the model's own loss and the probes, such as wer,ctc-loss.
    store
        Folder in which importance keeps finished variants, so that a run that was cut off goes on.
    batch_seconds
        Seconds of padded speech in a batch.
    device
        Where the model runs, such as cpu or cuda.
    threads
        Threads on the CPU; for small models, or beside other work, one is the quickest.
    list_
        List the measures and stop.
    as_json
        Print the result as JSON rather than as text.
    """
    if list_:
        _print_catalogue()
        return
    from otoscope.diagnosis.result import Diagnosis
    from otoscope.models.loading import load
    from otoscope.workflow import diagnose as run
    from otoscope.workflow import read_corpus

    if output is not None:
        Diagnosis.check_place(output)  # before the work, not after it
    passes = _passes(measures, many_seconds, many_utterances, metrics, store)
    use_threads(threads)
    console = Console(stderr=as_json)
    with progress_bar(console) as progress:
        ready = load(model, device=device)
        speech = read_corpus(
            corpus,
            skip_bad=skip_bad,
            alignments=alignments,
            phone_set=None if phone_set == "none" else phone_set,
        )
        diagnosis = run(
            ready, speech, measures, seed, skip_bad=skip_bad, batch_seconds=batch_seconds, folds=folds,
            folds_by=folds_by, floor=floor, against=None if against is None else load(against, device=device),
            tables=_named(table, "--table", "glove=glove.txt"),
            word_pairs=_named(word_pairs, "--word-pairs", "wordsim=combined.csv"),
            sentence_pairs=sentence_pairs, progress=progress,
            passes=passes,
            tell=lambda line: console.print(f"[dim]{line}[/dim]", highlight=False),
        )  # fmt: skip
    try:  # saved before it is printed, lest a closed pipe lose it; and printed even where it cannot be saved
        if output is not None:
            diagnosis.save(output)
    finally:
        if as_json:
            _print_json(diagnosis, output=None if output is None else str(output))
        else:
            _summary(diagnosis, console)
    if output is not None and not as_json:
        console.print(
            f"\nSaved in [bold]{output}[/bold]. Next: [bold]otoscope report {output} -o report.html[/bold]",
            highlight=False,
        )


@app.command
def report(diagnosis: Path, *, output: Output = Path("report.html")) -> None:
    """Write a saved diagnosis as one self-contained HTML page.

    Examples:

        otoscope report result -o report.html

    Parameters
    ----------
    diagnosis
        Folder that `otoscope diagnose -o` wrote.
    output
        Where the page goes.
    """
    from otoscope.diagnosis.result import Diagnosis

    path = _write_report(Diagnosis.load(diagnosis), output or Path("report.html"))
    Console().print(f"Report: [bold]{path}[/bold]", highlight=False)


def _named(given: tuple[str, ...], option: str, example: str) -> dict[str, str]:
    """NAME=PATH of an option as a mapping."""
    found: dict[str, str] = {}
    for one in given:
        name, equals, path = one.partition("=")
        if not (name and equals and path) or name in found:
            again = name in found
            raise MeasureError(
                f"{option} {one} " + (f"gives the name {name} again" if again else "is not NAME=PATH"),
                f"Write it as {option} {example}" + (", each name once." if again else "."),
            )
        found[name] = path
    return found


def _passes(measures: str | None, seconds: float, utterances: int, metrics: str | None, store: Path | None) -> Any:
    """How much is spent on what takes many passes; what is wrong with it is told before the work."""
    from otoscope.diagnosis.catalogue import choose
    from otoscope.evaluation.catalogue import metric_by_name
    from otoscope.workflow.examining import Passes

    named = [name.strip() for name in (metrics or "").split(",") if name.strip()]
    for name in named:
        metric_by_name(name)
    idle = "--metrics" if named else "--store" if store is not None else ""
    if idle and not any(entry.group == "importance" for entry, _ in choose(measures)):
        raise MeasureError(
            f"No measure that was asked for reads {idle}", "Leave it out, or name importance in --measures as well."
        )
    return Passes(seconds, utterances, named, store)


def _write_report(diagnosis: Any, path: Path) -> Path:
    from otoscope.reporting import write_report

    return write_report(diagnosis, path)


def _summary(diagnosis: Any, console: Console) -> None:
    from otoscope.reporting import render_summary

    render_summary(diagnosis, console)


def _print_json(diagnosis: Any, **places: str | None) -> None:
    told = {
        "sentences": diagnosis.sentences(),
        "rows": diagnosis.table.to_dicts(),
        **diagnosis.provenance,
        **places,
    }
    print(json.dumps(told, ensure_ascii=False))


def _print_catalogue() -> None:
    from rich.table import Table

    from otoscope.diagnosis.catalogue import CATALOGUE, GROUPS, ON_REQUEST

    console = Console()
    for group in GROUPS:
        entries = [entry for entry in CATALOGUE if entry.group == group]
        when = "; only where it is named" if group in ON_REQUEST else ""
        console.print(f"[bold]{group}[/bold]  ({entries[0].cost}{when})")
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 2))
        for entry in entries:
            needs = f"; needs {entry.needs}" if entry.needs else ""
            table.add_row(entry.name, f"{entry.tells}\n[dim]a row: {entry.rows}; {entry.unit}{needs}[/dim]")
        console.print(table)
