import json

import pytest

from otoscope.errors import FederationError
from otoscope.federation.result import RESULT, FederationResult, RoundRow

ROWS = (
    RoundRow(1, ("ann", "bob"), {"cleo": "it died"}, 2.5, 2**20, 2**19, 0.5, 1000, 1.5, {"wer": 0.5, "cer": 0.2}, 1.25),
    RoundRow(2, ("ann",), {}, 2.0, 2**20, 2**19, 0.5, None, 1.0),
    RoundRow(3, ("ann",), {}, 1.5, 2**20, 2**19, 0.5, None, 1.0, {"wer": 0.25, "cer": 0.1}),
)
RESULT_OF = FederationResult(
    "tiny", ("ann", "bob", "cleo"), "local", {"layer.1.attention": 0.5}, {"rounds": 3}, {"wer": 1.0, "cer": 0.75}, ROWS
)


def test_a_result_comes_back_from_its_file(tmp_path):
    for one in (RESULT_OF, RESULT_OF.ended(), RESULT_OF.ended("all clients failed")):
        path = one.save(tmp_path / "new")
        assert path.name == RESULT
        assert FederationResult.load(tmp_path / "new") == one
    assert [path.name for path in (tmp_path / "new").iterdir()] == [RESULT]


def test_status_says_how_it_ended():
    assert (RESULT_OF.status, RESULT_OF.reason) == ("running", "")
    assert (RESULT_OF.ended().status, RESULT_OF.ended().reason) == ("completed", "")
    failed = RESULT_OF.ended("all clients failed")
    assert (failed.status, failed.reason) == ("failed", "all clients failed")
    with pytest.raises(FederationError, match="no status"):
        FederationResult("tiny", (), "local", {}, {}, status="fine")


def test_curves_have_what_was_evaluated():
    assert RESULT_OF.curve("wer") == [(0, 1.0), (1, 0.5), (3, 0.25)]
    assert RESULT_OF.last == {"wer": 0.25, "cer": 0.1}
    assert FederationResult("tiny", (), "local", {}, {}, {"wer": 1.0}, ROWS[1:2]).last == {"wer": 1.0}


def test_they_print():
    assert str(ROWS[0]) == (
        "round    1  2 clients, 1 failed  loss 2.500  wer 0.500  cer 0.200  down 1.00 MiB  up 0.50 MiB  share 0.50  "
        "1.5 s  epsilon 1.25"
    )
    assert str(RESULT_OF.ended()) == (
        "tiny, 3 clients, 3 rounds (local), completed; on held-out speech: wer 0.250, cer 0.100 (before: wer 1.000, "
        "cer 0.750)"
    )
    assert "failed: no room" in str(RESULT_OF.ended("no room"))


def test_numbers_that_are_none_are_not_written(tmp_path):
    RESULT_OF.save(tmp_path)
    before = (tmp_path / RESULT).read_text()
    with pytest.raises(ValueError, match="JSON"):
        RESULT_OF.with_row(RoundRow(4, (), {}, float("nan"), 0, 0, 0, None, 0)).save(tmp_path)
    assert (tmp_path / RESULT).read_text() == before


def test_files_that_are_no_results_are_refused(tmp_path):
    (tmp_path / RESULT).write_text("[]")
    with pytest.raises(FederationError, match="no result"):
        FederationResult.load(tmp_path)
    (tmp_path / RESULT).unlink()
    with pytest.raises(FederationError, match="no result"):
        FederationResult.load(tmp_path)
    (tmp_path / RESULT).write_text(json.dumps({"format": 1}))
    with pytest.raises(FederationError, match="no result"):
        FederationResult.load(tmp_path)
    (tmp_path / RESULT).write_text(json.dumps({"format": 99}))
    with pytest.raises(FederationError, match="format 99, not 1"):
        FederationResult.load(tmp_path)


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FederationError, match="cannot be written"):
        RESULT_OF.save(tmp_path / "file")
