from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from otoscope.errors import CorpusError, MeasureError, TableError
from otoscope.measures.layers.similarity import SentenceSimilarity, WordSimilarity, spearman
from otoscope.speech import Corpus
from tests.measures.layers.test_cca import ANATOMY, WORDS, capture, corpus, ids, streams_of

PAIRS = [(a, b, float(k)) for k, (a, b) in enumerate((a, b) for a in WORDS for b in WORDS if a < b)]


def cosine(a, b):
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=20))
@settings(max_examples=60)
def test_spearman_equals_scipy(told):
    x, y = np.array(told, dtype=np.float64).T
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert np.isnan(spearman(x, y))
    else:
        assert spearman(x, y) == pytest.approx(spearmanr(x, y).statistic, abs=1e-12)


def passed(measure, names=None, speech=None):
    measure.prepare(ANATOMY, speech or corpus(), seed=0)
    for name in names or ids():
        measure.update(capture((name,), "word"))
    return measure


def word_means(stream, kept=lambda segment: True, segments=()):
    rows = {}
    for one in segments:
        if kept(one):
            rows.setdefault(one.label, []).append(mean_of(one.utterance, stream, one.start, one.end))
    return {word: np.mean(vectors, axis=0) for word, vectors in rows.items()}


def mean_of(utterance, stream, start, end):
    """As it is stored: in float32."""
    frames = streams_of(utterance, "word")[stream].astype(np.float32)[start // 320 : -(-end // 320)]
    return frames.astype(np.float64).mean(axis=0).astype(np.float32).astype(np.float64)


def test_words_equal_one_by_one_and_a_layer_that_holds_the_scores_gets_one():
    held = np.random.default_rng(99)
    held.standard_normal((80, 90))
    vectors = dict(zip(WORDS, held.standard_normal((4, 12)) + 5, strict=True))
    alike = [(a, b, cosine(vectors[a], vectors[b])) for a, b, _ in PAIRS]
    measure = passed(WordSimilarity({"alike": alike, "other": PAIRS[:5]}, per_word=30))
    result = measure.compute()
    rows = {(r.stream, r.target): r for r in result.rows}
    assert rows["layer.2", "alike"].value == pytest.approx(1)
    assert {t for _, t in rows} == {"alike", "other", "micro", "macro"}
    for stream in measure.streams:
        means = word_means(stream, segments=measure.seen_segments())
        for name, pairs in {"alike": alike, "other": PAIRS[:5]}.items():
            row = rows[stream, name]
            expected = spearmanr([cosine(means[a], means[b]) for a, b, _ in pairs], [s for *_, s in pairs]).statistic
            assert row.value == pytest.approx(expected, abs=1e-9)
            assert (row.measure, row.ceiling, row.n) == ("word-similarity", 1, len(pairs))
            assert -1 <= row.low <= row.value <= row.high <= 1
            assert abs(row.floor) < 0.6
        one, two = rows[stream, "alike"].value, rows[stream, "other"].value
        assert rows[stream, "micro"].value == pytest.approx((6 * one + 5 * two) / 11)
        assert rows[stream, "macro"].value == pytest.approx((one + two) / 2)
        assert rows[stream, "micro"].n == 11


def test_leaving_a_speaker_out_is_leaving_the_instances_out():
    measure = passed(WordSimilarity({"pairs": PAIRS}))
    measure.compute()
    segments = measure.seen_segments()
    groups = measure.groups(segments)
    for g in range(groups.max() + 1):
        left = {one.speaker for one, group in zip(segments, groups, strict=True) if group == g}
        means = word_means("layer.1", lambda one, left=left: one.speaker not in left, segments)
        expected = spearmanr([cosine(means[a], means[b]) for a, b, _ in PAIRS], range(6)).statistic
        found = measure.correlations("layer.1", groups != g, np.arange(len(segments)))
        assert found["pairs"] == pytest.approx(expected, abs=1e-9)


def test_words_that_are_missing_are_left_out_and_counted():
    more = [*PAIRS, ("one", "cathedral", 9.0), ("Two", "YES", 2.5)]
    rare = [("zebra", "horse", float(k)) for k in range(9)]
    result = passed(WordSimilarity({"more": more, "rare": rare})).compute()
    assert result.notes["pairs"] == {"more": 7, "rare": 0}
    assert result.notes["pairs_left_out"] == {"more": 1, "rare": 9}
    assert {r.target for r in result.rows} == {"more", "micro", "macro"}
    with pytest.raises(MeasureError, match=r"too few pairs \(0 of 9 in rare\)"):
        WordSimilarity({"rare": rare}).prepare(ANATOMY, corpus(), seed=0)


def test_samples_are_bounded():
    measure = WordSimilarity({"pairs": PAIRS}, per_word=20, most=12)
    measure.prepare(ANATOMY, corpus(), seed=0)
    assert len(measure.segments) == 12


def test_sentences_by_id_equal_one_by_one():
    rng = np.random.default_rng(0)
    pairs = [(a, b, float(rng.random())) for a in ids()[:5] for b in ids()[:5] if a < b]
    measure = passed(SentenceSimilarity({"pairs": pairs}))
    result = measure.compute()
    assert len(measure.segments) == 5
    for stream in measure.streams:
        means = {name: mean_of(name, stream, 0, corpus()[name].n_samples) for name in ids()[:5]}
        expected = spearmanr([cosine(means[a], means[b]) for a, b, _ in pairs], [s for *_, s in pairs]).statistic
        row = next(r for r in result.rows if (r.stream, r.target) == (stream, "pairs"))
        assert row.value == pytest.approx(expected, abs=1e-9)
        assert (row.measure, row.n) == ("sentence-similarity", 10)


def test_sentences_of_several_speakers_are_averaged_over_all_pairs_of_recordings():
    texts = ["The old house.", "a GOOD child", "we sing", "rain falls"]
    speech = replace(
        corpus(), utterances=tuple(replace(u, transcript=texts[i % 4]) for i, u in enumerate(corpus().utterances))
    )  # fmt: skip
    plain = ["the old house", "A good child!", "we sing", "Rain falls"]
    pairs = [(plain[i], plain[j], float(3 * i + j)) for i in range(4) for j in range(i, 4)]
    measure = passed(SentenceSimilarity({"pairs": [*pairs, ("we sing", "nobody said this", 0.0)]}), speech=speech)
    assert len(measure.segments) == 12
    result = measure.compute()
    means = {}
    for name, x in zip([s.utterance for s in measure.seen_segments()], measure.vectors("layer.1"), strict=True):
        means[name] = x.astype(float)
    recordings = [[name for k, name in enumerate(ids()) if k % 4 == i] for i in range(4)]
    expected = [
        np.mean([cosine(means[a], means[b]) for a in recordings[i] for b in recordings[j] if a != b])
        for i in range(4) for j in range(i, 4)
    ]  # fmt: skip
    row = next(r for r in result.rows if (r.stream, r.target) == ("layer.1", "pairs"))
    assert row.value == pytest.approx(spearmanr(expected, [s for *_, s in pairs]).statistic, abs=1e-9)
    assert result.notes["pairs_left_out"] == {"pairs": 1}
    fewer = SentenceSimilarity({"pairs": pairs}, per_sentence=2)
    fewer.prepare(ANATOMY, speech, seed=0)
    assert len(fewer.segments) == 8


def test_a_stream_that_is_constant_has_no_value():
    measure = passed(WordSimilarity({"pairs": PAIRS}))
    measure._rows["layer.1"][:] = 1
    result = measure.compute()
    rows = [r for r in result.rows if r.stream == "layer.1"]
    assert [(r.value, r.low, r.floor) for r in rows] == [(None, None, None)] * 3
    assert result.notes["undefined"] == ["layer.1 macro", "layer.1 micro", "layer.1 pairs"]


def test_split_and_merged_parts_give_the_same():
    whole = passed(WordSimilarity({"pairs": PAIRS})).compute()
    a, b = passed(WordSimilarity({"pairs": PAIRS}), ids()[5:]), passed(WordSimilarity({"pairs": PAIRS}), ids()[:5])
    a.merge(b)
    assert a.compute().rows == whole.rows


def test_files(tmp_path):
    (tmp_path / "words.tsv").write_text("word1\tword2\tscore\n" + "".join(f"{a}\t{b}\t{s}\n" for a, b, s in PAIRS))
    (tmp_path / "said.tsv").write_text("The old house.\tA child, again!\t3.5\nwe sing\train falls\t1\n")
    assert WordSimilarity.from_files(tmp_path / "words.tsv").pairs == {"words": PAIRS}
    assert SentenceSimilarity.from_files(tmp_path / "said.tsv").pairs == {
        "said": [("The old house.", "A child, again!", 3.5), ("we sing", "rain falls", 1.0)]
    }
    with pytest.raises(TableError, match="nothing.tsv"):
        WordSimilarity.from_files(tmp_path / "nothing.tsv")
    with pytest.raises(MeasureError, match="two files are called words"):
        WordSimilarity.from_files(tmp_path / "words.tsv", tmp_path / "sub" / "words.csv")


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ({}, "no pairs"),
        ({"empty": []}, "scores of empty are none"),
        ({"flat": [("a", "b", 1.0), ("a", "c", 1.0)]}, "scores of flat are all the same"),
        ({"bad": [("a", "b", 1.0), ("a", "c", float("nan"))]}, "or not finite"),
        ({"micro": PAIRS}, "called micro"),
    ],
)
def test_pairs_that_cannot_be_ranked_are_refused(pairs, message):
    with pytest.raises(MeasureError, match=message):
        WordSimilarity(pairs)


def test_without_words_there_is_no_number():
    with pytest.raises(CorpusError, match="no tier 'word'"):
        WordSimilarity({"pairs": PAIRS}).prepare(ANATOMY, Corpus.from_arrays([np.ones(8000)], name="bare"), seed=0)
    with pytest.raises(MeasureError, match=r"too few pairs \(0 of 6 in pairs\)"):
        SentenceSimilarity({"pairs": PAIRS}).prepare(ANATOMY, corpus(), seed=0)
