"""One command: pre-trains originals, diagnoses them, pre-trains models without the abnormal blocks, and compares them.

    python -m recipes.abnormal_blocks
    python -m recipes.abnormal_blocks --train LibriSpeech/train-clean-100 --dev LibriSpeech/dev-clean \
        --exam LibriSpeech/test-clean --layers 12 --heads 12 --width 768 --feed-forward 3072 --channels 512 \
        --position-kernel 128 --steps 100000 --rate 5e-4 --mask 0.65 --mask-span 10 --finetuning-steps 80000 \
        --finetuning-rate 3e-5 --batch-seconds 200 --accumulate 8 --precision bfloat16 --seeds 3

Without paths speech is rendered, which needs espeak-ng and flite. An interrupted run goes on where it stopped.
"""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from otoscope.diagnosis.result import rows_of
from otoscope.errors import TrainingError
from otoscope.evaluation.outcome import Change
from otoscope.training.architectures import Size
from otoscope.training.ctc import CtcSettings
from recipes.abnormal_blocks.choosing import Choice, choose
from recipes.abnormal_blocks.stages import Budget, Job, diagnosed, finetuned, judged, pretrained
from recipes.abnormal_blocks.telling import Found, Key, page_of
from recipes.abnormal_blocks.variants import AVOIDING, COMPARISONS, FAMILY, LIMITED, ORIGINAL, VARIANTS, Design, Variant
from recipes.trials.comparing import GREEDY, compared, decoders, finished, language_model, rates_of
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
from recipes.trials.speech import Speech, check_speech, seconds_to_train, speech_arguments, speech_of
from recipes.trials.tables import days, put

NAME = "abnormal_blocks"
CHOICE = "choice.json"
_FIXED = (
    "train", "dev", "hours", "exam_seconds", "lm", "tune_seconds", "layers", "heads", "width", "feed_forward", "channels",
    "position_kernel", "avoid", "span", "local", "blocks", "steps", "rate", "mask", "mask_span", "finetuning_steps",
    "finetuning_rate", "batch_seconds", "accumulate", "precision",
)  # fmt: skip


def parsed(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The options; texts with commas are taken apart."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=ROOT / "work" / NAME, help="speech, models and outcomes")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "abnormal_blocks.md", help="gets the tables")
    size = parser.add_argument_group("size of the original")
    size.add_argument("--layers", type=int, default=6)
    size.add_argument("--heads", type=int, default=4)
    size.add_argument("--width", type=int, default=128)
    size.add_argument("--feed-forward", type=int, default=512)
    size.add_argument("--channels", type=int, default=64, help="of each of the seven convolutions over samples")
    size.add_argument("--position-kernel", type=int, default=16)
    change = parser.add_argument_group("changes")
    change.add_argument("--avoid", choices=AVOIDING, default="bypass", help="what becomes of a block that is avoided")
    change.add_argument("--local", type=int, default=5, help="frames on either side, for --avoid local or convolution")
    change.add_argument("--span", type=int, default=16, help="frames on either side, where spans are limited")
    change.add_argument("--blocks", help="avoid these, such as 3,5, rather than what the diagnosis finds")
    budget = parser.add_argument_group("budget, the same for all models")
    budget.add_argument("--steps", type=int, default=400, help="of pre-training")
    budget.add_argument("--rate", type=float, default=1e-3, help="of pre-training, the highest")
    budget.add_argument("--mask", type=float, default=0.45, help="share of frames under masks while pre-training")
    budget.add_argument("--mask-span", type=int, default=5, help="frames a mask")
    budget.add_argument("--finetuning-steps", type=int, default=1600)
    budget.add_argument("--finetuning-rate", type=float, default=1e-3)
    speech_arguments(parser, hours=1.0)
    run_arguments(parser, seeds=1, batch_seconds=12.0)
    found = parser.parse_args(given)
    try:
        found.blocks = [int(one) for one in found.blocks.split(",")] if found.blocks else []
    except ValueError:
        parser.error("--blocks are whole numbers, with commas between them")
    return found


def main(given: Sequence[str] | None = None) -> None:
    """Runs the recipe, or lists what it would run.

    Raises:
        SystemExit: an option makes no sense, or a training failed.
    """
    run_recipe(given, parsed, check, _dry, _carry_out)


def _dry(arguments: argparse.Namespace) -> str:
    told = listed(runs_of(arguments, seconds_to_train(arguments)))
    later = "Which blocks are abnormal is told by the diagnosis of the originals, which are trained first."
    return told if arguments.blocks else f"{told}\n{later}"


def check(arguments: argparse.Namespace) -> None:
    """Refuses options that make no sense, before anything is done.

    Raises:
        OtoscopeError: one does not.
    """
    check_runs(arguments)
    check_speech(arguments)
    if arguments.alignments is not None:
        raise TrainingError("Alignments are of no use to this recipe", "Leave --alignments out.")
    for name in ("local", "span"):
        if getattr(arguments, name) < 0:
            raise TrainingError(f"--{name} is {getattr(arguments, name)} frames", "Give zero or more.")
    design, blocks = design_of(arguments), arguments.blocks
    if arguments.layers < 3:
        raise TrainingError(f"{arguments.layers} blocks have no neighbours to be held against", "Give three or more.")
    if len(set(blocks)) < len(blocks) or any(not 1 <= one <= arguments.layers for one in blocks):
        raise TrainingError(f"Blocks {blocks} of {arguments.layers} cannot be avoided", "Correct --blocks.")
    if 2 * len(blocks) > arguments.layers:
        raise TrainingError(f"{len(blocks)} of {arguments.layers} blocks leave too few to draw from", "Name fewer.")
    for variant in VARIANTS:
        design.treatments(variant, blocks, 0)
    budget_of(arguments, 0)


def design_of(arguments: argparse.Namespace) -> Design:
    """How models are changed.

    Raises:
        TrainingError: the size makes no model.
    """
    size = Size(
        arguments.layers, arguments.heads, arguments.width, arguments.feed_forward, (arguments.channels,) * 7,
        arguments.position_kernel,
    )  # fmt: skip
    return Design(size, arguments.avoid, arguments.span, arguments.local)


def budget_of(arguments: argparse.Namespace, seed: int) -> Budget:
    """What every variant is trained with.

    Raises:
        TrainingError: a number is out of its range.
    """
    return Budget(
        settings_of(arguments, arguments.steps, arguments.rate, seed),
        settings_of(arguments, arguments.finetuning_steps, arguments.finetuning_rate, seed),
        arguments.mask, arguments.mask_span, CtcSettings(freeze_convolutions=False),
    )  # fmt: skip


def runs_of(arguments: argparse.Namespace, seconds: float) -> list[Run]:
    """All trainings, as a dry run lists them.

    Args:
        arguments: the options.
        seconds: of speech to train on.
    """
    design, found = design_of(arguments), []
    for variant in design.variants(arguments.blocks) if arguments.blocks else VARIANTS:
        for seed in range(arguments.seeds):
            job, budget = Job(variant, seed), budget_of(arguments, seed)
            plan, heard = words(design, variant, arguments.blocks, seed), arguments.train or "rendered train"
            found += [
                Run(job.pretrained(Path()).name, f"new {FAMILY}", plan, heard, seconds, budget.pretraining),
                Run(job.finetuned(Path()).name, job.pretrained(Path()).name, "-", heard, seconds, budget.finetuning),
            ]
    return found


def words(design: Design, variant: Variant, blocks: Sequence[int], seed: int) -> str:
    """What is done to a variant before it is trained; blocks that are not known yet by what they will be."""
    if blocks or variant.avoids == "none":
        told = [str(one) for one in design.treatments(variant, blocks, seed)]
    else:
        which = "the abnormal blocks" if variant.avoids == "abnormal" else "as many random other blocks"
        spans = design.treatments(LIMITED, (), seed) if variant.limited else []
        told = [*map(str, spans), f"{design.avoid} of {which}"]
    return "; ".join([*told, *(["narrower feed-forwards"] if variant.matched else [])]) or "none"


def _carry_out(arguments: argparse.Namespace, options: Sequence[str]) -> None:
    work = arguments.work
    claim(work, facts_of(arguments, _FIXED) | {"recipe": NAME})
    speech = speech_of(arguments)
    if arguments.only is not None:
        _one(arguments, Job.named(arguments.only), speech)
        return
    language_model(speech.train, work, arguments.lm)
    design, seeds = design_of(arguments), range(arguments.seeds)
    originals = [Job(ORIGINAL, seed) for seed in seeds]
    failed = _side_by_side(arguments, options, originals)
    if failed:
        raise SystemExit(f"These failed, see their logs in {work}: {', '.join(failed)}")
    choice = choose([diagnosed(one, speech.dev, work) for one in originals], arguments.blocks)
    _keep(choice, work / CHOICE)
    verdicts = rows_of(judged(originals[0], speech.dev, work).measure("block-verdict"))
    variants = design.variants(choice.blocks)
    avoided = _avoided(design, variants, choice.blocks, arguments.seeds)  # refuses, before more is trained
    failed = _side_by_side(arguments, options, [Job(one, seed) for seed in seeds for one in variants])
    changes, parameters = _changes(arguments, speech)
    found = Found(
        choice, avoided, changes, parameters,
        {row.layer or 0: row.label or "" for row in verdicts},
        shlex.join(["python", "-m", f"recipes.{NAME}", *options]), _told(arguments, speech),
        days((work / "outcomes").glob("*--*.json")),
    )  # fmt: skip
    put(arguments.page, NAME, page_of(found))
    print(f"Written to {arguments.page}")
    if failed:
        raise SystemExit(f"These failed, see their logs in {work}: {', '.join(failed)}")


def _one(arguments: argparse.Namespace, job: Job, speech: Speech) -> None:
    """Pre-trains and fine-tunes one variant of one seed."""
    place, blocks = arguments.work / CHOICE, tuple(arguments.blocks)
    if place.exists():
        blocks = Choice.load(place).blocks
    if not blocks and (job.variant.avoids != "none" or job.variant.matched):
        raise TrainingError(
            f"{job.name} needs the diagnosis of the originals, which is not there", "Run the recipe without --only."
        )
    budget = budget_of(arguments, job.seed)
    pretrained(job, design_of(arguments), blocks, speech, arguments.work, budget)
    finetuned(job, speech, arguments.work, budget)


def _side_by_side(arguments: argparse.Namespace, options: Sequence[str], jobs: Sequence[Job]) -> list[str]:
    """Carries out what is not there yet; the names of what failed."""
    waiting = [job.name for job in jobs if not finished(job.finetuned(arguments.work))]
    return carry_out(f"recipes.{NAME}", options, waiting, arguments.work, arguments.workers)


def _keep(choice: Choice, place: Path) -> None:
    """Stores the choice.

    Raises:
        TrainingError: models were made that avoid other blocks, as where seeds were added.
    """
    if place.exists() and Choice.load(place).blocks != choice.blocks:
        raise TrainingError(
            f"Models in {place.parent} avoid the blocks {list(Choice.load(place).blocks)}, and now {list(choice.blocks)} "
            "are abnormal",
            f"Name the blocks (--blocks) in a folder of its own (--work), or remove all but the originals and {place.name}.",
        )
    choice.save(place)


def _changes(arguments: argparse.Namespace, speech: Speech) -> tuple[dict[Key, Change], dict[str, int]]:
    """Every comparison by both decoders, and the parameters of every model; what failed is left out."""
    work, seeds = arguments.work, range(arguments.seeds)
    changes: dict[Key, Change] = {}
    parameters: dict[str, int] = {}
    lm, place = language_model(speech.train, work, arguments.lm), work / "outcomes"
    by = decoders(Job(ORIGINAL, 0).finetuned(work), speech, lm, place / "weights.json", arguments.tune_seconds)
    for _, *pair in COMPARISONS:
        olds, news = ([Job(one, seed).finetuned(work) for seed in seeds] for one in pair)
        before, after = (one.name for one in pair)
        for name, decoder in by.items():
            kept = place / f"{speech.exam.name}--{before}--{after}--{name}"
            outcome = compared(olds, news, speech.exam, decoder, kept)
            if outcome is None:
                continue
            changes |= {(before, after, rate): one for rate, one in rates_of(outcome, name).items()}
            if name == GREEDY:
                parameters |= {before: outcome.costs["before"].parameters, after: outcome.costs["after"].parameters}
    return changes, parameters


def _avoided(design: Design, variants: Sequence[Variant], blocks: Sequence[int], seeds: int) -> dict[str, str]:
    """What is done to each variant, in words; random blocks of every seed."""
    found = {}
    for one in variants:
        told = dict.fromkeys(words(design, one, blocks, seed) for seed in range(seeds))
        found[one.name] = " or ".join(told)
        if one.matched:
            found[one.name] += f" ({design.size_of(one, blocks).feed_forward} instead of {design.size.feed_forward})"
    return found


def _told(arguments: argparse.Namespace, speech: Speech) -> list[str]:
    """What was trained on what, in words."""
    size = design_of(arguments).size
    return [
        f"model: {FAMILY}, {size.layers} blocks of width {size.width}, {size.heads} heads, feed-forwards of "
        f"{size.feed_forward}, convolutions of {arguments.channels} channels",
        f"speech: {speech.train.name} ({speech.train.seconds / 3600:.2f} h) for pre-training and for fine-tuning, "
        f"{speech.dev.name} ({speech.dev.seconds / 60:.1f} min) to watch, to diagnose and to choose weights of the "
        f"language model on, {speech.exam.name} ({speech.exam.seconds / 60:.1f} min) to examine on",
        f"each model: {arguments.steps} steps of pre-training at {arguments.rate:g} (masks {arguments.mask:g}, spans of "
        f"{arguments.mask_span}), {arguments.finetuning_steps} of fine-tuning at {arguments.finetuning_rate:g}; "
        f"{arguments.accumulate} x {arguments.batch_seconds:g} s a step, {arguments.precision}",
        f"seeds: {', '.join(map(str, range(arguments.seeds)))}, of weights, batches, masks, dropout and random blocks",
    ]


if __name__ == "__main__":
    main()
