"""Measures of attention heads."""
