"""The page in a real browser: everything is drawn, nothing fails, and nothing had to be blocked."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from otoscope.reporting import write_comparison, write_report
from tests.reporting.synthetic_diagnosis import synthetic
from tests.reporting.test_report_comparison import compared

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs the Debian package chromium"),
]


def opened(page: Path, profile: Path) -> str:
    """The document after its scripts have run, as the browser holds it."""
    assert CHROMIUM is not None
    done = subprocess.run(
        [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            f"--user-data-dir={profile}",
            "--window-size=1200,2000",
            "--virtual-time-budget=8000",
            "--dump-dom",
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout


def test_every_figure_is_drawn(tmp_path: Path) -> None:
    page = write_report(
        synthetic(3, 4, model="<script>document.documentElement.dataset.error='ran'</script>"),
        tmp_path / "report.html",
    )
    document = opened(page, tmp_path / "profile")
    root = re.search(r"<html[^>]*>", document)
    assert root
    assert "data-error" not in root[0]
    assert 'data-drawn="7"' in root[0]
    assert document.count('class="plot-container') == 7
    assert len(re.findall(r'<path class="js-line"', document)) >= 3 + 3 * 2
    assert document.count('class="heatmaplayer') == 2
    assert document.count("<image") >= 2


def test_every_figure_of_a_comparison_is_drawn(tmp_path: Path) -> None:
    page = write_comparison(compared("one", "two", "three"), tmp_path / "compare.html")
    document = opened(page, tmp_path / "profile")
    root = re.search(r"<html[^>]*>", document)
    assert root
    assert "data-error" not in root[0]
    assert 'data-drawn="2"' in root[0]
    assert document.count('class="plot-container') == 2
