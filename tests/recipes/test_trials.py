"""What recipes of trainings share: speech, settings of a folder, comparisons with missing runs, cells of tables."""

import json
import os
from argparse import ArgumentParser, Namespace

import pytest

from otoscope.errors import CorpusError, EvaluationError, OtoscopeError, TrainingError
from otoscope.evaluation import DecoderSettings
from otoscope.evaluation.outcome import Outcome
from otoscope.training.settings import TrainingSettings
from recipes.trials import comparing, speech
from recipes.trials.runs import Run, carry_out, chosen, claim, heard, listed
from recipes.trials.tables import END, days, made, mark, points, put, sizes, table, values
from tests.recipes.made_up import change, librispeech, spoken


def options(given) -> Namespace:
    parser = ArgumentParser()
    speech.speech_arguments(parser, 1.0)
    return parser.parse_args([str(one) for one in given])


def test_hours_that_are_heard_count_every_batch():
    settings = TrainingSettings(steps=600, batch_seconds=30.0, accumulate=2)
    assert heard(settings) == 36000
    text = listed([Run("a", "m", "none", "10min", 600, settings)] * 3)
    assert "| a | m | none | 10min (0.17 h) | 0 | 600 | 10.00 |" in text
    assert "3 trainings, which hear at most 30.0 hours" in text


def test_a_folder_is_of_one_recipe_and_its_settings(tmp_path):
    claim(tmp_path / "work", {"steps": 4, "train": tmp_path})
    claim(tmp_path / "work", {"steps": 4, "train": tmp_path})
    with pytest.raises(TrainingError, match="steps 4, not 5"):
        claim(tmp_path / "work", {"steps": 5, "train": tmp_path})
    with pytest.raises(TrainingError, match="train"):
        claim(tmp_path / "work", {"steps": 4})


def test_a_training_is_named_that_there_is():
    assert chosen(["a", "b"], "b") == "b"
    with pytest.raises(TrainingError, match="a, b"):
        chosen(["a", "b"], "c")


def test_what_fails_is_named_and_has_a_log(tmp_path):
    assert carry_out("recipes.nowhere", [], ["one", "two"], tmp_path, 2) == ["one", "two"]
    assert "nowhere" in (tmp_path / "one.log").read_text()


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (["--train", "."], "There is no --dev beside"),
        (["--train", "absent", "--dev", ".", "--exam", ".."], "--train: there is no absent"),
        (["--train", ".", "--dev", "..", "--exam", "."], "are the same"),
        (["--hours", "0"], "hours is 0"),
        (["--hours", "nan"], "hours is nan"),
        (["--exam-seconds", "-1"], "exam_seconds is -1"),
        (["--tune-seconds", "0"], "tune_seconds is 0"),
        (["--lm", "absent.arpa"], "--lm: there is no"),
        (["--alignments", "."], "alignments of a corpus that is not given"),
    ],
)
def test_paths_and_amounts_that_make_no_sense(given, error):
    with pytest.raises(OtoscopeError, match=error):
        speech.check_speech(options(given))


def test_rendered_speech_is_counted_without_rendering():
    assert speech.seconds_to_train(options(["--hours", "0.5"])) == 1800


def test_speech_of_paths(monkeypatch, tmp_path):
    found = speech.speech_of(options(librispeech(monkeypatch, tmp_path)))
    assert [one.name for one in (found.train, found.dev, found.exam)] == ["train-clean-100", "dev-clean", "test-clean"]
    assert found.train.seconds == pytest.approx(360000)


def test_examination_speech_is_not_trained_on(monkeypatch, tmp_path):
    given = options(librispeech(monkeypatch, tmp_path))
    same = spoken("x", 1.0)
    monkeypatch.setattr(speech, "read_corpus", lambda place, **more: same)
    monkeypatch.setattr(speech, "read_training_corpus", lambda place, skip_bad: same)
    with pytest.raises(EvaluationError, match="is trained on"):
        speech.speech_of(given)
    monkeypatch.undo()
    with pytest.raises((CorpusError, TrainingError), match="examination"):
        speech.speech_of(options(["--train", "embedded", "--dev", tmp_path, "--exam", "embedded:train"]))


def test_a_part_is_balanced_over_speakers():
    found = speech.part_of(spoken("x", 1.0), 1440)
    assert len(found) == len(found.speakers) == 4
    assert speech.part_of(found, 1e9) is found


def _finished(folder, *names):
    for name in names:
        (folder / name).mkdir()
        (folder / name / "config.json").touch()
    return [folder / name for name in ("a0", "a1", "a2")], [folder / name for name in ("b0", "b1", "b2")]


def test_seeds_without_both_models_are_left_out_of_a_comparison(monkeypatch, tmp_path):
    before, after = _finished(tmp_path, "a0", "a1", "a2", "b0", "b2")
    exam, asked = spoken("exam", 1.0), []

    def verified(olds, news, corpus, metrics, **more):
        asked.append(([one.name for one in olds], [one.name for one in news], more["cost"]))
        about = {"corpus": {"fingerprint": corpus.fingerprint()}}
        return Outcome({"wer": change([0.2, 0.4], [0.1, 0.2])}, {}, None, {}, (), about)

    monkeypatch.setattr(comparing, "verify", verified)
    place = tmp_path / "outcomes" / "exam--a--b--greedy"
    found = comparing.compared(before, after, exam, DecoderSettings(), place)
    assert asked == [(["a0", "a2"], ["b0", "b2"], True)]
    assert (tmp_path / "outcomes" / "exam--a--b--greedy--0-2.json").exists()
    assert found.first.difference.value == pytest.approx(-0.15)
    comparing.compared(before, after, exam, DecoderSettings(), place)
    assert len(asked) == 1  # what is there is read
    comparing.compared(before, after, spoken("other", 1.0), DecoderSettings(), place)
    assert len(asked) == 2  # but not of other speech
    assert comparing.compared(before[1:2], after[1:2], exam, DecoderSettings(), place) is None


def test_weights_of_the_language_model_are_chosen_once(monkeypatch, tmp_path):
    place = tmp_path / "weights.json"
    place.write_text(json.dumps({"alpha": 0.5, "beta": 1.0, "width": 25}))
    monkeypatch.setattr(comparing, "load_recogniser", None)
    heard = speech.Speech(*(spoken(name, 1.0) for name in speech.SPLITS))
    found = comparing.decoders(tmp_path, heard, tmp_path / "lm.arpa", place, 60.0)
    assert list(found) == ["greedy", "4-gram"]
    assert (found["4-gram"].alpha, found["4-gram"].beta, found["greedy"].lm) == (0.5, 1.0, None)


def test_cells():
    found = change([0.30, 0.20], [0.22, 0.18])
    assert values(found, 0) == "25.0 % (30.0, 20.0)"
    assert values(found, 1) == "20.0 % (22.0, 18.0)"
    assert points(found) == "-5.0 (-6.0 to -4.0)"
    assert (values(None, 0), points(None)) == ("-", "-")
    assert values(change([0.3], [0.2]), 1) == "20.0 %"
    assert "2 seeds and speakers." in sizes(found)
    assert "say nothing of other seeds" in sizes(change([0.3], [0.2]))


def test_text_is_put_between_the_marks(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{mark('x')}\n{END}\nafter\n")
    for text in ("one", table(["a"], [["1"]])):
        put(page, "x", text)
    assert page.read_text() == f"before\n{mark('x')}\n\n| a |\n| --- |\n| 1 |\n\n{END}\nafter\n"


def test_days_are_those_of_the_files(tmp_path):
    places = [tmp_path / "a", tmp_path / "b"]
    for place, when in zip(places, (1_700_000_000, 1_700_100_000), strict=True):
        place.touch()
        os.utime(place, (when, when))
    assert days(places[:1]) == "2023-11-14"
    assert days(reversed(places)) == "2023-11-14 to 2023-11-16"
    assert made("python -m x", days([])) == "Made by `python -m x`."
    assert made("python -m x", days(places[:1])) == "Made by `python -m x`, 2023-11-14."


def test_characters_are_told_of_greedy_decoding_alone():
    changes = {"wer": change([0.2], [0.1]), "cer": change([0.02], [0.01])}
    outcome = Outcome(changes, {}, None, {}, (), {})
    assert comparing.rates_of(outcome, "greedy") == {"greedy": changes["wer"], "characters": changes["cer"]}
    assert comparing.rates_of(outcome, "4-gram") == {"4-gram": changes["wer"]}
