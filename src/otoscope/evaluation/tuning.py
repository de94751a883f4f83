"""Weights of the language model, chosen on speech that nothing is examined on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl
import torch

from otoscope.errors import EvaluationError
from otoscope.evaluation.beam_search import PRUNE, WIDTH, BeamSearch
from otoscope.evaluation.error_rates import error_counts
from otoscope.evaluation.language.model import LanguageModel
from otoscope.evaluation.metric import Progress
from otoscope.evaluation.references import check_lengths, references_of
from otoscope.models.recogniser import Recogniser
from otoscope.speech.batching import read_batches
from otoscope.speech.corpus import Corpus
from otoscope.speech.utterance import Utterance

ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
BETAS = (-1.0, 0.0, 1.0, 2.0, 3.0)


@dataclass(frozen=True)
class Tuning:
    """Word error rates over a grid of weights; prints as a table.

    Attributes:
        alpha: of the least word error rate; of equals the least alpha, then the beta nearest to zero.
        beta: of it.
        value: the least word error rate.
        grid: (alpha, beta, word error rate) of every pair of weights.
        words: how many words were said.
        width: of the beam.
        prune: see `BeamSearch`.
        corpus: name of the speech.
        corpus_fingerprint: of it.
        utterances: how many it has.
        language_model: what the language model says of itself.
    """

    alpha: float
    beta: float
    value: float
    grid: tuple[tuple[float, float, float], ...]
    words: int
    width: int
    prune: float
    corpus: str
    corpus_fingerprint: str
    utterances: int
    language_model: dict[str, Any]

    @property
    def at_edge(self) -> bool:
        """Whether a weight that was chosen is the greatest that was tried, so that a greater one may be better."""
        alphas, betas = {alpha for alpha, _, _ in self.grid}, {beta for _, beta, _ in self.grid}
        return any(len(tried) > 1 and one == max(tried) for one, tried in ((self.alpha, alphas), (self.beta, betas)))

    def table(self) -> pl.DataFrame:
        """A row a pair of weights: alpha, beta, wer."""
        return pl.DataFrame(list(self.grid), schema=dict.fromkeys(("alpha", "beta", "wer"), pl.Float64), orient="row")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        grid = [{"alpha": alpha, "beta": beta, "wer": rate} for alpha, beta, rate in self.grid]
        return asdict(self) | {"grid": grid, "at_edge": self.at_edge}

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> Tuning:
        """What `to_dict` gave."""
        grid = tuple((row["alpha"], row["beta"], row["wer"]) for row in told["grid"])
        return cls(**{name: value for name, value in told.items() if name != "at_edge"} | {"grid": grid})

    def __str__(self) -> str:
        betas = sorted({beta for _, beta, _ in self.grid})
        rates = {(alpha, beta): rate for alpha, beta, rate in self.grid}
        lines = [
            f"weights chosen on {self.corpus} ({self.utterances} utterances, {self.words} words): "
            f"alpha {self.alpha:g}, beta {self.beta:g}, wer {self.value:.4f}"
            + (", at the edge of the grid" if self.at_edge else "")
        ]
        lines.append("alpha \\ beta" + "".join(f"{beta:>9g}" for beta in betas))
        for alpha in sorted({alpha for alpha, _, _ in self.grid}):
            lines.append(f"{alpha:>12g}" + "".join(f"{rates[alpha, beta]:>9.4f}" for beta in betas))
        return "\n".join(lines)


def tune(
    recogniser: Recogniser,
    dev: Corpus,
    lm: LanguageModel,
    *,
    exam: Corpus | None = None,
    alphas: Sequence[float] = ALPHAS,
    betas: Sequence[float] = BETAS,
    width: int = WIDTH,
    prune: float = PRUNE,
    batch_seconds: float = 30.0,
    progress: Progress | None = None,
) -> Tuning:
    """Decodes development speech with every pair of weights; the model runs once.

    Args:
        recogniser: the model with its vocabulary.
        dev: the speech, with transcripts.
        lm: the language model.
        exam: speech that the weights will be used on; must not share an utterance with `dev`.
        alphas: weights of the language model to try.
        betas: what a word adds, to try.
        width: see `BeamSearch`.
        prune: see `BeamSearch`.
        batch_seconds: budget of a batch, in seconds of padded speech.
        progress: called with the seconds of speech decoded and to be decoded, all pairs of weights counted.

    Raises:
        EvaluationError: the corpora share an utterance, the grid is empty, or no word was said.
        SpeechError: an utterance cannot be read or used, or has no transcript.
        VocabularyError: the language model is of another vocabulary.
    """
    pairs = [(float(alpha), float(beta)) for alpha in alphas for beta in betas]
    if not pairs:
        raise EvaluationError("There are no weights to choose from", "Give one or more of alpha and of beta.")
    if exam is not None:
        check_apart(dev, exam)
    references = references_of(recogniser, dev)
    check_lengths(recogniser, dev)
    said = {name: reference.text.split() for name, reference in references.items()}
    words = sum(map(len, said.values()))
    if not words:
        raise EvaluationError(f"Corpus {dev.name} has no word to choose weights by", "Use speech with transcripts.")
    decoders = [BeamSearch(recogniser.vocabulary, lm, alpha, beta, width, prune) for alpha, beta in pairs]
    decoders[0].check([reference.text for reference in references.values()], f"corpus {dev.name}")
    reader = read_batches(dev, batch_seconds)
    wrong, done = [0] * len(pairs), 0.0
    for batch in reader:
        found = recogniser.log_probabilities(batch.samples, [utterance.id for utterance in batch.utterances])
        for utterance, scores in zip(batch.utterances, found, strict=True):
            held: torch.Tensor = scores.cpu()
            for k, decoder in enumerate(decoders):
                wrong[k] += sum(error_counts(said[utterance.id], decoder.decode(held).split()))
        done += batch.seconds
        if progress is not None:
            progress(done, reader.seconds)
    best = min(range(len(pairs)), key=lambda k: (wrong[k], pairs[k][0], abs(pairs[k][1]), pairs[k][1]))
    grid = tuple((alpha, beta, count / words) for (alpha, beta), count in zip(pairs, wrong, strict=True))
    return Tuning(
        *pairs[best],
        wrong[best] / words,
        grid,
        words,
        width,
        prune,
        dev.name,
        dev.fingerprint(),
        len(dev),
        lm.describe(),
    )


def check_apart(one: Corpus, exam: Corpus, told: str = "weights are chosen on") -> None:
    """Refuses speech to learn from that shares an utterance with the speech to examine on.

    Two utterances are the same where they have the same length and transcript, and the same name or the same samples;
    samples are read only to tell.

    Args:
        one: what is learnt from.
        exam: what is examined.
        told: what is done with `one`, for the error.

    Raises:
        EvaluationError: an utterance is in both; named.
    """
    examined: dict[tuple[int, str], list[Utterance]] = {}
    for utterance in exam:
        examined.setdefault(_looks(utterance), []).append(utterance)
    for utterance in one:
        for other in examined.get(_looks(utterance), ()):
            if utterance.id == other.id or _sound(utterance) == _sound(other):
                raise EvaluationError(
                    f"Utterance {utterance.id!r} of corpus {one.name}, which {told}, is also in corpus {exam.name} "
                    f"(as {other.id!r}), so the result there would be flattered",
                    "Use speech that shares no utterance with what is examined, such as a development set of other voices.",
                )


def _looks(utterance: Utterance) -> tuple[int, str]:
    return utterance.n_samples, " ".join((utterance.transcript or "").lower().split())


def _sound(utterance: Utterance) -> str:
    return hashlib.sha256(utterance.read().tobytes()).hexdigest()
