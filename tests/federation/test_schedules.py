"""Rates: what each schedule aims at, sizes that are met to the unit, and the budget against a linear program."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from otoscope.errors import FederationError
from otoscope.federation.channels import Group, exchanged, groups_of
from otoscope.federation.drawing import Drawing
from otoscope.federation.evidence import Evidence
from otoscope.federation.schedules import (
    NAMES,
    ambient,
    at_size,
    budget,
    critical,
    fixed,
    linear,
    random_layers,
    read_fixed,
    schedule,
    size,
    uniform,
)
from otoscope.federation.submodels import extract
from otoscope.measures.measure import Row
from otoscope.models import load
from tests.models.small import CASES
from tests.plans.found import found as diagnosis

LAYERS = 6
LABELS = ("critical", "ambient", "intermediate", "ambient", "intermediate", "critical")
SHARES = (0.9, 0.01, 0.2, -0.02, 0.2, 0.6)
ELSEWHERE = 777


def group(layer, branch, kind, count, each):
    return Group(f"layer.{layer}.{branch}", layer, kind, count, (), count * each)


GROUPS = {
    one.name: one
    for layer in range(1, LAYERS + 1)
    for one in (group(layer, "attention", "heads", 4, 400), group(layer, "feed_forward", "rows", 64 + layer, 97))
}
WHOLE = size(GROUPS, {}, ELSEWHERE)
LEAST = size(GROUPS, uniform(GROUPS, 1e-9), ELSEWHERE)
EVIDENCE = Evidence(
    {f"layer.{k}": label for k, label in enumerate(LABELS, 1)},
    {f"layer.{k}": share for k, share in enumerate(SHARES, 1)}, LAYERS, "rewind:pretrained", "wer",
)  # fmt: skip


def rows(mode, labels=LABELS, shares=SHARES, target="wer", stream="layer.{}"):
    made = []
    for k, (label, share) in enumerate(zip(labels, shares, strict=True), start=1):
        made.append(Row("criticality", stream.format(k), k, None, target, mode, 0.1, label=label))
        made.append(Row("criticality-normalised", stream.format(k), k, None, target, mode, share))
    return made


def test_uniform_takes_from_all_alike_and_full_from_none():
    assert uniform(GROUPS, 0.3) == dict.fromkeys(GROUPS, 0.3)
    assert schedule("full", GROUPS) == dict.fromkeys(GROUPS, 1.0)
    assert schedule("uniform", GROUPS, keep=0.3) == uniform(GROUPS, 0.3)


def layers_at(rates, share):
    return {GROUPS[name].layer for name, rate in rates.items() if rate == share}


def test_schedules_aim_at_their_layers():
    assert layers_at(ambient(GROUPS, 0.25, EVIDENCE), 0.25) == {2, 4}
    assert layers_at(critical(GROUPS, 0.25, EVIDENCE), 0.25) == {1, 6}
    assert layers_at(ambient(GROUPS, 0.25, EVIDENCE), 1.0) == {1, 3, 5, 6}
    drawn = [layers_at(random_layers(GROUPS, 0.25, 2, seed), 0.25) for seed in range(30)]
    assert all(len(one) == 2 for one in drawn)
    assert set().union(*drawn) == set(range(1, 7))
    assert layers_at(random_layers(GROUPS, 0.25, 2, 3), 0.25) == layers_at(random_layers(GROUPS, 0.25, 2, 3), 0.25)
    # As many layers as are ambient, so that the two can be held against each other.
    assert len(layers_at(schedule("random", GROUPS, keep=0.25, evidence=EVIDENCE), 0.25)) == 2


def test_linear_rates_by_rank_and_by_value():
    by_rank = linear(GROUPS, 0.4, EVIDENCE)
    # N_u below zero is zero: layer 4 is least, 2 next; 3 and 5 share ranks 3 and 4; then 6 and 1.
    ranks = {4: 0.0, 2: 0.2, 3: 0.5, 5: 0.5, 6: 0.8, 1: 1.0}
    assert {GROUPS[name].layer: rate for name, rate in by_rank.items()} == pytest.approx(
        {layer: 0.4 + 0.6 * place for layer, place in ranks.items()}
    )
    by_value = linear(GROUPS, 0.4, EVIDENCE, "value")
    assert by_value["layer.6.attention"] == pytest.approx(0.4 + 0.6 * 0.6 / 0.9)
    assert by_value["layer.4.attention"] == pytest.approx(0.4)
    alike = Evidence(EVIDENCE.labels, dict.fromkeys(EVIDENCE.importance, 0.3), LAYERS, "bypass", "wer")
    assert set(linear(GROUPS, 0.4, alike).values()) == {0.7}
    assert set(linear(GROUPS, 1.0, EVIDENCE).values()) == {1.0}
    with pytest.raises(FederationError, match="linear in 'square'"):
        linear(GROUPS, 0.5, EVIDENCE, "square")


def lost(rates, evidence=EVIDENCE):
    """sum_u r_u N_u, with r_u the share of the unit's elements that is left out."""
    total = 0.0
    for unit, names in evidence.units(GROUPS).items():
        gone = sum(GROUPS[name].elements * (1 - rates[name]) for name in names)
        total += max(evidence.importance[unit], 0.0) * gone / sum(GROUPS[name].elements for name in names)
    return total


@settings(max_examples=40)
@given(st.lists(st.integers(-5, 100), min_size=LAYERS, max_size=LAYERS), st.floats(0.0, 1.0))
def test_a_budget_is_met_with_the_least_loss_that_a_linear_program_finds(hundredths, place):
    importance = [one / 100 for one in hundredths]
    evidence = Evidence(
        EVIDENCE.labels, {f"layer.{k}": one for k, one in enumerate(importance, 1)}, LAYERS, "bypass", "wer"
    )
    elements = round(LEAST + place * (WHOLE - LEAST))
    rates = budget(GROUPS, evidence, elements, ELSEWHERE)
    client = size(GROUPS, rates, ELSEWHERE)
    assert elements - 400 < client <= elements
    # By linear programming: the share r of each group that is left out, one unit of each stays.
    names = list(GROUPS)
    each = np.array([GROUPS[name].elements for name in names], float)
    of_layer = np.array(
        [sum(one.elements for one in GROUPS.values() if one.layer == GROUPS[name].layer) for name in names]
    )
    cost = np.array([max(importance[GROUPS[name].layer - 1], 0.0) for name in names]) * each / of_layer
    most = [1 - 1 / GROUPS[name].count for name in names]
    # The client may be smaller than the budget by part of a unit, so the program is asked for the same size.
    best = linprog(cost, A_ub=-each[None], b_ub=[client - WHOLE], bounds=[(0, one) for one in most])
    assert best.status == 0
    assert lost(rates, evidence) == pytest.approx(best.fun, abs=1e-6)


def test_a_budget_that_cannot_be_met_is_refused_and_one_that_is_larger_changes_nothing():
    assert set(budget(GROUPS, EVIDENCE, WHOLE, ELSEWHERE).values()) == {1.0}
    assert size(GROUPS, budget(GROUPS, EVIDENCE, LEAST, ELSEWHERE), ELSEWHERE) == LEAST
    with pytest.raises(FederationError, match=f"make one: {LEAST} with one unit left.* Give a client {4 * LEAST}B"):
        budget(GROUPS, EVIDENCE, LEAST - 1, ELSEWHERE)


@settings(max_examples=50)
@given(st.sampled_from(["uniform", "random", "ambient", "critical", "linear"]), st.floats(0.0, 1.0), st.integers(0, 3))
def test_every_schedule_can_be_brought_to_a_size(name, place, seed):
    least = size(GROUPS, schedule(name, GROUPS, keep=1e-9, evidence=EVIDENCE, seed=seed), ELSEWHERE)
    elements = round(least + place * (WHOLE - least))
    rates = schedule(name, GROUPS, evidence=EVIDENCE, seed=seed, elements=elements, elsewhere=ELSEWHERE)
    client = size(GROUPS, rates, ELSEWHERE)
    # The room that is left is less than a unit of any group that is not whole; a row is 97 elements, a head 400.
    room = elements - client
    aimed = schedule(name, GROUPS, keep=1e-9, evidence=EVIDENCE, seed=seed)
    open_ = [GROUPS[one] for one in GROUPS if aimed[one] < 1 and rates[one] < 1]
    assert 0 <= room < min((one.elements // one.count for one in open_), default=1)
    assert all(rates[one] == 1.0 for one in GROUPS if aimed[one] == 1.0)
    # Whichever way an order rounds, a client holds this many.
    for order in ("random", "prefix", "rolling"):
        kept = Drawing(seed, order).submodel(GROUPS, rates, 2, "a").kept
        held = sum(one.elements // one.count * len(kept.get(one.name, range(one.count))) for one in GROUPS.values())
        assert held + ELSEWHERE == client


def test_a_size_below_what_aimed_layers_can_give_up_is_refused():
    with pytest.raises(
        FederationError, match=r"A client of 10000 elements is smaller.*or a schedule that aims at more"
    ):
        schedule("ambient", GROUPS, evidence=EVIDENCE, elements=10000, elsewhere=ELSEWHERE)
    assert at_size(lambda keep: ambient(GROUPS, keep, EVIDENCE), GROUPS, 10**9) == uniform(GROUPS, 1.0)


def test_a_size_is_that_of_what_a_client_is_handed():
    model = load(next(case for case in CASES if case.name == "conformer-rotary-ctc").build().eval())
    groups, state = groups_of(model), exchanged(model)
    elsewhere = sum(one.numel() for one in state.values()) - sum(one.elements for one in groups.values())
    rates = schedule("uniform", groups, elements=60_000, elsewhere=elsewhere)
    held = extract(state, Drawing(0).submodel(groups, rates, 1, "a"), groups)
    client = sum(one.numel() for one in held.values())
    assert client == size(groups, rates, elsewhere)
    assert 60_000 - 97 < client <= 60_000


def test_evidence_is_read_from_a_diagnosis_by_the_first_mode_that_was_taken():
    made = diagnosis(
        [*rows("bypass", ("ambient",) * 6), *rows("re-initialise"), *rows("rewind:pretrained", shares=SHARES[::-1])]
    )
    evidence = Evidence.from_diagnosis(made)
    assert (evidence.mode, evidence.metric, evidence.layers) == ("rewind:pretrained", "wer", 6)
    assert evidence.importance["layer.1"] == 0.6
    assert evidence.labels["layer.2"] == "ambient"
    assert Evidence.from_diagnosis(made, "re-initialise").importance["layer.1"] == 0.9
    with pytest.raises(FederationError, match=r"in the mode 'mean'.*It has rewind:pretrained, re-initialise, bypass"):
        Evidence.from_diagnosis(made, "mean")
    with pytest.raises(FederationError, match=r"does not say how critical.*--measures criticality.*uniform or random"):
        Evidence.from_diagnosis(diagnosis([Row("block-influence", "layer.1", 1, value=0.1)]))


def test_rows_without_a_label_are_those_of_another_metric():
    other = [Row("criticality", f"layer.{k}", k, None, "cer", "bypass", 0.1) for k in range(1, 7)]
    shares = [Row("criticality-normalised", f"layer.{k}", k, None, "cer", "bypass", 5.0) for k in range(1, 7)]
    evidence = Evidence.from_diagnosis(diagnosis([*other, *shares, *rows("bypass")]))
    assert evidence.metric == "wer"
    assert max(evidence.importance.values()) == 0.9


def test_branches_that_were_reset_by_themselves_say_more_than_their_layer():
    branch = rows("bypass", ("ambient",) * 6, (0.05,) * 6, stream="layer.{}.attention")
    evidence = Evidence.from_diagnosis(diagnosis([*rows("bypass", ("critical",) * 6), *branch]))
    aimed = ambient(GROUPS, 0.5, evidence)
    assert {name for name, rate in aimed.items() if rate == 0.5} == {f"layer.{k}.attention" for k in range(1, 7)}
    units = evidence.units(GROUPS)
    assert units["layer.1"] == ("layer.1.feed_forward",)
    assert units["layer.1.attention"] == ("layer.1.attention",)


def test_no_ambient_layer_is_an_error_that_names_what_would_work():
    none = Evidence.from_diagnosis(diagnosis(rows("bypass", ("critical", *["intermediate"] * 5))))
    with pytest.raises(
        FederationError, match=r"no unit ambient \(bypass, by wer\).*uniform, random, linear, budget, critical;"
    ):
        ambient(GROUPS, 0.5, none)
    with pytest.raises(FederationError, match=r"no unit ambient"):
        schedule("random", GROUPS, evidence=none)
    assert layers_at(critical(GROUPS, 0.5, none), 0.5) == {1}


def test_evidence_of_another_model_or_without_importance_is_refused():
    for layers, labels in ((4, LABELS[:4]), (12, LABELS * 2)):
        other = Evidence({f"layer.{k}": one for k, one in enumerate(labels, 1)}, {}, layers, "bypass", "wer")
        with pytest.raises(FederationError, match=f"another model: one of {layers} layers"):
            ambient(GROUPS, 0.5, other)
    partly = Evidence(EVIDENCE.labels, {"layer.1": 0.5}, LAYERS, "bypass", "wer")
    assert layers_at(ambient(GROUPS, 0.5, partly), 0.5) == {2, 4}
    for name in ("linear", "budget"):
        with pytest.raises(FederationError, match=r"does not tell the importance of layer\.2\.attention"):
            schedule(name, GROUPS, evidence=partly, elements=WHOLE)


def test_rates_that_are_given_by_pattern():
    rates = fixed(GROUPS, {"layer.*": 0.5, "layer.2-3.feed_forward": 0.25, "layer.6": 1})
    assert rates["layer.1.attention"] == 0.5
    assert rates["layer.2.feed_forward"] == rates["layer.3.feed_forward"] == 0.25
    assert rates["layer.3.attention"] == 0.5
    assert rates["layer.6.attention"] == rates["layer.6.feed_forward"] == 1.0
    halves = {name: group(1, name.removeprefix("layer.1."), "rows", 4, 1) for name in
              ("layer.1.feed_forward.1", "layer.1.feed_forward.2", "layer.1.attention")}  # fmt: skip
    assert list(fixed(halves, {"layer.1.feed_forward": 0.5}).values()) == [0.5, 0.5, 1.0]
    with pytest.raises(FederationError, match=r"'layer\.3\.feedforward' names no unit.*layer\.3\.feed_forward"):
        fixed(GROUPS, {"layer.3.feedforward": 0.5})
    with pytest.raises(FederationError, match="range 5-3"):
        fixed(GROUPS, {"layer.5-3": 0.5})
    for share in (0, 1.5, True, float("nan")):
        with pytest.raises(FederationError, match=r"The share that is kept of layer\.1 is"):
            fixed(GROUPS, {"layer.1": share})


def test_rates_from_a_file_and_the_line_of_an_error(tmp_path):
    place = tmp_path / "mine.toml"
    place.write_text('[keep]\n"layer.*.attention" = 0.5\n"layer.1" = 1.0\n')
    rates = schedule(str(place), GROUPS)
    assert rates == fixed(GROUPS, {"layer.*.attention": 0.5, "layer.1": 1.0})
    assert rates["layer.1.attention"] == 1.0
    assert rates["layer.2.attention"] == 0.5
    for text, told in (
        ('[keep]\n"layer.1" = 0.5\n"layer.7" = 0.5\n', r"mine\.toml, line 3: 'layer\.7' names no unit"),
        ('[keep]\n"layer.1" = 2\n', r"mine\.toml, line 2: The share that is kept of layer\.1 is 2"),
        ('[keep]\n"layer.1" = "half"\n', r"line 2: The share that is kept of layer\.1 is 'half'"),
        ("[drop]\na = 1\n", "has 'drop'"),
        ("", r"no table \[keep\]"),
        ("keep = 3", r"no table \[keep\]"),
        ("[keep", "cannot be read"),
    ):
        place.write_text(text)
        with pytest.raises(FederationError, match=told):
            read_fixed(place, GROUPS)
    with pytest.raises(FederationError, match="cannot be read"):
        schedule(str(tmp_path / "none.toml"), GROUPS)


def test_a_schedule_that_there_is_not_or_that_lacks_something_is_refused():
    with pytest.raises(FederationError, match="no schedule 'ambiant'.*Did you mean ambient"):
        schedule("ambiant", GROUPS)
    for name in ("ambient", "critical", "linear", "budget"):
        with pytest.raises(FederationError, match=f"'{name}' goes by a diagnosis"):
            schedule(name, GROUPS)
    with pytest.raises(FederationError, match="needs the size of a client"):
        schedule("budget", GROUPS, evidence=EVIDENCE)
    with pytest.raises(FederationError, match="does not know how many layers"):
        schedule("random", GROUPS)
    for layers in (0, 7):
        with pytest.raises(FederationError, match=f"{layers} layers are to be drawn at random"):
            schedule("random", GROUPS, layers=layers)
    for keep in (0.0, 1.1, float("nan")):
        with pytest.raises(FederationError, match="The share that is kept is"):
            schedule("uniform", GROUPS, keep=keep)
    for name in NAMES[1:]:
        assert schedule(name, GROUPS, evidence=EVIDENCE, elements=WHOLE - 100, elsewhere=ELSEWHERE)


def test_what_is_given_is_not_solved_for_a_size(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text('[keep]\n"layer.1" = 0.5\n')
    for name in ("full", str(path)):
        assert schedule(name, GROUPS)
        with pytest.raises(FederationError, match="says itself what clients keep, and is not solved for a size"):
            schedule(name, GROUPS, elements=WHOLE - 100, elsewhere=ELSEWHERE)
