"""How much each frame or word takes from every other: what raw attention weights leave out."""

from otoscope.interventions.mixing.corpus import context_mixing, method_and_spans
from otoscope.interventions.mixing.norms import contribution_norms, head_contribution_norms, norms_of
from otoscope.interventions.mixing.rollout import rollout
from otoscope.interventions.mixing.single import Mixing, mix, norm_based, value_zeroing
from otoscope.interventions.mixing.sublayers import MAX_FRAMES, Sublayer, attention_sublayers
from otoscope.interventions.mixing.zeroing import zeroing_distances

__all__ = [
    "MAX_FRAMES",
    "Mixing",
    "Sublayer",
    "attention_sublayers",
    "context_mixing",
    "contribution_norms",
    "head_contribution_norms",
    "method_and_spans",
    "mix",
    "norm_based",
    "norms_of",
    "rollout",
    "value_zeroing",
    "zeroing_distances",
]
