"""Measures of whole blocks."""
