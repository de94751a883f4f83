"""The sections on blocks in a real browser: all figures are drawn, and each has choices of its own."""

import json

import pytest

from otoscope.reporting import write_report
from tests.reporting.browser import CHROMIUM, Browser
from tests.reporting.synthetic_blocks import synthetic_blocks

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs the Debian package chromium"),
]

DRAWN = "document.documentElement?.dataset.drawn"


def shown(figure):
    """Numbers of the traces that a figure shows."""
    data = f"document.getElementById({json.dumps(figure)}).data"
    return f"[...{data}.keys()].filter((k) => {data}[k].visible)"


def test_every_figure_is_drawn_and_choices_act_on_their_own_figure(tmp_path):
    path = write_report(synthetic_blocks(3), tmp_path / "report.html")
    with Browser(tmp_path / "profile") as browser:
        page = browser.open(path.as_uri())
        page.wait(DRAWN, 120)
        assert page.run("document.querySelectorAll('.plot:not(:has(.plot-container))').length") == 0
        blocks, parts = "figure-criticality-block", "figure-criticality-sub-module"
        assert page.run(shown(blocks)) == page.run(shown(parts)) == page.run(shown("figure-heads")) == [0]
        page.run(f"document.querySelector('[data-for={parts}] [data-value=\"2\"]').click()")
        page.wait(f"{shown(parts)}.join() === '2'", 120)
        assert page.run(shown(blocks)) == page.run(shown("figure-heads")) == [0]
        page.run("document.querySelector('[data-for=figure-heads] [data-value=\"1\"]').click()")
        page.wait(f"{shown('figure-heads')}.join() === '1'", 120)
        assert page.run(shown(parts)) == [2]
        page.run("document.querySelector('[data-choose=scale] [data-value=linear]').click()")
        page.wait("document.getElementById('figure-block-1').layout.yaxis.type === 'linear'", 120)
        assert page.run("document.getElementById('figure-block-1').layout.yaxis2.type") != "log"
        # No figure hangs over the edge of the page.
        assert page.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        assert page.faults() == []
