"""The rules by which plans are written, one file a rule, in the order in which they take their turn."""

from otoscope.plans.grounds import Rule
from otoscope.plans.rules.avoid_harmful_blocks import AVOID_HARMFUL_BLOCKS
from otoscope.plans.rules.bypass_dispensable import BYPASS_DISPENSABLE
from otoscope.plans.rules.freeze_ambient import FREEZE_AMBIENT
from otoscope.plans.rules.layerwise_rates import LAYERWISE_RATES
from otoscope.plans.rules.limit_spans import LIMIT_SPANS
from otoscope.plans.rules.low_rank_on_critical import LOW_RANK_ON_CRITICAL
from otoscope.plans.rules.prune_heads import PRUNE_HEADS
from otoscope.plans.rules.reinitialise_top import REINITIALISE_TOP
from otoscope.plans.rules.remove_ambient_blocks import REMOVE_AMBIENT_BLOCKS
from otoscope.plans.rules.remove_global_heads import REMOVE_GLOBAL_HEADS
from otoscope.plans.rules.reuse_maps import REUSE_MAPS

# What saves most comes first, since all of them share one margin.
RULES: tuple[Rule, ...] = (
    REMOVE_AMBIENT_BLOCKS,
    AVOID_HARMFUL_BLOCKS,
    BYPASS_DISPENSABLE,
    REUSE_MAPS,
    PRUNE_HEADS,
    REMOVE_GLOBAL_HEADS,
    LIMIT_SPANS,
    REINITIALISE_TOP,
    LAYERWISE_RATES,
    FREEZE_AMBIENT,
    LOW_RANK_ON_CRITICAL,
)
