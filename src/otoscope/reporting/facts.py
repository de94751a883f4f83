"""What was examined, what was left out and how: the provenance of a diagnosis as names and words."""

from collections.abc import Mapping, Sequence
from typing import Any

from otoscope.reporting.values import count, finite, number, plural

Fact = tuple[str, str]
"""A name and what it is."""

LISTED_LEFT_OUT = 200
"""At most so many utterances that were left out are listed; the rest are counted."""


def part(provenance: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """One part of the provenance; empty where it is absent or no mapping."""
    found = provenance.get(name)
    return found if isinstance(found, Mapping) else {}


def model_name(provenance: Mapping[str, Any]) -> str:
    """The name of the model, or what to call it where it has none."""
    return str(part(provenance, "model").get("name") or "a model without a name")


def corpus_name(provenance: Mapping[str, Any]) -> str:
    """The name of the corpus, or what to call it where it has none."""
    return str(part(provenance, "corpus").get("name") or "a corpus without a name")


def duration(seconds: Any) -> str:
    """Seconds in the unit that reads best.

    >>> duration(42.4), duration(372), duration(19400)
    ('42 s', '6.2 min', '5.39 h')
    """
    found = finite(seconds)
    if found is None:
        return "–"
    if found < 90:
        return f"{found:.1f} s" if found < 10 else f"{found:.0f} s"
    if found < 5400:
        return f"{found / 60:.1f} min"
    return f"{found / 3600:.2f} h"


def magnitude(value: Any) -> str:
    """A large count in thousands, millions or (American) billions."""
    found = finite(value)
    if found is None:
        return "–"
    for size, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(found) >= size:
            return f"{found / size:.3g} {name}"
    return f"{found:.0f}"


def heads_in_words(heads: Any) -> str:
    """`6 in each layer` where all layers have as many, else the range and the total."""
    if isinstance(heads, int):
        return f"{heads} in each layer"
    if not isinstance(heads, Sequence) or isinstance(heads, str) or not heads:
        return "–"
    numbers = [int(value) for value in heads]
    if len(set(numbers)) == 1:
        return f"{numbers[0]} in each layer"
    return f"{min(numbers)} to {max(numbers)} in a layer, {sum(numbers)} in all"


def examined(provenance: Mapping[str, Any]) -> dict[str, list[Fact]]:
    """The model, the speech and the run, each as facts; what is unknown is left away."""
    model, corpus = part(provenance, "model"), part(provenance, "corpus")
    tiers = corpus.get("tiers")
    speakers = corpus.get("speakers")
    left_out = corpus.get("left_out") or []
    groups: dict[str, list[Fact]] = {
        "Model": [
            ("name", str(model.get("name") or "–")),
            ("family", str(model.get("family") or "–")),
            ("layers", count(model.get("layers"))),
            ("heads", heads_in_words(model.get("heads"))),
            ("width", count(model.get("width"))),
            ("parameters", magnitude(model.get("parameters"))),
            ("multiply-adds per second of speech", magnitude(model.get("macs_per_second"))),
            ("hop", _with_unit(model.get("hop_ms"), "ms")),
            ("receptive field", _with_unit(model.get("receptive_field_ms"), "ms")),
        ],
        "Speech": [
            ("corpus", str(corpus.get("name") or "–")),
            ("path", str(corpus.get("path") or "–")),
            ("utterances", count(corpus.get("utterances"))),
            ("speakers", "not known" if not speakers else count(speakers)),
            ("length", duration(corpus.get("seconds"))),
            ("tiers", ", ".join(map(str, tiers)) if tiers else "none"),
            ("utterances left out", count(len(left_out))),
        ],
        "Run": [
            ("started", str(provenance.get("started") or "–")),
            ("took", duration(provenance.get("seconds"))),
            ("seed", str(provenance.get("seed", "–"))),
        ],
    }
    return {name: [fact for fact in facts if fact[1] != "–"] for name, facts in groups.items()}


def _with_unit(value: Any, unit: str) -> str:
    found = finite(value)
    return "–" if found is None else f"{found:g} {unit}"


def floor(provenance: Mapping[str, Any]) -> str:
    """What the floors of a diagnosis are the scores of."""
    return "the same network with fresh weights" if "floor" in provenance else "chance alone"


def headline(provenance: Mapping[str, Any]) -> str:
    """The sizes of model and corpus in one line."""
    model, corpus = part(provenance, "model"), part(provenance, "corpus")
    words = []
    layers = finite(model.get("layers"))
    if layers is not None:
        words.append(plural(round(layers), "layer"))
    heads = model.get("heads")
    if isinstance(heads, Sequence) and not isinstance(heads, str) and heads:
        words.append(plural(sum(int(value) for value in heads), "attention head"))
    if finite(model.get("parameters")) is not None:
        words.append(f"{magnitude(model['parameters'])} parameters")
    utterances = corpus.get("utterances")
    found = finite(len(utterances) if isinstance(utterances, Sequence) else utterances)
    if found is not None:
        words.append(plural(round(found), "utterance"))
    if finite(corpus.get("seconds")) is not None:
        words.append(f"{duration(corpus['seconds'])} of speech")
    return " · ".join(words)


def left_out(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that the numbers do not rest on.

    Returns:
        `utterances` as (id, reason); `more`, how many of them are not listed; `counts` as facts; `skipped` as
        (measure, reason); `notes` of the measures as (measure, note, value).
    """
    corpus = part(provenance, "corpus")
    utterances = [_pair(entry, "id") for entry in corpus.get("left_out") or []]
    counts = [
        (str(name).replace("_", " "), count(value)) for name, value in part(corpus, "counts").items() if finite(value)
    ]
    skipped = [_pair(entry, "measure") for entry in provenance.get("skipped") or []]
    notes = []
    for measure, found in part(provenance, "notes").items():
        for name, value in flat(found):
            notes.append((str(measure), name, value))
    return {
        "utterances": utterances[:LISTED_LEFT_OUT],
        "more": max(len(utterances) - LISTED_LEFT_OUT, 0),
        "counts": counts,
        "skipped": skipped,
        "notes": notes,
    }


def _pair(entry: Any, name: str) -> Fact:
    if isinstance(entry, Mapping):
        return str(entry.get(name, "–")), str(entry.get("reason", ""))
    return str(entry), ""


def flat(value: Any, prefix: str = "") -> list[Fact]:
    """Nested mappings as facts, names joined by dots; lists in one line, at most 40 entries of each."""
    if isinstance(value, Mapping):
        found: list[Fact] = []
        for name, inner in value.items():
            found += flat(inner, f"{prefix}.{name}" if prefix else str(name))
        return found
    if isinstance(value, list | tuple):
        words = [str(entry) for entry in value[:40]]
        if len(value) > 40:
            words.append(f"and {len(value) - 40} more")
        return [(prefix, ", ".join(words) or "none")]
    if isinstance(value, float):
        return [(prefix, number(value, 3) if finite(value) is None else f"{value:.6g}")]
    return [(prefix, "–" if value is None else str(value))]


def all_facts(provenance: Mapping[str, Any]) -> list[Fact]:
    """The provenance for its table; what the section on left-out speech lists is counted only."""
    shown = {name: value for name, value in provenance.items() if name not in ("notes", "skipped")}
    corpus = part(provenance, "corpus")
    if corpus:
        shown["corpus"] = dict(corpus) | {"left_out": len(corpus.get("left_out") or [])}
    return flat(shown)
