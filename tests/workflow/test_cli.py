"""The command line, as a person meets it."""

import json
import os
import subprocess
import sys
import warnings

import pytest

from otoscope.cli import main
from otoscope.diagnosis import CATALOGUE, Diagnosis, choose
from otoscope.speech import write_corpus
from tests.diagnosis.small_speech import small_speech
from tests.models.small import CASES
from tests.workflow.program import otoscope, program


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    CASES[0].write(folder / "model")
    write_corpus(small_speech(), folder / "speech")
    return folder


SOME = "heads,relative-profile,cca-mel,cca-phone,cca-word"


@pytest.fixture(scope="module")
def saved(place):
    """As a program of its own: what it prints beside what is meant for people is seen only there."""
    return program("diagnose", place / "model", place / "speech", "-m", SOME, "-o", place / "result")


def test_diagnose_saves_and_report_reads(place, saved):
    assert saved.returncode == 0, saved.stderr
    assert "speech" in saved.stdout
    assert "Head" in saved.stdout
    assert saved.stderr == ""
    diagnosis = Diagnosis.load(place / "result")
    assert set(diagnosis.table["measure"]) == {entry.name for entry, _ in choose(SOME)}
    assert "diagnose" in diagnosis.provenance["command"]
    assert diagnosis.provenance["corpus"]["name"] == "speech"
    done = otoscope("report", place / "result", "-o", place / "page.html")
    assert done.returncode == 0, done.stderr
    assert "page.html" in done.stdout
    assert done.stderr == ""
    assert (place / "page.html").read_text().startswith("<!doctype html>")


def test_json_is_alone_on_standard_output(place):
    done = otoscope("diagnose", place / "model", place / "speech", "--measures", "heads", "--seed", "3", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["seed"] == 3
    assert {row["measure"] for row in told["rows"]} == {entry.name for entry in CATALOGUE if entry.group == "heads"}
    assert told["sentences"]


def test_same_seed_same_numbers(place, saved):
    """In another process, where sets have another order."""
    again = otoscope("diagnose", place / "model", place / "speech", "-m", SOME, "--json")
    assert saved.returncode == again.returncode == 0
    assert json.loads(again.stdout)["rows"] == Diagnosis.load(place / "result").table.to_dicts()


def test_options_of_measures_reach_them(place, tmp_path):
    """Folds, another model, a table and the random network's floor, all in one command."""
    words = ("one", "two", "three")
    (tmp_path / "made.txt").write_text("".join(f"{word} {k} {k * k}.5\n" for k, word in enumerate(words)))
    done = otoscope(
        "diagnose", place / "model", place / "speech", "--measures", "cca-glove,cca-inter,cka-inter",
        "--table", f"glove={tmp_path / 'made.txt'}", "--against", place / "model",
        "--folds", "3", "--folds-by", "row", "--floor", "random", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["skipped"] == []
    assert told["floor"]["kind"] == "fresh weights"
    assert told["notes"]["cca-glove"]["folds"] == 3
    assert told["notes"]["cca-glove"]["folds_by"] == "row"
    inter = [row for row in told["rows"] if row["measure"] == "cca-inter"]
    assert all(row["value"] > 0.9 and row["other"] == row["stream"] for row in inter if row["other"] != "layer.3")
    assert all(row["floor"] < row["value"] for row in inter)


@pytest.mark.parametrize(
    ("option", "text"),
    [
        (("--table", "glove"), "not NAME=PATH"),
        (("--table", "glove=absent.txt"), "absent.txt"),
        (("--floor", "zero"), "no floor 'zero'"),
        (("--folds", "1"), "cannot be dealt into 1 folds"),
        (("--measures", "cca-glove"), "--table glove=PATH"),
        (("--measures", "cca-inter"), "--against MODEL"),
    ],
)
def test_options_that_make_no_sense_are_refused(place, option, text):
    done = otoscope("diagnose", place / "model", place / "speech", *option)
    assert done.returncode == 2
    assert text in " ".join(done.stderr.split())


def test_list_names_every_measure():
    done = program("diagnose", "--list")
    assert done.returncode == 0
    for entry in CATALOGUE:
        assert entry.name in done.stdout


@pytest.mark.parametrize("command", [(), ("diagnose",), ("demo",), ("report",)])
def test_help_shows_examples(command):
    done = program(*command, "--help")
    assert done.returncode == 0
    if command:
        assert f"otoscope {command[0]}" in done.stdout
        assert "Examples" in done.stdout


def test_version():
    from otoscope import __version__

    assert program("--version").stdout.strip() == __version__


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["diagnose", "/no/such/model"], "There is no model folder /no/such/model"),
        (["diagnose", "embedded", "embedded", "-m", "vertigo"], "There is no measure or group 'vertigo'"),
        (["report", "/no/such/diagnosis"], "/no/such/diagnosis holds no diagnosis"),
        (["diagnose", "nobody/no-such-model"], "cannot be loaded from the Hugging Face Hub"),
    ],
)
def test_errors_are_two_lines_with_the_cure(arguments, told):
    done = otoscope(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 2


@pytest.mark.slow
def test_a_program_ends_with_a_status_and_two_lines():
    """Of a model that is loaded before the error nothing is told."""
    done = program("diagnose", "embedded", "/no/such/corpus")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "/no/such/corpus" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 2


def test_a_bad_recording_stops_the_run_or_is_skipped_and_listed(place, tmp_path):
    corpus = tmp_path / "speech"
    write_corpus(small_speech(), corpus)
    next(corpus.rglob("*.flac")).write_bytes(b"not audio")
    done = otoscope("diagnose", place / "model", corpus, "-o", tmp_path / "d", "-m", "heads")
    assert done.returncode == 2
    assert ".flac" in done.stderr
    assert not (tmp_path / "d").exists()
    done = otoscope("diagnose", place / "model", corpus, "-o", tmp_path / "d", "-m", "heads", "--skip-bad")
    assert done.returncode == 0, done.stderr
    told = Diagnosis.load(tmp_path / "d").provenance["corpus"]
    assert told["utterances"] == 11
    assert len(told["left_out"]) == 1


def test_unwritable_output(place, tmp_path):
    (tmp_path / "keep.txt").write_text("mine")
    done = otoscope("diagnose", place / "model", place / "speech", "-m", "heads", "-o", tmp_path)
    assert done.returncode == 2
    assert "something other than a diagnosis" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["keep.txt"]


def test_a_place_that_cannot_be_written_is_refused_before_the_work(place, tmp_path):
    (tmp_path / "file").write_text("x")
    for command in (["diagnose", "/no/model", "/no/speech", "-o", tmp_path / "file"], ["demo", "-o", tmp_path]):
        done = otoscope(*command)
        assert done.returncode == 2
        assert str(tmp_path) in done.stderr


def _closed_pipe():
    """Where a program writes whose reader has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def test_a_closed_pipe_does_not_lose_the_result(place, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        sys, "argv", ["otoscope", "diagnose", str(place / "model"), str(place / "speech"), "-m", "heads", "--json",
                      "-o", str(tmp_path / "d")],
    )  # fmt: skip
    with warnings.catch_warnings(), os.fdopen(_closed_pipe(), "w") as closed:
        warnings.filterwarnings("ignore", "Cyclopts application invoked without tokens", UserWarning)
        monkeypatch.setattr(sys, "stdout", closed)
        with pytest.raises(SystemExit) as end:
            main()
    assert end.value.code == 141
    assert "Traceback" not in capsys.readouterr().err
    assert Diagnosis.load(tmp_path / "d").table.height


@pytest.mark.slow
def test_a_program_whose_reader_has_gone_keeps_the_result(place, tmp_path):
    command = [sys.executable, "-m", "otoscope", "diagnose", place / "model", place / "speech", "-m", "heads", "--json"]
    writer = _closed_pipe()
    done = subprocess.run(
        [*map(str, command), "-o", str(tmp_path / "d")], stdout=writer, stderr=subprocess.PIPE, check=False
    )
    os.close(writer)
    assert b"Traceback" not in done.stderr
    assert Diagnosis.load(tmp_path / "d").table.height


def test_reasons_of_what_was_left_out_are_shown(place, tmp_path):
    corpus = tmp_path / "speech"
    write_corpus(small_speech(), corpus)
    bad = next(corpus.rglob("*.flac"))
    bad.write_bytes(b"not audio")
    done = otoscope("diagnose", place / "model", corpus, "-m", "heads", "--skip-bad", COLUMNS="300")
    assert "1 utterance was left out" in done.stdout
    assert bad.name in done.stdout


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("-m", "heads,importance", "--metrics", "wer,nothing"), "There is no metric 'nothing'"),
        (("-m", "heads", "--metrics", "wer"), "No measure that was asked for reads --metrics"),
        (("-m", "mixing-norm", "--store", "kept"), "No measure that was asked for reads --store"),
    ],
)
def test_what_is_wrong_with_many_passes_is_told_before_the_first(options, says):
    done = otoscope("diagnose", "no-model", "no-speech", *options)
    assert done.returncode == 2
    assert says in done.stderr
