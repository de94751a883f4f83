"""A disk that fills up, or a program that is killed, at every point of a run: nothing half-written loads, and it goes on."""

import contextlib
import resource
import shutil
from dataclasses import replace

import pytest

from otoscope.errors import CheckpointError, TrainingError
from otoscope.models.loading import load
from otoscope.training import folders, loop
from otoscope.training.folders import put_model
from otoscope.training.loop import train
from otoscope.treatments import PruneHeads, RemoveBlocks
from tests.training.small_ctc import HELD, QUICK, TRAIN, tiny_ctc
from tests.training.small_training import same, tree

RUN = replace(QUICK, steps=4, evaluate_every=4, keep=(3,), patience=2)
FULL = 60_000  # bytes that a file may have: fewer than the model's


@contextlib.contextmanager
def full_disk():
    """No file can grow beyond a size that no file of weights keeps to; the system itself refuses."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (FULL, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class Filling:
    """A disk that is full from a line of the log on."""

    def __init__(self, step, held_out=False):
        self.step, self.held_out, self.stack = step, held_out, contextlib.ExitStack()

    def __call__(self, row):
        if row["step"] == self.step and ("held_out" in row) == self.held_out:
            self.stack.enter_context(full_disk())


def loadable(folder):
    """The models that a folder and those in it give."""
    found = set()
    for place in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        with contextlib.suppress(CheckpointError):
            load(place)
            found.add(place.name if place != folder else ".")
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "m"
    train(tiny_ctc(), TRAIN, HELD, RUN, folder)
    return folder


@pytest.mark.parametrize(
    ("step", "held_out", "there"),
    [(0, False, set()), (1, False, {"initial"}), (3, False, {"initial", "step-3"}), (4, True, {"initial", "step-3"})],
    ids=["from the start", "before the first state", "between states", "before the last state"],
)
def test_a_full_disk_is_named_and_leaves_whole_models_alone(step, held_out, there, whole, tmp_path):
    filling = Filling(step, held_out)
    if step == 0:
        filling.stack.enter_context(full_disk())
    with filling.stack, pytest.raises(TrainingError, match="cannot be written .*too large") as error:
        train(tiny_ctc(), TRAIN, HELD, RUN, tmp_path, report=filling)
    assert "--resume" in error.value.cure
    assert loadable(tmp_path) == there
    assert not list(tmp_path.rglob(".partial-*"))
    train(tiny_ctc(), TRAIN, HELD, RUN, tmp_path, resume=True)
    assert loadable(tmp_path) == {".", "initial", "step-3"}
    assert same(tmp_path, whole)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("goal", "treatments"),
    [("initial", ()), ("step-3", (PruneHeads("layer.1.head.0"),)), (".", (RemoveBlocks("layer.1"),)), (".", ())],
    ids=["initial", "on the way, treated", "at the end, treated", "at the end"],
)
def test_a_model_that_does_not_fit_is_not_there(goal, treatments, tmp_path, monkeypatch):
    run, put = replace(RUN, save_every=4), loop.put_model

    def filling(write, folder):
        with full_disk() if folder == tmp_path / goal else contextlib.nullcontext():
            put(write, folder)

    monkeypatch.setattr(loop, "put_model", filling)
    monkeypatch.setattr("otoscope.training.watch.put_model", filling)
    with pytest.raises(TrainingError, match="cannot be written"):
        train(tiny_ctc(treatments=treatments), TRAIN, HELD, run, tmp_path)
    assert loadable(tmp_path) == {"initial": set(), "step-3": {"initial"}, ".": {"initial", "step-3"}}[goal]
    monkeypatch.undo()
    train(tiny_ctc(treatments=treatments), TRAIN, HELD, run, tmp_path, resume=True)
    assert loadable(tmp_path) == {".", "initial", "step-3"}


def test_other_errors_of_the_system_stay_what_they_are(tmp_path):
    def report(row):
        raise OSError("something else")

    with pytest.raises(OSError, match="something else"):
        train(tiny_ctc(), TRAIN, HELD, RUN, tmp_path, report=report)


@pytest.mark.parametrize("moved", range(4))
def test_a_program_that_is_killed_while_files_are_moved_leaves_no_model(moved, whole, tmp_path, monkeypatch):
    """Files of the final model are moved one by one; what was there before the last of them does not load."""
    count, replace_file = 0, folders.os.replace

    def killed(here, there):
        nonlocal count
        if count == moved:
            raise KeyboardInterrupt
        count += 1
        replace_file(here, there)

    def write(folder):
        for path in whole.iterdir():
            if path.is_file():
                shutil.copy(path, folder)

    monkeypatch.setattr(folders.os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        put_model(write, tmp_path)
    monkeypatch.undo()
    assert len(tree(tmp_path)) == moved
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        load(tmp_path)
    (tmp_path / ".partial-left").mkdir()
    (tmp_path / ".partial-left" / "model.safetensors").write_bytes(b"half")
    put_model(write, tmp_path)
    assert same(tmp_path, whole)
    assert not list(tmp_path.glob(".partial-*"))
