"""Speech models: families as tables, anatomy, capture of streams and attention."""

from otoscope.models.anatomy import Anatomy, Grid
from otoscope.models.capture import Capture, Transform
from otoscope.models.loading import load
from otoscope.models.model import SpeechModel

__all__ = ["Anatomy", "Capture", "Grid", "SpeechModel", "Transform", "load"]
