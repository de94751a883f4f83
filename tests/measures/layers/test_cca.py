from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from otoscope.errors import CorpusError, MeasureError, StateError
from otoscope.measures.layers import CCA, pwcca_from_moments
from otoscope.measures.layers.correlation import scatter_of
from otoscope.measures.layers.pooling import pool_to_mel
from otoscope.measures.layers.spans import phone_spans, span_means, word_spans
from otoscope.models.anatomy import Anatomy, Grid
from otoscope.models.capture import Capture
from otoscope.speech import Corpus, Interval, Utterance, log_mel

PHONES = ("aa", "b", "iy", "sil", "t", "z")
WORDS = ("one", "three", "two", "yes")
WIDTHS = {"conv.1": 5, "conv.2": 90, "input": 90, "layer.1": 90, "layer.2": 12, "final_norm": 12}
GRIDS = {"conv.1": Grid(80, 160), "conv.2": Grid(160, 400)} | dict.fromkeys(
    ("input", "layer.1", "layer.2", "final_norm"), Grid(320, 400)
)
ANATOMY = Anatomy("small", tuple(WIDTHS), WIDTHS, GRIDS, (2, 2))


@cache
def corpus(utterances: int = 12, speakers: int = 6) -> Corpus:
    rng = np.random.default_rng(0)
    arrays, tiers = [], []
    for _ in range(utterances):
        edges = np.cumsum(rng.integers(800, 2400, size=30))
        # Words begin on frames, so that no frame belongs to two of them.
        edges[::2] -= edges[::2] % 320
        phones = [Interval(int(a), int(b), str(rng.choice(PHONES))) for a, b in pairwise([0, *edges])]
        words = [Interval(int(a), int(b), str(rng.choice(WORDS))) for a, b in pairwise(edges[::2])]
        # Noise whose level rises and falls, so that the mel features of one utterance are far from constant.
        n = int(edges[-1])
        level = np.interp(np.arange(n), np.linspace(0, n, 60), rng.uniform(0, 1, 60))
        arrays.append(0.3 * level * rng.standard_normal(n))
        tiers.append({"phone": tuple(phones), "word": tuple(words)})
    return Corpus.from_arrays(
        arrays, speakers=[f"s{i % speakers}" for i in range(utterances)], tiers=tiers, name="noise"
    )


def held_labels(utterance: Utterance, tier: str, classes: tuple[str, ...]) -> np.ndarray:
    """Frames at 20 ms that hold, one-hot, the label of the segment their middle is in."""
    n = GRIDS["input"]
    frames = np.zeros(((utterance.n_samples - n.field) // n.hop + 1, len(classes)))
    for x in utterance.tiers[tier]:
        first, last = (phone_spans if tier == "phone" else word_spans)(
            np.array([x.start]), np.array([x.end]), n.hop, len(frames)
        )
        frames[first[0] : last[0]] = np.eye(len(classes))[classes.index(x.label)]
    return frames


@cache
def streams_of(name: str, tier: str = "phone") -> dict[str, np.ndarray]:
    """What a model would give: mel features in layer.1, labels in layer.2, noise elsewhere."""
    utterance = corpus()[name]
    rng = np.random.default_rng(int(name))
    mixing = np.random.default_rng(99)
    found = {}
    for stream, grid in GRIDS.items():
        n = (utterance.n_samples - grid.field) // grid.hop + 1
        found[stream] = rng.standard_normal((n, WIDTHS[stream])) + 3
    mel = log_mel(utterance.read())
    mix = mixing.standard_normal((80, 90))
    found["conv.2"] = (mel @ mix)[: len(found["conv.2"])]
    found["layer.1"] = (mel[::2] @ mix)[: len(found["layer.1"])]
    held = held_labels(utterance, tier, PHONES if tier == "phone" else WORDS)
    found["layer.2"] = held @ mixing.standard_normal((held.shape[1], 12)) + 5
    return found


def capture(names: tuple[str, ...], tier: str = "phone") -> Capture:
    utterances = tuple(corpus()[name] for name in names)
    arrays = [streams_of(name, tier) for name in names]
    streams, lengths = {}, {}
    for stream in GRIDS:
        lengths[stream] = tuple(len(a[stream]) for a in arrays)
        # Padding holds what must never be read.
        padded = torch.full((len(names), max(lengths[stream]), WIDTHS[stream]), torch.nan)
        for b, a in enumerate(arrays):
            padded[b, : len(a[stream])] = torch.from_numpy(a[stream])
        streams[stream] = padded
    return Capture(utterances, tuple(u.read() for u in utterances), streams, lengths, GRIDS, {}, {})


def prepared(target: str, **options: object) -> CCA:
    measure = CCA(target, **options)  # type: ignore[arg-type]
    measure.prepare(ANATOMY, corpus(), seed=0)
    return measure


def ids() -> tuple[str, ...]:
    return tuple(u.id for u in corpus())


@cache
def whole(target: str) -> CCA:
    measure = prepared(target)
    for name in ids():
        measure.update(capture((name,), "word" if target == "word" else "phone"))
    return measure


@pytest.mark.parametrize(("target", "stream"), [("mel", "layer.1"), ("phone", "layer.2"), ("word", "layer.2")])
def test_a_layer_that_holds_the_target_scores_one_and_noise_scores_nothing(target, stream):
    result = whole(target).compute()
    rows = {r.stream: r for r in result.rows}
    assert rows[stream].value is not None
    assert rows[stream].value > 0.999
    assert rows["final_norm"].value is not None
    assert abs(rows["final_norm"].value) < 0.15
    for row in result.rows:
        assert row.measure == f"cca-{target}"
        assert row.target == target
        assert row.ceiling == 1
        assert -1 <= row.low <= row.value <= row.high <= 1
        assert row.head is None
        assert row.other is None
    assert {r.stream: r.layer for r in result.rows if r.layer} == {"layer.1": 1, "layer.2": 2}
    floors = {r.stream: r.floor for r in result.rows}
    assert abs(floors["final_norm"]) < 0.15
    assert floors[stream] < 0.5


def test_streams_of_each_target():
    assert whole("mel").streams == tuple(WIDTHS)
    assert whole("phone").streams == whole("word").streams == ("input", "layer.1", "layer.2", "final_norm")
    assert CCA("mel").tiers == ()
    assert CCA("word").tiers == ("word",)


@pytest.mark.parametrize("target", ["phone", "word"])
def test_equals_the_score_of_stored_segments(target):
    """The whole protocol again with stored rows and one-hot matrices."""
    result = whole(target).compute()
    kept = [p for p in PHONES if p != "sil"] if target == "phone" else list(WORDS)
    spans = phone_spans if target == "phone" else word_spans
    folds = whole(target).source.folds.of
    rows, labels, fold_of = [], [], []
    for name in ids():
        frames = streams_of(name, target)["layer.1"].astype(np.float32)
        for x in corpus()[name].tiers[target]:
            if x.label in kept:
                span = spans(np.array([x.start]), np.array([x.end]), 320, len(frames))
                rows.append(span_means(frames, *span)[0])
                labels.append(kept.index(x.label))
                fold_of.append(folds[name])
    x, y, fold_of = np.array(rows), np.eye(len(kept))[labels], np.array(fold_of)
    expected = []
    for test in range(5):
        dev = (test + 1) % 5
        rest = ~np.isin(fold_of, [test, dev])

        def on(fold, ridge, train):
            mine = fold_of == fold
            return pwcca_from_moments(train, scatter_of(x[mine], y[mine]), weights="y", ridge=ridge)

        train = scatter_of(x[rest], y[rest])
        ridge = max(CCA(target).ridges, key=lambda r: on(dev, r, train))
        expected.append(on(test, ridge, train))
    row = next(r for r in result.rows if r.stream == "layer.1")
    assert row.n == len(x)
    assert row.value == pytest.approx(np.mean(expected), abs=1e-7)
    place = whole(target).streams.index("layer.1")
    np.testing.assert_allclose(result.arrays[f"cca-{target}.scores"][place], expected, atol=1e-7)


def test_mel_rows_are_aligned_by_index():
    """Fine streams are averaged to 10 ms, the features subsampled for coarse ones; the shorter decides."""
    moments = whole("mel").source._moments
    mel = [log_mel(corpus()[name].read()) for name in ids()]
    fine, coarse = [], []
    for name, m in zip(ids(), mel, strict=True):
        arrays = streams_of(name)
        frames = torch.from_numpy(arrays["conv.1"]).float()[None]
        pooled = pool_to_mel(frames, GRIDS["conv.1"], [frames.shape[1]])[0][0].numpy()
        n = min(len(pooled), len(m))
        fine.append((pooled[:n], m[:n]))
        n = min(len(arrays["input"]), -(-len(m) // 2))
        coarse.append((arrays["input"][:n].astype(np.float32), m[::2][:n]))
    for stream, pairs in (("conv.1", fine), ("input", coarse)):
        x, y = (np.concatenate(v).astype(float) for v in zip(*pairs, strict=True))
        expected, found = scatter_of(x, y), moments[stream].pooled(target="mel")
        assert found.n == expected.n
        for name in ("mean_x", "mean_y", "sxx", "sxy", "syy"):
            a, b = getattr(found, name), getattr(expected, name)
            assert np.abs(a - b).max() <= 1e-9 * np.abs(b).max()


def test_streams_may_come_pooled():
    one, other = prepared("mel"), prepared("mel")
    plain = capture(ids()[:2])
    frames, grid, lengths = pool_to_mel(plain.streams["conv.1"], GRIDS["conv.1"], plain.lengths["conv.1"])
    one.update(plain)
    other.update(
        Capture(
            plain.utterances,
            plain.samples,
            {**plain.streams, "conv.1": frames},
            {**plain.lengths, "conv.1": lengths},
            {**plain.grids, "conv.1": grid},
            {},
            {},
        )
    )
    assert all(np.array_equal(v, other.state()[k]) for k, v in one.state().items())


def test_convolutional_streams_are_pooled_as_they_come():
    transforms = prepared("mel").transforms(ANATOMY)
    assert list(transforms) == ["conv.1"]
    plain = capture(ids()[:2])
    frames, grid, _ = pool_to_mel(plain.streams["conv.1"], GRIDS["conv.1"], plain.lengths["conv.1"])
    n = plain.lengths["conv.1"][0]
    found = transforms["conv.1"].apply(plain.streams["conv.1"][0, :n])
    assert transforms["conv.1"].grid == grid
    torch.testing.assert_close(found, frames[0, : len(found)])
    assert prepared("phone").transforms(ANATOMY) == {}


def assert_same_state(found: CCA, expected: CCA) -> None:
    for name, array in expected.state().items():
        assert np.abs(found.state()[name] - array).max(initial=0) <= 1e-10 * np.abs(array).max(initial=0), name


@pytest.mark.parametrize("target", ["mel", "phone", "word"])
@given(data=st.data())
@settings(max_examples=4, deadline=None)
def test_any_order_batching_and_split_gives_the_same(target, data):
    order = data.draw(st.permutations(ids()))
    cuts = sorted(data.draw(st.lists(st.integers(0, 12), max_size=6)))
    parts = [prepared(target) for _ in range(3)]
    for a, b in pairwise([0, *cuts, 12]):
        if a < b:
            batch = capture(tuple(order[a:b]), "word" if target == "word" else "phone")
            parts[data.draw(st.integers(0, 2))].update(batch)
    parts[2].merge(parts[0])
    parts[2].merge(parts[1])
    assert_same_state(parts[2], whole(target))
    for found, expected in zip(parts[2].compute().rows, whole(target).compute().rows, strict=True):
        assert (found.stream, found.n) == (expected.stream, expected.n)
        for field in ("value", "low", "high", "floor"):
            assert getattr(found, field) == pytest.approx(getattr(expected, field), abs=1e-7)


def test_state_round_trip():
    loaded = prepared("phone")
    loaded.load_state({k: v.copy() for k, v in whole("phone").state().items()})
    assert loaded.compute().rows == whole("phone").compute().rows


def test_computing_leaves_the_state():
    before = {k: v.copy() for k, v in whole("word").state().items()}
    whole("word").compute()
    assert all(np.array_equal(v, before[k]) for k, v in whole("word").state().items())


def test_notes_say_what_was_chosen_and_left_out():
    notes = whole("phone").compute().notes
    assert notes["folds"] == 5
    assert notes["folds_by"] == "speaker"
    assert notes["labels"] == 5
    assert notes["labels_left_out"] == notes["rows_left_out"] == notes["utterances_without_tier"] == 0
    assert len(notes["ridges"]["layer.1"]) == 5
    assert notes["undefined"] == []
    assert notes["state_bytes"] > 0


def test_states_of_other_preparations_are_refused():
    one, other = prepared("phone"), CCA("phone")
    other.prepare(ANATOMY, corpus(), seed=1)
    with pytest.raises(StateError, match="prepared with different"):
        one.merge(other)
    with pytest.raises(StateError, match="another model, corpus or seed"):
        one.load_state(other.state())
    with pytest.raises(StateError, match="same measure"):
        one.merge(prepared("word"))
    with pytest.raises(StateError, match="lacks"):
        one.load_state({})
    with pytest.raises(StateError, match="was not prepared"):
        CCA("mel").compute()


def test_an_utterance_of_another_corpus_is_refused():
    measure = CCA("phone")
    measure.prepare(ANATOMY, corpus().subset(ids()[:-1]), seed=0)
    with pytest.raises(StateError, match="Utterance 0011"):
        measure.update(capture(ids()[-1:]))


def test_a_stream_that_is_not_finite_is_refused_by_name():
    batch = capture(ids()[:1])
    batch.streams["layer.1"][0, 3, 2] = torch.inf
    with pytest.raises(MeasureError, match=r"Stream layer.1, 0000"):
        prepared("mel").update(batch)


def test_a_constant_stream_has_no_value_and_is_named():
    measure = prepared("phone")
    for name in ids():
        batch = capture((name,))
        batch.streams["layer.1"][:] = 0.3
        measure.update(batch)
    result = measure.compute()
    row = next(r for r in result.rows if r.stream == "layer.1")
    assert row.value is row.low is row.high is row.floor is None
    assert result.notes["undefined"] == ["layer.1"]


def test_corpora_that_cannot_be_scored_are_refused():
    bare = Corpus.from_arrays([np.zeros(16000)] * 3, speakers=["a", "b", "c"])
    with pytest.raises(CorpusError, match="no tier 'phone'"):
        CCA("phone").prepare(ANATOMY, bare, 0)
    with pytest.raises(MeasureError, match="1 utterance of"):
        CCA("mel").prepare(ANATOMY, corpus().subset(ids()[:1]), 0)
    measure = prepared("mel")
    measure.update(capture(ids()[:1]))
    with pytest.raises(MeasureError, match="rows in 1 folds"):
        measure.compute()
    with pytest.raises(MeasureError, match="cca-pitch needs a table"):
        CCA("pitch")
    odd = Anatomy("odd", ("layer.1",), {"layer.1": 4}, {"layer.1": Grid(200, 400)}, (2,))
    with pytest.raises(MeasureError, match="every 200 samples"):
        CCA("mel").prepare(odd, corpus(), 0)
    none = Anatomy("odd", ("mel",), {"mel": 80}, {"mel": Grid(160, 400)}, ())
    with pytest.raises(MeasureError, match="No stream of a layer"):
        CCA("phone").prepare(none, corpus(), 0)


def test_two_utterances_are_enough():
    pair = corpus().subset(ids()[:2])
    measure = CCA("mel")
    measure.prepare(ANATOMY, pair, 0)
    measure.update(capture(ids()[:2]))
    result = measure.compute()
    assert result.notes["folds_by"] == "utterance"
    assert set(np.unique(result.arrays["cca-mel.ridges"])) == {1e-3}
    assert next(r for r in result.rows if r.stream == "layer.1").value > 0.99


def test_utterances_without_the_tier_are_counted():
    some = Corpus(
        "some",
        (*corpus().utterances, Utterance("bare", "s0", None, 16000, {}, np.zeros(16000, np.float32))),
    )
    measure = CCA("phone")
    measure.prepare(ANATOMY, some, 0)
    for name in ids():
        measure.update(capture((name,)))
    assert measure.compute().notes["utterances_without_tier"] == 1
