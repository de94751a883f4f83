"""The pass over a corpus, and the diagnosis that comes of it."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from otoscope.diagnosis.catalogue import CATALOGUE as CATALOGUE
    from otoscope.diagnosis.catalogue import choose as choose
    from otoscope.diagnosis.observation import Observation as Observation
    from otoscope.diagnosis.result import Diagnosis as Diagnosis

# Where each name lives; imported when it is used, since the catalogue can be read without what the pass needs.
_PLACES = {
    "CATALOGUE": "otoscope.diagnosis.catalogue",
    "Diagnosis": "otoscope.diagnosis.result",
    "Observation": "otoscope.diagnosis.observation",
    "choose": "otoscope.diagnosis.catalogue",
}

__all__ = [*sorted(_PLACES)]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'otoscope.diagnosis' has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)
