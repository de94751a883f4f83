"""Speech models: families as tables, anatomy, capture of streams and attention."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from otoscope.models.anatomy import Anatomy as Anatomy
    from otoscope.models.anatomy import Grid as Grid
    from otoscope.models.capture import Capture as Capture
    from otoscope.models.capture import Transform as Transform
    from otoscope.models.loading import load as load
    from otoscope.models.model import SpeechModel as SpeechModel

# Where each name lives; imported when it is used, since an anatomy can be read without torch and transformers.
_PLACES = {
    "Anatomy": "otoscope.models.anatomy",
    "Capture": "otoscope.models.capture",
    "Grid": "otoscope.models.anatomy",
    "SpeechModel": "otoscope.models.model",
    "Transform": "otoscope.models.capture",
    "load": "otoscope.models.loading",
}

__all__ = [*sorted(_PLACES)]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'otoscope.models' has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)
