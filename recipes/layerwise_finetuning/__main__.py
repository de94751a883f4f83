"""One command: diagnoses a pre-trained model, fine-tunes it with its top layers anew, and writes the page.

    python -m recipes.layerwise_finetuning
    python -m recipes.layerwise_finetuning --model facebook/wav2vec2-base --train LibriSpeech/train-clean-100 \
        --dev LibriSpeech/dev-clean --alignments alignments --exam LibriSpeech/test-clean --subsets 10min,1h,10h \
        --steps 13000,13000,20000 --rate 5e-5 --open-at 5000 --batch-seconds 200 --precision bfloat16 --seeds 3

Without paths speech is rendered, which needs espeak-ng and flite. An interrupted run goes on where it stopped.
"""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from otoscope.diagnosis.result import rows_of
from otoscope.errors import TrainingError
from otoscope.evaluation.outcome import Change
from otoscope.measures.measure import Row
from otoscope.training.ctc import CtcSettings
from otoscope.training.subsets import seconds_of
from recipes.layerwise_finetuning.cells import Cell, check_grid, grid, layers_of
from recipes.layerwise_finetuning.stages import CURVE, RULE, chosen_top, diagnosed, finetuned, prescribed
from recipes.layerwise_finetuning.telling import Found, Key, page_of
from recipes.trials.comparing import compared, decoders, finished, language_model, rates_of
from recipes.trials.runs import (
    ROOT,
    Run,
    carry_out,
    check_runs,
    claim,
    facts_of,
    listed,
    run_arguments,
    run_recipe,
    settings_of,
)
from recipes.trials.speech import Speech, check_speech, is_rendered, seconds_to_train, speech_arguments, speech_of
from recipes.trials.tables import days, put

NAME = "layerwise_finetuning"
MODEL = "embedded:wav2vec2-pretrained"
# What models and outcomes depend on; more seeds and numbers of layers may be asked for later.
_FIXED = (
    "model", "subsets", "steps", "train", "dev", "hours", "exam_seconds", "alignments", "lm", "tune_seconds",
    "rate", "open_at", "mask", "train_convolutions", "batch_seconds", "accumulate", "precision",
)  # fmt: skip


def parsed(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The options; texts with commas are taken apart."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=ROOT / "work" / NAME, help="speech, models and outcomes")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "layerwise_finetuning.md", help="gets the tables")
    parser.add_argument("--model", default=MODEL, help="pre-trained: embedded, a folder, or a Hub name")
    parser.add_argument("--top", default="0,1,2,3", help="how many top layers begin anew, 0 among them")
    parser.add_argument("--subsets", default="5min,30min", help="how much transcribed speech")
    parser.add_argument("--steps", default="800", help="of fine-tuning: one number, or one a subset")
    parser.add_argument("--rate", type=float, default=1e-3, help="the highest learning rate")
    parser.add_argument("--open-at", type=int, default=0, help="steps in which the head alone is trained")
    parser.add_argument("--mask", type=float, default=0.05, help="share of frames under masks")
    parser.add_argument("--train-convolutions", action="store_true", help="train the convolutions over samples too")
    parser.add_argument("--no-diagnosis", action="store_true", help="do not choose n by the diagnosis")
    speech_arguments(parser, hours=0.6)
    run_arguments(parser, seeds=2, batch_seconds=12.0)
    found = parser.parse_args(given)
    try:
        found.top, found.steps = ([int(one) for one in text.split(",")] for text in (found.top, found.steps))
    except ValueError:
        parser.error("--top and --steps are whole numbers, with commas between them")
    found.subsets = found.subsets.split(",")
    return found


def main(given: Sequence[str] | None = None) -> None:
    """Runs the recipe, or lists what it would run.

    Raises:
        SystemExit: an option makes no sense, or a training failed.
    """
    run_recipe(given, parsed, check, _dry, _carry_out)


def check(arguments: argparse.Namespace) -> None:
    """Refuses options that make no sense, before anything is done.

    Raises:
        OtoscopeError: one does not.
    """
    check_runs(arguments)
    check_speech(arguments)
    layers, count = layers_of(arguments.model), len(arguments.subsets)
    if len(arguments.steps) not in (1, count):
        raise TrainingError(
            f"{len(arguments.steps)} numbers of steps for {count} subsets", "Give one, or one a subset."
        )
    check_grid(arguments.top, arguments.subsets, seconds_to_train(arguments), layers)
    for cell in cells_of(arguments):
        settings = settings_of(arguments, steps_of(arguments, cell), arguments.rate, cell.seed)
        if ctc_of(arguments).open_at >= settings.steps:
            raise TrainingError(
                f"The encoder is to be opened at step {arguments.open_at} of {settings.steps}", "Open it earlier."
            )


def cells_of(arguments: argparse.Namespace) -> list[Cell]:
    """All fine-tunings that are asked for."""
    return grid(arguments.top, arguments.subsets, arguments.seeds)


def steps_of(arguments: argparse.Namespace, cell: Cell) -> int:
    """How many steps a fine-tuning has.

    Raises:
        TrainingError: its subset is none of those that are asked for.
    """
    if cell.subset not in arguments.subsets:
        raise TrainingError(f"There is no subset {cell.subset!r}", f"Name one of {', '.join(arguments.subsets)}.")
    steps = arguments.steps
    return int(steps[0] if len(steps) == 1 else steps[arguments.subsets.index(cell.subset)])


def ctc_of(arguments: argparse.Namespace) -> CtcSettings:
    """What belongs to CTC."""
    return CtcSettings(
        mask=arguments.mask, open_at=arguments.open_at, freeze_convolutions=not arguments.train_convolutions
    )


def runs_of(arguments: argparse.Namespace) -> list[Run]:
    """All fine-tunings, as a dry run lists them."""
    layers = layers_of(arguments.model)
    return [
        Run(
            cell.name, arguments.model, cell.words(layers), cell.subset, seconds_of(cell.subset),
            settings_of(arguments, steps_of(arguments, cell), arguments.rate, cell.seed),
        )
        for cell in cells_of(arguments)
    ]  # fmt: skip


def _dry(arguments: argparse.Namespace) -> str:
    return f"{listed(runs_of(arguments))}\n{_of_diagnosis(arguments)}"


def _of_diagnosis(arguments: argparse.Namespace) -> str:
    if arguments.no_diagnosis:
        return "n is not chosen by the diagnosis."
    return (
        f"n by the diagnosis: prescribe --goal accuracy, from {CURVE} and cca-mel of {arguments.model} on "
        f"{arguments.dev or 'the rendered train'}; an n that is not in the list is fine-tuned as well."
    )


def _carry_out(arguments: argparse.Namespace, options: Sequence[str]) -> None:
    work = arguments.work
    claim(work, facts_of(arguments, _FIXED) | {"recipe": NAME})
    speech = speech_of(arguments)
    if arguments.only is not None:
        cell = Cell.named(arguments.only)
        settings = settings_of(arguments, steps_of(arguments, cell), arguments.rate, cell.seed)
        finetuned(cell, arguments.model, speech, work, settings, ctc_of(arguments))
        return
    language_model(speech.train, work, arguments.lm)
    chosen, curve, notes = (None, [], ()) if arguments.no_diagnosis else _choose(arguments, speech)
    tops = sorted({*arguments.top, *(() if chosen is None else (chosen,))})
    names = [cell.name for cell in grid(tops, arguments.subsets, arguments.seeds)]
    waiting = [name for name in names if not finished(work / name)]
    failed = carry_out(f"recipes.{NAME}", options, waiting, work, arguments.workers)
    changes = _changes(arguments, speech, tops)
    command = shlex.join(["python", "-m", f"recipes.{NAME}", *options])
    subsets = sorted(arguments.subsets, key=seconds_of)
    date = days((work / "outcomes").glob("*--*.json"))
    found = Found(subsets, tops, changes, chosen, curve, notes, command, _words(arguments, speech), date)
    put(arguments.page, NAME, page_of(found))
    print(f"Written to {arguments.page}")
    if failed:
        raise SystemExit(f"These failed, see their logs in {work}: {', '.join(failed)}")


def _choose(arguments: argparse.Namespace, speech: Speech) -> tuple[int, list[Row], tuple[str, ...]]:
    """n by the diagnosis, the curve it was chosen by, and what rules said that did not act."""
    heard = speech.train if is_rendered(arguments) else speech.dev
    found = diagnosed(arguments.model, heard, arguments.work)
    plan = prescribed(found, max(arguments.top))
    plan.save(arguments.work / "plan.toml")
    rows = [row for row in rows_of(found.measure(CURVE)) if row.stream == f"layer.{row.layer}"]
    curve = sorted(rows, key=lambda row: row.layer or 0)
    return chosen_top(plan, len(curve)), curve, tuple(note for note in plan.notes if RULE in note)


def _changes(arguments: argparse.Namespace, speech: Speech, tops: Sequence[int]) -> dict[Key, Change]:
    """Every n against none, by subset and decoder; what failed is left out."""
    work, found = arguments.work, {}
    for subset in arguments.subsets:
        folders = {n: [work / Cell(n, subset, seed).name for seed in range(arguments.seeds)] for n in tops}
        first = next((one for one in folders[0] if finished(one)), None)
        if first is None:
            continue
        place = work / "outcomes"
        lm = language_model(speech.train, work, arguments.lm)
        for name, decoder in decoders(
            first, speech, lm, place / f"weights-{subset}.json", arguments.tune_seconds
        ).items():
            for n in [n for n in tops if n]:
                kept = place / f"{speech.exam.name}--{subset}--{n}--{name}"
                outcome = compared(folders[0], folders[n], speech.exam, decoder, kept)
                if outcome is not None:
                    found |= {(subset, n, rate): one for rate, one in rates_of(outcome, name).items()}
    return found


def _words(arguments: argparse.Namespace, speech: Speech) -> list[str]:
    """What was trained on what, in words."""
    given = ctc_of(arguments)
    masks = f"masks over {given.mask:.0%} of the frames" if given.mask else "no masks"
    steps = ", ".join(f"{steps_of(arguments, Cell(0, one, 0))} with {one}" for one in arguments.subsets)
    return [
        f"model: {arguments.model}",
        f"speech: {speech.train.name} ({speech.train.seconds / 3600:.2f} h) to take subsets of, {speech.dev.name} "
        f"({speech.dev.seconds / 60:.1f} min) to watch and to choose weights of the language model on, "
        f"{speech.exam.name} ({speech.exam.seconds / 60:.1f} min) to examine on",
        f"fine-tuning: steps {steps}; {arguments.accumulate} x {arguments.batch_seconds:g} s a step, rate "
        f"{arguments.rate:g}, {masks}, the head alone for {given.open_at} steps, convolutions over samples "
        f"{'frozen' if given.freeze_convolutions else 'trained'}, {arguments.precision}",
        f"seeds: {', '.join(map(str, range(arguments.seeds)))}, of subsets, fresh layers, batches, masks and dropout",
    ]


if __name__ == "__main__":
    main()
