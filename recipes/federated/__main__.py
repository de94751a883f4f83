"""One command: trains server's models, diagnoses them, has clients adapt them in all variants, and writes the page.

    python -m recipes.federated
    python -m recipes.federated --train LibriSpeech/train-clean-100 --dev LibriSpeech/dev-clean \
        --exam LibriSpeech/test-clean --layers 16 --width 256 --heads 4 --feed-forward 1024 --steps 30000 --rate 1e-3 \
        --batch-seconds 200 --rounds 200 --cohort 32 --client-epochs 1 --client-steps 10 --client-batch-seconds 60 \
        --precision bfloat16

Without paths commands are rendered, which needs espeak-ng and flite. An interrupted run goes on where it stopped.
"""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from otoscope.errors import TrainingError
from otoscope.evaluation.outcome import Change
from otoscope.federation.client import OPTIMISERS, LocalSettings
from otoscope.federation.settings import FederationSettings
from otoscope.models.vocabulary import Vocabulary
from otoscope.training.settings import TrainingSettings
from recipes.federated.aims import SCHEDULES
from recipes.federated.comparing import PAIRS, VARIANTS, Spent, folders, held_against, spent
from recipes.federated.models import Size, elements, members_of, smaller
from recipes.federated.speech import check_speech, speech_arguments, speech_of
from recipes.federated.stages import SERVER, Job, Work, adapted, central_jobs, chosen, federated_jobs, trained
from recipes.federated.telling import LENGTHS, Found, Key, page_of
from recipes.trials.comparing import GREEDY, finished, rates_of
from recipes.trials.runs import (
    ROOT,
    carry_out,
    check_runs,
    claim,
    facts_of,
    heard,
    run_arguments,
    run_recipe,
    settings_of,
)
from recipes.trials.runs import chosen as named
from recipes.trials.tables import days, put, table

NAME = "federated"
# Seconds of padded speech that a core trains the default model on in a second, as a dry run counts; `small` takes less.
_PACE = 90.0
_ROUND_TRIP = 0.25  # seconds that a client's part of a round takes beside its training
_DEFAULT = Size(8, 64, 4, 256)
_FIXED = (
    "train", "dev", "exam", "train_seconds", "dev_seconds", "exam_seconds", "voices", "shorter_than", "layers", "width",
    "heads", "feed_forward", "client_size", "steps", "rate", "batch_seconds", "accumulate", "precision", "rounds", "cohort",
    "clients", "server", "server_rate", "client_epochs", "client_steps", "client_optimiser", "client_rate",
    "client_batch_seconds", "dtype", "diagnosis_seconds",
)  # fmt: skip


def parsed(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=ROOT / "work" / NAME, help="speech, models and outcomes")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "federated.md", help="gets the tables")
    size = parser.add_argument_group("the server's model")
    size.add_argument("--layers", type=int, default=_DEFAULT.layers)
    size.add_argument("--width", type=int, default=_DEFAULT.width)
    size.add_argument("--heads", type=int, default=_DEFAULT.heads)
    size.add_argument("--feed-forward", type=int, default=_DEFAULT.feed_forward)
    size.add_argument("--steps", type=int, default=1000, help="of central training, of small dense models too")
    size.add_argument("--rate", type=float, default=3e-3, help="of central training, the highest")
    size.add_argument("--diagnosis-seconds", type=float, default=200.0, help="of dev, to diagnose the model on")
    adapting = parser.add_argument_group("federated training, the same for all variants")
    adapting.add_argument(
        "--client-size", type=float, default=0.6, help="share of the model that clients hold, at most"
    )
    adapting.add_argument("--clients", default="speaker", help="how speech is dealt: speaker, speaker:16, ...")
    adapting.add_argument("--cohort", type=int, default=16, help="clients a round; 0 for all")
    adapting.add_argument("--rounds", type=int, default=16)
    adapting.add_argument("--server", default="fedavg", help="fedavg, fedadam or lamb")
    adapting.add_argument("--server-rate", type=float, help="of the server's step")
    adapting.add_argument(
        "--client-epochs", type=int, default=2, help="times that a client hears its speech in a round"
    )
    adapting.add_argument("--client-steps", type=int, default=4, help="of a client in a round, at most")
    adapting.add_argument("--client-optimiser", choices=OPTIMISERS, default="adamw", help="begins anew every round")
    adapting.add_argument("--client-rate", type=float, default=1e-3, help="of the clients' updates")
    adapting.add_argument("--client-batch-seconds", type=float, default=8.0)
    adapting.add_argument("--dtype", default="float32", help="of what clients send back")
    speech_arguments(parser)
    run_arguments(parser, seeds=2, batch_seconds=32.0)
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> None:
    """Runs the recipe, or lists what it would run.

    Raises:
        SystemExit: an option makes no sense, or a training failed.
    """
    run_recipe(given, parsed, check, listed, _carry_out)


def check(arguments: argparse.Namespace) -> None:
    """Refuses options that make no sense, before anything is done.

    Raises:
        OtoscopeError: one does not.
    """
    check_runs(arguments)
    check_speech(arguments)
    if not 0 < arguments.client_size < 1:
        raise TrainingError(
            f"--client-size is {arguments.client_size}", "Give a share of the model above 0 and below 1."
        )
    if not 0 < arguments.diagnosis_seconds < float("inf"):
        raise TrainingError(f"--diagnosis-seconds is {arguments.diagnosis_seconds}", "Give a number above zero.")
    central_of(arguments, 0)
    federation_of(arguments, 0)
    smaller(size_of(arguments), arguments.client_size, _LETTERS)


def size_of(arguments: argparse.Namespace) -> Size:
    """Of the server's model.

    Raises:
        TrainingError: it makes no model.
    """
    return Size(arguments.layers, arguments.width, arguments.heads, arguments.feed_forward)


def central_of(arguments: argparse.Namespace, seed: int) -> TrainingSettings:
    """Settings of a central training.

    Raises:
        TrainingError: a number is out of its range.
    """
    return settings_of(arguments, arguments.steps, arguments.rate, seed)


def federation_of(arguments: argparse.Namespace, seed: int) -> FederationSettings:
    """Settings of a federated training; what clients are sent is drawn anew for each of them in every round.

    Raises:
        FederationError: a number is out of its range.
    """
    local = LocalSettings(
        epochs=arguments.client_epochs, steps=arguments.client_steps, batch_seconds=arguments.client_batch_seconds,
        optimiser=arguments.client_optimiser, learning_rate=arguments.client_rate, precision=arguments.precision,
    )  # fmt: skip
    return FederationSettings(
        rounds=arguments.rounds, cohort=arguments.cohort, seed=seed, server=arguments.server, rate=arguments.server_rate,
        dtype=arguments.dtype, local=local, evaluate_every=max(1, arguments.rounds // 2),
    )  # fmt: skip


# The letters of the commands, for sizes that a dry run tells before any transcript is read.
_LETTERS = Vocabulary(("<pad>", "|", *"abcdefghijklmnopqrstuvwxyz"), 0)


def listed(arguments: argparse.Namespace) -> str:
    """Every training with its steps, the speech that it hears at most, and about how long that takes a core."""
    size, share = size_of(arguments), arguments.client_size
    small, members = smaller(size, share, _LETTERS), members_of(share)
    whole, dense = (elements(one, _LETTERS) for one in (size, small))
    rows, total = [], 0.0
    for job in (*central_jobs(arguments.seeds, members), *federated_jobs(arguments.seeds, members)):
        own = dense if job.begins_with.kind == "dense" or job.kind == "dense" else whole
        if job.central:
            spoken, extra, steps = heard(central_of(arguments, job.seed)), 0.0, str(arguments.steps)
            begun, held = "new", f"{own:,}"
        else:
            trips = arguments.rounds * arguments.cohort
            spoken = trips * arguments.client_steps * arguments.client_batch_seconds
            extra, steps = trips * _ROUND_TRIP, f"{arguments.rounds} x {arguments.cohort} x {arguments.client_steps}"
            dropped = job.kind in SCHEDULES[1:]
            begun, held = job.begins_with.name, f"{int(share * whole) if dropped else own:,}"
        seconds = spoken / _PACE * own / elements(_DEFAULT, _LETTERS) + extra
        total += seconds
        rows.append([job.name, begun, held, str(job.seed), steps, f"{spoken / 3600:.2f}", f"{seconds:.0f}"])
    head = ["run", "begins with", "elements held", "seed", "steps", "hours heard at most", "seconds of a core, about"]
    lines = [
        table(head, rows).rstrip("\n"),
        f"{len(rows)} trainings, about {total / 60:.0f} minutes of a core; steps of federated ones are rounds x clients x "
        "steps of a client. Beside them: diagnoses and comparisons, some minutes.",
        f"Server: {size}. Small dense model: {small}, {dense / whole:.1%} of it; {members} in an ensemble.",
    ]
    if not arguments.cohort:
        lines.append("All clients train in every round: how many these are is known once the speech is read.")
    lines.append("Which layers are aimed at is told by the diagnosis of the server's models, which are trained first.")
    return "\n".join(lines)


def _carry_out(arguments: argparse.Namespace, options: Sequence[str]) -> None:
    folder = arguments.work
    claim(folder, facts_of(arguments, _FIXED) | {"recipe": NAME})
    work = Work(
        folder, speech_of(arguments), size_of(arguments), arguments.client_size, central_of(arguments, 0),
        federation_of(arguments, 0), arguments.clients, arguments.diagnosis_seconds,
    )  # fmt: skip
    central, federated = (made(arguments.seeds, work.members) for made in (central_jobs, federated_jobs))
    if arguments.only is not None:
        jobs = {one.name: one for one in (*central, *federated)}
        _one(arguments, jobs[named(list(jobs), arguments.only)], work)
        return
    failed = _side_by_side(arguments, options, central)
    choices = {seed: chosen(seed, work) for seed in range(arguments.seeds) if finished(work.of(Job(SERVER, seed)))}
    failed += _side_by_side(arguments, options, [one for one in federated if finished(work.of(one.begins_with))])
    place = folder / "outcomes"
    found = Found(
        arguments.client_size, work.members, choices, _changes(work, arguments.seeds), _spent(work, arguments.seeds),
        shlex.join(["python", "-m", f"recipes.{NAME}", *options]), _words(arguments, work), days(place.glob("*--*.json")),
    )  # fmt: skip
    put(arguments.page, NAME, page_of(found))
    print(f"Written to {arguments.page}")
    if failed:
        raise SystemExit(f"These failed, see their logs in {folder}: {', '.join(failed)}")


def _one(arguments: argparse.Namespace, job: Job, work: Work) -> None:
    if job.central:
        trained(job, work, central_of(arguments, job.own_seed))
    else:
        adapted(job, work, federation_of(arguments, job.own_seed))


def _side_by_side(arguments: argparse.Namespace, options: Sequence[str], jobs: Sequence[Job]) -> list[str]:
    """Carries out what is not there yet; the names of what failed."""
    waiting = [one.name for one in jobs if not finished(arguments.work / one.name)]
    return carry_out(f"recipes.{NAME}", options, waiting, arguments.work, arguments.workers)


def _changes(work: Work, seeds: int) -> dict[Key, Change]:
    """All comparisons, of short and of long utterances; what failed is left out."""
    found: dict[Key, Change] = {}
    sides = {one: [folders(one, seed, work.members, work.folder) for seed in range(seeds)] for one in VARIANTS}
    for length in LENGTHS:
        for before, after in PAIRS:
            kept = work.folder / "outcomes" / f"{length}--{before}--{after}"
            outcome = held_against(sides[before], sides[after], work.speech.exam[length], kept)
            if outcome is not None:
                found |= {(length, before, after, rate): one for rate, one in rates_of(outcome, GREEDY).items()}
    return found


def _spent(work: Work, seeds: int) -> dict[str, Spent]:
    """What every variant costs, by the first seed of which it is there."""
    whole, found = elements(work.size, work.vocabulary), {}
    for variant in VARIANTS:
        for seed in range(seeds):
            one = spent(variant, folders(variant, seed, work.members, work.folder), whole)
            if one is not None:
                found[variant] = one
                break
    return found


def _words(arguments: argparse.Namespace, work: Work) -> list[str]:
    """What was trained on what, in words."""
    speech, local, central = work.speech, work.federation.local, work.central
    voices = len(speech.short.speakers)
    cohort = arguments.cohort or "all"
    return [
        f"speech: {speech.long.name} ({speech.long.seconds / 60:.1f} min of utterances of {speech.shorter_than:.2f} s or "
        f"more) for central training; {speech.short.seconds / 60:.1f} min of {voices} voices in shorter ones for clients "
        f"({work.clients}); {speech.dev.name} ({speech.dev.seconds / 60:.1f} min) to watch and to diagnose on; exam "
        f"{speech.exam['short'].seconds / 60:.1f} min short, {speech.exam['long'].seconds / 60:.1f} min long",
        f"server's model: Conformer with CTC, {work.size}, group norms; small dense model: {work.small}",
        f"central training, from nothing: {central.steps} steps of {central.accumulate} x {central.batch_seconds:g} s at "
        f"{central.learning_rate:g}, {central.precision}, no masks",
        f"federated training: {arguments.rounds} rounds of {cohort} clients, at most {local.steps} steps of "
        f"{local.batch_seconds:g} s each at {local.learning_rate:g} ({local.optimiser}); {work.federation.server}, deltas "
        f"in {work.federation.dtype}, units drawn anew for each client and round",
        f"seeds: {', '.join(map(str, range(arguments.seeds)))}, of weights, batches, dropout, cohorts and what clients are "
        "sent; models of one seed are pairs",
    ]


if __name__ == "__main__":
    main()
