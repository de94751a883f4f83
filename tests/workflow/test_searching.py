"""Search: plans tried on development speech, those that win, what is refused, and a search that goes on."""

import contextlib
import errno
import json
import resource
from dataclasses import replace

import numpy as np
import pytest
from transformers import HubertModel

from otoscope.errors import PlanError, TrainingError
from otoscope.models.recogniser import load_recogniser
from otoscope.plans import search as plans_search
from otoscope.plans.plan import Line, Plan
from otoscope.plans.search import ORIGINAL, Search, candidates
from otoscope.speech.corpus import Corpus
from otoscope.training.architectures import make_config, seeded
from otoscope.treatments.bypass import Bypass
from otoscope.treatments.prune_heads import PruneHeads
from otoscope.treatments.remove_blocks import RemoveBlocks
from otoscope.workflow import finetune, searching
from tests.training.small_training import TINY, settings, spelt_speech


def named(corpus, mark, name):
    """The same sounds under other names and voices, which are told by their samples all the same."""
    utterances = tuple(replace(u, id=f"{mark}{u.id}", speaker=f"{mark}{u.speaker}") for u in corpus)
    return replace(corpus, utterances=utterances, name=name)


SPEECH = spelt_speech()
DEV, EXAM = (named(spelt_speech(seed=k), mark, name) for k, mark, name in ((11, "d-", "dev"), (12, "e-", "exam")))
PLANS = {
    "head": Plan((Line(PruneHeads("layer.1.head.0")),)),
    "branch": Plan((Line(Bypass("layer.2.feed_forward")),)),
    "layer": Plan((Line(RemoveBlocks("layer.1")),)),
}
QUICK = {"steps": (0, 2), "fewest": 2, "dev_seconds": None, "settings": settings()}


@contextlib.contextmanager
def largest_file(size):
    """No file can grow beyond a size."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    seeded(0, lambda: HubertModel(make_config("hubert", TINY))).save_pretrained(folder / "encoder")
    finetune(folder / "encoder", SPEECH, folder / "m", settings=settings(steps=2), hold_out=0.25)
    return load_recogniser(folder / "m")


@pytest.fixture(scope="module")
def found(model, tmp_path_factory):
    lines, place = [], tmp_path_factory.mktemp("found") / "search"
    return (
        searching.search(model, None, DEV, SPEECH, place, plans=PLANS, exam=EXAM, tell=lines.append, **QUICK),
        place,
        lines,
    )


def test_the_better_half_is_fine_tuned_and_the_front_is_of_those(found):
    result, place, lines = found
    assert [trial.plan for trial in result.trials if trial.steps == 0] == [*PLANS, ORIGINAL]
    assert len(result.left) == 2
    assert set(result.left) == {trial.plan for trial in result.trials if trial.steps == 2} - {ORIGINAL}
    assert set(result.front) <= set(result.left)
    last = [result.last[name] for name in result.front]
    assert [one.parameters for one in last] == sorted(one.parameters for one in last)
    assert result.last[ORIGINAL].parameters == 1
    assert all(0 < trial.parameters < 1 for trial in result.trials if trial.plan != ORIGINAL)
    assert len(lines) == len(result.trials) == 7
    assert (place / "models" / f"{result.left[0]}-2" / "treatment.json").exists()
    assert Search.load(place) == result
    assert Plan.load(place / "plans" / "head.toml").treatments == PLANS["head"].treatments


def test_a_search_goes_on_where_it_stopped(found, model, monkeypatch, tmp_path):
    result, place, _ = found

    def stop(*_, **__):
        raise AssertionError("nothing is to be trained again")

    monkeypatch.setattr(searching, "finetune", stop)
    again = searching.search(model, None, DEV, SPEECH, place, plans=PLANS, exam=EXAM, **QUICK)
    assert again.trials == result.trials
    assert again.front == result.front
    with pytest.raises(PlanError, match="was begun with another budget"):
        searching.search(model, None, DEV, SPEECH, place, plans=PLANS, budget=0.5, **QUICK)
    fewer = replace(SPEECH, utterances=SPEECH.utterances[1:])
    with pytest.raises(PlanError, match="was begun with another train_fingerprint"):
        searching.search(model, None, DEV, fewer, place, plans=PLANS, **QUICK)
    with pytest.raises(PlanError, match="was begun with another skip_bad"):
        searching.search(model, None, DEV, SPEECH, place, plans=PLANS, skip_bad=True, **QUICK)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(PlanError, match=r"holds notes\.txt, and no search"):
        searching.search(model, None, DEV, SPEECH, tmp_path, plans=PLANS, **QUICK)


def test_an_interrupted_search_keeps_what_it_has(model, monkeypatch, tmp_path):
    done = []

    def broken(_, __, folder, **___):
        done.append(folder)
        raise KeyboardInterrupt

    monkeypatch.setattr(searching, "finetune", broken)
    with pytest.raises(KeyboardInterrupt):
        searching.search(model, None, DEV, SPEECH, tmp_path / "s", plans=PLANS, **QUICK)
    assert len(done) == 1
    assert sorted(one.name for one in (tmp_path / "s" / "trials").iterdir()) == [f"{n}-0.json" for n in sorted(PLANS)]
    with pytest.raises(PlanError, match="holds no search"):
        Search.load(tmp_path / "s")


@pytest.mark.parametrize("full", [0, 3, 5, 30_000], ids=["settings", "first trial", "later trial", "model"])
def test_a_full_disk_is_told_speaks_against_no_plan_and_the_search_goes_on(found, full, model, monkeypatch, tmp_path):
    written = []

    def write(path, told):
        if len(written) >= full:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(path)
        plans_search.write_json(path, told)

    with monkeypatch.context() as patch, contextlib.ExitStack() as stack:
        if full > 100:
            stack.enter_context(largest_file(full))
        else:
            patch.setattr(searching, "write_json", write)
        with pytest.raises(PlanError, match="cannot go on: .*(No space left|too large)") as error:
            searching.search(model, None, DEV, SPEECH, tmp_path / "s", plans=PLANS, **QUICK)
        assert "the same command" in error.value.cure
    result = searching.search(model, None, DEV, SPEECH, tmp_path / "s", plans=PLANS, **QUICK)
    assert not result.failed
    assert result.front == found[0].front
    place = tmp_path / "file"
    place.write_text("mine")
    with pytest.raises(PlanError, match="cannot go on: .*exists"):
        searching.search(model, None, DEV, SPEECH, place, plans=PLANS, **QUICK)


def test_plans_above_the_budget_are_out_with_the_reason(model, tmp_path):
    sizes = {}
    for name, plan in PLANS.items():
        one = searching.search(model, None, DEV, SPEECH, tmp_path / name, plans={name: plan}, **QUICK | {"steps": (0,)})
        sizes[name] = one.last[name].parameters
    budget = (sorted(sizes.values())[0] + sorted(sizes.values())[1]) / 2
    found = searching.search(
        model, None, DEV, SPEECH, tmp_path / "all", plans=PLANS, budget=budget, **QUICK | {"steps": (0,)}
    )
    assert found.left == (min(sizes, key=sizes.get),)
    assert all("above the budget" in reason for reason in found.failed.values())
    assert len(found.failed) == 2
    with pytest.raises(PlanError, match="No plan went through the search"):
        searching.search(model, None, DEV, SPEECH, tmp_path / "none", plans=PLANS, budget=0.01, **QUICK)


def test_time_may_be_the_cost(model, tmp_path):
    two = {name: PLANS[name] for name in ("layer", "head")}
    found = searching.search(model, None, DEV, SPEECH, tmp_path, "speed", plans=two, **QUICK | {"steps": (0,)})
    assert found.cost == "time"
    assert all(trial.time > 0 for trial in found.trials)
    assert found.cost_of(found.last["layer"]) == found.last["layer"].time


def test_what_is_timed_is_of_all_lengths(model, tmp_path):
    speech = Corpus.from_arrays([np.zeros(800 * k, np.float32) for k in range(1, 12)], name="lengths")
    runner = searching._Runner(model, speech, speech, tmp_path, "time", None, settings(), False, None)
    assert [len(one) // 800 for one in runner._timed] == [1, 3, 5, 7, 9, 11]


@pytest.mark.parametrize(
    ("dev", "train", "exam", "told"),
    [
        (DEV, SPEECH, DEV, "The development and the examination speech share an utterance: Utterance 'd-"),
        (DEV, SPEECH, named(SPEECH, "x-", "other"), r"The training and the examination speech share .*\(as 'x-"),
        (named(SPEECH, "x-", "other"), SPEECH, None, "The training and the development speech share"),
        (
            DEV, SPEECH, replace(EXAM, utterances=tuple(replace(u, speaker=DEV[0].speaker) for u in EXAM)),
            "The speaker 'd-.*' is in the development and in the examination speech",
        ),
    ],
)  # fmt: skip
def test_the_examination_is_never_touched(dev, train, exam, told, tmp_path):
    with pytest.raises(PlanError, match=told):
        searching.search("no model is loaded for it", None, dev, train, tmp_path / "s", plans=PLANS, exam=exam, **QUICK)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("where", ["dev", "train"])
def test_embedded_speech_is_for_examination(where, tmp_path):
    given = {"dev": DEV, "train": SPEECH, where: "embedded"}
    with pytest.raises(TrainingError, match="for examination"):
        searching.search("x", None, output=tmp_path / "s", plans=PLANS, **given, **QUICK)


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        ({"goal": "training-cost"}, "no goal 'training-cost'"),
        ({"cost": "money"}, "no cost 'money'"),
        ({"budget": 0.0}, "budget is 0"),
        ({"budget": float("inf")}, "budget is inf"),
        ({"steps": (60, 0)}, "do not rise"),
        ({"steps": ()}, "do not rise"),
        ({"dev_seconds": "2h"}, r"development speech dev cannot be parted: A subset of 2.00 h cannot be taken"),
        ({"plans": {}}, "nothing to be tried"),
        ({"plans": None}, "neither a diagnosis nor a plan"),
        ({"plans": {"../x": PLANS["head"]}}, "cannot be called"),
        ({"plans": {ORIGINAL: PLANS["head"]}}, "cannot be called"),
        ({"plans": {"x": Plan((Line(RemoveBlocks("layer.7")),))}}, "The plan x cannot be carried out"),
    ],
)
def test_what_means_nothing_is_refused(model, choice, told, tmp_path):
    with pytest.raises(PlanError, match=told):
        searching.search(model, None, DEV, SPEECH, tmp_path / "s", **{"plans": PLANS, **QUICK, **choice})


def test_candidates_are_distinct_and_grow_from_the_strictest_on(monkeypatch):
    lines = [Line(PruneHeads(f"layer.{k}.head.0")) for k in range(1, 9)]

    def prescribe(_, goal, **limits):
        return Plan(tuple(lines[: {0.0: 0, 1.0: 2, 2.0: 2, 4.0: 8}[limits["margin"]]]), goal)

    monkeypatch.setattr(plans_search, "prescribe", prescribe)
    levels = [{"margin": margin} for margin in (0.0, 1.0, 2.0, 4.0)]
    found = candidates(object.__new__(searching.Diagnosis), "size", levels)
    assert {name: len(plan.lines) for name, plan in found.items()} == {
        "level-2": 2, "level-4": 8, "level-4-first-6": 6, "level-4-first-4": 4,
    }  # fmt: skip


def test_a_trial_that_cannot_be_read_is_told(found):
    _, place, _ = found
    path = next((place / "trials").iterdir())
    kept = path.read_text()
    path.write_text("{")
    with pytest.raises(PlanError, match="cannot be read"):
        searching._kept_trial(path)
    path.write_text(kept)
    assert json.loads(kept)["plan"]
