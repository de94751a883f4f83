"""The outcome of a change: what it says of its interval, and that it is stored whole or not at all."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from otoscope.errors import EvaluationError, ResultError
from otoscope.evaluation.bootstrap import Estimate
from otoscope.evaluation.cost import Cost
from otoscope.evaluation.invariance import Invariance
from otoscope.evaluation.outcome import Change, Heard, Outcome, SpeakerChange, speaker_changes
from otoscope.evaluation.paired import Difference
from otoscope.evaluation.seeds import SeedParts
from otoscope.evaluation.timing import TimeComparison


def difference(value=-0.01, low=-0.02, high=-0.001, **other):
    settings = {
        "metric": "wer", "unit": "errors per word", "higher_is_better": False, "before": 0.2, "after": 0.2 + value,
        "value": value, "low": low, "high": high, "level": 0.95, "probability_of_improvement": 0.98, "blocks": 9,
        "by": "speaker", "utterances": 40, "draws": 1000, "seed": 0,
    }  # fmt: skip
    return Difference(**{**settings, **other})


def change(seeds=None, **ends):
    one = difference(**ends)
    estimates = [Estimate(value, value - 0.03, value + 0.03, 0.95, 9, "speaker") for value in (one.before, one.after)]
    speakers = (
        SpeakerChange("anna", 20, 0.3, 0.2),
        SpeakerChange("<b>", 20, 0.1, None),
        SpeakerChange("cy", 3, 0.1, 0.18),
    )
    return Change(
        one, estimates[0], estimates[1], ((one.before,), (one.after,)), {"substitutions": (30.0, 24.5)}, speakers, seeds
    )


def outcome(**other):
    cost = {"bytes_float16": 8, "peak_seconds": 10.0, "device": "cpu", "head_macs_per_second": 3}
    settings = {
        "changes": {"wer": change()},
        "costs": {
            "before": Cost(4_000_000, 300_000_000, 16_000_000, peak_bytes=32_000_000, **cost),
            "after": Cost(3_000_000, 200_000_000, 12_000_000, peak_bytes=30_000_000, **cost),
        },
        "time": TimeComparison((1.0,) * 6, (0.75,) * 6, 0.75, 0.75, 0.75, 0.96875, 20.0, 1, "cpu"),
        "invariance": {side: Invariance(True, 1e-6, {}, 8, 1e-3, "otoscope") for side in ("before", "after")},
        "heard": (
            Heard("a-1", "anna", "the cat sat", "the cat sat down", "the cat sat", 1, 0),
            Heard("b-1", None, "it <rained> & \"poured\"", "it rained", "", 2, 4),
        ),
        "provenance": {
            "before": [{"name": "original", "path": "models/original", "fingerprint": "a", "parameters": 4_000_000}],
            "after": [{"name": "pruned", "path": "models/pruned", "fingerprint": "b", "parameters": 3_000_000}],
            "corpus": {"name": "exam", "utterances": 40, "seconds": 300.0, "speakers": 9, "fingerprint": "c", "left_out": []},
            "decoder": {"kind": "greedy"}, "batches": "30 s", "notes": [], "seed": 0, "versions": {"otoscope": "1"},
            "command": "otoscope verify",
        },
    }  # fmt: skip
    return Outcome(**{**settings, **other})


def test_the_verdict_is_that_of_the_interval():
    assert change().verdict == "better"
    assert change(value=0.01, low=0.002, high=0.02).verdict == "worse"
    assert change(low=-0.02, high=0.001).verdict == "not told apart"
    assert change(value=0.01, low=0.002, high=0.02, higher_is_better=True).verdict == "better"
    assert change(value=0.0, low=math.nan, high=math.nan).verdict == "not told apart"


def test_worse_by_less_than_a_margin():
    loss = change(value=0.004, low=-0.002, high=0.009)
    assert loss.worse_by_less_than(0.01)
    assert not loss.worse_by_less_than(0.009)
    accuracy = change(value=-0.004, low=-0.012, high=0.009, higher_is_better=True)
    assert not accuracy.worse_by_less_than(0.01)
    assert accuracy.worse_by_less_than(0.013)
    assert not change(low=math.nan, high=math.nan).worse_by_less_than(1.0)
    with pytest.raises(EvaluationError, match="above zero"):
        loss.worse_by_less_than(0.0)


def test_saved_and_read_it_is_the_same(tmp_path):
    whole = outcome(
        changes={
            "wer": change(SeedParts(3, 3, True, 1e-5, 2e-5, 3e-6, 0.01, 4.2)),
            "cer": change(SeedParts(1, 3, False, 0.0, 0.0, 0.0, 0.0, math.inf), low=math.nan, high=math.nan),
        },
        invariance={"after": Invariance(False, math.inf, {"a-1": ("cat", "cats")}, 8, 1e-3, "otoscope")},
    )
    path = whole.save(tmp_path / "deep" / "outcome.json")
    assert [one.name for one in path.parent.iterdir()] == ["outcome.json"]
    json.loads(path.read_text(), parse_constant=pytest.fail)  # no NaN and no infinity
    read = Outcome.load(path)
    assert read.to_dict() == whole.to_dict()
    assert math.isnan(read.changes["cer"].difference.low)
    assert read.changes["wer"] == whole.changes["wer"]
    assert read.time == whole.time
    assert read.invariance == whole.invariance
    assert read.heard == whole.heard
    bare = outcome(costs={}, time=None, heard=())
    assert Outcome.load(bare.save(path)).to_dict() == bare.to_dict()
    assert bare.savings == []


def test_what_a_broken_write_leaves(tmp_path, monkeypatch):
    path = outcome().save(tmp_path / "outcome.json")
    before = path.read_text()

    def full(self, *_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(ResultError, match="No space left"):
        outcome(time=None).save(path)
    assert path.read_text() == before
    assert [one.name for one in tmp_path.iterdir()] == ["outcome.json"]


def test_what_is_no_outcome_is_refused(tmp_path):
    for text in ("", "{}", '{"format": 2}', '{"format": 1, "metrics": {"wer": {}}}', "[1]"):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(ResultError, match=r"x\.json holds no outcome"):
            Outcome.load(tmp_path / "x.json")
    with pytest.raises(ResultError, match="holds no outcome"):
        Outcome.load(tmp_path / "absent.json")
    with pytest.raises(ResultError, match="is no file"):
        outcome().save(tmp_path)


def test_it_prints_as_a_table():
    told = str(outcome())
    for line in (
        "original -> pruned",
        "wer      0.2000 [0.1700, 0.2300] -> 0.1900 [0.1600, 0.2200]  errors per word",
        "-0.0100 [-0.0200, -0.0010] (95% over 9 speakers), better with probability 0.980: better",
        "30 -> 24.5 substitutions",
        "anna       0.3000    0.2000   -0.1000",
        "parameters                    4 M -> 3 M       -25.0%",
        "real-time factor             0.05 -> 0.0375    -25.0%",
        "time x 0.750",
    ):
        assert line in told, told
    assert "<b>" not in told  # a speaker without words after has no change


def test_speakers_of_several_models_are_averaged():
    rows = [{"speaker": "p", "utterances": 2, "value": value} for value in (0.2, 0.4)]
    unknown = {"speaker": None, "utterances": 1, "value": 0.9}
    empty = {"speaker": "q", "utterances": 1, "value": None}
    found = speaker_changes([[*rows, unknown], [rows[0], empty]])
    assert [one.speaker for one in found] == ["p", "q"]
    assert (found[0].before, found[0].after) == (pytest.approx(0.3), 0.2)
    assert (found[1].before, found[1].after) == (None, None)


def test_savings_leave_out_what_is_not_counted():
    one = outcome()
    lost = {side: Cost(**{**cost.to_dict(), "macs_per_second": None}) for side, cost in one.costs.items()}
    names = [name for name, *_ in outcome(costs=lost).savings]
    assert names == ["parameters", "bytes in float32", "peak bytes at work", "real-time factor"]
    assert dict((name, pair) for name, *pair in one.savings)["real-time factor"] == pytest.approx([0.05, 0.0375])  # noqa: C402
    assert np.isfinite([value for _, *pair in one.savings for value in pair]).all()
