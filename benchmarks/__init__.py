"""Ratios of time and memory, measured within one run."""
