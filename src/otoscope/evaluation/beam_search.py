"""Prefix beam search: the most probable text, summed over its alignments, with a language model of words."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from otoscope.errors import EvaluationError
from otoscope.evaluation.language.model import LanguageModel
from otoscope.evaluation.language.spelling import Spelling
from otoscope.models.vocabulary import PIECE, Vocabulary

ALPHA, BETA, WIDTH, PRUNE = 0.5, 1.0, 25, 1e-3
_MARGIN = 0.7  # nats
_RENEWED = 200  # frames
_LARGEST = 700.0  # whose exponential is a float
_NORMAL = 1e-3  # how far from one the sum over tokens may lie


@dataclass(frozen=True)
class Hypothesis:
    """A text that the search found.

    Attributes:
        text: words parted by one space.
        score: ctc + alpha lm + beta words, which the search maximises.
        ctc: natural logarithm of the text's probability, over those of its alignments that were kept.
        lm: natural logarithm of its probability as a sentence; 0 without a language model.
        words: how many words it has.
    """

    text: str
    score: float
    ctc: float
    lm: float
    words: int


class BeamSearch:
    """Prefix beam search over CTC; a `Decoder`.

    It looks for the text that maximises

        log P_ctc(text) + alpha log P_lm(words, end) + beta |words|

    where P_ctc sums over all alignments of the text (Graves 2012, "Supervised sequence labelling with recurrent neural
    networks", section 7.5; Hannun et al. 2014, "First-pass large vocabulary continuous speech recognition using
    bi-directional recurrent DNNs", algorithm 1). A prefix is a text together with its last token; the probabilities of
    its alignments that end in a blank and of those that end in the token are kept apart. The language model scores a
    word when the next one begins, and the last word and the end of the sentence after the last frame. Tokens that
    stand for no text count as blanks. With a beam that is wide enough, and without pruning, the result is exact.

    Args:
        vocabulary: what the tokens are, characters or pieces of words.
        lm: a language model of words; see `Spelling` for their case.
        alpha: weight of the language model; not used without one.
        beta: what a word adds, in nats; not used without a language model.
        width: prefixes that are kept after each frame.
        prune: probability below which a token is left out of a frame; the likeliest is always kept.

    Raises:
        EvaluationError: the width is below one, a weight is not finite, alpha is below zero, or prune is no probability.
        VocabularyError: the language model is of another vocabulary.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        lm: LanguageModel | None = None,
        alpha: float = ALPHA,
        beta: float = BETA,
        width: int = WIDTH,
        prune: float = PRUNE,
    ) -> None:
        check_search(alpha, beta, width, prune)
        self.vocabulary, self.lm = vocabulary, lm
        self.alpha, self.beta = (alpha, beta) if lm is not None else (0.0, 0.0)
        self.width, self.prune = width, prune
        self._spelling = Spelling(lm) if lm is not None else None
        if self._spelling is not None:
            self._spelling.check_vocabulary(vocabulary)
        self._silent = [vocabulary.blank, *sorted(vocabulary.silent - {vocabulary.blank})]
        self._surfaces = [_surface(token, vocabulary) for token in vocabulary.tokens]
        gains = (max(self.beta, 0.0) * surface.count(" ") for surface in self._surfaces)
        self._gains = [math.exp(min(gain, _LARGEST)) for gain in gains]

    def decode(self, log_probabilities: Float[Tensor, "frames tokens"]) -> str:
        """See `Decoder`."""
        return self.search(log_probabilities)[0].text

    def check(self, references: Sequence[str], place: str) -> None:
        """See `Decoder`; refuses a language model that knows too few of the words.

        Raises:
            VocabularyError: see `Spelling.check_texts`.
        """
        if self._spelling is not None:
            self._spelling.check_texts(references, place)

    def describe(self) -> dict[str, Any]:
        """See `Decoder`."""
        told = {"kind": "beam", "width": self.width, "prune": self.prune}
        if self.lm is None:
            return told
        return told | {"alpha": self.alpha, "beta": self.beta, "language_model": self.lm.describe()}

    def search(self, log_probabilities: Float[Tensor, "frames tokens"]) -> list[Hypothesis]:
        """The texts that are left after the last frame, the best first.

        Args:
            log_probabilities: log probabilities of the tokens at every frame, (T, V).

        Raises:
            EvaluationError: they have another number of tokens than the vocabulary, or do not sum to one.
        """
        frames, kept = self._frames(log_probabilities)
        root = _Node("", "", self.lm.start() if self.lm is not None else None, 0.0, 0)
        nodes = {"": root}
        blank = self.vocabulary.blank
        beam: _Beam = {(root, blank): [1.0, 0.0]}
        scale = 0.0  # logarithm of what all masses of the beam have been divided by
        for t, (probabilities, tokens) in enumerate(zip(frames, kept, strict=True)):
            if t % _RENEWED == _RENEWED - 1:  # texts that left the beam are let go, lest long speech fill the memory
                nodes = {node.text: node for node, _ in beam}
                for node in nodes.values():
                    node.after.clear()
            found: _Beam = {}
            least = self._least(beam, probabilities)
            for key, (in_blank, in_token) in beam.items():
                node, last = key
                both = in_blank + in_token
                enough = math.exp(min(least - node.fused, _LARGEST))  # a mass below this cannot stay in the beam
                for token in tokens:
                    chance, mass = probabilities[token], both
                    if token == blank:
                        _entry(found, key)[0] += both * chance
                        continue
                    if token == last:  # without a blank between them, two of the same are one
                        _entry(found, key)[1] += in_token * chance
                        mass = in_blank
                    mass *= chance
                    after = node.after.get(token)
                    if mass < enough and mass * self._gains[token] < enough:
                        after = after or nodes.get(self._text(node, token))
                        if after is None or (after, token) not in beam:
                            continue
                    if mass:
                        _entry(found, (after or self._after(node, token, nodes), token))[1] += mass
            ranked = [(math.log(a + b) + key[0].fused, key, a, b) for key, (a, b) in found.items() if a + b]
            if len(ranked) > self.width:
                ranked.sort(key=_rank)
                del ranked[self.width :]
            most = max(a + b for _, _, a, b in ranked)
            scale += math.log(most)
            beam = {key: [a / most, b / most] for _, key, a, b in ranked}
        return self._ended(beam, scale)

    def _least(self, beam: _Beam, probabilities: list[float]) -> float:
        """A score that no new prefix with less can stay in the beam with, since those that are there stay.

        It is the least score that the prefixes of a full beam have after the frame without another token, less a margin
        for texts that several prefixes lead to at once. What a word adds is in `_gains`; the language model takes away.
        """
        if len(beam) < self.width:
            return -math.inf
        blank, least = probabilities[self.vocabulary.blank], math.inf
        for (node, last), (in_blank, in_token) in beam.items():
            stays = (in_blank + in_token) * blank + (in_token * probabilities[last])
            least = min(least, math.log(stays) + node.fused if stays else -math.inf)
        return least - _MARGIN

    def _frames(self, log_probabilities: Tensor) -> tuple[list[list[float]], list[list[int]]]:
        """Probabilities of each frame, silent tokens added to the blank, and the tokens that are not pruned."""
        if log_probabilities.shape[-1] != len(self.vocabulary):
            raise EvaluationError(
                f"Log probabilities of {log_probabilities.shape[-1]} tokens for a vocabulary of {len(self.vocabulary)}",
                "Decode with the vocabulary of the model.",
            )
        chances = log_probabilities.detach().to("cpu", torch.float64).exp().numpy()
        sums = chances.sum(1)
        strange = np.flatnonzero(~(np.abs(sums - 1) < _NORMAL))
        if len(strange):
            raise EvaluationError(
                f"The probabilities of frame {strange[0]} sum to {sums[strange[0]]:.4g}",
                "Give log probabilities (torch.log_softmax), not logits.",
            )
        blank, *silent = self._silent
        if silent:
            chances[:, blank] += chances[:, silent].sum(1)
            chances[:, silent] = 0.0
        keep = (chances >= self.prune) & (chances > 0)
        keep[np.arange(len(chances)), chances.argmax(1)] = True
        chances[~keep] = 0.0
        return chances.tolist(), [np.flatnonzero(row).tolist() for row in keep]

    def _text(self, node: _Node, token: int) -> str:
        """The text with a token more; words are parted by one space, and none stands at its start."""
        surface = self._surfaces[token]
        return node.text + (surface if node.partial else surface.lstrip(" "))

    def _after(self, node: _Node, token: int, nodes: dict[str, _Node]) -> _Node:
        """What follows with a token more; words that it completes are scored."""
        text = self._text(node, token)
        found = nodes.get(text)
        if found is None:
            *complete, partial = (node.partial + text[len(node.text) :]).split(" ")
            state, lm, words = node.state, node.lm, node.words
            for word in filter(None, complete):
                log, state = self._score(state, word)
                lm, words = lm + log, words + 1
            found = nodes[text] = _Node(text, partial, state, lm, words)
            found.fused = self.alpha * lm + self.beta * words
        node.after[token] = found
        return found

    def _score(self, state: Any, word: str) -> tuple[float, Any]:
        if self.lm is None or self._spelling is None:
            return 0.0, None
        return self.lm.score(state, self._spelling.form(word))

    def _ended(self, beam: _Beam, scale: float) -> list[Hypothesis]:
        """Texts with their ends scored; prefixes of the same text are taken together."""
        masses: dict[str, float] = {}
        ends: dict[str, _Node] = {}
        for (node, _), (in_blank, in_token) in beam.items():
            text = node.text.rstrip(" ")
            masses[text] = masses.get(text, 0.0) + in_blank + in_token
            ends[text] = node
        found = []
        for text, mass in masses.items():
            node, ctc = ends[text], math.log(mass) + scale
            state, lm, words = node.state, node.lm, node.words
            if node.partial:
                log, state = self._score(state, node.partial)
                lm, words = lm + log, words + 1
            if self.lm is not None:
                lm += self.lm.end(state)
            found.append(Hypothesis(text, ctc + self.alpha * lm + self.beta * words, ctc, lm, words))
        return sorted(found, key=lambda one: (-one.score, one.text))


def check_search(alpha: float, beta: float, width: int, prune: float) -> None:
    """Refuses settings of a search that mean nothing.

    Raises:
        EvaluationError: see `BeamSearch`.
    """
    if width < 1:
        raise EvaluationError(f"A beam of width {width} keeps no text", "Give a width of 1 or more; 25 is usual.")
    if not (math.isfinite(alpha) and math.isfinite(beta)) or alpha < 0:
        raise EvaluationError(
            f"Weights alpha = {alpha} and beta = {beta}", "Give finite numbers, alpha of zero or more."
        )
    if not 0 <= prune < 1:
        raise EvaluationError(f"Tokens are pruned below a probability of {prune}", "Give a number from 0 to below 1.")


class _Node:
    """A text that prefixes share, with what the language model has made of its complete words."""

    __slots__ = ("after", "fused", "lm", "partial", "state", "text", "words")

    def __init__(self, text: str, partial: str, state: Any, lm: float, words: int) -> None:
        self.text, self.partial, self.state, self.lm, self.words = text, partial, state, lm, words
        self.fused = 0.0
        self.after: dict[int, _Node] = {}


_Beam = dict[tuple[_Node, int], list[float]]
"""Prefixes, a text and its last token each, with the masses of alignments that end in a blank and in the token."""


def _entry(found: _Beam, key: tuple[_Node, int]) -> list[float]:
    entry = found.get(key)
    if entry is None:
        entry = found[key] = [0.0, 0.0]
    return entry


def _rank(row: Sequence[Any]) -> tuple[float, str]:
    """The best first; of equals the first by the alphabet, lest the order of a dictionary decide."""
    return -row[0], row[1][0].text


def _surface(token: str, vocabulary: Vocabulary) -> str:
    """What a token adds to a text, with a space where a word begins or ends."""
    if vocabulary.pieces is not None:
        return re.sub(" +", " ", token.replace(PIECE, " "))
    return " " if token == vocabulary.delimiter else token
