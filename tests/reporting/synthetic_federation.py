"""A made-up federated training: six layers, eight clients, with failures and privacy on request."""

from dataclasses import replace
from typing import Any

from otoscope.federation.result import FederationResult, RoundRow
from otoscope.federation.settings import FederationSettings, PrivacySettings

MIB = 2**20
CLIENTS = tuple(f"client.{k}" for k in range(1, 9))


def training(rounds: int = 4, *, layers: int = 6, private: bool = False, **other: Any) -> FederationResult:
    """Ambient layers are the last two; client.3 dies in round 2, and held-out speech is left out after round 3."""
    privacy = PrivacySettings(norm=1.0, multiplier=0.8, seed=918273645) if private else None
    settings = FederationSettings(
        rounds=rounds, tolerance=0.25, privacy=privacy, denominator="cohort" if private else "coverage"
    )
    rates = {
        f"layer.{layer}.{branch}": 0.25 if layer > layers - 2 else 1.0
        for layer in range(1, layers + 1)
        for branch in ("attention", "feed_forward")
    }
    rows = []
    for k in range(1, rounds + 1):
        failures = {"client.3": "it <died>"} if k == 2 else {}
        taken = tuple(name for name in CLIENTS if name not in failures)
        held = {} if k == 3 else {"wer": 0.5 / (k + 1), "cer": 0.2 / (k + 1)}
        rows.append(
            RoundRow(
                k, taken, failures, 2.0 / k, 3 * MIB, 1.5 * MIB, 0.75, None if k == 3 else 64 * MIB, 12.5, held,
                0.5 * k if private else None,
            )
        )  # fmt: skip
    whole = FederationResult(
        "embedded", CLIENTS, "local", rates, settings.to_dict(), {"wer": 0.5, "cer": 0.2}, tuple(rows), "completed"
    )
    return replace(whole, **other)
