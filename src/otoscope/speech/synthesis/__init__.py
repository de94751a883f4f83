"""Speech made by rule, with exact phone and word times: espeak-ng and flite."""

from otoscope.speech.synthesis.espeak import Espeak
from otoscope.speech.synthesis.flite import Flite
from otoscope.speech.synthesis.spoken import Spoken

__all__ = ["Espeak", "Flite", "Spoken"]
