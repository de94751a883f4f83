"""The viewer: one utterance, all heads of a model or two, to see and hear; from a local server or in one saved page."""

from otoscope.reporting.viewer.exact import ExactMaps
from otoscope.reporting.viewer.page import default_heads, save_page
from otoscope.reporting.viewer.scene import Scene, check_length
from otoscope.reporting.viewer.server import ViewServer, memory_of
from otoscope.reporting.viewer.side import Side, examine

__all__ = [
    "ExactMaps", "Scene", "Side", "ViewServer", "check_length", "default_heads", "examine", "memory_of", "save_page",
]  # fmt: skip
