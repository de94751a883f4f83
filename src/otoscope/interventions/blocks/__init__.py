"""Whether a model needs the attention of each block: what changes without it, and what that says of abnormal blocks."""

from otoscope.interventions.blocks.changes import block_interventions
from otoscope.interventions.blocks.control import block_verdicts, control_sentence, controls, drawn_blocks
from otoscope.interventions.blocks.suited import suited_metrics
from otoscope.interventions.blocks.variants import INTERVENTIONS, Planned, plan_interventions
from otoscope.interventions.blocks.verdicts import VERDICTS, Criterion, abnormal_of, verdicts

__all__ = [
    "INTERVENTIONS", "VERDICTS", "Criterion", "Planned", "abnormal_of", "block_interventions", "block_verdicts",
    "control_sentence", "controls", "drawn_blocks", "plan_interventions", "suited_metrics", "verdicts",
]  # fmt: skip
