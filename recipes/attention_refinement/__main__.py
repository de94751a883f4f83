"""One command: renders speech, ranks and prunes heads, limits spans, fine-tunes, and writes docs/attention_refinement.md.

    python -m recipes.attention_refinement

Needs espeak-ng and flite where no speech is named. Takes about twenty minutes on one core with the embedded WavLM; an
interrupted run goes on where it stopped. `--dry-run` lists every run and does nothing.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from otoscope.embedded import embedded_model
from otoscope.errors import CheckpointError, OtoscopeError
from otoscope.models.recogniser import load_recogniser
from otoscope.training.folders import without_bars
from recipes.attention_refinement.design import POINTS, Design
from recipes.attention_refinement.speech import Source, hours_trained
from recipes.attention_refinement.stages import Refinement, gathered, listed
from recipes.attention_refinement.telling import tell
from recipes.trials.tables import days

ROOT = Path(__file__).resolve().parents[2]


def main(given: Sequence[str] | None = None) -> None:
    arguments = _parser().parse_args(given)
    command = shlex.join(["python", "-m", "recipes.attention_refinement", *(sys.argv[1:] if given is None else given)])
    try:
        design = _design(arguments)
        named = [one for one in (arguments.train, arguments.dev, arguments.exam) if one is not None]
        source = Source(tuple(named), arguments.hours, arguments.exam_seconds)
        if arguments.only is not None:
            design.run(arguments.only)
        if arguments.dry_run:
            print("\n".join(plan_of(design, source, arguments.work)))
            return
        _run(arguments, design, source, command)
    except OtoscopeError as error:
        raise SystemExit(str(error)) from error


def plan_of(design: Design, source: Source, work: Path) -> list[str]:
    """What would be done, a line each; speech is read and a model loaded only where they lie on this machine.

    Raises:
        OtoscopeError: something of it cannot be.
    """
    heads = check_model(design)
    hours, told = source.told(work)
    return [f"speech: {told}", *listed(design, hours_trained(hours["train"], design.subset), heads)]


def check_model(design: Design) -> int | None:
    """How many heads the model has; None where it is to be fetched from the Hub.

    Raises:
        ModelError: it is no recogniser, or nothing that can be loaded.
        EvaluationError: it has fewer heads than there are steps.
    """
    name = design.model
    if embedded_model(name) is None and not Path(name).expanduser().is_dir():
        owner, _, model = name.partition("/")
        if not (owner and model) or "/" in model or name[0] in "./~":
            raise CheckpointError(f"There is no model {name}", "Name an embedded model, a folder, or OWNER/NAME.")
        return None
    heads = sum(load_recogniser(name).model.anatomy.heads)
    design.check_heads(heads)
    return heads


def _run(arguments: argparse.Namespace, design: Design, source: Source, command: str) -> None:
    torch.set_num_threads(1)
    with without_bars():
        refinement = Refinement(design, arguments.work, source.read(arguments.work))
        if arguments.only is not None:
            print(f"{arguments.only}: WER {refinement.trained(design.run(arguments.only)).value:.4f}")
            return
        trained, failed = gathered(design.runs, refinement.trained, OtoscopeError)
        date = days((arguments.work / "scores").glob("*.parquet"))
        found = refinement.found(trained, {"model": design.model, "command": command, "date": date})
    tell(arguments.page, found)
    print(f"Written to {arguments.page}")
    if failed:
        raise SystemExit("These failed:\n" + "\n".join(f"{name}: {why}" for name, why in failed.items()))


def _design(arguments: argparse.Namespace) -> Design:
    radii = arguments.radii.split(",")
    if not all(one.strip().isdigit() for one in radii):
        raise SystemExit(f"--radii {arguments.radii}: give whole numbers of frames, separated by commas")
    points = tuple(one.strip() for one in arguments.points.split(",") if one.strip())
    names = (
        "model", "steps", "random", "seeds", "updates", "batch_seconds", "learning_rate", "subset", "teacher",
        "ranked_seconds", "repeats",
    )  # fmt: skip
    return Design(
        radii=tuple(int(one) for one in radii), points=points, **{name: getattr(arguments, name) for name in names}
    )


def _parser() -> argparse.ArgumentParser:
    usual = Design()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--work", type=Path, default=ROOT / "work" / "attention_refinement", help="speech, models and outcomes"
    )
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "attention_refinement.md", help="gets the tables")
    parser.add_argument("--model", default=usual.model, help="a recogniser: embedded, a folder, or on the Hub")
    for name, what in (
        ("train", "to fine-tune on"), ("dev", "to rank heads on"), ("exam", "of other voices, to examine on")
    ):  # fmt: skip
        parser.add_argument(f"--{name}", help=f"speech {what}; all three, or none to render some")
    parser.add_argument("--hours", type=float, default=0.5, help="of speech for training, where it is rendered")
    parser.add_argument("--exam-seconds", type=float, default=24.0, help="of each voice's exam, where it is rendered")
    parser.add_argument("--ranked-seconds", type=float, default=usual.ranked_seconds, help="of dev, to rank heads on")
    parser.add_argument("--steps", type=int, default=usual.steps, help="in which an order takes out all heads")
    parser.add_argument("--radii", default=",".join(map(str, usual.radii)), help="of spans, in frames of the model")
    parser.add_argument("--random", type=int, default=usual.random, help="orders drawn at random")
    parser.add_argument(
        "--points", default=",".join(POINTS), help="that are fine-tuned: ORDER:STEP or FORM:RADIUS, by commas"
    )
    parser.add_argument("--seeds", type=int, default=usual.seeds, help="of fine-tuning")
    parser.add_argument("--updates", type=int, default=usual.updates, help="of fine-tuning")
    parser.add_argument("--batch-seconds", type=float, default=usual.batch_seconds, help="of speech in an update")
    parser.add_argument("--learning-rate", type=float, default=usual.learning_rate)
    parser.add_argument("--subset", help="how much speech to fine-tune on, such as 10min; by default all")
    parser.add_argument("--teacher", action="store_true", help="follow the unpruned model beside the transcripts")
    parser.add_argument("--repeats", type=int, default=usual.repeats, help="pairs of timed runs")
    parser.add_argument("--only", help="fine-tune the run of this name alone, and write no page")
    parser.add_argument("--dry-run", action="store_true", help="list every run, and do nothing")
    return parser


if __name__ == "__main__":
    main()
