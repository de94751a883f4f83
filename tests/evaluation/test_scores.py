import numpy as np
import polars as pl
import pytest

from otoscope.errors import EvaluationError, ResultError
from otoscope.evaluation.bootstrap import blocks_of
from otoscope.evaluation.scores import Scores
from tests.evaluation.texts import scores_of


def rich():
    return scores_of(
        [1, 0, 3, 2], [4, 0, 5, 1], ["ann", "bob", None, "ann"], ids=["a", "b", "c", "d"],
        parts={"substitutions": np.array([1.0, 0, 2, 2]), "insertions": np.array([0.0, 0, 1, 0])},
        texts={"reference": ("x y", "", "z", "w"), "hypothesis": ("x", "", "z é", "")},
    )  # fmt: skip


def test_value_is_a_ratio_of_sums():
    assert rich().value == 0.6
    assert rich().totals() == {"numerator": 6, "denominator": 10, "substitutions": 5, "insertions": 1}


def test_by_speaker():
    rows = rich().by_speaker().to_dicts()
    assert [row["speaker"] for row in rows] == [None, "ann", "bob"]
    assert [row["value"] for row in rows] == [0.6, 0.6, None]
    assert [row["utterances"] for row in rows] == [1, 2, 1]
    assert [row["substitutions"] for row in rows] == [2, 3, 0]


def test_table():
    table = rich().table()
    assert table["value"].to_list() == [0.25, None, 0.6, 2.0]
    assert table["hypothesis"].to_list() == ["x", "", "z é", ""]


def test_save_and_load(tmp_path):
    path = rich().save(tmp_path / "new" / "wer.parquet")
    again = Scores.load(path)
    for name in ("metric", "unit", "higher_is_better", "ids", "speakers", "texts"):
        assert getattr(again, name) == getattr(rich(), name)
    assert again.table().equals(rich().table())
    assert list(again.parts) == ["substitutions", "insertions"]
    assert [one.name for one in path.parent.iterdir()] == ["wer.parquet"]


def test_speakers_none_at_all_survive_saving(tmp_path):
    scores = scores_of([1, 2], [3, 4])
    assert Scores.load(scores.save(tmp_path / "s.parquet")).speakers == (None, None)


def test_files_that_are_no_scores_are_refused(tmp_path):
    (tmp_path / "text").write_text("no")
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "other")
    for name in ("absent", "text", "other"):
        with pytest.raises(ResultError, match=f"{name} holds no scores"):
            Scores.load(tmp_path / name)
    with pytest.raises(ResultError, match="cannot be written"):
        rich().save(tmp_path / "text" / "below")


def test_subset_keeps_rows_together():
    part = rich().subset(("d", "a"))
    assert part.ids == ("d", "a")
    assert part.numerator.tolist() == [2, 1]
    assert part.texts["reference"] == ("w", "x y")
    with pytest.raises(EvaluationError, match="'z' has no score of wer"):
        rich().subset(("z",))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"ids": ("a", "a")}, "'a' is scored twice"),
        ({"speakers": ("a",)}, "2 utterances but 1 values of speakers"),
        ({"parts": {"insertions": np.zeros(3)}}, "3 values of insertions"),
        ({"numerator": np.array([1, np.nan])}, "numerator of wer is nan for utterance 'u0001'"),
        ({"denominator": np.array([1, -1.0])}, "denominator of wer is -1.0 for utterance 'u0001'"),
        ({"denominator": np.zeros(2)}, r"denominators sum to zero over 2 utterance"),
    ],
)
def test_what_is_no_score_is_refused(change, told):
    with pytest.raises(EvaluationError, match=told):
        scores_of([1, 2], [3, 4], **change)


def test_blocks():
    found = blocks_of(["a", "b", "c", "d"], ["x", None, "x", None])
    assert (found.by, len(found)) == ("speaker", 2)
    assert sorted(found.sums(np.array([1.0, 2, 3, 4])).tolist()) == [4, 6]
    # A speaker who is called unknown is not one who is not known.
    assert blocks_of(["a", "b"], ["unknown", None]).by == "speaker"
    assert blocks_of(["a", "b"], [None, None]).by == "utterance"


def test_interval_of_a_rate():
    rng = np.random.default_rng(0)
    errors, words = rng.poisson(0.5, 200), rng.integers(5, 15, 200)
    found = scores_of(errors, words, [f"s{k % 25}" for k in range(200)]).interval()
    assert found.value == errors.sum() / words.sum()
    assert 0 < found.low < found.value < found.high
    assert (found.by, found.blocks, found.level) == ("speaker", 25, 0.95)
    plain = scores_of(errors, words)
    drawn, other, wider = (plain.interval(**change) for change in ({}, {"seed": 1}, {"level": 0.99}))
    assert wider.by == "utterance"
    assert wider.low < drawn.low < drawn.high < wider.high
    assert drawn.low != other.low
    # Of many utterances it is the normal interval of a ratio (linearised; Cochran 1977, section 6.4).
    half = 1.96 * np.sqrt(np.square(errors - plain.value * words).sum()) / words.sum()
    assert (drawn.high - drawn.low) / 2 == pytest.approx(half, rel=0.05)


def test_a_rate_is_never_below_zero():
    found = scores_of([9, 1, 0, 0, 0], [10] * 5, list("abcde")).interval()
    assert found.low >= 0


@pytest.mark.parametrize("speakers", [2, 9, 40])
@pytest.mark.parametrize("rate", [0.0, 0.25, 1.0])
def test_where_all_speakers_are_alike_the_interval_allows_for_others(speakers, rate):
    """A share u of speakers of another kind would be missed by all of them in half of what the level leaves."""
    words = 4.0 * np.arange(1, speakers + 1)
    scores = scores_of(rate * words, words, [f"s{k}" for k in range(speakers)])
    for level in (0.9, 0.95):
        found = scores.interval(level=level)
        least, most = (found.value - found.low) / (rate or 1), (found.high - found.value) / ((1 - rate) or 1)
        for share, there in ((least, rate > 0), (most, rate < 1)):
            assert (1 - share) ** speakers == pytest.approx((1 - level) / 2 if there else 1)
        assert 0 <= found.low <= found.value == rate <= found.high <= 1


def test_no_error_among_nine_speakers_is_no_proof_of_none():
    found = scores_of([0] * 9, [20] * 9, list("abcdefghi")).interval()
    assert (found.low, found.blocks) == (0, 9)
    assert found.high == pytest.approx(1 - 0.025 ** (1 / 9))
    # A speaker without a word tells nothing.
    assert scores_of([0] * 9, [20] * 8 + [0], list("abcdefghi")).interval().high == pytest.approx(1 - 0.025 ** (1 / 8))


@pytest.mark.parametrize("told", [([1.5, 3.0], [1.0, 2.0]), ([0.1, 0.2], [1, 2]), ([2, 4], [1, 2]), ([0, 0], [5, 0])])
def test_what_is_alike_and_has_no_bounds_has_no_interval(told):
    assert np.isnan(scores_of(*told, list("ab")).interval().high)


def test_one_utterance_has_a_value_and_no_interval():
    found = scores_of([1], [4]).interval()
    assert found.value == 0.25
    assert np.isnan([found.low, found.high]).all()


@pytest.mark.parametrize("speakers", [9, 30])
def test_coverage_of_a_rate(speakers):
    """Speakers whose error rates vary by about their half around 0.1."""
    rng, trials, covered = np.random.default_rng(speakers), 400, 0
    for trial in range(trials):
        words = rng.integers(50, 150, speakers)
        errors = rng.binomial(words, rng.beta(4, 36, speakers))
        found = scores_of(errors, words, [f"s{k}" for k in range(speakers)]).interval(seed=trial, n=600)
        covered += found.low <= 0.1 <= found.high
    assert abs(covered / trials - 0.95) < 3 * np.sqrt(0.95 * 0.05 / trials)
