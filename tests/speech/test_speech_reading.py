import shutil

import numpy as np
import pytest

from otoscope.errors import AlignmentError, AudioError, CorpusError, TranscriptError
from otoscope.speech import Interval, read_corpus


@pytest.fixture
def libri(audio, textgrid, tmp_path):
    """A LibriSpeech tree of two speakers, with TextGrids in a folder beside it."""
    for speaker, chapter in (("84", "1"), ("9", "2")):
        lines = []
        for n in range(2):
            name = f"{speaker}-{chapter}-000{n}"
            audio(f"dev/{speaker}/{chapter}/{name}.flac", 16000)
            textgrid(
                f"alignments/{speaker}/{chapter}/{name}.TextGrid",
                {
                    "words": [("0", "0.2", ""), ("0.2", "0.9", "Word"), ("0.9", "1.0", "")],
                    "phones": [("0", "0.2", "sil"), ("0.2", "0.9", "W"), ("0.9", "1.0", "")],
                },
            )
            lines.append(f"{name}   WORD {n}\n")
        (tmp_path / f"dev/{speaker}/{chapter}/{speaker}-{chapter}.trans.txt").write_text("".join(lines))
    (tmp_path / "dev/README.TXT").write_text("about")
    return tmp_path / "dev"


def test_librispeech_tree_with_alignments_beside_it(libri):
    corpus = read_corpus(libri)
    assert corpus.name == "dev"
    assert corpus.root == libri
    assert [u.id for u in corpus] == ["84-1-0000", "84-1-0001", "9-2-0000", "9-2-0001"]
    assert corpus.speakers == ("84", "9")
    assert corpus[1].transcript == "WORD 1"
    assert corpus[0].tier("word") == (Interval(3200, 14400, "word"),)
    assert [x.label for x in corpus[0].tier("phone")] == ["sil", "w", "sil"]
    assert corpus.left_out == ()
    assert corpus.counts == {}


def test_the_same_from_above_and_below(libri):
    corpus = read_corpus(libri)
    above = read_corpus(libri.parent, name="dev")
    assert above.fingerprint() == corpus.fingerprint()
    shutil.move(libri.parent / "alignments", libri / "alignments")
    assert read_corpus(libri).fingerprint() == corpus.fingerprint()
    below = read_corpus(libri / "84" / "1")
    assert [(u.id, u.speaker) for u in below] == [("84-1-0000", "84"), ("84-1-0001", "84")]


def test_single_recording(libri):
    corpus = read_corpus(libri / "84" / "1" / "84-1-0001.flac")
    assert [(u.id, u.speaker, u.transcript) for u in corpus] == [("84-1-0001", "84", "WORD 1")]
    assert corpus.name == "84-1-0001"


def test_folder_with_texts(audio, tmp_path):
    audio("a.wav")
    audio("b.wav")
    audio("c.wav")
    (tmp_path / "a.txt").write_text("\ufeff  Hello\n there  ", encoding="utf-8")
    (tmp_path / "b.lab").write_text("B")
    (tmp_path / "readme.txt").write_text("about")
    corpus = read_corpus(tmp_path)
    assert [u.transcript for u in corpus] == ["Hello there", "B", None]
    assert [u.speaker for u in corpus] == [None] * 3
    assert not corpus.has_tier("word")


def test_folders_name_speakers_and_make_ids_unique(audio, textgrid, tmp_path):
    for name in ("anna/one", "anna/two", "ben/one"):
        audio(f"{name}.wav")
    textgrid("times/ben/one.TextGrid", {"words": [("0", "1", "x")]})
    corpus = read_corpus(tmp_path)
    assert [(u.id, u.speaker) for u in corpus] == [("anna/one", "anna"), ("ben/one", "ben"), ("two", "anna")]
    # "one" of anna must not take the times of ben.
    assert [u.id for u in corpus if "word" in u.tiers] == ["ben/one"]


def test_a_textgrid_beside_the_recording_comes_first(audio, textgrid, tmp_path):
    audio("c/a.wav")
    textgrid("c/a.TextGrid", {"words": [("0", "1", "beside")]})
    textgrid("c/more/a.TextGrid", {"words": [("0", "1", "below")]})
    textgrid("alignments/a.TextGrid", {"words": [("0", "1", "sibling")]})
    textgrid("given/a.TextGrid", {"words": [("0", "1", "given")]})

    def word(**options):
        return read_corpus(tmp_path / "c", **options)[0].tier("word")[0].label

    assert word() == "beside"
    (tmp_path / "c/a.TextGrid").unlink()
    assert word() == "below"
    (tmp_path / "c/more/a.TextGrid").unlink()
    assert word() == "sibling"
    assert word(alignments=tmp_path / "given") == "given"


def test_ambiguous_alignments(audio, textgrid, tmp_path):
    audio("a.wav")
    textgrid("x/a.TextGrid", {"words": [("0", "1", "x")]})
    textgrid("y/a.TextGrid", {"words": [("0", "1", "y")]})
    with pytest.raises(AlignmentError, match="2 TextGrids fit"):
        read_corpus(tmp_path)


def test_ctm(audio, tmp_path):
    audio("c/a.wav")
    audio("c/b.wav")
    times = tmp_path / "times"
    times.mkdir()
    (times / "words.ctm").write_text("a 1 0.1 0.2 One\na 1 0.3 0.2 two\n")
    (times / "phones.ctm").write_text("a 1 0.1 0.4 AA1\n")
    with pytest.raises(AlignmentError, match="no alignment of b"):
        read_corpus(tmp_path / "c", alignments=times)
    corpus = read_corpus(tmp_path / "c", alignments=times, skip_bad=True)
    assert corpus["a"].tier("word") == (Interval(1600, 4800, "one"), Interval(4800, 8000, "two"))
    assert corpus["a"].tier("phone") == (Interval(1600, 8000, "aa"),)
    assert [x.id for x in corpus.left_out] == ["b"]
    only = read_corpus(tmp_path / "c", alignments=times / "words.ctm", skip_bad=True)
    assert only.tiers == ("word",)


@pytest.mark.parametrize("given", ["none", "c"])
def test_alignments_that_are_not_there(audio, tmp_path, given):
    audio("c/a.wav")
    with pytest.raises(AlignmentError, match="alignments"):
        read_corpus(tmp_path / "c", alignments=tmp_path / given)


@pytest.fixture
def spoilt(audio, textgrid, tmp_path):
    """A corpus with one good utterance; spoilt(kind) adds a bad one."""
    audio("good.wav")

    def spoil(kind):
        if kind == "empty":
            audio("bad.wav", 0)
        elif kind == "one sample":
            audio("bad.wav", 1)
        elif kind == "no audio":
            (tmp_path / "bad.wav").write_bytes(b"no audio")
        elif kind == "transcript only":
            (tmp_path / "bad.txt").write_text("text")
        elif kind == "trans only":
            (tmp_path / "x.trans.txt").write_text("good YES\nbad NO\n")
        elif kind == "no text":
            audio("bad.wav")
            (tmp_path / "bad.txt").write_bytes(b"\xff\xfe\x80")
        elif kind == "overlap":
            audio("bad.wav")
            textgrid("bad.TextGrid", {"words": [("0", "0.5", "a"), ("0.4", "1", "b")]})
        elif kind == "past the end":
            audio("bad.wav")
            textgrid("bad.TextGrid", {"words": [("0", "1.03", "a")]}, "1.03")
        elif kind == "phone":
            audio("bad.wav")
            textgrid("bad.TextGrid", {"phones": [("0", "1", "schwa")]})
        return tmp_path

    return spoil


BAD = [
    ("empty", AudioError, "empty"),
    ("one sample", AudioError, "1 sample"),
    ("no audio", AudioError, "cannot be read as audio"),
    ("transcript only", TranscriptError, "no such recording"),
    ("trans only", TranscriptError, "line 2"),
    ("no text", TranscriptError, "UTF-8"),
    ("overlap", AlignmentError, "overlaps"),
    ("past the end", AlignmentError, "past the end"),
    ("phone", AlignmentError, "'schwa'"),
]


@pytest.mark.parametrize(("kind", "error", "says"), BAD)
def test_bad_input_is_refused_by_name_or_skipped_and_listed(spoilt, kind, error, says):
    folder = spoilt(kind)
    with pytest.raises(error, match=says) as caught:
        read_corpus(folder)
    assert "bad" in str(caught.value)
    assert caught.value.cure
    corpus = read_corpus(folder, skip_bad=True)
    assert "good" in [u.id for u in corpus]
    assert len(corpus.left_out) == 1
    assert "bad" in corpus.left_out[0].id
    assert "left out    1" in str(corpus)


def test_less_than_a_frame_is_cut_and_counted(audio, textgrid, tmp_path):
    audio("a.wav")
    textgrid("a.TextGrid", {"words": [("0", "0.51", "a"), ("0.50", "1.02", "b")]}, "1.02")
    corpus = read_corpus(tmp_path)
    assert corpus[0].tier("word") == (Interval(0, 8160, "a"), Interval(8160, 16000, "b"))
    assert corpus.counts == {"cut_intervals": 1}


def test_alignment_of_another_rate(audio, textgrid, tmp_path):
    audio("a.wav", np.zeros(44100), 44100)
    textgrid("a.TextGrid", {"words": [("0.25", "1", "a")]})
    corpus = read_corpus(tmp_path)
    assert corpus[0].n_samples == 16000
    assert corpus[0].tier("word") == (Interval(4000, 16000, "a"),)


def test_no_corpus(audio, tmp_path):
    with pytest.raises(CorpusError, match="No corpus at"):
        read_corpus(tmp_path / "none")
    with pytest.raises(CorpusError, match="no recordings"):
        read_corpus(tmp_path)
    (tmp_path / "notes.md").write_text("x")
    with pytest.raises(CorpusError, match="neither a manifest"):
        read_corpus(tmp_path / "notes.md")
    (tmp_path / "list.jsonl").write_text("")
    with pytest.raises(CorpusError, match=r"list\.jsonl may be what you want"):
        read_corpus(tmp_path)
    with pytest.raises(CorpusError, match="it is empty"):
        read_corpus(tmp_path / "list.jsonl")
    audio("c/a.wav", 0)
    with pytest.raises(CorpusError, match="all 1 are left out"):
        read_corpus(tmp_path / "c", skip_bad=True)
    with pytest.raises(AlignmentError, match="no phone set"):
        read_corpus(tmp_path / "c", phone_set="ipa")


def test_one_name_in_two_formats(audio, tmp_path):
    audio("a.wav")
    audio("a.flac")
    with pytest.raises(CorpusError, match="more than one format"):
        read_corpus(tmp_path)


def test_hidden_files_are_no_part_of_a_corpus(audio, tmp_path):
    audio("a.wav")
    (tmp_path / "._a.wav").write_bytes(b"resource fork")
    audio(".cache/b.wav")
    assert [u.id for u in read_corpus(tmp_path)] == ["a"]
