"""The decoder of an evaluation: made for a model's vocabulary, its weights chosen where that is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from otoscope.errors import EvaluationError
from otoscope.evaluation.beam_search import BeamSearch
from otoscope.evaluation.decoders import DecoderSettings
from otoscope.evaluation.decoding import Decoder, Greedy
from otoscope.evaluation.language.perplexity import Perplexity, perplexity_of
from otoscope.evaluation.language.reading import read_language_model
from otoscope.evaluation.references import references_of, split_usable
from otoscope.evaluation.tuning import Tuning, tune
from otoscope.models.recogniser import Recogniser
from otoscope.speech.corpus import Corpus


@dataclass(frozen=True)
class Decoding:
    """How the speech of an evaluation is decoded.

    Attributes:
        decoder: the decoder; None where nothing is.
        tuning: how its weights were chosen, or None.
        perplexity: of the language model on the transcripts, or None.
    """

    decoder: Decoder | None = None
    tuning: Tuning | None = None
    perplexity: Perplexity | None = None

    def to_dict(self) -> dict[str, Any]:
        """What the provenance says of it, fit for JSON."""
        parts = {"decoder": self.decoder.describe() if self.decoder is not None else None}
        parts |= {"tuning": self.tuning.to_dict() if self.tuning is not None else None}
        parts |= {"perplexity": self.perplexity.to_dict() if self.perplexity is not None else None}
        return {name: part for name, part in parts.items() if part is not None}


def is_greedy(decoder: Decoder | DecoderSettings | str) -> bool:
    """Whether greedy decoding is asked for."""
    return isinstance(decoder, Greedy) or "greedy" in (decoder, getattr(decoder, "kind", ""))


def settings_of(
    kind: str | None = None,
    lm: str | Path | None = None,
    alpha: float | None = None,
    beta: float | None = None,
    width: int | None = None,
    *,
    tune: bool = False,
) -> DecoderSettings:
    """The decoder that options describe; what is None has its usual value.

    Args:
        kind: "greedy" or "beam"; by default a beam search where a language model is named.
        lm: file of the language model.
        alpha: see `BeamSearch`.
        beta: see `BeamSearch`.
        width: see `BeamSearch`.
        tune: alpha and beta will be chosen.

    Raises:
        EvaluationError: an option says nothing beside the others, or means nothing.
    """
    kind = kind or ("greedy" if lm is None else "beam")
    given = (("alpha", alpha), ("beta", beta))
    weights: dict[str, Any] = {name: value for name, value in given if value is not None}
    if weights and lm is None:
        raise EvaluationError(f"There is no language model for {next(iter(weights))} to weigh", "Name one (--lm).")
    if weights and tune:
        raise EvaluationError(
            f"{next(iter(weights))} is given, and is to be chosen too", "Leave out --tune, or --alpha and --beta."
        )
    if width is not None and kind == "greedy":
        raise EvaluationError("Greedy decoding has no beam", "Ask for the decoder beam, or leave its width out.")
    made = replace(DecoderSettings(kind, lm), **weights)
    return made if width is None else replace(made, width=width)


def decoding_of(
    decoder: Decoder | DecoderSettings | str,
    recogniser: Recogniser,
    corpus: Corpus,
    dev: Corpus | str | Path | None = None,
    skip_bad: bool = False,
    batch_seconds: float = 30.0,
) -> Decoding:
    """Makes the decoder for a corpus.

    Args:
        decoder: see `evaluate`.
        recogniser: the model with its vocabulary.
        corpus: what will be decoded.
        dev: speech to choose the weights on, or None.
        skip_bad: leave out utterances of `dev` that cannot be used.
        batch_seconds: budget of a batch, in seconds of padded speech.

    Raises:
        EvaluationError: there is no such decoder, its language model cannot be read, or weights are to be chosen without
            one or on the corpus itself.
        TrainingError: they are to be chosen on speech of an examination.
        SpeechError: the development speech cannot be read or used.
        VocabularyError: the language model is of another vocabulary.
    """
    settings = DecoderSettings(decoder) if isinstance(decoder, str) else decoder
    tuning = None
    if dev is not None:
        if not isinstance(settings, DecoderSettings) or settings.lm is None:
            raise EvaluationError(
                "Weights are to be chosen, and there is no language model to weigh", "Name one (lm=, --lm)."
            )
        # Not at the top, since it takes seconds that other commands save.
        from otoscope.workflow.training_speech import read_training_corpus

        lm = read_language_model(settings.lm)
        speech = read_training_corpus(dev, skip_bad)
        if skip_bad:
            speech, _ = split_usable(recogniser, speech)
        tuning = tune(
            recogniser, speech, lm, exam=corpus, width=settings.width, prune=settings.prune,
            batch_seconds=batch_seconds,
        )  # fmt: skip
        settings = replace(settings, lm=lm, alpha=tuning.alpha, beta=tuning.beta)
    made = settings.decoder(recogniser.vocabulary) if isinstance(settings, DecoderSettings) else settings
    if not isinstance(made, BeamSearch) or made.lm is None:
        return Decoding(made, tuning)
    texts = [reference.text for reference in references_of(recogniser, corpus).values()]
    return Decoding(made, tuning, perplexity_of(made.lm, texts))


def told_decoding(provenance: Mapping[str, Any]) -> list[str]:
    """Lines for a person about the decoder of an evaluation; none of greedy decoding."""
    told = provenance.get("decoder")
    if told is None or told.get("kind") == "greedy":
        return []
    if told.get("kind") != "beam":
        return [f"decoder: {told}"]
    line, lm = f"beam search of width {told['width']}", told.get("language_model")
    if lm is None:
        return [f"{line}, without a language model"]
    chosen = Tuning.from_dict(provenance["tuning"]) if "tuning" in provenance else None
    weights = f"alpha {told['alpha']:g}, beta {told['beta']:g}" + (f" chosen on {chosen.corpus}" if chosen else "")
    lines = [f"{line}, {lm['order']}-gram {lm['name']}, {weights}"]
    if "perplexity" in provenance:
        lines.append(str(Perplexity(**provenance["perplexity"])))
    return lines + ([str(chosen)] if chosen is not None else [])
