"""A plan as it is kept: exact round trips, what a person may edit, and errors that name the line."""

import math
import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otoscope.errors import PlanError
from otoscope.plans import Evidence, Line, Plan
from otoscope.plans.places import line_numbers, line_of
from otoscope.plans.toml import read_plan, write_plan
from otoscope.treatments.bypass import Bypass
from otoscope.treatments.freeze import Freeze
from otoscope.treatments.group_norm import GroupNorm
from otoscope.treatments.learning_rate import LearningRate
from otoscope.treatments.limit_span import LimitSpan
from otoscope.treatments.prune_heads import PruneHeads
from otoscope.treatments.reinitialise import Reinitialise
from otoscope.treatments.remove_blocks import RemoveBlocks
from otoscope.treatments.replace_attention import ReplaceAttention
from tests.training.small_ctc import tiny_encoder

TREATMENTS = [
    PruneHeads("layer.2.head.0,3"),
    LimitSpan("layer.1", 8),
    LimitSpan("layer.4", 8, "literal"),
    RemoveBlocks("layer.3"),
    Bypass("layer.4.attention"),
    ReplaceAttention("layer.5", "layer", source=1),
    Reinitialise("layer.6", 3),
    GroupNorm("layer.*", 4),
    Freeze("layer.*", "layer.1"),
    LearningRate("layer.2", 0.25),
]
numbers = st.floats(allow_nan=False, allow_infinity=False)
words = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=12)
some = st.none() | numbers
# Plain values: what checks annotations draws at random, which strategies must not.
evidence = st.lists(st.tuples(words, words, numbers, some, some, some, words), max_size=2)
costs = st.dictionaries(st.sampled_from(["parameters", "macs_per_second"]), numbers)
lines = st.lists(st.tuples(st.sampled_from(TREATMENTS), evidence, words, costs, words, words), max_size=4)
about = st.dictionaries(st.sampled_from(["name", "family"]), words | st.integers() | st.lists(numbers, max_size=2))


@settings(max_examples=30)
@given(lines, st.sampled_from(["", "size", "accuracy"]), about, about, st.lists(words, max_size=2))
def test_a_plan_is_the_same_after_it_was_written_and_read(lines, goal, model, diagnosis, notes):
    made = [Line(one, tuple(Evidence(*each) for each in told), *rest) for one, told, *rest in lines]
    plan = Plan(tuple(made), goal, model, diagnosis, tuple(notes))
    assert read_plan(write_plan(plan)) == plan


def test_it_is_saved_and_loaded_with_every_treatment(tmp_path):
    told = Evidence("criticality", "layer.3", 0.1, -0.2, 0.3, 0.4, "ctc-loss")
    plan = Plan(
        tuple(Line(one, (told,), "less", {"parameters": -7}, "rule", "Yang 2020") for one in TREATMENTS), "size"
    )
    place = plan.save(tmp_path / "deep" / "plan.toml")
    assert Plan.load(place) == plan
    assert Plan.load(place).treatments == tuple(TREATMENTS)
    assert [path.name for path in place.parent.iterdir()] == ["plan.toml"]


EDITED = """
goal = "size"
[[treatment]]
kind = "limit-span"
units = "layer.1"
radius = 8

[[treatment]]
kind = "remove-blocks"  # taken out
units = "layer.3"
evidence = [
    {measure = "criticality", units = "layer.3", value = 1},
    {measure = "block-influence", units = "layer.3", value = 0.5, low = 0.4, high = 0.6},
]
"""


def test_all_that_a_model_tells_of_itself_may_stand_in_a_plan(tmp_path):
    told = {name: value for name, value in tiny_encoder().describe().items() if value is not None}
    plan = Plan((Line(TREATMENTS[0]),), model=told)
    assert Plan.load(plan.save(tmp_path / "plan.toml")) == plan


def test_what_a_person_edits_is_read():
    plan = read_plan(EDITED.replace("radius = 8", "radius = 5"))
    assert plan.treatments == (LimitSpan("layer.1", 5), RemoveBlocks("layer.3"))
    assert [one.value for one in plan.lines[1].evidence] == [1, 0.5]
    assert read_plan(EDITED.partition("evidence")[0]).lines[1].evidence == ()
    assert read_plan("") == Plan()
    assert plan.lines[1].place == "the plan, line 8"


WRONG = {
    'goal = "size"': ('goal = "sise"', 2, "no goal 'sise'"),
    'kind = "limit-span"': ('kind = "limit-spam"', 4, "Did you mean limit-span"),
    'units = "layer.1"': ("units = 3", 5, "units is 3"),
    "radius = 8": ("radius = 8\nradios = 2", 7, "Did you mean radius"),
    "radius = 8\n": ("\n", 3, "lacks 'radius'"),
    'units = "layer.3"\n': ('units = "layer.3"\nexpected = 4\n', 11, "expected is 4"),
    "value = 1}": ('value = "1"}', 11, "value is '1'"),
    ", value = 1}": ("}", 11, "no value"),
    'goal = "size"\n': ('goal = "size"\n[model]\nfamly = "wavlm"\n', 4, "Did you mean family"),
    ", low = 0.4": (", lowest = 0.4", 11, "Did you mean low"),
    ", high = 0.6": (", high = inf", 11, "high of block-influence"),
    "[[treatment]]\nkind = \"remove": ("[[treatments]]\nkind = \"remove", 8, "no key 'treatments'"),
    'kind = "remove-blocks"  # taken out\n': ("", 8, "no kind"),
    "# taken out": ("'", 9, "no TOML"),
    "value = 0.5, low": ("value = true, low", 11, "value is True"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_refused_with_its_line(what):
    instead, line, told = WRONG[what]
    assert EDITED.count(what) >= 1
    with pytest.raises(PlanError, match=told) as caught:
        read_plan(EDITED.replace(what, instead, 1), "my.toml")
    assert f"my.toml, line {line}:" in str(caught.value)


def test_a_value_that_the_treatment_refuses_has_its_line():
    text = '[[treatment]]\nkind = "learning-rate"\nunits = "layer.1"\nfactor = -1.0\n'
    with pytest.raises(PlanError, match=r"my.toml, line \d: a learning rate cannot be multiplied by -1.0"):
        read_plan(text, "my.toml")
    with pytest.raises(PlanError, match="line 1: it has the format 2"):
        read_plan("format = 2")
    with pytest.raises(PlanError, match="treatment is no array of tables") as caught:
        read_plan('[treatment]\nkind = "remove-blocks"\nunits = "layer.1"\n')
    assert "[[treatment]]" in caught.value.cure
    with pytest.raises(PlanError, match="cost 'money'"):
        read_plan('[[treatment]]\nkind = "freeze"\nunits = "*"\ncost = {money = 3.0}\n')


TRICKY = '''a = """
[[treatment]]
b = 1
"""  # not a table
c = [ "]", """
d = 2""",  # [
]
"e" = '[f]'
[[treatment]]
[[treatment.evidence]]
g = {h = [1,
2]}
[[treatment.evidence]]
[other.i]
j.k = 1
[[treatment]]
'''


def test_lines_are_those_of_tables_and_keys_only():
    assert tomllib.loads(TRICKY)
    assert line_numbers(TRICKY) == {
        ("a",): 1, ("c",): 5, ("e",): 8, ("treatment", 0): 9, ("treatment", 0, "evidence", 0): 10,
        ("treatment", 0, "evidence", 0, "g"): 11, ("treatment", 0, "evidence", 1): 13, ("other", "i"): 14,
        ("other", "i", "j"): 15, ("treatment", 1): 16,
    }  # fmt: skip
    assert line_of({("a", 0): 7}, ("a", 0, "b", "c")) == 7
    assert line_of({}, ("a",)) == 1


def test_numbers_that_are_none_are_refused():
    with pytest.raises(PlanError, match="low of x of y is nan"):
        Evidence("x", "y", 1.0, math.nan)
    with pytest.raises(PlanError, match="cost 'parameters' is inf"):
        Line(Freeze("*"), cost={"parameters": math.inf})
    with pytest.raises(PlanError, match="no goal 'cheap'"):
        Plan(goal="cheap")
    with pytest.raises(PlanError, match="cannot be written as TOML"):
        write_plan(Plan(model={"name": object()}))


def test_what_cannot_be_read_or_written_is_named(tmp_path):
    with pytest.raises(PlanError, match="absent.toml cannot be read: No such file"):
        Plan.load(tmp_path / "absent.toml")
    with pytest.raises(PlanError, match="it is a folder"):
        Plan().save(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b"goal = '\xff'")
    with pytest.raises(PlanError, match="cannot be read"):
        Plan.load(tmp_path / "latin.toml")


def test_a_full_disk_leaves_the_earlier_plan(tmp_path, monkeypatch):
    place = Plan(goal="size").save(tmp_path / "plan.toml")

    def full(self, *args, **kwargs):
        self.open("w").close()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    with pytest.raises(PlanError, match="No space left"):
        Plan(goal="speed").save(place)
    assert Plan.load(place).goal == "size"
    assert [path.name for path in tmp_path.iterdir()] == ["plan.toml"]


def test_it_prints_as_a_short_table():
    told = Evidence("criticality", "layer.3", 0.0067, -0.031, 0.0445, 0.0548, "ctc-loss, bypass")
    plan = Plan(
        (
            Line(RemoveBlocks("layer.3"), (told,), "Smaller.", {"parameters": -1000, "macs_per_second": -2e6}),
            Line(PruneHeads("layer.1.head.0"), (), "", {"parameters": -250, "macs_per_second": 0}),
        ),
        "size", {"name": "mine", "family": "hubert", "layers": 12, "parameters": 10_000}, {}, ("limit-spans: no",),
    )  # fmt: skip
    assert str(plan).splitlines() == [
        "Plan for size: mine (hubert, 12 layers)",
        "  1  remove-blocks layer.3       -1,000 parameters, -2.0 million MACs a second",
        "       criticality of layer.3: 0.0067 [-0.031, 0.0445], held against 0.0548 (ctc-loss, bypass)",
        "       Smaller.",
        "  2  prune-heads layer.1.head.0  -250 parameters",
        "In all: -1,250 parameters (-12.5 %), -2.0 million MACs a second",
        "Notes:",
        "  limit-spans: no",
    ]
    assert "Nothing is prescribed" in str(Plan(goal="size"))
    assert "not known from sizes" in str(Plan((Line(Freeze("*")),)))
