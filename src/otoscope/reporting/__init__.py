"""Reports of diagnoses and comparisons: one self-contained HTML page each, and a summary for the terminal."""

from otoscope.reporting.comparison import render_comparison, write_comparison
from otoscope.reporting.comparison_summary import render_comparison_summary
from otoscope.reporting.page import check_place, render_page, write_report
from otoscope.reporting.summary import render_summary

__all__ = [
    "check_place",
    "render_comparison",
    "render_comparison_summary",
    "render_page",
    "render_summary",
    "write_comparison",
    "write_report",
]
