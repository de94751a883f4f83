"""The report of a diagnosis: one self-contained HTML page, and a summary for the terminal."""

from otoscope.reporting.page import check_place, render_page, write_report
from otoscope.reporting.summary import render_summary

__all__ = ["check_place", "render_page", "render_summary", "write_report"]
