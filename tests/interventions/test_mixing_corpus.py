"""Context mixing over a corpus: its figures from single utterances, intervals, choice, what is left out."""

import numpy as np
import pytest

from otoscope.errors import CorpusError, MeasureError
from otoscope.interventions.mixing import context_mixing, method_and_spans, mix
from otoscope.models import load
from otoscope.speech.corpus import Corpus
from otoscope.surgery import CutHeads, Gate, ReplaceMap, apply
from tests.diagnosis.small_speech import small_speech
from tests.models.small import CASES


def model(name="wav2vec2-group"):
    return load(next(case for case in CASES if case.name == name).build())


def values(result, target):
    return [row.value for row in result.rows if row.target == target]


@pytest.mark.parametrize("method", ["norm", "attention", "value-zeroing", "attention-rollout"])
def test_figures_are_means_of_those_of_utterances(method):
    corpus, ready = small_speech(3), model()
    result = context_mixing(ready, corpus, method)
    beside = "attention-rollout" if method.endswith("rollout") else "attention"
    distances, shares, less, ratios = [], [], [], []
    for utterance in corpus:
        found = mix(ready, utterance, [method, beside])
        apart = np.abs(np.subtract.outer(*[np.arange(found[method].maps.shape[1])] * 2))
        distances.append([(one * apart).sum() / len(one) for one in found[method].maps])
        less.append(np.array(distances[-1]) - [(one * apart).sum() / len(one) for one in found[beside].maps])
        shares.append([np.diag(one).mean() for one in found[method].maps])
        if method == "norm":
            ratios.append(found[method].ratio.mean(1))
    np.testing.assert_allclose(values(result, "distance"), np.mean(distances, 0), rtol=1e-5)
    np.testing.assert_allclose(values(result, "own-share"), np.mean(shares, 0), rtol=1e-5)
    if method == "norm":
        np.testing.assert_allclose(values(result, "mixing-ratio"), np.mean(ratios, 0), rtol=1e-5)
    if method != beside:
        np.testing.assert_allclose(values(result, "distance-less-attention"), np.mean(less, 0), atol=1e-5)
    else:
        assert not values(result, "distance-less-attention")
    for row in result.rows:
        assert row.measure == f"mixing-{method}"
        assert row.stream == f"layer.{row.layer}"
        assert row.low <= row.value <= row.high
        assert row.n == 3


def test_closed_forms():
    """Uniform maps are as far apart as uniform maps are; without heads every frame stands for itself."""
    made = apply(model(), [ReplaceMap("layer.1", "uniform"), Gate("layer.2", 0.0)])
    corpus = small_speech(2)
    attention = context_mixing(made, corpus, "attention")
    frames = np.array([made.frontend.frames(u.n_samples) for u in corpus])
    assert values(attention, "distance")[0] == pytest.approx(np.mean((frames**2 - 1) / (3 * frames)), rel=1e-5)
    assert values(attention, "diagonality")[0] == pytest.approx(np.mean(-(frames**2 - 1) / (3 * frames**2)), rel=1e-5)
    assert values(attention, "own-share")[0] == pytest.approx(np.mean(1 / frames), rel=1e-5)
    norm = context_mixing(made, corpus, "norm")
    assert values(norm, "mixing-ratio")[1] == 0
    assert values(norm, "own-share")[1] == pytest.approx(1)
    assert values(norm, "distance")[1] == 0


@pytest.mark.parametrize("method", ["norm", "attention", "value-zeroing-rollout"])
def test_a_layer_that_has_lost_all_its_heads_looks_nowhere_but_at_itself(method):
    """A mean over no heads is no number; it must not get into the table, nor into what later layers are rolled out of."""
    cut = apply(model(), [CutHeads("layer.2.head.0,1,2,3")])
    found = context_mixing(cut, small_speech(2), method)
    assert all(np.isfinite([row.value, row.low, row.high]).all() for row in found.rows)
    if not method.endswith("rollout"):
        assert values(found, "own-share")[1] == 1.0
        assert values(found, "distance")[1] == 0.0
        assert values(found, "own-share")[2] < 1.0


def test_the_order_of_the_corpus_does_not_count_and_the_seed_does():
    corpus, ready = small_speech(8), model()
    turned = Corpus(corpus.name, tuple(reversed(corpus.utterances)))
    one, other, seeded = (
        context_mixing(ready, c, "attention", limit=3, seed=seed) for c, seed in ((corpus, 0), (turned, 0), (corpus, 1))
    )
    assert [vars(row) for row in one.rows] == [vars(row) for row in other.rows]
    assert values(one, "distance") != values(seeded, "distance")
    assert one.notes["left_out"]["not_drawn"] == 5


def test_words():
    result = context_mixing(model(), small_speech(3), "value-zeroing", spans="word")
    assert result.notes["distance_in"] == "words"
    assert {row.measure for row in result.rows} == {"mixing-value-zeroing-words"}
    assert method_and_spans("mixing-value-zeroing-words") == ("value-zeroing", "word")
    assert all(0 < value < 5 for value in values(result, "distance"))
    bare = small_speech(3, tiers=False)
    with pytest.raises(CorpusError, match="word"):
        context_mixing(model(), bare, "norm", spans="word")
    one_word = Corpus.from_arrays(
        [u.read() for u in bare], tiers=[{"word": u.tiers["word"][:1]} for u in small_speech(3)], name="short"
    )
    with pytest.raises(MeasureError, match="3 have fewer than two words"):
        context_mixing(model(), one_word, "norm", spans="word")


def test_long_utterances_are_left_out_and_counted():
    corpus, ready = small_speech(6), model()
    frames = sorted(ready.frontend.frames(u.n_samples) for u in corpus)
    result = context_mixing(ready, corpus, "attention", max_frames=frames[2])
    assert result.notes["left_out"]["too_long"] == 3
    assert result.rows[0].n == 3
    with pytest.raises(MeasureError, match=r"None of the 6 utterances.*more frames than max_frames \(10\)"):
        context_mixing(ready, corpus, "attention", max_frames=10)


def test_a_conformer_and_whisper_say_what_is_left_out():
    assert (
        context_mixing(model("conformer-relative"), small_speech(1), "norm").notes["part_of_the_layer"] == "attention"
    )
    assert context_mixing(model("wav2vec2-group"), small_speech(1), "norm").notes["part_of_the_layer"] == "layer"
    padded = context_mixing(model("whisper"), small_speech(2), "norm")
    assert all(0 < share < 1 for share in padded.notes["share_of_padding"].values())


def test_refusals():
    for options, told in (
        ({"method": "flow"}, "No method is called 'flow'"),
        ({"spans": "phone"}, "No span is called 'phone'"),
        ({"limit": 0}, "0 utterances are none"),
    ):
        with pytest.raises(MeasureError, match=told):
            context_mixing(model(), small_speech(2), **options)
