"""The demo: the whole of what otoscope does, on what comes with it."""

import time

from otoscope.diagnosis.observation import Progress
from otoscope.diagnosis.result import Diagnosis
from otoscope.workflow.diagnosing import diagnose

MEASURES = ("cca-mel", "cca-phone", "cca-word", "heads", "relative-profile", "abnormality", "block-summary")
"""What takes seconds; `otoscope diagnose` takes the rest."""


def run_demo(seed: int = 0, progress: Progress | None = None) -> tuple[Diagnosis, float]:
    """Diagnoses the embedded model on the embedded speech.

    Returns:
        The diagnosis, and how many seconds it took.
    """
    began = time.perf_counter()
    return diagnose("embedded", "embedded", MEASURES, seed, progress=progress), time.perf_counter() - began
