"""Everything that is told of the three models: heads, boundaries, relations, curves of heads removed and spans limited."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from otoscope.evaluation.reconstruction import Reconstruction
from otoscope.interventions.curves import pruning_curves
from otoscope.interventions.orders import Order, order_by, random_orders, values_of
from otoscope.interventions.probed import features_of, probe_curves, pruning_variants, span_variants
from otoscope.interventions.signs import sign_tests
from otoscope.interventions.spans import RADII, span_curves
from otoscope.measures.heads.category import Category
from otoscope.measures.heads.diagonality import Diagonality
from otoscope.measures.heads.globalness import Globalness
from otoscope.measures.heads.head_segmentation import HeadSegmentation
from otoscope.measures.heads.information import HeadInformation
from otoscope.measures.heads.peak import ProfilePeak
from otoscope.measures.heads.relation_maps import RelationMaps
from otoscope.measures.heads.sharpness import Confidence, MaxWeight
from otoscope.measures.heads.verticality import Verticality
from otoscope.measures.measure import Measure, Row
from otoscope.models.loading import load
from otoscope.models.model import SpeechModel
from otoscope.speech import Corpus
from otoscope.speech.batching import read_batches
from otoscope.training.folders import replace_text
from otoscope.training.probes import make_task, probed_speech
from otoscope.workflow import read_corpus

EXAM = "embedded"
ORDERS = ("globalness", "verticality", "diagonality", "max-weight")
RANDOM = 2
STEPS = 6  # 4 of 24 heads each, as 24 of 144 in the paper
TASKS = ("phone", "speaker", "speaker-utterance")
Rows = list[dict[str, Any]]


class Examination:
    """One model on the examination speech; each part is stored as soon as it is there, and read from then on.

    Args:
        folder: of the model.
        store: folder for the parts.
        seed: of every random choice.
        seconds: of the examination speech that are used.
    """

    def __init__(self, folder: Path, store: Path, seed: int = 0, seconds: float = 600.0) -> None:
        self.store, self.seed = store, seed
        self.model: SpeechModel = load(folder)
        self.corpus = _first(read_corpus(EXAM), seconds)
        self._of = {"model": self.model.fingerprint(), "speech": self.corpus.fingerprint(), "seed": seed}

    def all(self) -> dict[str, Any]:
        """Every part, by name."""
        return {
            "model": self.part("model", self.about),
            "heads": self.part("heads", self.heads),
            "segmentation": self.part("segmentation", self.segmentation),
            "relations": self.part("relations", self.relations),
            "reconstruction": self.part("reconstruction", self.reconstruction),
            "probes": self.part("probes", self.probes),
        }

    def part(self, name: str, examine: Callable[[], Any]) -> Any:
        """What is stored under a name for this model, speech and seed, examined where nothing is."""
        place = self.store / f"{name}.json"
        stored = json.loads(place.read_text()) if place.exists() else {}
        if stored.get("of") != self._of:
            self.store.mkdir(parents=True, exist_ok=True)
            print(f"{self.model.name}: {name} ...", flush=True)
            stored = json.loads(json.dumps({"of": self._of, "found": examine()}))
            replace_text(place, json.dumps(stored, indent=1) + "\n")
        return stored["found"]

    def about(self) -> dict[str, Any]:
        """Sizes, and how well the unmasked sound is reconstructed."""
        told = self.model.describe()
        found = Reconstruction().values(self.model, self.corpus).interval(self.seed)
        return {
            **{name: told[name] for name in ("layers", "heads", "width", "parameters", "hop_ms", "fingerprint")},
            "speech": {"seconds": round(self.corpus.seconds, 1), "speakers": len(self.corpus.speakers)},
            "reconstruction": [found.value, found.low, found.high],
        }

    def heads(self) -> Rows:
        """Metrics and category of every head."""
        kinds: tuple[type[Measure], ...] = (
            Globalness, Verticality, Diagonality, HeadInformation, Category, ProfilePeak, MaxWeight, Confidence,
        )  # fmt: skip
        return self._observed([kind() for kind in kinds])

    def segmentation(self) -> Rows:
        """Phone boundaries from heads, layers and MFCC."""
        return self._observed([HeadSegmentation()])

    def relations(self) -> Rows:
        """What heads do with phones; of concentrations the extremes."""
        return [row for row in self._observed([RelationMaps()]) if not row["measure"].startswith("concentration-")]

    def reconstruction(self) -> Rows:
        """The pre-training head's error as heads are removed and spans limited; nothing is trained anew."""
        metric = Reconstruction()
        pruned = pruning_curves(self.model, self.corpus, self.orders(), metric, steps=STEPS, seed=self.seed)
        limited = span_curves(self.model, self.corpus, metric, radii=RADII, seed=self.seed)
        return _plain([*pruned.rows, *limited.rows])

    def probes(self) -> dict[str, Any]:
        """Probes as heads are removed and spans limited, trained anew and frozen, and the six sign tests."""
        speech = probed_speech(self.model, self.corpus, seconds=self.corpus.seconds, seed=self.seed)
        variants = pruning_variants(self.orders(), STEPS)
        variants |= span_variants(RADII, ("literal",))
        curves = probe_curves(
            features_of(self.model, speech), [make_task(task, speech) for task in TASKS], variants,
            sum(self.model.anatomy.heads), seed=self.seed,
            progress=lambda done, whole: print(f"  {done:g} of {whole:g}", flush=True),
        )  # fmt: skip
        segmentation = _row(self.all_rows("segmentation"), "head-segmentation", "best-head-less-mfcc")
        relation = _row(self.all_rows("relations"), "relation-verticality-phone", "phone")
        signs = sign_tests(curves, segmentation, relation)
        return {"rows": _plain(curves.result().rows), "signs": [sign.to_dict() for sign in signs]}

    def orders(self) -> list[Order]:
        """Orders by the paper's four metrics, and random ones."""
        rows = self.all_rows("heads")
        found = [order_by(name, values_of(rows, name)) for name in ORDERS]
        return [*found, *random_orders(found[0].heads, self.seed, RANDOM)]

    def all_rows(self, part: str) -> list[Row]:
        """The rows of a stored part."""
        return [Row(**row) for row in self.part(part, getattr(self, part))]

    def _observed(self, measures: Sequence[Measure]) -> Rows:
        """Rows of measures that one pass gives."""
        for measure in measures:
            measure.prepare(self.model.anatomy, self.corpus, self.seed)
        streams = tuple(dict.fromkeys(stream for measure in measures for stream in measure.streams))
        reductions = list(dict.fromkeys(make for measure in measures for make in measure.reductions))
        for batch in read_batches(self.corpus, 30.0):
            capture = self.model.capture(batch.utterances, batch.samples, streams, reductions)
            for measure in measures:
                measure.update(capture)
        return _plain([row for measure in measures for row in measure.compute().rows])


def _first(corpus: Corpus, seconds: float) -> Corpus:
    """The speech, or of every speaker as many utterances in turn as make up the time."""
    spoken: dict[str | None, int] = {}
    turns = []
    for utterance in corpus:
        spoken[utterance.speaker] = spoken.get(utterance.speaker, 0) + 1
        turns.append((spoken[utterance.speaker], utterance))
    kept, total = set(), 0.0
    for _, utterance in sorted(turns, key=lambda turn: turn[0]):
        if total + utterance.seconds <= seconds:
            kept.add(utterance.id)
            total += utterance.seconds
    return corpus.subset(lambda utterance: utterance.id in kept)


def _row(rows: Sequence[Row], measure: str, target: str) -> Row | None:
    return next((row for row in rows if (row.measure, row.target) == (measure, target)), None)


def _plain(rows: Sequence[Row]) -> Rows:
    """Rows without what does not apply."""
    return [{name: value for name, value in asdict(row).items() if value is not None} for row in rows]
