"""Trains small Conformers with batch norm, group norm and none, and compares which of their layers are ambient."""
