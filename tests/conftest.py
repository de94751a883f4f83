"""Shapes that the annotations promise are checked throughout the tests."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

import tests.strict  # noqa: F401 - the hook looks it up by attribute

install_import_hook(["otoscope"], "tests.strict.checked")

import torch  # noqa: E402

torch.set_num_threads(1)

# How long an example takes depends on what else runs on the machine; and the same examples run everywhere.
settings.register_profile("otoscope", deadline=None, derandomize=True)
settings.load_profile("otoscope")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Under OTOSCOPE_NOTHING_SKIPPED a skipped test counts as failed: all it needs is said to be there."""
    report = yield
    if os.environ.get("OTOSCOPE_NOTHING_SKIPPED") and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped where nothing may be skipped: {report.longrepr}"
    return report
