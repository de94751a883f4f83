"""Treatments: edits made permanent, which are stored with a model, read again, trained with and taken back."""

from otoscope.treatments.applying import TreatmentRecord, record_of, training_of, treated, treated_config, undone
from otoscope.treatments.bypass import Bypass
from otoscope.treatments.folders import has_record, read_treated, save_treated
from otoscope.treatments.freeze import Freeze
from otoscope.treatments.group_norm import GroupNorm
from otoscope.treatments.learning_rate import LearningRate
from otoscope.treatments.limit_span import LimitSpan
from otoscope.treatments.low_rank import LowRank, merged
from otoscope.treatments.prune_heads import PruneHeads
from otoscope.treatments.reinitialise import Reinitialise
from otoscope.treatments.remove_blocks import RemoveBlocks
from otoscope.treatments.replace_attention import ReplaceAttention
from otoscope.treatments.sizes import Sizes
from otoscope.treatments.treatment import Training, Treatment, fit, from_dict, kinds

__all__ = [
    "Bypass", "Freeze", "GroupNorm", "LearningRate", "LimitSpan", "LowRank", "PruneHeads", "Reinitialise",
    "RemoveBlocks", "ReplaceAttention", "Sizes", "Training", "Treatment", "TreatmentRecord", "fit", "from_dict",
    "has_record", "kinds", "merged", "read_treated", "record_of", "save_treated", "training_of", "treated",
    "treated_config", "undone",
]  # fmt: skip
