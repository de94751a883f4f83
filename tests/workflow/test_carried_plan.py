"""The plan of a treated model goes with it through further training, and is read before anything else is."""

import pytest

from otoscope.errors import PlanError
from otoscope.models.loading import load
from otoscope.plans import Evidence, Line, Plan
from otoscope.reporting.model_card import write_card
from otoscope.treatments import Freeze, PruneHeads, RemoveBlocks, record_of
from otoscope.workflow import finetune
from otoscope.workflow.treating import PLAN, carried_plan, treat
from tests.training.small_ctc import tiny_encoder
from tests.training.small_training import settings, spelt_speech

QUICK = {"settings": settings(steps=1), "hold_out": 0.25}
PRUNED = Line(PruneHeads("layer.1.head.0"), (Evidence("importance-loo", "layer.1.head.0", 0.001),), "nothing is lost")
FIRST = Plan((PRUNED,), "size", notes=("a note",))


@pytest.fixture(scope="module")
def treated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("carried") / "treated"
    treat(tiny_encoder(), FIRST, folder)
    return folder


def test_fine_tuning_carries_the_plan_and_the_card_tells_it(treated, tmp_path):
    finetune(treated, spelt_speech(), tmp_path / "m", **QUICK)
    assert Plan.load(tmp_path / "m" / PLAN) == FIRST
    assert "nothing is lost" in write_card(tmp_path / "m").read_text()


def test_a_second_plan_is_put_behind_the_first(treated, tmp_path):
    later = Plan((Line(RemoveBlocks("layer.2"), expected="less time"),), "speed")
    finetune(treated, spelt_speech(), tmp_path / "m", plan=later, **QUICK)
    found = Plan.load(tmp_path / "m" / PLAN)
    assert found.lines == (PRUNED, *later.lines)
    assert (found.goal, found.notes) == ("speed", ("a note",))
    assert found.treatments == record_of(load(tmp_path / "m").source).treatments


def test_what_no_plan_tells_is_carried_without_evidence(treated):
    model = load(treated)
    assert carried_plan(model, FIRST) == Plan((PRUNED,), "size", notes=("a note",))
    (treated / PLAN).rename(treated / "elsewhere.toml")
    try:
        assert carried_plan(model, None) == Plan((Line(PruneHeads("layer.1.head.0")),))
    finally:
        (treated / "elsewhere.toml").rename(treated / PLAN)
    untreated = tiny_encoder()
    assert carried_plan(untreated, None) is None
    assert carried_plan(untreated, Plan((Line(Freeze("layer.1")),), "training-cost")).goal == "training-cost"


def test_an_unreadable_plan_is_told_before_speech_or_model(tmp_path):
    plan = tmp_path / "plan.toml"
    plan.write_text('[[treatment]]\nkind = "amputate"\nunits = "layer.1"\n')
    with pytest.raises(PlanError, match="no treatment 'amputate'"):
        finetune(tmp_path / "no-model", tmp_path / "no-speech", tmp_path / "m", plan=plan)
