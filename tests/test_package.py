"""The package as a whole: what it offers, how quickly it imports, what its files look like."""

import subprocess
import sys
from pathlib import Path

import pytest

import otoscope

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "src" / "otoscope").rglob("*.py"))


def test_public_names_are_few_and_all_there():
    assert len(otoscope.__all__) <= 23
    for name in otoscope.__all__:
        assert getattr(otoscope, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        otoscope.nothing  # noqa: B018


@pytest.mark.parametrize("name", [name for name in otoscope.__all__ if name != "__version__"])
def test_every_public_name_is_documented(name):
    thing = getattr(otoscope, name)
    assert (thing.__doc__ or "").strip()
    assert f"`{name}`" in (ROOT / "docs" / "reference.md").read_text()


@pytest.mark.parametrize("name", otoscope.functional.__all__)
def test_every_pure_function_is_documented(name):
    assert f"`functional.{name}`" in (ROOT / "docs" / "reference.md").read_text()
    text = getattr(otoscope.functional, name).__doc__
    assert "Returns:" in text
    assert "Args:" in text


def test_every_measure_is_documented():
    from otoscope.diagnosis import CATALOGUE

    text = (ROOT / "docs" / "measures.md").read_text()
    for entry in CATALOGUE:
        parts = entry.name.split("-")
        begins = ["-".join(parts[:k]) for k in range(1, len(parts))]
        families = [f"`{begin}-{end}`" for begin in begins for end in ("*", "TARGET", "1` to `-4")]
        assert f"`{entry.name}`" in text or any(family.strip("`") in text for family in families), entry.name


HEAVY = {"torch", "transformers", "polars", "plotly", "scipy.stats", "sklearn"}


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("otoscope", HEAVY | {"scipy", "soundfile"}),
        ("otoscope.cli", HEAVY | {"scipy", "soundfile"}),
        ("otoscope.diagnosis.catalogue", HEAVY),
    ],
)
def test_importing_is_quick_because_nothing_heavy_is_loaded(module, heavy):
    code = f"import sys, {module}; print(sorted({heavy!r} & set(sys.modules)))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_no_file_is_long_or_empty():
    for path in SOURCES:
        lines = path.read_text().splitlines()
        assert lines, path
        assert len(lines) <= 400, path


def test_errors_are_value_errors():
    from otoscope import errors

    for name in dir(errors):
        if name.endswith("Error") and name not in ("ImportError",):
            assert issubclass(getattr(errors, name), ValueError), name
