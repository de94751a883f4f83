"""View: a model and an utterance in, a page to see and hear its heads out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from otoscope.diagnosis.result import Diagnosis
from otoscope.errors import CorpusError, ResultError
from otoscope.models.loading import load
from otoscope.models.model import SpeechModel
from otoscope.reporting.viewer import ExactMaps, Scene, ViewServer, check_length, examine, memory_of, save_page
from otoscope.speech.corpus import Corpus
from otoscope.workflow.corpora import read_corpus


@dataclass
class Viewing:
    """One utterance in one model or two, ready to be looked at.

    Attributes:
        scene: what is shown.
        exact: the exact maps of each model, computed when they are asked for.
        others: how many more utterances the corpus has.
    """

    scene: Scene
    exact: list[ExactMaps]
    others: int = 0

    def save(self, path: str | Path, heads: str | Iterable[tuple[int, int]] | None = None) -> tuple[Path, str]:
        """Writes one page that needs neither a server nor a network.

        Args:
            path: the file.
            heads: heads that the page holds exactly, as pairs of layer and head or as "3.1,5.0"; None for the most
                global, the most vertical and the most diagonal one.

        Returns:
            The path, and what the page holds, in words.

        Raises:
            ResultError: a head is not there, the page would be larger than 40 MB, or it cannot be written.
        """
        return save_page(self.scene, self.exact, parse_heads(heads) if isinstance(heads, str) else heads, path)

    def serve(self, port: int = 0) -> ViewServer:
        """A server on 127.0.0.1; its `serve_forever` answers until it is shut down.

        Raises:
            ResultError: the port is taken.
        """
        return ViewServer(self.scene, self.exact, port)

    @property
    def memory(self) -> str:
        """What a server keeps in memory beside the models, in words."""
        return memory_of(self.scene, self.exact)


def view(
    model: SpeechModel | nn.Module | str | Path = "embedded",
    audio: Corpus | str | Path = "embedded",
    *,
    utterance: str | None = None,
    against: SpeechModel | nn.Module | str | Path | None = None,
    measures: str | Sequence[str] | None = None,
    diagnoses: Sequence[Diagnosis | str | Path] = (),
    device: str | None = None,
) -> Viewing:
    """Prepares one utterance to be looked at, in one pass through each model.

    Args:
        model: a `SpeechModel`, a transformers model, a folder, a Hub name, or "embedded".
        audio: a recording, a folder, a manifest, a `Corpus`, or "embedded".
        utterance: id of the utterance; the first of the corpus where None.
        against: another model, side by side with the first.
        measures: names and groups of measures by head; None for the group "heads".
        diagnoses: where the metrics come from instead of this utterance, each a diagnosis of one of the models.
        device: where models that are loaded here run; the CPU where None.

    Raises:
        ModelError: a model cannot be loaded or examined.
        SpeechError: the speech cannot be read, has no such utterance, or the utterance is too long.
        MeasureError: a measure that is asked for cannot be taken.
        ResultError: a diagnosis cannot be read, or is of no model that is viewed.
    """
    if measures is not None and diagnoses:
        raise ResultError(
            "Measures are asked for, and metrics of a diagnosis as well",
            "Leave out one of the two: the diagnosis is as it is.",
        )
    corpus = audio if isinstance(audio, Corpus) else read_corpus(audio)
    chosen = corpus.subset([_found(corpus, utterance)])
    heard = chosen.utterances[0]
    check_length(heard)
    models = [
        one if isinstance(one, SpeechModel) else load(one, device=device) for one in (model, against) if one is not None
    ]
    loaded = [one if isinstance(one, Diagnosis) else Diagnosis.load(one) for one in diagnoses]
    of_model = _matched(models, loaded)
    samples = heard.read()
    sides = [examine(one, chosen, measures, found) for one, found in zip(models, of_model, strict=True)]
    exact = [ExactMaps(one, heard, samples) for one in models]
    return Viewing(Scene(heard, samples, sides), exact, len(corpus) - 1)


def parse_heads(text: str) -> list[tuple[int, int]]:
    """Heads written as LAYER.HEAD, separated by commas.

    Raises:
        ResultError: one is not written so.

    >>> parse_heads("3.1, 12.0")
    [(3, 1), (12, 0)]
    """
    found = []
    for part in text.split(","):
        layer, dot, head = part.strip().partition(".")
        if not (dot and layer.isdecimal() and head.isdecimal()):
            raise ResultError(f"{part.strip()!r} is no head", "Write heads as LAYER.HEAD, such as 3.1,5.0.")
        found.append((int(layer), int(head)))
    return found


def _found(corpus: Corpus, utterance: str | None) -> str:
    """The id of the utterance that is asked for."""
    if utterance is None:
        return corpus.utterances[0].id
    names = [one.id for one in corpus]
    if utterance not in names:
        near = [name for name in names if utterance in name] or names
        raise CorpusError(
            f"Corpus {corpus.name} has no utterance {utterance!r}",
            f"It has {', '.join(near[:5])}{' and others' if len(near) > 5 else ''}.",
        )
    return utterance


def _matched(models: list[SpeechModel], diagnoses: list[Diagnosis]) -> list[Diagnosis | None]:
    """For each model its diagnosis, by the fingerprint of the weights."""
    prints = [model.fingerprint() for model in models] if diagnoses else [""] * len(models)
    for one in diagnoses:
        about = one.provenance["model"]
        if about.get("fingerprint") not in prints:
            raise ResultError(
                f"The diagnosis of {about.get('name')} is of none of the models that are viewed: "
                f"its weights are not those of {' or '.join(model.name for model in models)}",
                "Name a diagnosis of the model, or leave --diagnosis out.",
            )
    found = {one.provenance["model"]["fingerprint"]: one for one in diagnoses}
    return [found.get(name) for name in prints]
