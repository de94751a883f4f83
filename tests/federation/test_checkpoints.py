import pytest
import torch

from otoscope.errors import FederationError
from otoscope.federation.checkpoints import FACTS, TENSORS, keep_latest, load_checkpoint, save_checkpoint


def tensors(value):
    return {"state/a": torch.full((2, 3), float(value)), "update/mean/a": torch.arange(3.0)[None].expand(2, 3)}


def test_the_latest_state_comes_back_as_it_was(tmp_path):
    for done in (9, 10):
        save_checkpoint(tmp_path, done, tensors(done), {"rows": [{"round": done}]})
    done, found, facts = load_checkpoint(tmp_path)
    assert (done, facts) == (10, {"rows": [{"round": 10}]})
    assert {name: value.tolist() for name, value in found.items()} == {
        name: value.tolist() for name, value in tensors(10).items()
    }


def test_without_a_state_there_is_none(tmp_path):
    assert load_checkpoint(tmp_path) is None


@pytest.mark.parametrize("spoil", [TENSORS, FACTS])
def test_a_state_that_cannot_be_read_gives_way_to_the_one_before(tmp_path, spoil):
    for done in (1, 2):
        place = save_checkpoint(tmp_path, done, tensors(done), {})
    (place / spoil).write_bytes(b"{")
    assert load_checkpoint(tmp_path)[0] == 1
    (tmp_path / "run" / "round-1" / spoil).unlink()
    with pytest.raises(FederationError, match="No state in"):
        load_checkpoint(tmp_path)


def test_what_a_killed_program_left_is_no_state_and_goes(tmp_path):
    partial = tmp_path / "run" / ".partial-x"
    partial.mkdir(parents=True)
    (partial / FACTS).write_text('{"done": 5}')
    assert load_checkpoint(tmp_path) is None
    save_checkpoint(tmp_path, 1, tensors(1), {})
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["round-1"]


def test_a_state_is_replaced_by_one_of_the_same_round(tmp_path):
    for value in (1, 2):
        save_checkpoint(tmp_path, 3, tensors(value), {})
    assert float(load_checkpoint(tmp_path)[1]["state/a"][0, 0]) == 2.0


def test_only_the_latest_are_kept(tmp_path):
    for done in range(8, 12):
        save_checkpoint(tmp_path, done, tensors(done), {})
    keep_latest(tmp_path, 2)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["round-10", "round-11"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(FederationError, match="cannot be written"):
        save_checkpoint(tmp_path, 1, tensors(1), {})
