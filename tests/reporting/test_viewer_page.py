"""The saved page: whole, exact where it says so, within its size, and harmless whatever the labels hold."""

import base64
import gzip
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from otoscope.errors import ResultError
from otoscope.reporting.viewer import Scene, default_heads, save_page
from otoscope.reporting.viewer.page import live_page
from otoscope.speech.utterance import Interval
from tests.reporting.viewing import long_viewing, small_viewing


def blocks_of(text):
    found = re.findall(r'<script id="block:([^"]+)" type="text/plain">([^<]*)</script>', text)
    return {name: gzip.decompress(base64.b64decode(content)) for name, content in found}


def about_of(text):
    return json.loads(re.search(r'<script id="about" type="application/json">(.*?)</script>', text, re.DOTALL)[1])


def numbers(planes):
    """Float32 of which all first bytes come first."""
    return np.frombuffer(np.frombuffer(planes, np.uint8).reshape(4, -1).T.tobytes(), "<f4")


def test_chosen_heads_are_held_to_the_last_bit(tmp_path):
    viewing = small_viewing(two=True)
    path, held = viewing.save(tmp_path / "page.html", "3.1,1.0")
    text = path.read_text()
    blocks, about = blocks_of(text), about_of(text)
    assert about["exact"] == ["0:3.1", "0:1.0", "1:3.1", "1:1.0"]
    for side in (0, 1):
        for layer, head in ((3, 1), (1, 0)):
            expected = viewing.exact[side].layer(layer)[head]
            np.testing.assert_array_equal(numbers(blocks[f"m{side}/exact/{layer}.{head}"]), expected.ravel())
    for name, block in viewing.scene.blocks().items():
        assert blocks[name] == block(), name
    assert "2 exactly (3.1, 1.0)" in held
    assert about["note"] == held


def test_by_default_the_extremes_are_held(tmp_path):
    viewing = small_viewing()
    side = viewing.scene.sides[0]
    expected = default_heads(side)
    values = side.metrics["diagonality"]
    top = max(values, key=lambda key: values[key]["value"])
    assert tuple(map(int, top.split("."))) in expected
    path, _ = viewing.save(tmp_path / "page.html")
    assert about_of(path.read_text())["exact"] == [f"0:{layer}.{head}" for layer, head in expected]


def test_nothing_comes_from_elsewhere(tmp_path):
    path, _ = small_viewing().save(tmp_path / "page.html")
    text = re.sub(r'<script id="block:.*?</script>', "", path.read_text())
    assert not re.findall(r"(?:src|href)\s*=\s*[\"'](?!data:,)", text)
    assert not re.findall(r"\b(?:https?|wss?)://", text)
    assert "Content-Security-Policy" in text
    assert "connect-src" not in text


def test_words_of_the_speech_cannot_become_part_of_the_page(tmp_path):
    viewing = small_viewing()
    evil = "</script><script>document.documentElement.dataset.evil=1</script><!--"
    utterance = viewing.scene.utterance
    scene = Scene(
        replace(utterance, id=evil, transcript=evil, speaker=evil, tiers={evil: (Interval(0, 400, evil),)}),
        viewing.scene.samples,
        viewing.scene.sides,
    )
    path, _ = save_page(scene, viewing.exact, [], tmp_path / "page.html")
    for text in (path.read_text(), live_page(scene, evil)):
        assert evil not in text
        assert "<script>document" not in text
        assert about_of(text)["utterance"]["id"] == evil


def test_a_page_that_would_be_too_large_gets_fewer_shades_then_fewer_cells_and_says_so(tmp_path):
    viewing = long_viewing()
    sizes, notes = [], []
    budget = 40_000_000
    for step in ("", "52 shades", "twice as coarse", "four times as coarse"):
        path, held = save_page(viewing.scene, viewing.exact, [(1, 0)], tmp_path / "page.html", budget)
        sizes.append(path.stat().st_size)
        notes.append(held)
        assert step in held
        assert sizes[-1] <= budget
        budget = sizes[-1] - 1
    assert sizes == sorted(sizes, reverse=True)
    side = viewing.scene.sides[0]
    cells = -(-side.frames // side.span)
    assert f"({cells} x {cells} cells)" in notes[0]
    about = about_of(path.read_text())
    blocks = blocks_of(path.read_text())
    assert about["models"][0]["span"] == 4 * side.span
    assert len(blocks["m0/overview/1"]) == 4 * about["models"][0]["cells"] ** 2
    before = path.read_bytes()
    with pytest.raises(ResultError, match=r"for 1 exact maps; .* MB are allowed. Choose fewer heads"):
        save_page(viewing.scene, viewing.exact, [(1, 0)], path, budget)
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["page.html"]


@pytest.mark.parametrize("place", [(0, 0), (4, 0), (1, 4)])
def test_a_head_that_is_not_there_is_refused(tmp_path, place):
    viewing = small_viewing()
    with pytest.raises(ResultError, match=f"first has no head {place[0]}.{place[1]}"):
        viewing.save(tmp_path / "page.html", [place])
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(ResultError, match="it is a folder"):
        small_viewing().save(tmp_path)


def test_every_asset_is_in_the_page_and_none_is_unused():
    from importlib.resources import files

    from otoscope.reporting.viewer.page import SCRIPTS

    assets = {one.name for one in (files("otoscope.reporting.viewer") / "assets").iterdir()}
    assert assets == {f"{name}.js" for name in SCRIPTS} | {"viewer.html", "viewer.css"}
    for name in assets:
        assert len((files("otoscope.reporting.viewer") / "assets" / name).read_text().splitlines()) <= 400, name
