"""What a result must say about where it comes from."""

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from otoscope._version import __version__
from otoscope.speech.corpus import Corpus, LeftOut

_PACKAGES = ("torch", "transformers", "numpy", "scipy", "soundfile", "soxr")


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    found = {"otoscope": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found


def corpus_facts(
    corpus: Corpus, seen: set[str], left_out: Sequence[LeftOut], counts: Mapping[str, int]
) -> dict[str, Any]:
    """A corpus as plain values: what of it was examined, what was left out, what was put right."""
    examined = corpus.subset(lambda utterance: utterance.id in seen)
    return {
        "name": corpus.name,
        "path": str(corpus.root) if corpus.root is not None else None,
        "utterances": len(examined),
        "speakers": len(examined.speakers),
        "seconds": round(examined.seconds, 3),
        "tiers": list(examined.tiers),
        "left_out": [{"id": one.id, "reason": one.reason} for one in left_out],
        "counts": {**corpus.counts, **counts},
        "fingerprint": examined.fingerprint(),
    }
