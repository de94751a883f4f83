"""Aligned hypotheses: what stands in the page, that nothing of it runs, and how it sorts in a browser."""

import re

import pytest

from otoscope.errors import ResultError
from otoscope.reporting.transcripts import transcript_panel, write_transcripts
from tests.evaluation.texts import scores_of
from tests.reporting.browser import CHROMIUM, Browser

SAID = ["the cat sat", "yes", "", "one two three four", "<b>bold</b> & co"]
HEARD = ["a cat sat down", "yes", "what", "one three", "<script>document.documentElement.dataset.error=1</script>"]


def scored(said=SAID, heard=HEARD, **other):
    wrong = [2, 0, 1, 2, 3]
    settings = {"texts": {"reference": tuple(said), "hypothesis": tuple(heard)}, **other}
    return scores_of(wrong, [len(text.split()) for text in said], ["s0", None, "s1", "s0", "s1"], **settings)


def test_utterances_with_the_most_errors_come_first():
    panel = transcript_panel(scored())
    assert [line.place for line in panel.lines] == [4, 0, 3, 2, 1]
    assert [line.errors for line in panel.lines] == [3, 2, 2, 1, 0]
    assert panel.lines[3].rate == float("inf")
    assert (panel.right, panel.total, panel.more) == (1, 5, 0)
    assert [(word.kind, word.said, word.heard) for word in panel.lines[1].aligned] == [
        ("substituted", "the", "a"), ("right", "cat", "cat"), ("right", "sat", "sat"), ("inserted", "", "down")
    ]  # fmt: skip
    assert "of 11 words 2 were substituted and 4 deleted, and 2 were inserted" in panel.sentence


def test_frequent_errors():
    kinds = dict(transcript_panel(scored()).frequent)
    assert ("the → a", "1 of 1") in kinds["substituted"]
    assert ("two", "1 of 1") in kinds["deleted"]
    assert ("what", "1") in kinds["inserted"]


def test_long_lists_are_cut_and_counted():
    panel = transcript_panel(scored(), most=2)
    assert (len(panel.lines), panel.more) == (2, 3)
    assert panel.right == 1


def test_there_is_no_panel_without_texts(tmp_path):
    assert transcript_panel(None) is None
    assert transcript_panel(scores_of([1], [2])) is None
    page = write_transcripts({}, "model", "speech", [], tmp_path / "page.html").read_text()
    assert "holds no word error rate" in page


def test_what_was_said_stays_text(tmp_path):
    page = write_transcripts({"wer": scored()}, "<m>", "s&s", [("wer", "<1>")], tmp_path / "page.html").read_text()
    body = page[page.index("<body>") :]
    assert "<script>document" not in body
    assert "&lt;script&gt;" in body
    assert "&lt;b&gt;bold&lt;/b&gt;" in body
    assert "<m>" not in page
    assert not re.findall(r'(?:src|href)="(?!#)', page)
    with pytest.raises(ResultError, match="is a folder"):
        write_transcripts({}, "m", "s", [], tmp_path)


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="needs the Debian package chromium")
def test_utterances_are_sorted_and_filtered(tmp_path):
    write_transcripts({"wer": scored()}, "model", "speech", [("wer", "0.7")], tmp_path / "page.html")
    shown = "[...document.querySelectorAll('#heard li')].filter((row) => !row.hidden).map((row) => row.dataset.place)"
    with Browser(tmp_path / "profile", 1000, 900) as browser:
        page = browser.open((tmp_path / "page.html").as_uri(), offline=True)
        page.wait("document.documentElement?.dataset.drawn === '0'")
        assert page.run(shown) == ["4", "0", "3", "2", "1"]
        page.click_on("button[data-by=rate]")
        assert page.run(shown) == ["2", "4", "0", "3", "1"]
        page.click_on("button[data-by=place]")
        assert page.run(shown) == ["0", "1", "2", "3", "4"]
        page.click_on("#wrong-only")
        assert page.run(shown) == ["0", "2", "3", "4"]
        assert page.run("document.documentElement.dataset.error") is None
        assert page.run("document.querySelector('button[data-by=place]').getAttribute('aria-pressed')") == "true"
        page.resize(360, 900)
        assert page.run("document.documentElement.scrollWidth") <= 360
        assert not page.faults()
