"""Evaluation: metrics per utterance, paired differences, cost, and batch invariance, all on one interface."""

from otoscope.evaluation.bootstrap import Estimate
from otoscope.evaluation.cost import Cost, cost_of
from otoscope.evaluation.ctc_loss import CTCLoss, ctc_nats
from otoscope.evaluation.decoding import best_path, greedy_text
from otoscope.evaluation.error_rates import CharacterErrorRate, WordErrorRate, error_counts, wer
from otoscope.evaluation.invariance import Invariance, check_batch_invariance
from otoscope.evaluation.metric import Metric, RecognitionMetric, recognise
from otoscope.evaluation.paired import Difference, paired_bootstrap
from otoscope.evaluation.scores import Scores
from otoscope.evaluation.timing import TimeComparison, compare_time

__all__ = [
    "CTCLoss",
    "CharacterErrorRate",
    "Cost",
    "Difference",
    "Estimate",
    "Invariance",
    "Metric",
    "RecognitionMetric",
    "Scores",
    "TimeComparison",
    "WordErrorRate",
    "best_path",
    "check_batch_invariance",
    "compare_time",
    "cost_of",
    "ctc_nats",
    "error_counts",
    "greedy_text",
    "paired_bootstrap",
    "recognise",
    "wer",
]
