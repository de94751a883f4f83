"""Flower is imported before tests make warnings errors: the typer that it wants uses what click is about to remove."""

import os
import warnings

try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import flwr.clientapp
        import flwr.serverapp.strategy  # noqa: F401
except ImportError:
    if os.environ.get("OTOSCOPE_NOTHING_SKIPPED"):
        raise
    collect_ignore_glob = ["test_flower_*"]
