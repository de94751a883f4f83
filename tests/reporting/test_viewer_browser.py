"""The viewer in a real browser, driven as a person would: pointer, wheel and keys."""

import base64
import threading

import numpy as np
import pytest

from tests.reporting.browser import CHROMIUM, Browser
from tests.reporting.viewing import long_viewing, small_viewing

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs the Debian package chromium"),
]

READY = "document.documentElement?.dataset.ready"
EXACT = "otoscope.panes.every((pane) => pane.map && pane.map.missing === 0)"
SETTLED = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))"
CHOSEN = "document.querySelector('.head[aria-selected=true]').id"
KEYS_OF_WALL = (
    "[...document.querySelectorAll('.head:not([hidden])')].map((one) => one.id.split('-').slice(2).join('.'))"
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def serving():
    """Addresses of the viewings that are served, by what they are made from."""
    running = {}

    def address(viewing):
        if id(viewing) not in running:
            server = viewing.serve()
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
            thread.start()
            running[id(viewing)] = server, thread
        return running[id(viewing)][0].address

    yield address
    for server, thread in running.values():
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def page(browser, serving):
    found = browser.open(serving(small_viewing()))
    found.wait(READY)
    found.wait(EXACT)
    yield found
    assert found.faults() == []


@pytest.fixture
def long_page(browser, serving):
    found = browser.open(serving(long_viewing()))
    found.wait(READY)
    yield found
    assert found.faults() == []


def map_place(page, query, key, pane=0):
    """Where on the screen the weight of a query and a key (shares of what is in view) is drawn."""
    left, top, width, _ = page.place(f".pane:nth-child({pane + 1}) .over")
    side = page.run(f"otoscope.panes[{pane}].side")
    border = width - side - 3
    return left + border + key * side, top + border + query * side


def select(page, name, value):
    """Chooses an entry of a list."""
    page.run(
        f"(() => {{ const list = document.getElementById('{name}'); list.value = '{value}';"
        " list.dispatchEvent(new Event('change')); })()"
    )


def colours(page):
    """Red, green and blue of the map of the first pane, pixel by pixel."""
    text = page.run(
        "(() => { const { base, side } = otoscope.panes[0]; const edge = base.width - side - 3;"
        " const { data } = base.getContext('2d').getImageData(edge, edge, side, side);"
        " let text = ''; for (let k = 0; k < data.length; k += 8192)"
        " text += String.fromCharCode(...data.subarray(k, k + 8192)); return btoa(text); })()"
    )
    return np.frombuffer(base64.b64decode(text), np.uint8).reshape(-1, 4)[:, :3]


def test_all_that_is_promised_is_drawn(page):
    assert page.run("document.querySelectorAll('.head').length") == 12
    assert page.run("document.querySelectorAll('.head[data-drawn] canvas').length") == 12
    assert len(np.unique(colours(page), axis=0)) > 20
    strips = page.run(
        "(() => { const { base, side } = otoscope.panes[0]; const edge = base.width - side - 3;"
        " const pixels = (...at) => base.getContext('2d').getImageData(...at).data.buffer;"
        " const seen = (...at) => new Set(new Uint32Array(pixels(...at))).size;"
        " return [seen(edge, 17, side, 40), seen(edge, 57, side, 24), seen(edge, 81, side, 34),"
        " seen(17, edge, 40, side), seen(57, edge, 24, side), seen(81, edge, 34, side)]; })()"
    )
    assert all(count > 5 for count in strips), strips
    for part in ("relations", "profile"):
        assert page.run(f"document.querySelector('.{part} canvas').getAttribute('aria-label')").startswith("Relati")
    assert page.run("document.querySelectorAll('.numbers tr').length") >= 7
    assert float(page.run(READY)) < 10_000


def test_the_page_asks_its_own_server_alone(page, serving):
    address = serving(small_viewing())
    assert all(one.startswith((address, "data:")) for one in page.asked_for())


def test_pixels_have_the_colours_of_the_exact_weights(page):
    """The whole chain, from the tap to the screen: the brightest pixel is the largest weight."""
    weights = small_viewing().exact[0].layer(1)[0]
    frames = len(weights)
    shown = page.run(
        "otoscope.mapOf(otoscope.panes[0].head).then((map) => [map.model.frames, map.exact.reduce((a, b) => a + b, 0),"
        " map.exact.indexOf(Math.max(...map.exact))])"
    )
    assert shown[0] == frames
    assert shown[1] == pytest.approx(frames, rel=1e-4)
    assert shown[2] == weights.argmax()
    query, key = divmod(int(weights.argmax()), frames)
    about = "otoscope.about.models[0]"
    place = page.run(
        f"(() => {{ const m = {about}, {{ samples }} = otoscope.about.utterance;"
        " const at = (frame) => (m.begin + (frame + 0.5) * m.grid.hop) / samples;"
        f" return [at({query}), at({key})]; }})()"
    )
    x, y = map_place(page, *place)
    page.mouse("mouseMoved", x, y)
    readout = page.wait(
        "document.getElementById('readout').textContent.includes('weight') && document.getElementById('readout').textContent"
    )
    assert f"weight {weights.max():.4f}" in readout
    data = colours(page)
    side = page.run("otoscope.panes[0].side")
    assert data[int(place[0] * side) * side + int(place[1] * side)].tolist() == [0xFD, 0xE7, 0x25]


def test_sorting_by_a_metric_and_turning_it_round(page):
    values = small_viewing().scene.sides[0].metrics["verticality"]
    expected = sorted(values, key=lambda key: -values[key]["value"])
    select(page, "sort", "verticality")
    assert page.run(KEYS_OF_WALL) == expected
    page.press("r")
    assert page.run(KEYS_OF_WALL) == expected[::-1]
    page.click_on("#order")
    assert page.run(KEYS_OF_WALL) == expected
    page.press("s")
    assert page.run("document.getElementById('sort').value") != "verticality"
    assert "Sorted by" in page.run("document.getElementById('status').textContent")


def test_sorting_and_showing_by_category(page):
    values = small_viewing().scene.sides[0].metrics["category"]
    order = ["global", "vertical", "diagonal"]
    select(page, "sort", "category")
    labels = [order.index(values[key]["label"]) for key in page.run(KEYS_OF_WALL)]
    assert labels == sorted(labels)
    select(page, "show", "category:diagonal")
    assert {values[key]["label"] for key in page.run(KEYS_OF_WALL)} == {"diagonal"}
    select(page, "show", "layer:2")
    assert sorted(page.run(KEYS_OF_WALL)) == ["2.0", "2.1", "2.2", "2.3"]


def test_colours_tell_categories_by_letter_too_and_metrics_by_value(page):
    values = small_viewing().scene.sides[0].metrics
    badges = page.run("[...document.querySelectorAll('.head .badge')].map((one) => one.textContent)")
    expected = [values["category"][key]["label"][0].upper() for key in page.run(KEYS_OF_WALL)]
    assert badges == expected
    assert page.run("new Set([...document.querySelectorAll('.tone')].map((one) => one.style.background)).size") == len(
        set(expected)
    )
    select(page, "colour", "globalness")
    assert page.run("new Set([...document.querySelectorAll('.tone')].map((one) => one.style.background)).size") > 8
    assert page.run("document.querySelector('#legend canvas').width") == 256
    assert "globalness" in page.run("document.querySelector('.head').getAttribute('aria-label')")


def test_a_click_on_a_thumbnail_shows_its_head(page):
    page.click_on("#head-0-2-3")
    page.wait("document.querySelector('.pane b').textContent === 'Head 2.3'")
    assert page.run(CHOSEN) == "head-0-2-3"
    page.wait(EXACT)
    assert page.run("document.querySelector('.grain').textContent") == "exact weights"
    expected = small_viewing().exact[0].layer(2)[3]
    total = page.run("otoscope.panes[0].map.exact.reduce((sum, w, k) => sum + w * (k % 97), 0)")
    assert total == pytest.approx(
        float((expected.ravel().astype(float) * ([*range(97)] * (expected.size // 97 + 1))[: expected.size]).sum()),
        rel=1e-4,
    )


def test_arrows_walk_the_wall_in_its_order(page):
    assert page.run(CHOSEN) == "head-0-1-0"
    page.press("ArrowRight")
    assert page.run(CHOSEN) == "head-0-1-1"
    columns = page.run("getComputedStyle(document.getElementById('wall')).gridTemplateColumns.split(' ').length")
    page.press("ArrowDown")
    assert page.run(KEYS_OF_WALL).index(page.run(CHOSEN).removeprefix("head-0-").replace("-", ".")) == 1 + columns
    page.press("ArrowUp")
    page.press("ArrowLeft")
    page.press("ArrowLeft")  # there is none before the first
    assert page.run(CHOSEN) == "head-0-1-0"
    assert page.run("document.querySelectorAll('[role=option][tabindex=\"0\"]').length") == 1


def test_tab_reaches_every_control_and_focus_can_be_seen(page):
    page.run("document.body.focus()")
    seen = []
    for _ in range(30):
        page.press("Tab")
        name = page.run("document.activeElement.id || document.activeElement.className")
        if name in seen:
            break
        seen.append(name)
        if name:
            assert page.run("getComputedStyle(document.activeElement).outlineStyle") != "none", name
    for wanted in ("play", "sort", "order", "colour", "show", "zoom-in", "pair", "help", "over", "head-0-1-0"):
        assert wanted in seen, seen
    unnamed = page.run(
        "[...document.querySelectorAll('button, select, [tabindex], canvas[role]')].filter((one) => one.offsetParent &&"
        " !(one.textContent.trim() || one.getAttribute('aria-label') || one.labels?.length)).length"
    )
    assert unnamed == 0


def test_zooming_with_wheel_keys_and_buttons_keeps_the_place_under_the_pointer(page):
    length = page.run("otoscope.about.utterance.samples")
    x, y = map_place(page, 0.25, 0.75)
    page.mouse("mouseMoved", x, y)
    before = page.run("[otoscope.cross.hover.query, otoscope.cross.hover.key]")
    page.mouse("mouseWheel", x, y, deltaX=0, deltaY=-400)
    page.wait(f"otoscope.view.w < {0.51 * length}")
    page.mouse("mouseMoved", x, y + 0.01)
    after = page.run("[otoscope.cross.hover.query, otoscope.cross.hover.key]")
    assert after == pytest.approx(before, abs=length / 200)
    narrow = page.run("otoscope.view.w")
    page.press("+")
    assert page.run("otoscope.view.w") == pytest.approx(narrow / 1.5)
    page.click_on("#zoom-out")
    assert page.run("otoscope.view.w") == pytest.approx(narrow)
    for _ in range(12):
        page.press("+")
    assert page.run("otoscope.view.w") == pytest.approx(0.08 * 16000)
    page.press("0")
    assert page.run("[otoscope.view.x, otoscope.view.y, otoscope.view.w]") == [0, 0, length]


def test_dragging_moves_the_view(page):
    page.press("+")
    page.press("+")
    start = page.run("[otoscope.view.x, otoscope.view.y]")
    x, y = map_place(page, 0.5, 0.5)
    page.mouse("mousePressed", x, y, button="left", clickCount=1)
    page.mouse("mouseMoved", x + 60, y - 40, button="left", buttons=1)
    page.mouse("mouseReleased", x + 60, y - 40, button="left", clickCount=1)
    end = page.run("[otoscope.view.x, otoscope.view.y]")
    scale = page.run("otoscope.view.w / otoscope.panes[0].side")
    assert end[0] - start[0] == pytest.approx(-60 * scale, rel=0.02)
    assert end[1] - start[1] == pytest.approx(40 * scale, rel=0.02)
    assert page.run("otoscope.heardPieces") == []


def test_a_click_on_the_map_plays_the_word_of_the_query_and_then_of_the_key(page):
    utterance = small_viewing().scene.utterance
    words = utterance.tiers["word"]
    share = lambda one: (one.start + one.end) / 2 / utterance.n_samples  # noqa: E731
    page.click(*map_place(page, share(words[2]), share(words[0])))
    page.wait("otoscope.heardPieces.length === 2")
    expected = [("query", words[2]), ("key", words[0])]
    heard = page.run("otoscope.heardPieces")
    assert [(one["role"], one["start"], one["end"]) for one in heard] == [(r, w.start, w.end) for r, w in expected]
    pinned = page.run("[otoscope.cross.pin.query, otoscope.cross.pin.key]")
    assert words[2].start <= pinned[0] < words[2].end
    assert words[0].start <= pinned[1] < words[0].end


def test_a_click_on_a_strip_plays_that_row_or_column(page):
    utterance = small_viewing().scene.utterance
    phone = utterance.tiers["phone"][3]
    at = (phone.start + phone.end) / 2 / utterance.n_samples
    x, y = map_place(page, at, at)
    left, top, *_ = page.place(".over")
    border = page.place(".over")[2] - page.run("otoscope.panes[0].side") - 3
    page.click(x, top + border - 10)  # phones lie next to the map
    page.wait("otoscope.heardPieces.length === 1")
    page.click(left + border - 10, y)
    page.wait("otoscope.heardPieces.length === 2")
    heard = page.run("otoscope.heardPieces")
    assert [(one["role"], one["start"], one["end"]) for one in heard] == [
        ("key", phone.start, phone.end), ("query", phone.start, phone.end),
    ]  # fmt: skip


def test_keys_play_and_what_sounds_is_the_speech(page):
    page.run(
        "(() => { const made = AudioBufferSourceNode.prototype.start; window.started = [];"
        " AudioBufferSourceNode.prototype.start = function (...at) { window.started.push([...at.slice(1), this.buffer.length,"
        " this.buffer.sampleRate, this.buffer.getChannelData(0)[8000]]); return made.apply(this, at); }; })()"
    )
    page.press("a")
    page.wait("window.started.length === 1")
    offset, seconds, length, rate, sample = page.run("window.started[0]")
    scene = small_viewing().scene
    assert (offset, length, rate) == (0, len(scene.samples), 16000)
    assert seconds == pytest.approx(len(scene.samples) / 16000)
    assert sample == pytest.approx(float(scene.samples[8000]), abs=1e-4)
    page.wait("otoscope.heardPieces.length === 1")
    page.press("a")  # stops
    page.press("q")
    page.press("k")
    page.wait("otoscope.heardPieces.length === 3")
    assert [one["role"] for one in page.run("otoscope.heardPieces")] == ["all", "query", "key"]
    page.press(" ")  # something sounds: stop
    page.press(" ")
    page.wait("otoscope.heardPieces.length === 5")


def test_shift_and_arrows_move_the_crosshair_by_frames(page):
    page.press("ArrowRight", shift=True)
    start = page.run("[otoscope.cross.pin.query, otoscope.cross.pin.key]")
    page.press("ArrowRight", shift=True)
    page.press("ArrowDown", shift=True, alt=True)
    end = page.run("[otoscope.cross.pin.query, otoscope.cross.pin.key]")
    assert end[1] - start[1] == 320
    assert end[0] - start[0] == 3200
    page.wait("document.getElementById('status').textContent.includes('weight')")


def test_the_brightest_colour_begins_at_the_weight_that_a_query_exceeds_once(page):
    weights = np.sort(small_viewing().exact[0].layer(1)[0].ravel())
    frames = int(len(weights) ** 0.5)
    share = (colours(page) == [0xFD, 0xE7, 0x25]).all(1).mean()
    assert share == pytest.approx(1 / frames, rel=0.5)
    for _ in range(40):
        page.press("]")
    told = page.run("document.getElementById('status').textContent")
    assert f"the largest is {weights[-1]:.2g}" in told
    page.run(SETTLED)
    assert (colours(page) != [0xFD, 0xE7, 0x25]).any(1).all()


def test_scales_put_the_same_weights_in_other_colours(page):
    found = []
    for scale in ("root", "linear", "log"):
        select(page, "scale", scale)
        page.run(SETTLED)
        found.append(colours(page)[:, 1].mean())  # green grows with the shade
    assert found[1] < found[0] < found[2]


def test_help_opens_and_closes_and_takes_the_keys(page):
    page.press("?")
    assert page.run("document.getElementById('keys').open")
    page.press("ArrowRight")
    assert page.run(CHOSEN) == "head-0-1-0"
    page.press("Escape")
    page.wait("!document.getElementById('keys').open")


def test_light_and_dark(browser, serving):
    page = browser.open(serving(small_viewing()), dark=True)
    page.wait(READY)
    paper = "getComputedStyle(document.body).backgroundColor"
    assert page.run(paper) == "rgb(18, 22, 26)"
    page.press("t")
    assert page.run(paper) == "rgb(255, 255, 255)"
    assert page.faults() == []


def test_two_heads_side_by_side_share_place_and_crosshair(page):
    page.click_on("#pair")
    page.wait(f"otoscope.panes.length === 2 && {EXACT}")
    assert page.run("otoscope.panes.map((pane) => pane.head.key)") == ["1.0", "1.1"]
    page.press("x")
    page.click_on("#head-0-3-2")
    page.wait("otoscope.panes[1].map?.head.key === '3.2'")
    assert page.run("otoscope.panes[0].head.key") == "1.0"
    x, y = map_place(page, 0.3, 0.6, pane=1)
    page.mouse("mouseMoved", x, y)
    readout = page.wait("document.getElementById('readout').textContent")
    assert "1.0: weight" in readout
    assert "3.2: weight" in readout
    page.press("d")
    assert page.run("otoscope.panes.length") == 1


def test_two_models_side_by_side(browser, serving):
    page = browser.open(serving(small_viewing(two=True)))
    page.wait(READY)
    page.wait(f"otoscope.panes.length === 2 && {EXACT}")
    assert page.run("otoscope.panes.map((pane) => [pane.head.model, pane.head.key])") == [[0, "1.0"], [1, "1.0"]]
    page.press("x")
    page.wait("otoscope.wall.model === 1 && document.getElementById('head-1-2-1')")
    page.click_on("#head-1-2-1")
    page.wait("otoscope.panes[1].map?.head.key === '2.1'")
    assert page.run("document.querySelector('#wall-models [aria-pressed=true]').textContent") == "second"
    assert page.faults() == []


def test_a_long_map_shows_averages_until_its_tiles_are_there(long_page):
    page = long_page
    page.wait(EXACT)
    tiles = [one for one in page.asked_for() if "/tile/" in one]
    assert len(tiles) == 9
    weights = long_viewing().exact[0].layer(1)[0]
    page.run("otoscope.choose(otoscope.about.models[0].heads[7])")
    page.wait(f"otoscope.panes[0].map.head.key === '2.3' && {EXACT}")
    whole = page.run(
        "otoscope.mapOf(otoscope.about.models[0].heads[0]).then((map) =>"
        " Array.from(map.exact.slice(600 * map.model.frames, 600 * map.model.frames + 700)))"
    )
    assert whole == pytest.approx(weights.ravel()[600 * len(weights) : 600 * len(weights) + 700].tolist(), rel=1e-6)


def test_zoomed_in_only_the_tiles_in_view_are_asked_for(browser, serving):
    page = browser.open(serving(long_viewing()))
    page.wait(READY)
    page.wait(EXACT)
    for _ in range(6):
        page.press("+")
    page.run(SETTLED)
    page.run("otoscope.choose(otoscope.about.models[0].heads[9])")
    page.wait("otoscope.panes[0].map.head.key === '3.1' && otoscope.panes[0].map.have.some(Boolean)")
    assert 1 <= len([one for one in page.asked_for() if "/tile/3.1/" in one]) <= 4
    assert "averages over 3" in page.run("document.querySelector('.grain').textContent")
    assert page.faults() == []


def test_the_server_gone_is_said_and_the_page_lives_on(browser, serving):
    page = browser.open(serving(small_viewing()))
    page.wait(READY)
    page.wait(EXACT)
    page.offline()
    page.run("otoscope.choose(otoscope.about.models[0].heads.at(-1))")
    page.wait("document.getElementById('status').className === 'wrong'")
    assert "Start `otoscope view` again" in page.run("document.getElementById('status').textContent")
    page.press("+")
    assert page.run("otoscope.view.w < otoscope.about.utterance.samples")


@pytest.mark.parametrize("two", [False, True])
def test_a_saved_page_works_from_a_file_without_network(browser, tmp_path, two):
    path, _ = small_viewing(two=two).save(tmp_path / "saved.html", "2.1")
    page = browser.open(path.as_uri(), offline=True)
    page.wait(READY)
    assert page.run("otoscope.panes[0].head.key") == "2.1"
    page.wait("otoscope.panes[0].map.missing === 0")
    weights = small_viewing(two=two).exact[0].layer(2)[1]
    assert page.run("Array.from(otoscope.panes[0].map.exact.slice(0, 200))") == weights.ravel()[:200].tolist()
    page.press("ArrowRight")
    page.wait("otoscope.panes[0].map.head.key === '2.2'")
    page.wait("document.querySelector('.grain').textContent.includes('not in this file')")
    x, y = map_place(page, 0.5, 0.5)
    page.click(x, y)
    page.wait("otoscope.heardPieces.length === 2")
    assert "about" in page.run("document.getElementById('readout').textContent")
    page.press("s")
    page.press("+")
    assert page.faults() == []
    assert all(one.startswith(("file://", "data:", "blob:")) for one in page.asked_for())


@pytest.mark.parametrize("size", [(1280, 720), (1920, 1080), (1024, 640)])
@pytest.mark.parametrize("pair", [False, True])
def test_nothing_sticks_out_of_the_window(page, size, pair):
    page.resize(*size)
    if pair:
        page.press("d")
    page.run(SETTLED)
    page.wait(EXACT)
    assert page.run(
        "document.documentElement.scrollWidth <= innerWidth && document.documentElement.scrollHeight <= innerHeight"
    )
    left, top, width, height = page.place(".over")
    assert left + width <= size[0]
    assert top + height <= size[1]
    assert page.run("otoscope.panes[0].side") > 150
