"""Search: plans tried under a budget by successive halving on development speech; the examination is never touched."""

from __future__ import annotations

import json
import math
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from otoscope.diagnosis.provenance import versions
from otoscope.diagnosis.result import Diagnosis
from otoscope.errors import EvaluationError, OtoscopeError, PlanError, StorageError, TrainingError
from otoscope.evaluation.error_rates import WordErrorRate
from otoscope.evaluation.metric import recognise
from otoscope.evaluation.references import split_usable
from otoscope.evaluation.timing import compare_time
from otoscope.evaluation.tuning import check_apart
from otoscope.models.recogniser import Recogniser, load_recogniser
from otoscope.plans.halving import Point, pareto_front, successive_halving
from otoscope.plans.plan import Plan
from otoscope.plans.search import COSTS, LEVELS, ORIGINAL, RESULT, Search, Trial, candidates, write_json
from otoscope.speech.corpus import Corpus
from otoscope.speech.locking import alone_in
from otoscope.training.settings import TrainingSettings
from otoscope.training.subsets import subset
from otoscope.treatments.applying import treated
from otoscope.treatments.sizes import Sizes
from otoscope.workflow.corpora import read_corpus
from otoscope.workflow.finetuning import finetune
from otoscope.workflow.training_speech import read_training_corpus

STEPS = (0, 60, 240)
"""Steps of fine-tuning in each round; none in the first."""

SETTINGS = "settings.json"
_TIMED = 6  # utterances in each of the runs that are timed
_REPEATS = 7


def search(
    model: Recogniser | str | Path,
    diagnosis: Diagnosis | str | Path | None,
    dev: Corpus | str | Path,
    train: Corpus | str | Path,
    output: str | Path,
    goal: str = "size",
    *,
    budget: float | None = None,
    cost: str | None = None,
    steps: Sequence[int] = STEPS,
    levels: Sequence[Mapping[str, Any]] = LEVELS,
    limits: Mapping[str, Any] | None = None,
    plans: Mapping[str, Plan] | None = None,
    exam: Corpus | str | Path | None = None,
    dev_seconds: float | str | None = "5min",
    settings: TrainingSettings | None = None,
    eta: float = 2.0,
    fewest: int = 3,
    seed: int = 0,
    skip_bad: bool = False,
    tell: Callable[[str], None] | None = None,
) -> Search:
    """Tries plans and gives those that no other betters in error and cost.

    Plans are written by the rules at several levels of strictness. All are tried without training on part of the
    development speech; the better half is fine-tuned briefly, the better half of these for longer. The original is
    fine-tuned for as long, so that what training does is not taken for what a plan does.

    What was found is written as it comes: a search that was cut off goes on in the same folder.

    Args:
        model: what is treated, with a CTC head.
        diagnosis: of this model, or its folder; may be None where plans are given.
        dev: development speech with transcripts; error rates are taken on it.
        train: speech to fine-tune on, other than that.
        output: folder for the trials, the plans and the result.
        goal: of the plans, "size", "speed" or "accuracy".
        budget: largest cost as a share of the original's; plans above it are left out.
        cost: "parameters" or "time"; by default what the goal is about.
        steps: of fine-tuning in each round, rising; 0 is none.
        levels: limits of the rules at each level; see `plans.Limits`.
        limits: of the rules at all levels.
        plans: what to try, by name, rather than what the rules write.
        exam: examination speech, to make sure that it is not touched; see `evaluation.tuning.check_apart`.
        dev_seconds: how much of the development speech is used; None is all of it.
        settings: of the fine-tuning; steps and seed are set by the search.
        eta: 1 / eta of the plans go on to the next round.
        fewest: so many go on at least; with two, only the cheapest and the most exact would.
        seed: of the fine-tuning, of the part of the development speech and of ties.
        skip_bad: leave out utterances that cannot be used.
        tell: called with a line after each trial.

    Raises:
        PlanError: there is no plan to try, none within the budget, a choice means nothing, development speech is also
            to be trained on or is that of the examination, whatever it is called, or the folder holds another search or
            cannot be written.
        TrainingError: speech of an examination is to be tuned or trained on.
    """
    place = Path(output)
    cost = cost or ("time" if goal == "speed" else "parameters")
    _check_choices(goal, cost, budget, steps)
    # Whether both may be trained or tuned on is found out before anything is loaded.
    heard = read_training_corpus(dev, skip_bad)
    learnt = read_training_corpus(train, skip_bad)
    _check_apart(heard, learnt, exam)
    ready = model if isinstance(model, Recogniser) else load_recogniser(model)
    if skip_bad:
        heard, _ = split_usable(ready, heard)
    if dev_seconds is not None:
        heard = _part_of(heard, dev_seconds, seed)
    tried = dict(plans) if plans is not None else _by_rules(diagnosis, goal, levels, limits or {})
    _check_plans(tried, ready)
    trained = replace(settings or TrainingSettings(learning_rate=3e-4), seed=seed)
    about = {
        "model": ready.name, "fingerprint": ready.model.fingerprint(), "goal": goal, "cost": cost, "budget": budget,
        "steps": list(steps), "eta": eta, "fewest": fewest, "seed": seed, "dev": heard.name,
        "dev_fingerprint": heard.fingerprint(),
        "dev_seconds": heard.seconds, "train": str(train.name if isinstance(train, Corpus) else train),
        "train_fingerprint": learnt.fingerprint(), "skip_bad": skip_bad,
        "plans": {name: [one.to_dict() for one in plan.treatments] for name, plan in tried.items()},
        "training": trained.to_dict(),
    }  # fmt: skip
    try:
        place.mkdir(parents=True, exist_ok=True)
        with alone_in(place, PlanError(f"Another search is at work in {place}", "Wait until it is done.")):
            _open(place, about)
            runner = _Runner(ready, heard, train, place, cost, budget, trained, skip_bad, tell)
            return _run(runner, tried, steps, about)
    except (OSError, StorageError) as error:
        reason = error.problem if isinstance(error, StorageError) else error
        raise PlanError(
            f"The search in {place} cannot go on: {reason}",
            "See that the folder can be written to and has room; the same command goes on where this one stopped.",
        ) from error


def _by_rules(
    diagnosis: Diagnosis | str | Path | None, goal: str, levels: Sequence[Mapping[str, Any]], limits: Mapping[str, Any]
) -> dict[str, Plan]:
    if diagnosis is None:
        raise PlanError("There is neither a diagnosis nor a plan", "Give one of both.")
    found = diagnosis if isinstance(diagnosis, Diagnosis) else Diagnosis.load(diagnosis)
    return candidates(found, goal, levels, **limits)


def _run(runner: _Runner, tried: Mapping[str, Plan], steps: Sequence[int], about: Mapping[str, Any]) -> Search:
    named = {name: (name, plan) for name, plan in tried.items()}
    chosen = {name: about[name] for name in ("eta", "fewest", "seed")}
    halved = successive_halving(named, runner.evaluate, steps, **chosen)
    if not halved.left:
        name, reason = next(iter(halved.failed.items()))
        raise PlanError(
            f"No plan went through the search; {name} went out: {reason}", "Widen the budget or the limits."
        )
    for count in steps:
        runner.evaluate((ORIGINAL, Plan()), count)
    front = pareto_front(halved.points)
    told = {**about, "versions": versions(), "command": shlex.join(sys.argv)}
    told = {name: value for name, value in told.items() if name != "plans"}
    result = Search(
        dict(tried), tuple(runner.trials), halved.failed, tuple(halved.left), tuple(front), str(about["cost"]),
        provenance=told,
    )  # fmt: skip
    result.save(runner.place)
    return result


@dataclass
class _Runner:
    """Treats, fine-tunes and scores plans, each once; what is done already is read."""

    ready: Recogniser
    dev: Corpus
    train: Corpus | str | Path
    place: Path
    cost: str
    budget: float | None
    settings: TrainingSettings
    skip_bad: bool
    tell: Callable[[str], None] | None

    def __post_init__(self) -> None:
        self.trials: list[Trial] = []

    def evaluate(self, named: tuple[str, Plan], budget: float) -> Point:
        """What a plan comes to after so many steps of fine-tuning.

        Raises:
            OtoscopeError: it cannot be carried out, trained or scored, or lies above the budget.
        """
        name, plan = named
        steps = round(budget)
        kept = self.place / "trials" / f"{name}-{steps}.json"
        trial = _kept_trial(kept)
        if trial is None:
            trial = self._try(name, plan, steps)
            write_json(kept, asdict(trial))
        self.trials.append(trial)
        share = trial.parameters if trial.time is None else trial.time
        if self.tell is not None:
            self.tell(
                f"{name}, {steps} steps: WER {trial.value:.4f} at {100 * share:.1f} % of the original's {self.cost}"
            )
        return Point(trial.value, share)

    def _try(self, name: str, plan: Plan, steps: int) -> Trial:
        if steps:
            folder = self.place / "models" / f"{name}-{steps}"
            if not (folder / "config.json").exists():
                finetune(
                    self.ready.model, self.train, folder, plan=list(plan.treatments) or None, skip_bad=self.skip_bad,
                    settings=self._settings(steps), resume=(folder / "run").is_dir(),
                )  # fmt: skip
            made = load_recogniser(folder, device=str(self.ready.model.device))
        else:
            made = Recogniser(treated(self.ready.model, plan.treatments), self.ready.vocabulary)
        parameters = made.parameters / self.ready.parameters
        time = compare_time(self.ready, made, self._timed, _REPEATS).ratio if self.cost == "time" else None
        share = parameters if time is None else time
        if self.budget is not None and share > self.budget and name != ORIGINAL:
            raise PlanError(
                f"It comes to {share:.3f} of the original's {self.cost}, above the budget of {self.budget:g}",
                "Widen the budget.",
            )
        scores = recognise([WordErrorRate()], made, self.dev)["wer"]
        ends = scores.interval(self.settings.seed)
        known = ends.low == ends.low
        low, high = (ends.low, ends.high) if known else (None, None)
        return Trial(name, steps, scores.value, low, high, parameters, time)

    def _settings(self, steps: int) -> TrainingSettings:
        """Nothing is evaluated on the way, and states are kept now and then."""
        return replace(self.settings, steps=steps, evaluate_every=steps, save_every=max(steps // 2, 1), keep=())

    @cached_property
    def _timed(self) -> list[Any]:
        """A few utterances of all lengths."""
        ordered = sorted(self.dev, key=lambda one: (one.n_samples, one.id))
        places = np.unique(np.linspace(0, len(ordered) - 1, _TIMED).round().astype(int))
        return [ordered[k].read() for k in places]


def _kept_trial(path: Path) -> Trial | None:
    if not path.exists():
        return None
    try:
        return Trial(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise PlanError(
            f"The trial {path} cannot be read: {error}", "Remove the file; the search repeats it."
        ) from error


def _open(place: Path, about: Mapping[str, Any]) -> None:
    """Begins a search in a folder, or goes on with the one that was begun there.

    Raises:
        PlanError: the folder holds another search, or something else.
    """
    kept = place / SETTINGS
    now = json.loads(json.dumps(about))
    if not kept.exists():
        strange = [one.name for one in place.iterdir() if not one.name.startswith(".")]
        if strange:
            raise PlanError(f"{place} holds {strange[0]}, and no search", "Name a new or empty folder.")
        write_json(kept, now)
        return
    try:
        stored = dict(json.loads(kept.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise PlanError(f"{kept} cannot be read: {error}", "Name a new folder.") from error
    other = sorted(name for name in {*stored, *now} if stored.get(name) != now.get(name))
    if other:
        raise PlanError(
            f"The search in {place} was begun with another {other[0]}",
            "Go on with the settings it was begun with, or name a new folder.",
        )
    (place / RESULT).unlink(missing_ok=True)


def _check_choices(goal: str, cost: str, budget: float | None, steps: Sequence[int]) -> None:
    if goal not in ("size", "speed", "accuracy"):
        raise PlanError(f"A search has no goal {goal!r}", "Search for size, speed or accuracy.")
    if cost not in COSTS:
        raise PlanError(f"There is no cost {cost!r}", f"The costs are {', '.join(COSTS)}.")
    if budget is not None and not 0 < budget < math.inf:
        raise PlanError(f"The budget is {budget}", "Give a share of the original, such as 0.75.")
    if not steps or min(steps) < 0 or list(steps) != sorted(set(steps)):
        raise PlanError(f"The steps {list(steps)} do not rise from 0 or more", "Give such as 0,60,240.")


def _part_of(dev: Corpus, amount: str | float, seed: int) -> Corpus:
    """So much of the development speech.

    Raises:
        PlanError: there is less, or the amount is none.
    """
    try:
        chosen = {one.id for one in subset(list(dev), amount, seed)}
    except TrainingError as error:
        raise PlanError(
            f"The development speech {dev.name} cannot be parted: {error.problem}",
            "Give a smaller amount, or take all of it (--dev-seconds all, dev_seconds=None).",
        ) from error
    return dev.subset(lambda one: one.id in chosen)


def _check_apart(dev: Corpus, train: Corpus, exam: Corpus | str | Path | None) -> None:
    """Refuses speech that two of the sets share, under whatever name, and voices of the examination in the others.

    Raises:
        PlanError: they are not apart.
    """
    sets = {"development": dev, "training": train}
    if exam is not None:
        sets["examination"] = exam if isinstance(exam, Corpus) else read_corpus(exam, skip_bad=True)
    told = {"development": "plans are judged on", "training": "models are trained on"}
    for one, other in (("training", "development"), ("development", "examination"), ("training", "examination")):
        if other not in sets:
            continue
        try:
            check_apart(sets[one], sets[other], told[one])
        except EvaluationError as error:
            raise PlanError(
                f"The {one} and the {other} speech share an utterance: {error.problem}", error.cure
            ) from error
        voices = sorted(set(sets[one].speakers) & set(sets[other].speakers))
        if voices and other == "examination":
            raise PlanError(
                f"The speaker {voices[0]!r} is in the {one} and in the {other} speech", "Keep their voices apart."
            )


def _check_plans(plans: Mapping[str, Plan], ready: Recogniser) -> None:
    """Refuses a search without plans, and plans for another model.

    Raises:
        PlanError: see above.
    """
    if not plans:
        raise PlanError(
            "The rules prescribe nothing at any level, so there is nothing to be tried",
            "Take more measures (otoscope diagnose --measures blocks,importance), or give plans of your own.",
        )
    for name, plan in plans.items():
        if name == ORIGINAL or not name or set(name) & set("/\\\0") or name.startswith("."):
            raise PlanError(f"A plan cannot be called {name!r}", "Use letters, digits, dots and dashes.")
        try:
            plan.check(Sizes.of(ready.model), ready.model.fingerprint())
        except OtoscopeError as error:
            raise PlanError(f"The plan {name} cannot be carried out: {error.problem}", error.cure) from error
