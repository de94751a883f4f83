"""Federated dropout aimed at ambient layers, held against its controls at equal bytes, after Zhou et al. (2022)."""
