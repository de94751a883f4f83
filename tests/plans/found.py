"""Made-up diagnoses with rows that rules go by."""

from otoscope.diagnosis.result import Diagnosis, table_of
from otoscope.measures.measure import Row

LAYERS, HEADS = 6, 4
LAYER = {"parameters": 1000, "macs_per_second": 100.0}
ATTENTION = {"parameters": 400, "macs_per_second": 60.0}
HEAD = {"parameters": 95, "macs_per_second": 15.0}
PARTS = {
    "layers": [
        {"layer": LAYER, "attention": ATTENTION, "feed_forward": {"parameters": 500, "macs_per_second": 40.0}, "head": HEAD}
        for _ in range(LAYERS)
    ],
    "shared": 0,
}  # fmt: skip


def found(rows, *, notes=None, **about):
    """A diagnosis of a model of six layers of four heads."""
    model = {
        "name": "model", "family": "wav2vec2", "class": "Wav2Vec2Model", "layers": LAYERS, "heads": [HEADS] * LAYERS,
        "width": 48, "parameters": 9000, "macs_per_second": 1000, "fingerprint": "abc", "parts": PARTS,
    } | about  # fmt: skip
    provenance = {
        "model": model,
        "corpus": {"name": "speech", "utterances": 9, "speakers": 3, "seconds": 60.0, "fingerprint": "def"},
        "seed": 5,
        "notes": notes or {},
        "versions": {"otoscope": "1"},
        "command": "otoscope diagnose",
        "finished": "now",
    }
    return Diagnosis(table_of(rows), {}, provenance)


def change(measure, layer, value, half, *, head=None, target="ctc-loss", other=None, stream=None, **more):
    """A row of a change and its interval; no interval where `half` is None."""
    ends = {} if half is None else {"low": value - half, "high": value + half}
    return Row(measure, stream or f"layer.{layer}", layer, head, target, other, value, **ends, **more)


def bypassed(*values, half=0.0, tolerance=0.02, stream="layer.{}"):
    """Rows `criticality` under bypass, one a layer, and their notes."""
    rows = [
        change("criticality", k, value, half, other="bypass", stream=stream.format(k))
        for k, value in enumerate(values, start=1)
    ]
    return rows, {"criticality": {"criticality": {"tolerance": {"ctc-loss": {"bypass": tolerance}}}}}


def intervened(values, *, kind="bypass", half=0.0, margin=0.02, metric="ctc-loss", higher=False, width=5):
    """Rows `block-intervention` of one kind, one a layer that is named, and their notes."""
    rows = [
        change("block-intervention", layer, value, half, target=metric, other=kind) for layer, value in values.items()
    ]
    told = {"criterion": {"margin": margin, "higher_is_better": higher}, "all_bypassed": {"value": 2.0}, "before": 0.1}
    return rows, {"block-intervention": {"block-intervention": {"metrics": {metric: told}, "local": {"width": width}}}}


def left_out(values, *, half=0.0, metric="ctc-loss", before=1.0):
    """Rows `importance-loo` of heads, and their notes: 2 % of `before` is tolerated."""
    rows = [
        change("importance-loo", layer, value, half, head=head, target=metric)
        for (layer, head), value in values.items()
    ]
    return rows, {f"importance-loo on {metric}": {"metric": metric, "before": before}}
