"""Diagnose: a model and speech in, a diagnosis out."""

import shlex
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import nn

from otoscope.diagnosis.catalogue import choose
from otoscope.diagnosis.floors import with_floors
from otoscope.diagnosis.observation import Observation, Progress
from otoscope.diagnosis.options import LEXICON, Options, corpus_words
from otoscope.diagnosis.result import Diagnosis
from otoscope.errors import MeasureError
from otoscope.measures.layers.folding import FOLDS, Folding
from otoscope.models.loading import load
from otoscope.models.model import SpeechModel
from otoscope.models.randomised import randomised
from otoscope.speech.corpus import Corpus
from otoscope.speech.synthesis.lexicon import embedding_table
from otoscope.speech.tables import WordTable, read_embeddings, read_word_pairs
from otoscope.workflow.blocks import check_blocks, with_own_checkpoints
from otoscope.workflow.corpora import read_corpus
from otoscope.workflow.examining import Passes, examine

FLOORS = ("permuted", "random")


def diagnose(
    model: SpeechModel | nn.Module | str | Path = "embedded",
    corpus: Corpus | str | Path = "embedded",
    measures: str | Sequence[str] | None = None,
    seed: int = 0,
    *,
    skip_bad: bool = False,
    batch_seconds: float = 30.0,
    folds: int = FOLDS,
    folds_by: str = "speaker",
    floor: str = "permuted",
    against: SpeechModel | nn.Module | str | Path | None = None,
    tables: Mapping[str, WordTable | str | Path] | None = None,
    word_pairs: Mapping[str, str | Path] | None = None,
    sentence_pairs: str | Path | None = None,
    passes: Passes | None = None,
    tell: Callable[[str], None] | None = None,
    progress: Progress | None = None,
) -> Diagnosis:
    """Examines a model on speech: in one pass over the audio, and in many where measures are asked for that take them.

    Args:
        model: a `SpeechModel`, a transformers model, a folder, a Hub name, or "embedded".
        corpus: a `Corpus`, a path, or "embedded".
        measures: names and groups ("layers", "heads", "blocks"); None for all that one pass gives. "blocks" by name, and
            the groups "importance", "mixing" and "noise", take many passes.
        seed: of every random choice: folds, groups, floors.
        skip_bad: leave out utterances that cannot be used, and list them in the result.
        batch_seconds: frame budget of a batch, in seconds of padded speech.
        folds: how many folds held-out scores rotate through; fewer speakers give fewer.
        folds_by: "speaker" (else by utterance), or "row": rows at random, stratified by label.
        floor: "permuted" for the score of a target that is not there; "random" for the score of the same architecture
            with fresh weights, which takes a second pass.
        against: another model, for the measures that compare two: `cca-inter` and others.
        tables: vectors of words by name ("glove", "agwe", "semantic", "syntactic"): tables, paths that
            `read_embeddings` reads, or "lexicon" for vectors made by rule from the sentence generator's lexicon.
        word_pairs: files of word pairs with similarities, by name.
        sentence_pairs: a file of sentence pairs with similarities.
        passes: how much is spent on what takes many passes.
        tell: called with a line before each stage of what takes many passes.
        progress: called after each batch with the seconds done and in all.

    Returns:
        The diagnosis. Measures that the corpus gives no ground for are named in `provenance["skipped"]`.

    Raises:
        ModelError: a model cannot be loaded or examined.
        SpeechError: the corpus or a table cannot be read, or holds a bad utterance (without `skip_bad`).
        MeasureError: a measure that is asked for by name cannot be taken on this corpus.
    """
    if floor not in FLOORS:
        raise MeasureError(f"There is no floor {floor!r}", f"Choose one of {', '.join(FLOORS)}.")
    ready = model if isinstance(model, SpeechModel) else load(model)
    other = against if against is None or isinstance(against, SpeechModel) else load(against)
    speech = corpus if isinstance(corpus, Corpus) else read_corpus(corpus, skip_bad=skip_bad)
    words = corpus_words(speech)
    spent = passes or Passes()
    spent = replace(spent, blocks=with_own_checkpoints(spent.blocks, ready))
    options = Options(
        checkpoints=spent.blocks.initial is not None or bool(spent.blocks.checkpoints or spent.blocks.twins),
        folding=Folding(folds, folds_by),
        tables={name: _table(one, words) for name, one in (tables or {}).items()},
        word_pairs={name: read_word_pairs(path) for name, path in (word_pairs or {}).items()},
        sentence_pairs={Path(sentence_pairs).stem: read_word_pairs(sentence_pairs)} if sentence_pairs else {},
    )
    observation = Observation.prepare(ready, speech, measures, seed, skip_bad, options, other)
    _check_used(options, other, set(observation.makers) | {one["measure"] for one in observation.skipped})
    further = [(entry, by_name) for entry, by_name in choose(measures, options) if entry.make is None]
    check_blocks(spent.blocks, [entry.name for entry, _ in further], ready)
    fresh = randomised(ready, seed) if floor == "random" else None
    if fresh is not None and fresh.fingerprint() == ready.fingerprint():
        raise MeasureError(
            f"{ready.name} is the very network that seed {seed} draws as its floor: it was not trained",
            "Give another seed, or leave out the floor of fresh weights.",
        )
    rounds = 2 if fresh is not None else 1

    def told(part: int) -> Progress | None:
        return progress and (lambda done, whole: progress(part * whole + done, rounds * whole))

    observation.update(batch_seconds=batch_seconds, skip_bad=skip_bad, progress=told(0))
    diagnosis = observation.compute(command=shlex.join(sys.argv))
    if fresh is not None:
        beside = Observation.prepare(fresh, speech, diagnosis.provenance["measures"], seed, skip_bad, options, other)
        beside.update(batch_seconds=batch_seconds, skip_bad=skip_bad, progress=told(1))
        diagnosis = with_floors(diagnosis, beside.compute())
    if not further:
        return diagnosis
    usable = observation.corpus.subset(observation.seen)
    return examine(
        diagnosis,
        further,
        ready,
        usable,
        seed,
        passes=spent,
        batch_seconds=batch_seconds,
        tell=tell,
        progress=progress,
    )


def _check_used(options: Options, other: SpeechModel | None, measures: Collection[str]) -> None:
    """Refuses options that no measure reads, lest one seem to have had an effect.

    Raises:
        MeasureError: there is such an option.
    """
    idle = [
        f"the table {name!r}"
        for name in options.tables
        if not any(m.endswith(f"cca-{name}") or m == f"r2-{name}" for m in measures)
    ]
    if options.word_pairs and "word-similarity" not in measures:
        idle.append("the word pairs")
    if options.sentence_pairs and "sentence-similarity" not in measures:
        idle.append("the sentence pairs")
    if other is not None and not any(m.endswith("-inter") for m in measures):
        idle.append(f"the other model {other.name!r}")
    if idle:
        raise MeasureError(
            f"No measure that was asked for reads {idle[0]}", "Leave it out, or name a measure that does."
        )


def _table(given: WordTable | str | Path, words: Collection[str]) -> WordTable:
    """A table: itself, the lexicon's made-up one, or the corpus' words of a file, which may hold millions."""
    if isinstance(given, WordTable):
        return given
    return embedding_table() if str(given) == LEXICON else read_embeddings(given, words)
