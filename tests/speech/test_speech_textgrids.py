import json

import pytest

from otoscope.errors import AlignmentError
from otoscope.speech.textgrids import read_textgrid

TIERS = {"words": [("0", "0.3", ""), ("0.3", "1.0", 'say ""no""')], "phones": [("0.0", "0.29", "AA1")]}


def test_long_textgrid(textgrid):
    raw = read_textgrid(textgrid("x.TextGrid", TIERS))
    assert raw == {"word": [(0, 4800, ""), (4800, 16000, 'say "no"')], "phone": [(0, 4640, "AA1")]}


def test_other_textgrid_formats(textgrid, tmp_path):
    from praatio import textgrid as praat

    path = textgrid("x.TextGrid", TIERS)
    expected = read_textgrid(path)
    for format in ("short_textgrid", "textgrid_json", "json"):
        other = tmp_path / f"{format}.TextGrid"
        praat.openTextgrid(str(path), True).save(str(other), format, includeBlankSpaces=False)
        assert read_textgrid(other) == expected
    for encoding in ("utf-16", "utf-8-sig"):
        other = tmp_path / f"{encoding}.TextGrid"
        other.write_text(path.read_text().replace("AA1", "é"), encoding=encoding)
        assert read_textgrid(other)["phone"] == [(0, 4640, "é")]


@pytest.mark.parametrize(
    ("name", "tier"),
    [
        ("phone", "phone"),
        ("MAU", "phone"),
        ("word", "word"),
        ("anna - words", "word"),
        ("A - b - Phones", "phone"),
    ],
)
def test_names_of_tiers(textgrid, name, tier):
    path = textgrid("x.TextGrid", {name: [("0", "1", "a")], "notes": [("0", "1", "b")]})
    assert list(read_textgrid(path)) == [tier]


def test_bad_textgrids(textgrid, tmp_path):
    with pytest.raises(AlignmentError, match="no tier of phones or words; its tiers: 'notes', 'tones'"):
        read_textgrid(textgrid("a.TextGrid", {"notes": [("0", "1", "a")], "tones": [("0", "1", "b")]}))
    with pytest.raises(AlignmentError, match="more than one word tier"):
        read_textgrid(textgrid("b.TextGrid", {"anna - words": TIERS["words"], "ben - words": TIERS["words"]}))
    for content in (b"", b"nothing of the kind", b"{}", b"[1]", b"\xff\xfe\x00", b"\x80abc"):
        path = tmp_path / "c.TextGrid"
        path.write_bytes(content)
        with pytest.raises(AlignmentError, match=r"c\.TextGrid"):
            read_textgrid(path)


def test_half_written_textgrid(textgrid):
    path = textgrid("x.TextGrid", {"words": [(f"{i}", f"{i + 1}", "a") for i in range(9)], **TIERS}, "9")
    lines = path.read_text().splitlines()
    for n in range(8, len(lines)):
        path.write_text("\n".join(lines[:n]) + "\n")
        with pytest.raises(AlignmentError):
            read_textgrid(path)


NEGATIVE = {"words": [("-0.3", "0.3", "a"), ("0.3", "1.0", "b")]}


def negative(textgrid, format):
    path = textgrid("x.TextGrid", NEGATIVE)
    if format == "short":
        path.write_text(
            'File type = "ooTextFile"\nObject class = "TextGrid"\n\n-0.3\n1\n<exists>\n1\n'
            '"IntervalTier"\n"words"\n-0.3\n1\n2\n-0.3\n0.3\n"a"\n0.3\n1\n"b"\n'
        )
    elif format == "json":
        entries = [[-0.3, 0.3, "a"], [0.3, 1, "b"]]
        tiers = {"words": {"type": "IntervalTier", "entries": entries}}
        path.write_text(json.dumps({"start": -0.3, "end": 1, "tiers": tiers}))
    elif format == "textgrid_json":
        tier = {"class": "IntervalTier", "name": "words", "xmin": 0, "xmax": 1, "entries": [[-0.3, 0.3, "a"]]}
        path.write_text(json.dumps({"xmin": 0, "xmax": 1, "tiers": [tier]}))
    return path


@pytest.mark.parametrize("format", ["long", "short", "json", "textgrid_json"])
def test_negative_times_are_refused(textgrid, format):
    with pytest.raises(AlignmentError, match=r"negative time, -0\.3 s\. Count times from the start"):
        read_textgrid(negative(textgrid, format))


def test_a_negative_time_is_found_by_its_line(textgrid):
    path = textgrid("x.TextGrid", {"words": [("0", "0.3", "two\n    xmin = -1"), ("-0.3", "1.0", "b")]})
    line = path.read_text().splitlines().index("            xmin = -0.3") + 1
    with pytest.raises(AlignmentError, match=rf"line {line} has a negative time, -0\.3 s"):
        read_textgrid(path)


def test_minus_zero_and_labels_like_times_are_no_negative_times(textgrid):
    path = textgrid("x.TextGrid", {"words": [("-0", "0.3", "-5"), ("0.3", "1.0", "x = -5")]})
    assert [label for _, _, label in read_textgrid(path)["word"]] == ["-5", "x = -5"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", r"is empty\. Write it again"),
        (b" \n ", r"is empty\. Write it again"),
        (b"nothing of the kind", r"is not a TextGrid\. Write it again"),
        (b"[1]", r"is not a TextGrid\. Write it again"),
        (b'File type = "ooTextFile"\nObject class = "TextGrid"\n', "missing or misspelt parts"),
        (b"{}", "missing or misspelt parts"),
        (b'{"xmin": 0, "tiers": [{}]}', "missing or misspelt parts"),
        (
            b'{"xmin": 0, "tiers": [{"class": "IntervalTier", "name": "words", "entries": [[0, 1]]}]}',
            "missing or misspelt parts",
        ),
        (
            b'{"xmin": 0, "tiers": [{"class": "IntervalTier", "name": "words", "entries": [[0, 1, 2]]}]}',
            "missing or misspelt parts",
        ),
        ("é".encode("latin1") + b"a" * 5000, r"not a text in UTF-8 or UTF-16: .* at byte 0\. Convert it to UTF-8"),
        (b"\xff\xfea\x00b", r"not a text in UTF-8 or UTF-16: truncated data at byte"),
    ],
)
def test_messages_about_broken_files_are_short_and_end_with_a_cure(tmp_path, content, says):
    path = tmp_path / "c.TextGrid"
    path.write_bytes(content)
    with pytest.raises(AlignmentError, match=says) as caught:
        read_textgrid(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert message.endswith("skip_bad=True (--skip-bad).")
    assert len(message) - len(str(path)) < 250
    assert "Error(" not in message


def test_a_textgrid_that_may_not_be_read(textgrid, monkeypatch):
    path = textgrid("x.TextGrid", TIERS)

    def refuse(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(type(path), "read_bytes", refuse)
    with pytest.raises(AlignmentError, match=r"x\.TextGrid cannot be read: Permission denied\. Make it readable"):
        read_textgrid(path)
