"""Commands that examine a model: demo, diagnose, report."""

import json
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console

from otoscope.cli.app import Flag, Json, Output, app, progress_bar, use_threads
from otoscope.cli.passes import Blocks, Spent, named_paths, passes_of

Given = Annotated[tuple[str, ...], Parameter(consume_multiple=False, negative=())]
"""An option that may be given more than once."""


@app.command
def demo(
    *,
    output: Output = Path("report.html"),
    keep: Path | None = None,
    steps: int = 60,
    seed: int = 0,
    as_json: Json = False,
) -> None:
    """Diagnose, prescribe, treat, fine-tune, verify and report, on the embedded model and speech.

    Examples:

        otoscope demo
        otoscope demo -o my-report.html --keep smaller --steps 300

    Parameters
    ----------
    output
        Where the report goes.
    keep
        A new folder for the treated and fine-tuned model; it is thrown away otherwise.
    steps
        Of fine-tuning.
    seed
        Seed of every random choice.
    as_json
        Print the result as JSON rather than as text.
    """
    import torch

    from otoscope.reporting import check_place
    from otoscope.workflow.demo import Repair, run_demo
    from otoscope.workflow.reporting import report as write

    output = check_place(output or Path("report.html"))
    torch.set_num_threads(1)  # the embedded model is so small that a second thread costs more than it gives
    console = Console(stderr=as_json)

    def tell(line: str) -> None:
        if line:
            console.print(f"[dim]{line}[/dim]", highlight=False)

    with progress_bar(console) as progress:
        found = run_demo(seed, progress, repair=Repair(steps=steps), keep=keep, tell=tell)
    write(found.diagnosis, found.plan, found.outcome, output)
    if as_json:
        told = {"plan": found.plan.to_dict(), "outcome": None if found.outcome is None else found.outcome.to_dict()}
        _print_json(found.diagnosis, report=str(output), seconds=found.seconds, **told)
        return
    _summary(found.diagnosis, console)
    console.print(f"\n{found.plan}\n", highlight=False, markup=False, soft_wrap=True)
    if found.outcome is None:
        console.print("Nothing is worth changing here, so nothing was treated.", highlight=False)
    else:
        console.print(str(found.outcome), highlight=False, markup=False, soft_wrap=True)
    kept = f"   Model: [bold]{keep}[/bold]" if keep is not None and found.outcome is not None else ""
    console.print(f"\nReport: [bold]{output}[/bold]{kept}   ({sum(found.seconds.values()):.0f} s)", highlight=False)
    console.print(
        "Next: [bold]otoscope diagnose MODEL CORPUS -o DIR[/bold] with a model and speech of your own, then "
        "[bold]prescribe[/bold], [bold]treat[/bold], [bold]finetune[/bold] and [bold]verify[/bold].",
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
    initial: str | None = None,
    checkpoint: Given = (),
    twin: Given = (),
    granularity: str = "block",
    modes: str | None = None,
    draws: int = 3,
    stop_below: float | None = None,
    stop_above: float | None = None,
    cache_gb: float | None = None,
    together: int = 1,
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
        otoscope diagnose --measures blocks --metrics ctc-loss
        otoscope diagnose my-model my-speech --measures blocks --initial step-0 --checkpoint pretrained=my-pretrained
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
        importance, mixing and noise. Of blocks, what takes many passes is taken only where it or the group is named.
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
        At most so much speech is used to rank heads and to prune them (importance), and to change blocks and layers.
    many_utterances
        At most so many utterances are looked at for context mixing (mixing).
    metrics
        Metrics that importance takes of every variant beside the model's own loss and the probes, such as wer,ctc-loss;
        blocks and layers are judged by them in place of those that suit the model.
    store
        Folder in which importance and blocks keep finished variants, so that a run that was cut off goes on.
    initial
        The model at initialisation, for criticality and churn; embedded models come with theirs.
    checkpoint
        Another point of the training as NAME=PATH, such as pretrained=my-pretrained; may be given more than once, in the
        order of the training.
    twin
        The same training under another seed as NAME=PATH, for churn; may be given more than once.
    granularity
        What is set back in turn: block, sub-module, tensor, or names of units such as layer.1-3.attention, separated by
        semicolons.
    modes
        How it is set back: re-initialise, rewind, re-randomise, bypass, mean. Default: all that there are weights for.
    draws
        How often weights are drawn anew for re-randomise.
    stop_below
        A unit is run on no more speech once its change of the metric surely lies below this; with one metric, in its
        unit: 0.01 is one point of WER, or 0.01 nats per token of CTC loss.
    stop_above
        The same for a change that surely lies above this.
    cache_gb
        Memory for what the model gave before a change; what does not fit is computed again.
    together
        How many variants with a change in the same place are run as one batch; for GPUs.
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
    passes = passes_of(
        measures, Spent(many_seconds, many_utterances, metrics, store),
        Blocks(initial, checkpoint, twin, granularity, modes, draws, stop_below, stop_above, cache_gb, together),
    )  # fmt: skip
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
            tables=named_paths(table, "--table", "glove=glove.txt"),
            word_pairs=named_paths(word_pairs, "--word-pairs", "wordsim=combined.csv"),
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
            f"\nSaved in [bold]{output}[/bold]. Next: [bold]otoscope report {quote(str(output))} -o report.html[/bold]",
            highlight=False,
        )


@app.command
def report(
    diagnosis: Path,
    *,
    plan: Path | None = None,
    outcome: Path | None = None,
    search: Path | None = None,
    federation: Path | None = None,
    output: Output = Path("report.html"),
) -> None:
    """Write a saved diagnosis as one self-contained HTML page, with what was prescribed from it and what came of it.

    Examples:

        otoscope report result -o report.html
        otoscope report result --plan plan.toml --outcome outcome.json -o report.html
        otoscope report federated -o report.html

    Parameters
    ----------
    diagnosis
        Folder that `otoscope diagnose -o` wrote, or that of a federated training.
    plan
        File that `otoscope prescribe -o` or a person wrote.
    outcome
        File that `otoscope verify -o` wrote.
    search
        Folder that a search among plans wrote.
    federation
        Folder of a federated training that began with the model that was diagnosed; also of one that failed.
    output
        Where the page goes.
    """
    from otoscope.evaluation.outcome import Outcome
    from otoscope.plans.plan import Plan
    from otoscope.plans.search import Search
    from otoscope.workflow.reporting import report as run

    path = run(
        diagnosis, None if plan is None else Plan.load(plan),
        None if outcome is None else Outcome.load(outcome), output or Path("report.html"),
        search=None if search is None else Search.load(search), federation=federation,
    )  # fmt: skip
    Console().print(f"Report: [bold]{path}[/bold]", highlight=False)


def _summary(diagnosis: Any, console: Console) -> None:
    from otoscope.reporting import render_summary

    render_summary(diagnosis, console)


def _print_json(diagnosis: Any, **more: Any) -> None:
    told = {
        "sentences": diagnosis.sentences(),
        "rows": diagnosis.table.to_dicts(),
        **diagnosis.provenance,
        **more,
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
            cost = f"; {entry.cost}, only by name" if entry.cost != entries[0].cost else ""
            table.add_row(entry.name, f"{entry.tells}\n[dim]a row: {entry.rows}; {entry.unit}{needs}{cost}[/dim]")
        console.print(table)
