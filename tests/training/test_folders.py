"""A run's folder: what is taken up, what is refused, and models that are whole or not there."""

import json

import pytest

from otoscope.errors import TrainingError
from otoscope.training import folders
from otoscope.training.folders import (
    RUN,
    SETTINGS,
    alone,
    check_folder,
    last_state,
    open_run,
    put_model,
    replace_text,
    without_bars,
)
from tests.training.small_training import tree

SETTINGS_HERE = {"steps": 10, "keep": [3], "augmentation": {"snr": (8.0, 35.0)}}


def _state(folder, step, text='{"global_step": 1}'):
    place = folder / RUN / f"checkpoint-{step}"
    place.mkdir(parents=True)
    (place / "model.safetensors").write_bytes(b"weights")
    if text is not None:
        (place / "trainer_state.json").write_text(text)
    return place


def test_a_new_run_is_opened_and_taken_up_with_the_same_settings(tmp_path):
    folder = tmp_path / "a" / "b"
    assert open_run(folder, SETTINGS_HERE, resume=False) is None
    assert json.loads((folder / RUN / SETTINGS).read_text())["steps"] == 10
    assert open_run(folder, SETTINGS_HERE, resume=True) is None
    state = _state(folder, 4)
    assert open_run(folder, SETTINGS_HERE, resume=True) == state


def test_resume_begins_where_there_is_nothing_yet(tmp_path):
    assert open_run(tmp_path / "new", SETTINGS_HERE, resume=True) is None


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("half", [False, True])
def test_a_run_that_was_killed_before_its_settings_were_written_begins(tmp_path, half, resume):
    (tmp_path / RUN).mkdir()
    if half:
        (tmp_path / RUN / f".{SETTINGS}.partial").write_text('{"steps"')
    check_folder(tmp_path, resume)
    assert open_run(tmp_path, SETTINGS_HERE, resume) is None
    assert [path.name for path in (tmp_path / RUN).iterdir()] == [SETTINGS]


@pytest.mark.parametrize("name", [f"{RUN}/x", "x"])
def test_what_is_no_runs_is_not_begun_beside(tmp_path, name):
    (tmp_path / RUN).mkdir()
    (tmp_path / name).write_text("mine")
    with pytest.raises(TrainingError, match="is not empty and holds no training run"):
        check_folder(tmp_path, resume=False)


@pytest.mark.parametrize(
    ("other", "named"),
    [({"steps": 12}, "steps = 10, not 12"), ({"keep": []}, r"keep = \[3\], not \[\]"),
     ({"augmentation": {"snr": (8.0, 30.0)}}, "augmentation"), ({"dev": "x"}, "dev = None, not 'x'")],
)  # fmt: skip
def test_other_settings_are_refused_by_name(tmp_path, other, named):
    open_run(tmp_path, SETTINGS_HERE, resume=False)
    before = tree(tmp_path)
    with pytest.raises(TrainingError, match=named):
        open_run(tmp_path, {**SETTINGS_HERE, **other}, resume=True)
    assert tree(tmp_path) == before


def test_the_seed_is_named_before_the_speech_that_follows_from_it(tmp_path):
    open_run(tmp_path, {"held_out": "a", "seed": 0, "speech": "b"}, resume=False)
    with pytest.raises(TrainingError, match="seed = 0, not 1"):
        open_run(tmp_path, {"held_out": "c", "seed": 1, "speech": "d"}, resume=True)
    with pytest.raises(TrainingError, match="held_out = 'a', not 'c'"):
        open_run(tmp_path, {"held_out": "c", "seed": 0, "speech": "d"}, resume=True)


def test_an_interrupted_run_is_not_begun_anew_unasked(tmp_path):
    open_run(tmp_path, SETTINGS_HERE, resume=False)
    with pytest.raises(TrainingError, match="interrupted") as error:
        open_run(tmp_path, SETTINGS_HERE, resume=False)
    assert "--resume" in error.value.cure


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize(
    ("files", "told"),
    [(["config.json", "model.safetensors"], None), (["notes.txt"], "holds no training run"),
     ([f"{RUN}/{SETTINGS}", "config.json"], "holds a model already")],
)  # fmt: skip
def test_folders_with_something_in_them_are_refused_and_untouched(tmp_path, files, told, resume):
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    before = tree(tmp_path)
    with pytest.raises(TrainingError, match=told or "holds (a model already|no training run)"):
        open_run(tmp_path, SETTINGS_HERE, resume)
    assert tree(tmp_path) == before


def test_a_file_where_the_folder_should_be_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(TrainingError):
        open_run(tmp_path / "file", SETTINGS_HERE, resume=False)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(TrainingError, match="cannot be written"):
        open_run(tmp_path / "file" / "run", SETTINGS_HERE, resume=False)


def test_another_run_is_kept_out(tmp_path):
    with alone(tmp_path), pytest.raises(TrainingError, match="Another process trains in"), alone(tmp_path):
        pass
    with alone(tmp_path):
        assert tree(tmp_path) == {}


def test_a_folder_is_checked_without_being_touched(tmp_path, monkeypatch):
    check_folder(tmp_path / "new", resume=False)
    open_run(tmp_path / "run", SETTINGS_HERE, resume=False)
    check_folder(tmp_path / "run", resume=True)
    (tmp_path / "empty").mkdir()
    before = tree(tmp_path)
    for name, resume, told in (
        ("run", False, "interrupted"),
        (".", False, "not empty"),
        ("empty", True, "no training"),
    ):
        with pytest.raises(TrainingError, match=told):
            check_folder(tmp_path / name, resume)
    with alone(tmp_path / "run"), pytest.raises(TrainingError, match="Another process trains in"):
        check_folder(tmp_path / "run", resume=False)
    monkeypatch.setenv("RANK", "1")
    check_folder(tmp_path / "run", resume=False)  # the first process may have made it
    assert tree(tmp_path) == before
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("shown", [True, False])
def test_the_librarys_bars_are_off_within_and_as_they_were_after(shown, monkeypatch):
    from transformers.utils import logging

    monkeypatch.setattr(logging, "_tqdm_active", shown)

    @without_bars()
    def interrupted():
        assert not logging.is_progress_bar_enabled()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert logging.is_progress_bar_enabled() is shown


def test_settings_that_cannot_be_read_are_named(tmp_path):
    open_run(tmp_path, SETTINGS_HERE, resume=False)
    (tmp_path / RUN / SETTINGS).write_text('{"steps"')
    with pytest.raises(TrainingError, match=SETTINGS):
        open_run(tmp_path, SETTINGS_HERE, resume=True)


def test_the_last_whole_state_counts_by_number_and_half_ones_are_removed(tmp_path):
    _state(tmp_path, 80)
    wanted = _state(tmp_path, 100)
    half = [_state(tmp_path, 120, None), _state(tmp_path, 140, '{"global_st'), _state(tmp_path, 160, "")]
    (tmp_path / RUN / "checkpoint-mine").mkdir()
    assert last_state(tmp_path) == wanted
    assert not any(path.exists() for path in half)
    assert (tmp_path / RUN / "checkpoint-mine").exists()


def test_no_state_at_all(tmp_path):
    assert last_state(tmp_path) is None


def _write(folder):
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")


def test_a_model_is_put_beside_what_is_there(tmp_path):
    (tmp_path / RUN).mkdir()
    (tmp_path / RUN / "log.jsonl").write_text("kept")
    put_model(_write, tmp_path)
    assert set(tree(tmp_path)) == {"config.json", "model.safetensors", f"{RUN}/log.jsonl"}


def test_a_model_that_cannot_be_written_leaves_nothing(tmp_path):
    def broken(folder):
        _write(folder)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        put_model(broken, tmp_path / "new")
    assert tree(tmp_path) == {}


def test_the_configuration_comes_last(tmp_path, monkeypatch):
    moved = []
    monkeypatch.setattr(folders.os, "replace", lambda a, b: moved.append(b.name))
    put_model(_write, tmp_path)
    assert moved == ["model.safetensors", "config.json"]


def test_text_is_replaced_whole(tmp_path):
    replace_text(tmp_path / "log", "one")
    replace_text(tmp_path / "log", "two")
    assert tree(tmp_path) == {"log": b"two"}
