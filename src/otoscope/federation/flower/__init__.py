"""Flower as the engine: one client app and one strategy, run in this process, by Ray, or on other machines."""
