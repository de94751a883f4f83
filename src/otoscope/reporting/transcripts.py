"""Aligned hypotheses: what was said beside what was recognised, word by word, and which words go wrong."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from otoscope.evaluation.error_rates import align
from otoscope.evaluation.scores import Scores
from otoscope.evaluation.word_errors import word_errors
from otoscope.reporting.facts import Fact
from otoscope.reporting.page import page_parts, render_template, write_page
from otoscope.reporting.values import number

LISTED = 500
"""At most so many utterances are shown, those with the most errors; the rest are counted."""

FREQUENT = 15
"""So many words of each kind of error."""


@dataclass(frozen=True)
class Word:
    """A word of an alignment.

    Attributes:
        kind: "right", "substituted", "deleted" or "inserted".
        said: what was said; empty where nothing was.
        heard: what was recognised; empty where nothing was.
    """

    kind: str
    said: str
    heard: str


@dataclass(frozen=True)
class Line:
    """One utterance.

    Attributes:
        utterance: its name.
        speaker: who speaks; empty where it is not known.
        place: where it stands in the corpus, from 0.
        errors: how many words are wrong.
        words: how many were said.
        rate: errors over words; infinite where nothing was said and something recognised.
        aligned: the words.
    """

    utterance: str
    speaker: str
    place: int
    errors: int
    words: int
    rate: float
    aligned: Sequence[Word]


@dataclass(frozen=True)
class TranscriptPanel:
    """What the report says of hypotheses.

    Attributes:
        sentence: the error rate with its kinds.
        lines: utterances, those with the most errors first.
        more: how many utterances are not shown.
        right: how many utterances have no error.
        total: how many there are.
        frequent: kinds of errors with their most frequent words and counts.
    """

    sentence: str
    lines: Sequence[Line]
    more: int
    right: int
    total: int
    frequent: Sequence[tuple[str, Sequence[tuple[str, str]]]]


def transcript_panel(scores: Scores | None, most: int = LISTED) -> TranscriptPanel | None:
    """The section of aligned hypotheses; None where the scores hold no texts.

    Args:
        scores: of the word error rate.
        most: utterances that are shown.
    """
    if scores is None or not {"reference", "hypothesis"} <= scores.texts.keys():
        return None
    said, heard = scores.texts["reference"], scores.texts["hypothesis"]
    lines = [
        _line(k, name, speaker or "", reference, hypothesis)
        for k, (name, speaker, reference, hypothesis) in enumerate(
            zip(scores.ids, scores.speakers, said, heard, strict=True)
        )
    ]
    lines.sort(key=lambda line: (-line.errors, line.place))
    errors = word_errors(said, heard)
    kinds = [("substituted", f"{a} → {b}", count, a) for (a, b), count in errors.substitutions.items()] + [
        ("deleted", a, count, a) for a, count in errors.deletions.items()
    ]
    kinds += [("inserted", a, count, "") for a, count in errors.insertions.items()]
    frequent = []
    for wanted in ("substituted", "deleted", "inserted"):
        rows = sorted((-count, shown, of) for kind, shown, count, of in kinds if kind == wanted)
        told = [
            (shown, f"{-count} of {errors.said[of]}" if of else str(-count)) for count, shown, of in rows[:FREQUENT]
        ]
        frequent.append((wanted, told))
    totals = {kind: sum(count for one, _, count, _ in kinds if one == kind) for kind, _ in frequent}
    sentence = (
        f"Word error rate {number(scores.value)}: of {errors.said.total()} words {totals['substituted']} were substituted "
        f"and {totals['deleted']} deleted, and {totals['inserted']} were inserted."
    )
    right = sum(not line.errors for line in lines)
    return TranscriptPanel(sentence, lines[:most], max(0, len(lines) - most), right, len(lines), frequent)


def write_transcripts(
    scores: Mapping[str, Scores],
    model: str,
    corpus: str,
    facts: Sequence[Fact],
    path: str | os.PathLike[str],
) -> Path:
    """Writes an evaluation as one HTML page that loads nothing from anywhere, whole or not at all.

    Args:
        scores: by name of the metric.
        model: what the model is called.
        corpus: what the speech is called.
        facts: names and values that stand above the hypotheses.
        path: the file to write; folders that are missing are made.

    Raises:
        ResultError: the file cannot be written there.
    """
    context = {
        "model": model, "corpus": corpus, "facts": list(facts), "transcripts": transcript_panel(scores.get("wer")),
    }  # fmt: skip
    return write_page(lambda: render_template("evaluation.html", {**context, **page_parts([])}), path)


def _line(place: int, name: str, speaker: str, reference: str, hypothesis: str) -> Line:
    aligned = [_word(said, heard) for said, heard in align(reference.split(), hypothesis.split())]
    errors, words = sum(word.kind != "right" for word in aligned), len(reference.split())
    rate = errors / words if words else (float("inf") if errors else 0.0)
    return Line(name, speaker, place, errors, words, rate, aligned)


def _word(said: str | None, heard: str | None) -> Word:
    if said is None or heard is None:
        return Word("inserted" if said is None else "deleted", said or "", heard or "")
    return Word("right" if said == heard else "substituted", said, heard)
