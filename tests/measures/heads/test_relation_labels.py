"""Labels of a tier over frames: every sample counted, runs, permuted labels, which labels are kept."""

from itertools import pairwise

import numpy as np
import pytest

from otoscope.errors import CorpusError, MeasureError
from otoscope.measures.heads.relation import relation_map
from otoscope.measures.heads.relation_labels import MOST_LABELS, RelationLabels
from otoscope.models.anatomy import Grid
from otoscope.speech import Corpus, Interval

GRIDS = {
    "wav2vec2": (Grid(320, 400), lambda n: (n - 400) // 320 + 1),
    "filter banks": (Grid(320, 560), lambda n: (1 + (n - 400) // 160) // 2),
    "whisper": (Grid(320, 1040, -520), lambda n: -(-n // 320)),
    "parakeet": (Grid(1280, 2640, -1320), lambda n: -(-n // 1280)),
    "odd": (Grid(7, 10, 3), lambda n: (n - 3 - 10) // 7 + 1),
}
NAMES = ("aa", "b", "sil", "t")


def labels(n=3, **more):
    settings = {"tier": "phone", "labels": NAMES[:n], "seed": 0, "labels_left_out": 0, "intervals_left_out": 0}
    return RelationLabels(**settings | more)


def utterance(*intervals, n_samples, tier="phone", name="u"):
    tiers = [{tier: tuple(Interval(*x) for x in intervals)}]
    return Corpus.from_arrays([np.zeros(n_samples)], ids=[name], tiers=tiers)[0]


def spoken(seed=0, unit=1, runs=12, gaps=True, name="u"):
    """Intervals with gaps between them and at the end, whose edges are multiples of `unit`."""
    draw = np.random.default_rng(seed)
    edges = np.cumsum(draw.integers(200 // unit, 1500 // unit, 2 * runs)) * unit
    found = []
    for k, (a, b) in enumerate(pairwise(edges)):
        if not gaps or k % 4 != 3:
            found.append((int(a), int(b), NAMES[draw.integers(0, 4)]))
    return utterance(*found, n_samples=int(edges[-1]) + 5 * unit, name=name)


def by_sample(one, kept):
    """The number of each sample's label."""
    out = np.full(one.n_samples, len(kept.labels))
    for x in one.tiers["phone"]:
        if x.label in kept.labels:
            out[x.start : x.end] = kept.labels.index(x.label)
    return out


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("seed", range(3))
def test_every_half_sample_of_a_frame_is_counted(name, seed):
    grid, frames_of = GRIDS[name]
    one, kept = spoken(seed), labels()
    frames = frames_of(one.n_samples)
    laid = kept.lay(one, grid, frames)
    samples = by_sample(one, kept)
    expected = np.zeros((frames, 4))
    for t in range(frames):
        centre = 2 * grid.offset + 2 * t * grid.hop + grid.field  # in half samples
        halves = np.arange(centre - grid.hop, centre + grid.hop)
        of_frame = samples[np.clip(halves // 2, 0, one.n_samples - 1)]
        expected[t] = np.bincount(of_frame, minlength=4) / (2 * grid.hop)
    assert np.allclose(laid.shares(), expected, atol=1e-12)
    assert np.allclose(laid.shares().sum(-1), 1, atol=1e-12)


def test_a_frame_of_wav2vec2_is_labelled_about_its_centre():
    """Frame t sees samples 320 t to 320 t + 400, is centred on 320 t + 200, and stands for 320 samples about that."""
    one = utterance((0, 360, "aa"), (360, 760, "b"), (760, 3200, "sil"), n_samples=3200)
    shares = labels().lay(one, Grid(320, 400), 9).shares()
    assert np.allclose(shares[0], [1, 0, 0, 0])  # samples 40 to 360
    assert np.allclose(shares[1], [0, 1, 0, 0])  # 360 to 680
    assert np.allclose(shares[2], [0, 80 / 320, 240 / 320, 0])


def test_neighbours_of_one_label_are_one_run_and_a_gap_breaks_it():
    one = utterance((0, 400, "aa"), (400, 800, "aa"), (1000, 1600, "aa"), n_samples=1600)
    laid = labels().lay(one, Grid(100, 100), 16)
    assert laid.labels.tolist() == [0, 3, 0]
    assert [(label, first, len(share)) for label, first, share in laid.blocks()] == [(0, 0, 8), (3, 8, 2), (0, 10, 6)]


@pytest.mark.parametrize("exclude_run", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_the_baseline_is_that_of_labels_at_a_finer_rate(exclude_run, seed):
    """Edges at multiples of 40 samples: a frame of 320 samples is eight of the labels' own frames."""
    one, kept = spoken(seed, unit=40), labels()
    frames = (one.n_samples - 400) // 320 + 1
    fine = by_sample(one, kept)[40 + 20 : 40 + 320 * frames : 40]
    uniform = np.full((len(fine), len(fine)), 1 / len(fine))
    expected = relation_map(uniform, fine, 4, exclude_run)[1]
    found = kept.lay(one, Grid(320, 400), frames).uniform(exclude_run)
    assert np.allclose(found, expected, atol=1e-12)
    assert ((found == 0) == (expected == 0)).all()


def test_permuted_labels_keep_utterance_and_durations():
    kept = labels(4)
    one, other = spoken(1, gaps=False, name="a"), spoken(1, gaps=False, name="b")
    frames = one.n_samples // 100
    grid = Grid(100, 100)
    drawn = [kept.lay(u, grid, frames, permuted=True) for u in (one, one, other)]
    assert np.array_equal(drawn[0].labels, drawn[1].labels)
    assert not np.array_equal(drawn[0].shares(), drawn[2].shares())
    assert not np.array_equal(drawn[0].shares(), kept.lay(one, grid, frames).shares())
    seeded = labels(4, seed=1).lay(one, grid, frames, permuted=True)
    assert not np.array_equal(drawn[0].shares(), seeded.shares())
    assert np.allclose(drawn[0].shares().sum(-1), 1)

    def edges(laid):
        return set(np.flatnonzero((np.diff(laid.shares(), axis=0) != 0).any(-1)))

    assert edges(drawn[0]) <= edges(kept.lay(one, grid, frames))  # no run is cut


def test_where_there_are_no_labels_there_is_nothing():
    none = utterance(n_samples=3200)
    assert labels().lay(none, Grid(320, 400), 9) is None
    assert labels().lay(utterance((0, 99, "x"), n_samples=3200, tier="word"), Grid(320, 400), 9) is None
    strange = labels().lay(utterance((0, 99, "x"), n_samples=3200), Grid(320, 400), 9)
    assert np.allclose(strange.shares(), [[0, 0, 0, 1]] * 9)


def corpus(counts, utterances=4, tier="phone"):
    """`counts` says how many intervals of each label there are, dealt over the utterances in turn."""
    tiers = [{tier: []} for _ in range(utterances)]
    for label, count in counts.items():
        for k in range(count if isinstance(count, int) else count[0]):
            own = tiers[k % utterances if isinstance(count, int) else 0][tier]
            own.append(Interval(100 * len(own), 100 * len(own) + 100, label))
    return Corpus.from_arrays([np.zeros(100 * max(len(t[tier]) for t in tiers) + 100)] * utterances, tiers=tiers)


def test_labels_that_are_rare_or_of_one_utterance_are_left_out_and_counted():
    found = RelationLabels.choose(
        corpus({"zz": 9, "t": 5, "aa": 6, "b": 4, "ch": (7,), "sp": 3, "sil": 3, "<unk>": 8}), "phone", 0
    )
    # Vowels, then consonants, then what is no phone of the CMU dictionary, then silence.
    assert found.labels == ("aa", "t", "zz", "sil")
    assert (found.labels_left_out, found.intervals_left_out) == (2, 4 + 7)
    assert len(found) == 5


def test_no_more_labels_than_the_most():
    words = {f"w{k:02}": 5 + k for k in range(MOST_LABELS + 3)}
    found = RelationLabels.choose(corpus(words, tier="word"), "word", 0)
    assert found.labels == tuple(sorted(words)[3:])
    assert (found.labels_left_out, found.intervals_left_out) == (3, 5 + 6 + 7)


def test_a_relation_needs_two_labels():
    with pytest.raises(MeasureError, match="1 have at least 5 intervals in 2 utterances"):
        RelationLabels.choose(corpus({"aa": 9, "b": 4}), "phone", 0)
    with pytest.raises(CorpusError, match="no tier"):
        RelationLabels.choose(corpus({"aa": 9, "b": 9}), "word", 0)
