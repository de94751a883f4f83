"""The pass over a corpus, and the diagnosis that comes of it."""

from otoscope.diagnosis.catalogue import CATALOGUE, choose
from otoscope.diagnosis.observation import Observation
from otoscope.diagnosis.result import Diagnosis

__all__ = ["CATALOGUE", "Diagnosis", "Observation", "choose"]
