"""Evaluation: metrics per utterance, paired differences, cost, and batch invariance, all on one interface."""

from otoscope.evaluation.beam_search import BeamSearch, Hypothesis
from otoscope.evaluation.bootstrap import Estimate
from otoscope.evaluation.cost import Cost, cost_of
from otoscope.evaluation.ctc_loss import CTCLoss, ctc_nats
from otoscope.evaluation.decoders import DecoderSettings
from otoscope.evaluation.decoding import Decoder, Greedy, best_path, greedy_text
from otoscope.evaluation.error_rates import CharacterErrorRate, WordErrorRate, align, error_counts, wer
from otoscope.evaluation.invariance import Invariance, check_batch_invariance
from otoscope.evaluation.metric import Metric, RecognitionMetric, recognise, recognise_by
from otoscope.evaluation.paired import Difference, paired_bootstrap
from otoscope.evaluation.scores import Scores
from otoscope.evaluation.timing import TimeComparison, compare_time
from otoscope.evaluation.tuning import Tuning, check_apart, tune
from otoscope.evaluation.word_errors import WordErrors, word_errors

__all__ = [
    "BeamSearch",
    "CTCLoss",
    "CharacterErrorRate",
    "Cost",
    "Decoder",
    "DecoderSettings",
    "Difference",
    "Estimate",
    "Greedy",
    "Hypothesis",
    "Invariance",
    "Metric",
    "RecognitionMetric",
    "Scores",
    "TimeComparison",
    "Tuning",
    "WordErrorRate",
    "WordErrors",
    "align",
    "best_path",
    "check_apart",
    "check_batch_invariance",
    "compare_time",
    "cost_of",
    "ctc_nats",
    "error_counts",
    "greedy_text",
    "paired_bootstrap",
    "recognise",
    "recognise_by",
    "tune",
    "wer",
    "word_errors",
]
