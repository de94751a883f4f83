"""Folders as they are searched: links, folders that cannot be read, names that are too long."""

import os

import pytest

from otoscope.errors import AlignmentError, AudioError, CorpusError
from otoscope.speech import read_corpus
from otoscope.speech.finding import walk


def locked(monkeypatch, name):
    """Makes one folder unreadable, for the superuser too."""
    scan = os.scandir

    def refuse(path):
        if os.path.basename(path) == name:  # noqa: PTH119
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)


def test_an_unreadable_folder_is_named(audio, monkeypatch, tmp_path):
    audio("c/anna/a.wav")
    audio("c/ben/b.wav")
    locked(monkeypatch, "ben")
    with pytest.raises(CorpusError, match=r"c/ben cannot be read: Permission denied\. Allow yourself"):
        read_corpus(tmp_path / "c")


def test_an_unreadable_folder_of_one_recording(audio, monkeypatch):
    path = audio("c/a.wav")

    def refuse(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(type(path), "iterdir", refuse)
    with pytest.raises(CorpusError, match=r"The folder .*c cannot be read: Permission denied"):
        read_corpus(path)


def test_an_unreadable_folder_of_alignments_is_named(audio, monkeypatch, textgrid, tmp_path):
    audio("c/a.wav")
    textgrid("given/deep/a.TextGrid", {"words": [("0", "1", "x")]})
    locked(monkeypatch, "deep")
    with pytest.raises(CorpusError, match="given/deep cannot be read"):
        read_corpus(tmp_path / "c", alignments=tmp_path / "given")


def test_a_folder_that_cannot_be_reached(monkeypatch, tmp_path):
    def refuse(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(type(tmp_path), "is_dir", refuse)
    with pytest.raises(CorpusError, match=r"c cannot be reached: permission denied\. Allow yourself"):
        read_corpus(tmp_path / "c")


def test_links_to_folders_are_followed(audio, tmp_path):
    audio("c/anna/a.wav")
    audio("disk/ben/b.wav")
    (tmp_path / "c/ben").symlink_to(tmp_path / "disk/ben")
    corpus = read_corpus(tmp_path / "c")
    assert [(u.id, u.speaker) for u in corpus] == [("a", "anna"), ("b", "ben")]
    assert corpus["b"].read().shape == (16000,)


def test_links_lead_nowhere_twice(audio, tmp_path):
    audio("c/anna/a.wav")
    audio("c/other.wav")
    audio("outside/o.wav")
    for link, target in {
        "c/again": "c/anna",  # beside the folder itself, and sorted before it
        "c/anna/round": "c",
        "c/anna/above": ".",
        "c/self": "c/self",
        "c/.hidden": "outside",
        "c/gone": "none",
    }.items():
        (tmp_path / link).symlink_to(tmp_path / target)
    assert [p for p in walk(tmp_path / "c") if p.suffix] == [tmp_path / "c/anna/a.wav", tmp_path / "c/other.wav"]


def test_links_in_circles_outside(audio, tmp_path):
    audio("one/a.wav")
    audio("two/b.wav")
    (tmp_path / "one/next").symlink_to(tmp_path / "two")
    (tmp_path / "two/next").symlink_to(tmp_path / "one")
    assert walk(tmp_path / "one") == [tmp_path / "one/a.wav", tmp_path / "one/next/b.wav"]


def test_where_there_is_no_folder_there_are_no_files(tmp_path):
    assert walk(tmp_path / "none") == []
    (tmp_path / "file").write_text("x")
    assert walk(tmp_path / "file") == []


def test_names_longer_than_names_may_be(audio, manifest, tmp_path):
    path = audio(f"c/{'a' * 251}.wav")
    # With the longer ending of a TextGrid the name is too long: the recording has none beside it.
    assert len(read_corpus(path)) == 1
    with pytest.raises(CorpusError, match="No corpus at"):
        read_corpus(tmp_path / ("a" * 300))
    with pytest.raises(AlignmentError, match="No alignments at"):
        read_corpus(path, alignments=tmp_path / ("a" * 300))
    line = manifest({"audio_filepath": "b" * 5000 + ".wav"}, {"audio_filepath": str(path)})
    with pytest.raises(AudioError, match=r"line 1: .*\(\d+ characters\) cannot be opened: File name too long"):
        read_corpus(line)
    assert len(read_corpus(line, skip_bad=True).left_out) == 1


def test_a_name_that_is_not_decoded_is_left_out_in_print(audio, tmp_path):
    audio("c/a.wav")
    try:
        audio("c/b.wav").rename(os.fsdecode(os.fsencode(tmp_path) + b"/c/\xfc.wav"))
    except OSError:
        pytest.skip("this file system takes no such names")
    with pytest.raises(AudioError, match=r"udcfc\.wav' cannot be opened: its name .* Use a UTF-8 locale"):
        read_corpus(tmp_path / "c")
    left_out = read_corpus(tmp_path / "c", skip_bad=True).left_out
    assert [x.id for x in left_out] == ["\\udcfc"]
    str(left_out).encode()
