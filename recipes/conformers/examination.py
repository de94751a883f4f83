"""What is examined of every Conformer: error rates, criticality of its blocks and their parts, churn."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from otoscope.evaluation import CharacterErrorRate, CTCLoss, WordErrorRate
from otoscope.evaluation.metric import recognise
from otoscope.evaluation.scores import Scores
from otoscope.interventions.churn import churn
from otoscope.interventions.criticality.modes import REINITIALISE
from otoscope.interventions.criticality.resets import criticality
from otoscope.interventions.prediction import criticality_prediction
from otoscope.interventions.scoring import scores_of_variants
from otoscope.measures.measure import Row
from otoscope.speech import Corpus
from otoscope.training.folders import replace_text
from recipes.conformers.models import Conformer, load_conformer, norm_edit, recogniser_in
from recipes.conformers.stages import alignable

BLOCK, PART = "block", "sub-module"


class Examination:
    """One model on the examination speech; each part is stored as soon as it is there, and read from then on.

    Args:
        one: the model.
        work: where its folder lies.
        exam: the speech; utterances that are too short for their characters are left out.
        seed: of intervals.
    """

    def __init__(self, one: Conformer, work: Path, exam: Corpus, seed: int = 0) -> None:
        self.one, self.seed = one, seed
        self.folder, self.store = work / one.name, work / f"{one.name}-found"
        self.recogniser = recogniser_in(self.folder)
        self.corpus = alignable(exam, self.recogniser)
        self._of = {"model": self.recogniser.model.fingerprint(), "speech": self.corpus.fingerprint(), "seed": seed}

    def all(self) -> dict[str, Any]:
        """Every part, by name."""
        return {name: self.part(name, examine) for name, examine in (
            ("recognition", self.recognition), ("blocks", self.blocks), ("parts", self.parts), ("churn", self.churn),
            ("prediction", self.prediction), ("replaced", self.replaced),
        )}  # fmt: skip

    def part(self, name: str, examine: Callable[[], Any]) -> Any:
        """What is stored under a name for this model, speech and seed, examined where nothing is."""
        place = self.store / f"{name}.json"
        stored = json.loads(place.read_text()) if place.exists() else {}
        if stored.get("of") != self._of:
            self.store.mkdir(parents=True, exist_ok=True)
            print(f"{self.folder.name}: {name} ...", flush=True)
            stored = json.loads(json.dumps({"of": self._of, "found": examine()}))
            replace_text(place, json.dumps(stored, indent=1) + "\n")
        return stored["found"]

    def recognition(self) -> dict[str, Any]:
        """Sizes, error rates and loss with their intervals, and word errors of every utterance."""
        found = recognise((WordErrorRate(), CharacterErrorRate(), CTCLoss()), self.recogniser, self.corpus)
        return {
            "parameters": self.recogniser.parameters,
            **{name: _ends(scores.interval(self.seed)) for name, scores in found.items()},
            "words": stored_scores(found["wer"]),
        }

    def blocks(self) -> dict[str, Any]:
        """Every layer re-initialised in turn, by the CTC loss, which labels go by, and by WER."""
        return self._critical(BLOCK, [CTCLoss(), WordErrorRate()])

    def parts(self) -> dict[str, Any]:
        """Every attention, feed-forward, convolution module and set of norms re-initialised in turn, by the CTC loss."""
        return self._critical(PART, [CTCLoss()])

    def churn(self) -> dict[str, Any]:
        """How far layers and their parts moved in training, with the path over the models kept along the way."""
        steps = sorted(self.folder.glob("step-*"), key=lambda place: int(place.name.removeprefix("step-")))
        along = {place.name: load_conformer(place) for place in steps}
        initial = load_conformer(self.folder / "initial")
        rows = []
        for granularity in (BLOCK, PART):
            rows += churn(self.recogniser.model, initial, granularity, checkpoints=along).rows
        return {"rows": plain([row for row in rows if row.other == "initial"])}

    def prediction(self) -> dict[str, Any]:
        """How well churn tells which blocks and parts are critical."""
        rows = [
            row for part, examine in (("blocks", self.blocks), ("parts", self.parts), ("churn", self.churn))
            for row in self.part(part, examine)["rows"]
        ]  # fmt: skip
        return {"rows": plain(criticality_prediction([Row(**row) for row in rows]).rows)}

    def replaced(self) -> dict[str, Any]:
        """WER and CTC loss with another norm put in the place of batch norm, and nothing trained; of others nothing."""
        if self.one.norm != "batch":
            return {}
        variants = {norm: [norm_edit(self.one.context, norm)] for norm in ("group", "none")}
        found: dict[str, Any] = {}
        for metric in (WordErrorRate(), CTCLoss()):
            scores = scores_of_variants(self.recogniser, self.corpus, variants, metric)
            found[metric.name] = {"batch": scores.before.value, **{name: scores.after[name].value for name in variants}}
        return found

    def _critical(self, granularity: str, metrics: Sequence[Any]) -> dict[str, Any]:
        found = criticality(
            self.recogniser, self.corpus, metrics, granularity, modes=[REINITIALISE],
            initial=load_conformer(self.folder / "initial"), seed=self.seed,
        )  # fmt: skip
        return {"rows": plain(found.rows), "notes": found.notes}


def stored_scores(scores: Scores) -> dict[str, Any]:
    """Numbers of every utterance, as plain values."""
    return {
        "metric": scores.metric, "unit": scores.unit, "higher_is_better": scores.higher_is_better,
        "ids": list(scores.ids), "speakers": list(scores.speakers),
        "numerator": scores.numerator.tolist(), "denominator": scores.denominator.tolist(),
    }  # fmt: skip


def read_scores(stored: Mapping[str, Any]) -> Scores:
    """What `stored_scores` wrote."""
    columns = {name: np.asarray(stored[name], np.float64) for name in ("numerator", "denominator")}
    ids, speakers = tuple(stored["ids"]), tuple(stored["speakers"])
    return Scores(stored["metric"], stored["unit"], stored["higher_is_better"], ids, speakers, **columns)


def plain(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows without what does not apply."""
    return [{name: value for name, value in asdict(row).items() if value is not None} for row in rows]


def _ends(estimate: Any) -> list[float]:
    return [estimate.value, estimate.low, estimate.high]
