"""Probes that are trained on one stream of a model: which rows they see, what they read, and how well they do."""

from otoscope.training.probes.frozen import FrozenProbe
from otoscope.training.probes.readouts import Readouts, fit_readouts
from otoscope.training.probes.speech import ProbedSpeech, probed_speech
from otoscope.training.probes.task import Task
from otoscope.training.probes.tasks import TASKS, make_task

__all__ = ["TASKS", "FrozenProbe", "ProbedSpeech", "Readouts", "Task", "fit_readouts", "make_task", "probed_speech"]
