"""The embedded model and speech: made by recipes/embedded, shipped with the package."""

from pathlib import Path

_HERE = Path(__file__).parent

MODEL = _HERE / "model"
INITIAL = _HERE / "initial"
EXAM = _HERE / "exam"
