"""Pages run: every python block of a page is executed, in order, in one namespace."""

import ctypes.util
import os
import re
import shutil
from pathlib import Path

import pytest

from otoscope.workflow import corpora

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    path for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))] if "```python" in path.read_text()
]


SPOKEN = ("-0001", "-0002")
"""How utterances end that pages are run on: the whole of the embedded speech is examined elsewhere."""


@pytest.fixture
def _less_speech(monkeypatch):
    """Two utterances of each speaker, where a page reads the embedded speech."""
    whole = corpora.read_corpus

    def read(path="embedded", **options):
        found = whole(path, **options)
        return found.subset(lambda one: one.id.endswith(SPOKEN)) if str(path) == "embedded" else found

    monkeypatch.setattr(corpora, "read_corpus", read)


@pytest.mark.usefixtures("_less_speech")
@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_python_blocks_run(page, tmp_path, monkeypatch):
    absent = ctypes.util.find_library("espeak-ng") is None or shutil.which("flite") is None
    if "oto.synthesise(" in page.read_text() and absent and not os.environ.get("OTOSCOPE_NOTHING_SKIPPED"):
        pytest.skip("needs the Debian packages espeak-ng and flite")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        exec(compile(block, str(page), "exec"), names)


def test_links_between_pages_lead_somewhere():
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "recipes").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
