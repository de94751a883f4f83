"""The bound on what is held: it is kept, what there is no room for is computed again, and the bits are the same."""

import pytest
import torch

from otoscope.errors import EvaluationError
from otoscope.interventions.engine import BASE, Engine, frames_of
from otoscope.interventions.tape import Forgotten
from otoscope.models import load
from otoscope.surgery import Causal, Gate, GroupNorm, Redraw
from tests.models.small import CASES
from tests.surgery.cases import run, same_bits, speech

CORPUS = speech(0.3, 0.45)
BY_FAMILY = list({case.family: case for case in CASES}.values())
VARIANTS = {f"layer {k}": [Gate(f"layer.{k}.head.1")] for k in (1, 2, 3)}


def output(one, part):
    with torch.inference_mode():
        return {"out": one.encode([utterance.read() for utterance in part]).clone()}


def runs_of(engine, name):
    """Numbers of the layers that a variant runs, as it runs them."""
    found, (variant, _) = [], engine._variants[name]
    for number in range(1, variant.anatomy.n_layers + 1):
        module = variant.encoder.get_submodule(f"{variant.family.layers}.{number - 1}")

        def forward(*args, number=number, own=module.forward, **kwargs):
            found.append(number)
            return own(*args, **kwargs)

        module.forward = forward
    return found


def sizes_of(engine, corpus=CORPUS):
    """What is held as each variant runs, and what the run gave."""
    held = []

    def take(one, part):
        held.append(engine._room.held)
        return output(one, part)

    found = engine.run(corpus, take).found
    return held[1:], found


@pytest.mark.parametrize("case", BY_FAMILY, ids=lambda case: case.name)
def test_with_less_room_than_is_needed_every_second_layer_is_kept_and_bits_are_the_same(case):
    model = load(case.build().eval())
    (whole, *_), full = sizes_of(Engine(model, VARIANTS))
    engine = Engine(model, VARIANTS, cache_gb=(whole - 1) / 1e9)
    ran = {name: runs_of(engine, name) for name in VARIANTS}
    held, found = sizes_of(engine)
    assert all(0 < size < whole for size in held)
    # Layer 1 is not kept: what begins at layer 2 runs it again, what begins at layer 3 has layer 2 and needs it not.
    assert ran == {"layer 1": [1, 2, 3], "layer 2": [1, 2, 3], "layer 3": [3]}
    for name in (BASE, *VARIANTS):
        assert same_bits(found[name], full[name]), name


@pytest.mark.parametrize("share", [0.2, 0.45, 0.6, 0.75, 0.9])
def test_what_is_held_is_within_the_bound(share):
    model, corpus = load(CASES[6].build().eval()), speech(0.3, 0.45, 0.35)  # WavLM hands position biases on
    take_alone = Engine(model, VARIANTS)
    sizes = []

    def alone(engine, one, part):
        sizes.append(engine._room.held)
        return {u.id: output(one, part.subset([u.id]))["out"] for u in part}

    full = take_alone.run(corpus, lambda one, part: alone(take_alone, one, part)).found
    bound = share * max(sizes)
    engine = Engine(model, VARIANTS, cache_gb=bound / 1e9)
    sizes.clear()
    watched = []
    for module in engine.base.encoder.modules():
        module.register_forward_hook(lambda *_: watched.append(engine._room.held))
    found = engine.run(corpus, lambda one, part: alone(engine, one, part)).found
    assert 0 < max(*sizes, *watched) <= bound
    for name in (BASE, *VARIANTS):
        assert same_bits(found[name], full[name]), name


def test_where_there_is_no_room_nothing_is_held():
    model = load(CASES[0].build().eval())
    engine = Engine(model, VARIANTS, cache_gb=1e-9)
    ran = runs_of(engine, "layer 3")
    held, found = sizes_of(engine)
    assert set(held) == {0}
    assert ran == [1, 2, 3]
    full = Engine(model, VARIANTS, reuse=False).run(CORPUS, output).found
    for name in (BASE, *VARIANTS):
        assert same_bits(found[name], full[name])


def test_streams_are_never_those_that_stand_in():
    model, streams = load(CASES[0].build().eval()), ["input", "layer.1", "layer.2", "layer.3"]
    (whole, *_), _ = sizes_of(Engine(model, VARIANTS))
    found = Engine(model, VARIANTS, cache_gb=(whole - 1) / 1e9).run(
        CORPUS, lambda one, part: run(one, part, streams=streams).streams
    )
    full = Engine(model, VARIANTS, reuse=False).run(CORPUS, lambda one, part: run(one, part, streams=streams).streams)
    for name in (BASE, *VARIANTS):
        assert same_bits(found.found[name], full.found[name]), name
    for bound in (None, 1e-3, 1e-9):
        (part,) = frames_of(model, CORPUS, VARIANTS, "layer.3", cache_gb=bound)
        for k, one in enumerate(CORPUS):
            assert (
                part.found["layer 3"][one.id]
                == full.found["layer 3"]["layer.3"][k, : len(part.found[BASE][one.id])].numpy()
            ).all()


def test_what_stands_in_shows_where_it_is_used():
    states = torch.ones(2, 3)
    assert Forgotten(states.new_empty(0), states.shape, None).stand_in().isnan().all()
    hidden, beside = Forgotten(states.new_empty(0), states.shape, (states,)).stand_in()
    assert hidden.isnan().all()
    assert hidden.shape == states.shape
    assert beside is states


@pytest.mark.parametrize("bound", [0, -1.0, float("nan")])
def test_a_bound_that_is_not_positive_is_refused(bound):
    with pytest.raises(EvaluationError, match="A cache of"):
        Engine(load(CASES[0].build().eval()), VARIANTS, cache_gb=bound)


def test_modules_that_were_put_in_place_of_others_are_run():
    """Their weights need not differ: a causal convolution has those of the one that it replaces."""
    model = load(next(case for case in CASES if case.name == "conformer-relative").build().eval())
    variants = {
        "causal": [Causal("layer.2")],
        "group norm": [GroupNorm("layer.2", groups=4)],
        "other groups": [GroupNorm("layer.2", groups=2)],
        "new": [Redraw("layer.3", seed=5)],
    }
    found = Engine(model, variants).run(CORPUS, output).found
    full = Engine(model, variants, reuse=False).run(CORPUS, output).found
    for name in (BASE, *variants):
        assert same_bits(found[name], full[name]), name
    assert not same_bits(found["causal"], found[BASE])
    assert not same_bits(found["group norm"], found["other groups"])
