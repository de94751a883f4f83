"""Edits on copies of models: pure, exactly undone from the original, by the names of the original's parts."""

from otoscope.surgery.applying import apply, edited, fingerprint, gates, prepared, record, undo, units
from otoscope.surgery.attention import Gate, ReplaceMap, Span
from otoscope.surgery.branches import Bypass, MeanAblate, mean_outputs
from otoscope.surgery.causality import Causal
from otoscope.surgery.dropping import DropMap
from otoscope.surgery.edit import Edit, from_dict
from otoscope.surgery.heads import CutHeads
from otoscope.surgery.low_rank import LowRank
from otoscope.surgery.narrowing import Narrow
from otoscope.surgery.norms import GroupNorm, NoNorm
from otoscope.surgery.removal import Remove
from otoscope.surgery.replacing import ReplaceAttention
from otoscope.surgery.reset import Redraw, Reset

__all__ = [
    "Bypass", "Causal", "CutHeads", "DropMap", "Edit", "Gate", "GroupNorm", "LowRank", "MeanAblate", "Narrow",
    "NoNorm", "Redraw", "Remove", "ReplaceAttention", "ReplaceMap", "Reset", "Span", "apply", "edited", "fingerprint",
    "from_dict", "gates", "mean_outputs", "prepared", "record", "undo", "units",
]  # fmt: skip
