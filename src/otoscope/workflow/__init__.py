"""The verbs: load, read, diagnose, report, demo."""

from otoscope.models.loading import load
from otoscope.reporting import write_report
from otoscope.workflow.corpora import read_corpus
from otoscope.workflow.diagnosing import diagnose

report = write_report

__all__ = ["diagnose", "load", "read_corpus", "report"]
