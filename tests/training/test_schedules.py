"""An early end, the weights that are kept, and the step at which an encoder is opened."""

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from otoscope.errors import TrainingError
from otoscope.training.ctc import CtcSettings
from otoscope.training.loop import train
from otoscope.training.schedules import best_step, is_over
from tests.training.small_ctc import HELD, QUICK, TRAIN, tiny_ctc
from tests.training.small_training import same, settings, stopping_at, weights
from tests.training.test_ctc import _batch, _ctc


@given(st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4]), max_size=12), st.integers(0, 4))
def test_a_run_is_over_after_so_many_evaluations_without_a_lower_figure(figures, patience):
    best, waited, over = None, 0, False
    for figure in figures:  # as a loop would count
        if best is None or figure < best:
            best, waited = figure, 0
        else:
            waited += 1
        over = bool(patience) and waited >= patience
    given = {10 * (k + 1): figure for k, figure in enumerate(figures)}
    assert is_over(given, patience) is over
    if figures:
        assert best_step(given) == 10 * (figures.index(min(figures)) + 1)


def test_a_run_without_evaluations_has_no_best_step():
    with pytest.raises(TrainingError, match="never evaluated"):
        best_step({})


class _Scripted:
    """Figures of an objective as they are written down, whatever its weights."""

    def __init__(self, figures):
        self.left = dict(figures)

    def attach(self, made):
        steps = iter(sorted(self.left))
        made.held_out = lambda utterances: {"wer": self.left[next(steps)], "cer": 0.0}
        return made


def _scripted(figures, given=None):
    return _Scripted(figures).attach(tiny_ctc(given))


def _steps(folder):
    rows = [json.loads(line) for line in (folder / "run" / "log.jsonl").read_text().splitlines()]
    return [row["step"] for row in rows if "held_out" in row], max(row["step"] for row in rows)


FIGURES = {2: 0.9, 4: 0.5, 6: 0.7, 8: 0.5, 10: 0.1, 12: 0.0}
PATIENT = replace(QUICK, steps=12, patience=2, keep=(4,))


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stopped") / "m"
    return folder, train(_scripted(FIGURES), TRAIN, HELD, PATIENT, folder)


def test_a_run_that_stands_still_ends_with_its_best_weights(stopped):
    folder, found = stopped
    assert (found.step, found.held_out["wer"]) == (4, 0.5)
    assert _steps(folder) == ([2, 4, 6, 8], 8)
    assert same(folder, folder / "step-4")
    assert {path.name for path in (folder / "run").iterdir()} == {"log.jsonl", "settings.json"}


def test_a_run_that_is_not_stopped_keeps_its_best_weights_too(tmp_path):
    figures = {2: 0.9, 4: 0.2, 6: 0.3}
    found = train(_scripted(figures), TRAIN, HELD, replace(QUICK, patience=5, keep=(4,)), tmp_path)
    assert found.step == 4
    assert same(tmp_path, tmp_path / "step-4")


def test_without_patience_the_last_weights_are_kept(tmp_path):
    figures = {2: 0.1, 4: 0.2, 6: 0.3}
    found = train(_scripted(figures), TRAIN, HELD, replace(QUICK, keep=(2,)), tmp_path)
    assert (found.step, found.held_out["wer"]) == (6, 0.3)
    assert not same(tmp_path, tmp_path / "step-2")


@pytest.mark.parametrize("at", [5, 8])
def test_an_interrupted_run_stops_at_the_same_step_with_the_same_weights(at, stopped, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(_scripted(FIGURES), TRAIN, HELD, PATIENT, tmp_path, report=stopping_at(at))
    done = (at - 1) // 2 * 2  # the last step with a state
    later = {step: figure for step, figure in FIGURES.items() if step > done}
    found = train(_scripted(later), TRAIN, HELD, PATIENT, tmp_path, resume=True)
    assert found == stopped[1]
    assert same(tmp_path, stopped[0])
    assert _steps(tmp_path) == _steps(stopped[0])


def test_a_run_that_was_over_is_not_gone_on_with(stopped, tmp_path, monkeypatch):
    """Interrupted between its last state and the model: nothing is trained any more."""
    from otoscope.training import loop

    put = loop.put_model
    monkeypatch.setattr(
        loop,
        "put_model",
        lambda write, folder: put(write, folder) if folder != tmp_path else stopping_at(0)({"step": 0}),
    )
    with pytest.raises(KeyboardInterrupt):
        train(_scripted(FIGURES), TRAIN, HELD, PATIENT, tmp_path)
    monkeypatch.setattr(loop, "put_model", put)
    assert (tmp_path / "run" / "checkpoint-8").is_dir()
    found = train(_scripted({}), TRAIN, HELD, PATIENT, tmp_path, resume=True)
    assert found == stopped[1]
    assert same(tmp_path, stopped[0])


def test_best_weights_that_are_gone_are_missed(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(_scripted(FIGURES), TRAIN, HELD, PATIENT, tmp_path, report=stopping_at(7))
    (tmp_path / "run" / "best-4.safetensors").unlink()
    with pytest.raises(TrainingError, match="best weights cannot be read"):
        train(_scripted({8: 0.9}), TRAIN, HELD, PATIENT, tmp_path, resume=True)
    assert not (tmp_path / "config.json").exists()


def test_an_objective_without_such_a_figure_is_refused(tmp_path):
    made = tiny_ctc()
    made.judged_by = None
    with pytest.raises(TrainingError, match="no figure that a training can be stopped by"):
        train(made, TRAIN, HELD, replace(QUICK, patience=1), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def _moved(folder, one, other):
    """Whether the encoder and the head moved between two models of a run."""
    before, after = weights(folder / one), weights(folder / other if other else folder)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    return any(name.startswith("hubert.") for name in moved), "lm_head.weight" in moved


OPENED = replace(QUICK, steps=5, keep=(2, 3), save_every=1, evaluate_every=5)


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    folder = tmp_path_factory.mktemp("opened") / "m"
    train(tiny_ctc(CtcSettings(open_at=2)), TRAIN, HELD, OPENED, folder)
    return folder


def test_the_encoder_is_held_and_then_opened(opened):
    assert _moved(opened, "initial", "step-2") == (False, True)
    assert _moved(opened, "step-2", "step-3") == (True, True)
    convolutions = [name for name in weights(opened) if "feature_extractor" in name]
    assert all(torch.equal(weights(opened)[name], weights(opened / "initial")[name]) for name in convolutions)


@pytest.mark.parametrize("at", [2, 3])
def test_a_run_is_taken_up_before_at_and_after_the_opening(at, opened, tmp_path):
    made = CtcSettings(open_at=2)
    with pytest.raises(KeyboardInterrupt):
        train(tiny_ctc(made), TRAIN, HELD, OPENED, tmp_path, report=stopping_at(at))
    train(tiny_ctc(made), TRAIN, HELD, OPENED, tmp_path, resume=True)
    assert same(tmp_path, opened)


def test_a_head_that_stands_still_before_the_opening_does_not_end_the_run(tmp_path):
    figures = {2: 0.5, 4: 1.0, 6: 1.0, 8: 0.9, 10: 1.0, 12: 1.0}
    found = train(_scripted(figures, CtcSettings(open_at=5)), TRAIN, HELD, PATIENT, tmp_path)
    assert (found.step, found.held_out["wer"]) == (8, 0.9)
    assert _steps(tmp_path)[0] == [2, 4, 6, 8, 10, 12]


def test_held_statistics_of_batch_norms_stand_still():
    for open_at, still in ((1, True), (0, False)):
        made = _ctc("conformer-relative", CtcSettings(mask=0.0, open_at=open_at))
        made.model.config.layerdrop = 0.0
        norm = next(one for one in made.modules() if isinstance(one, torch.nn.BatchNorm1d))
        before = norm.running_mean.clone()
        made.begin_step(0)
        made.train()(torch.tensor(0.0), **_batch(made))
        assert torch.equal(norm.running_mean, before) is still
        made.begin_step(1)
        made.train()(torch.tensor(0.0), **_batch(made))
        assert not torch.equal(norm.running_mean, before)


def test_the_last_look_counts_whatever_the_interval(tmp_path):
    made = tiny_ctc()
    found = train(made, TRAIN, HELD, settings(steps=3, evaluate_every=100, patience=1), tmp_path)
    assert found.step == 3
    assert all(torch.equal(value, made.model.state_dict()[name]) for name, value in weights(tmp_path).items())
