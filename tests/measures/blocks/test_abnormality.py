"""Which blocks are found abnormal, and why."""

import numpy as np
import pytest

from otoscope.errors import MeasureError
from otoscope.measures.blocks import abnormality
from otoscope.measures.blocks.abnormality import FLOORS, LEVEL, RELATIVE, TESTS, judge, variance
from otoscope.measures.blocks.degenerate import PATTERNS, copy_distances, degenerate_statistics
from otoscope.measures.blocks.deviation import jensen_shannon, neighbour_deviation
from otoscope.measures.blocks.summary import SUMMARY, block_observation, part
from otoscope.statistics.multiple import holm
from tests.measures.blocks.blocks_of import BLOCKS, FRAMES, around, margins, planted, sound, summed


def judged(maps, seed=0):
    return judge(summed(maps), resamples=100, seed=seed)


def abnormal(told):
    return {block: told.reasons(block) for block in range(len(told.value)) if told.reasons(block)}


def test_names_and_order():
    assert tuple(FLOORS)[:-1] == SUMMARY
    assert len(TESTS) == RELATIVE + len(PATTERNS)
    assert set().union(*(one.implied for one in PATTERNS)) <= {one.name for one in PATTERNS}


@pytest.mark.parametrize("seed", range(3))
def test_a_sound_model_is_normal(seed):
    told = judged(sound(seed), seed)
    assert abnormal(told) == {}
    assert told.out == ()
    assert np.isfinite(told.p).all()
    assert (np.nanmin(told.p, 1) > LEVEL).all()


@pytest.mark.parametrize("block", [0, 3, BLOCKS - 1])
@pytest.mark.parametrize(
    ("kind", "reasons"),
    [
        ("uniform", {"uniform", "neighbour-deviation"}),
        ("sink", {"query-independent", "edge-sink", "same-heads", "neighbour-deviation"}),
        ("same column", {"query-independent", "same-heads", "neighbour-deviation"}),
        ("self", {"same-heads", "neighbour-deviation"}),
    ],
)
def test_a_faulty_block_is_found_and_its_neighbours_are_not(kind, reasons, block):
    told = judged(planted(kind, block, sound()))
    assert list(abnormal(told)) == [block]
    assert told.out == (block,)
    # Beside these a fault may show in the trend of any number.
    assert {one for one in told.reasons(block) if not one.startswith("trend of ")} == reasons


@pytest.mark.parametrize("block", [1, 5, BLOCKS - 1])
def test_a_copied_map_is_found(block):
    told = judged(planted("copy", block, sound()))
    assert abnormal(told) == {block: ["neighbour-copy"]}


def test_two_faults_are_found_side_by_side():
    maps = planted("self", 4, planted("uniform", 3, sound()))
    assert list(abnormal(judged(maps))) == [3, 4]
    assert list(abnormal(judged(planted("self", 0, planted("self", 1, sound()))))) == [0, 1]


def test_neighbours_of_a_fault_are_held_against_sound_blocks_only():
    sums = summed(planted("self", 3, sound()))
    profiles = part("profile", sums.blocks.sum(0)) / len(FRAMES)
    raw = neighbour_deviation(profiles)[0]
    told = judge(sums, resamples=100)
    assert (raw[[2, 4]] > 0.03).all()
    assert (told.value[[2, 4], 0] < 0.01).all()
    assert np.allclose(told.value[:, 0], neighbour_deviation(profiles, (3,))[0])
    assert told.value[3, 0] == pytest.approx(raw[3])


def test_heads_that_cancel_are_rank_one_but_not_query_independent():
    """Every head looks to one half by the parity of the query, the other head to the other half: the mean is uniform."""
    maps = sound()
    for one in maps:
        frames = one[0].shape[-1] // 2 * 2
        for k, m in enumerate(one):
            one[k] = m[:, :frames, :frames] / m[:, :frames, :frames].sum(-1, keepdims=True)
        first = (np.arange(frames) < frames // 2) == (np.arange(frames)[:, None] % 2 == 0)
        one[2] = np.stack([first, ~first]) * 2 / frames
    reasons = judged(maps).reasons(2)
    assert "rank-one" in reasons
    assert not {"query-independent", "uniform", "same-heads"} & set(reasons)


def test_the_statistics_of_patterns():
    frames = 40
    maps = [np.full((2, frames, frames), 1 / frames), np.stack([np.eye(frames)] * 2), sound()[0][0]]
    blocks = np.stack([block_observation(one) for one in maps])
    copies = np.ones((3, 3))
    copies[2, :2] = 0.3, 0.2
    found = degenerate_statistics(blocks, copies, (2, 1, 2))
    assert found.shape == (3, len(PATTERNS))
    assert found[0] == pytest.approx([0, 1, 0, 0.1, 0, 1], abs=1e-9)
    assert found[1, :4] == pytest.approx([1, 0, 1 - 1 / frames, 0.1], abs=1e-9)
    assert np.isnan(found[1, 4])
    assert found[2, 5] == 0.2


def test_distances_between_maps():
    maps = [np.eye(6)[None], np.eye(6)[None, ::-1], np.eye(6)[None], np.stack([np.eye(6)] * 2)]
    distance = copy_distances(*zip(*map(margins, maps), strict=True))
    # The mirror image has no offset in common with the diagonal: at six frames all its offsets are odd.
    assert distance[1, 0] == pytest.approx(1)
    assert distance[2].tolist() == pytest.approx([0, 1, 1, 1])
    assert (distance[3] == 1).all()
    assert (distance[np.triu_indices(4)] == 1).all()


def test_few_blocks_are_held_against_what_there_is():
    for blocks, tested in ((1, 0), (2, 0), (3, 1), (5, 1), (6, RELATIVE)):
        told = judged(planted("uniform", 0, sound(blocks=blocks)))
        assert np.isfinite(told.p[blocks - 1, :RELATIVE]).sum() <= tested
        assert told.reasons(0)[-1] == "uniform"
        assert list(abnormal(told)) == [0]
        healthy = judged(sound(blocks=blocks))
        assert np.isfinite(healthy.p[0, :RELATIVE]).sum() == tested
        assert abnormal(healthy) == {}


def test_a_model_of_faults_only_is_abnormal_all_over():
    maps = [[np.full((2, t, t), 1 / t)] * 6 for t in FRAMES]
    told = judged(maps)
    assert abnormal(told) == {block: ["uniform"] for block in range(6)}
    assert told.out == tuple(range(6))


def test_what_one_half_of_the_corpus_shows_is_not_enough():
    """Every other utterance has a uniform block: the mean is beyond no limit, and one half alone does not count."""
    maps, faulty = sound(), planted("self", 3, sound())
    mixed = [faulty[k] if k % 2 else maps[k] for k in range(len(maps))]
    assert abnormal(judged(mixed)) == {}


def test_at_most_half_of_the_blocks_are_taken_out():
    """Blocks of four kinds of attention: each stretch of them is unlike the next one."""
    draw = np.random.default_rng(0)
    widths = (1, 1, 4, 4, 4, 12, 12, 1, 1)
    told = judge(summed([[around(t, width, draw) for width in widths] for t in FRAMES]), resamples=60)
    assert len(told.out) == len(widths) // 2


def test_of_odd_blocks_the_one_that_explains_the_others_is_taken_out_and_of_equals_the_oddest():
    usual, other = (0.9, 0.1), (0.1, 0.9)
    summary, excess = np.zeros((1, 8, len(FLOORS))), np.full((8, RELATIVE), -1.0)
    # Block 1 (from 0) makes both its neighbours odd, of which the first has no other neighbour.
    profiles = np.array([[usual, other, *[usual] * 6]])
    excess[[0, 1, 2], 0] = 5.0, 4.0, 1.0
    assert abnormality._explaining([0, 1, 2], profiles, summary, excess, ()) == 1
    profiles = np.array([[usual, usual, other, usual, usual, other, usual, usual]])
    excess[[2, 5], 0] = 3.0, 4.0
    assert abnormality._explaining([2, 5], profiles, summary, excess, ()) == 5


def test_a_number_may_leave_the_trend_on_either_side():
    told = judged(planted("self", 3, sound()))
    for name, sign in (("self-mass", 1), ("globalness-normalised", -1)):
        assert np.sign(told.value[3, TESTS.index(name)]) == sign
        assert f"trend of {name}" in told.reasons(3)


def test_p_values_are_corrected_over_all_tests(monkeypatch):
    raw = []
    monkeypatch.setattr(abnormality, "holm", lambda p: raw.append(p.copy()) or holm(p))
    told = judged(sound())
    there = np.isfinite(told.p)
    assert raw[-1].shape == (BLOCKS * len(TESTS),) == (there.sum(),)
    assert np.array_equal(told.p[there], holm(raw[-1]))


def test_noise_is_the_divergence_of_two_halves():
    sums = summed(sound())
    halves = [part("profile", sums.blocks[first::2].mean(0)) for first in (0, 1)]
    assert np.allclose(judge(sums, resamples=10).noise, jensen_shannon(*halves))


def test_few_groups_are_refused():
    with pytest.raises(MeasureError, match="at least 4"):
        judged(sound()[:3])


def test_variance_is_that_of_profiles():
    draw = np.random.default_rng(0).dirichlet(np.ones(5), size=9)
    found = variance(np.array((draw**2).sum(-1).mean()), draw.mean(0), 9.0)
    assert float(found) == pytest.approx(draw.var(0, ddof=1).sum())


def test_ends_hold_the_value_and_stay_in_range():
    told = judged(sound())
    assert ((told.low <= told.value + 1e-12) & (told.value <= told.high + 1e-12)).all()
    assert (told.low[:, [0, *range(RELATIVE, len(TESTS))]] >= 0).all()
    assert (told.high[:, RELATIVE:] <= 1).all()
    assert (told.noise >= 0).all()
    assert (told.noise < 0.01).all()
    again = judged(sound())
    assert np.array_equal(again.low, told.low)


def test_no_end_of_a_divergence_is_beyond_that_of_what_is_apart():
    """Block 3 looks at its own frame, but in one utterance, and all others at the next ones."""
    maps = []
    for k, frames in enumerate(FRAMES):
        ahead = [np.roll(np.eye(frames), offset, -1) for offset in range(5)]
        others = [
            np.stack([share * ahead[one] + (1 - share) * ahead[one + 1] for one in (1, 3)])
            for share in np.linspace(0.6, 0.4, BLOCKS)
        ]
        own = np.stack([ahead[0]] * 2)
        maps.append([*others[:3], 0.8 * own + 0.2 * others[3] if k == 0 else own, *others[4:]])
    told = judged(maps)
    assert 0.6 < told.value[3, 0] < np.log(2)
    assert told.high[3, 0] == np.log(2)
