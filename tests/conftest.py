"""Shapes that the annotations promise are checked throughout the tests; garbage is looked for where tests make it."""

import gc
import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

from tests.strict import check_annotations

check_annotations()

import torch  # noqa: E402

torch.set_num_threads(1)

# How long an example takes depends on what else runs on the machine; and the same examples run everywhere.
settings.register_profile("otoscope", deadline=None, derandomize=True)
settings.load_profile("otoscope")

LONG = (
    "tests/workflow/test_regression.py", "tests/test_documentation.py", "tests/treatments/test_conformance.py",
    "tests/surgery/test_conformance.py",
)  # fmt: skip


def pytest_configure(config):
    """Files go to the workers in the order of their tests, not by their number: long files may hold few."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(items):
    """Long files come first, so that no worker is left with one at the end."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONG))


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """What is imported stays: nothing is garbage yet."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


@pytest.fixture(autouse=True, scope="module")
def _imported_objects_are_not_searched():
    """A million objects of libraries are no garbage; the trainer of transformers would search them after every run."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Under OTOSCOPE_NOTHING_SKIPPED a skipped test counts as failed: all it needs is said to be there."""
    report = yield
    if os.environ.get("OTOSCOPE_NOTHING_SKIPPED") and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped where nothing may be skipped: {report.longrepr}"
    return report
