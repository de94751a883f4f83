"""What the outputs of a CTC head stand for: tokens by number, the blank, and where words end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from otoscope.errors import VocabularyError

PIECE = "▁"  # marks the start of a word in vocabularies of word pieces
_CURE = (
    "Put the tokenizer that the model was trained with beside its weights; where a vocabulary can be named (vocabulary=, "
    "`otoscope evaluate --vocabulary`), name tokens with their numbers, as in vocab.json, or a folder with a tokenizer."
)


@dataclass(frozen=True)
class Pieces:
    """Cuts text into pieces of words.

    Attributes:
        tokenizer: of transformers; it is stored beside a model that is trained over its pieces.
    """

    tokenizer: Any

    def __call__(self, text: str) -> list[int]:
        """Numbers of the pieces of a text."""
        return list(self.tokenizer.encode(text, add_special_tokens=False))


@dataclass(frozen=True)
class Vocabulary:
    """Tokens of a CTC head, from text to numbers and back.

    Attributes:
        tokens: the token of each output, in their order.
        blank: number of the output that stands for no token.
        delimiter: the token between two words; `PIECE` where tokens are pieces of words.
        silent: numbers of tokens that stand for no text, such as the start and the end of a sentence.
        pieces: cuts text into numbers where tokens are pieces of words; None where they are characters.

    Raises:
        VocabularyError: the blank is no output, or a token stands there twice.

    >>> vocabulary = Vocabulary(("<pad>", "|", "a", "b"), blank=0)
    >>> vocabulary.encode("AB  a")
    [2, 3, 1, 2]
    >>> vocabulary.decode([2, 3, 1, 2])
    'ab a'
    """

    tokens: tuple[str, ...]
    blank: int
    delimiter: str = "|"
    silent: frozenset[int] = frozenset()
    pieces: Callable[[str], list[int]] | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not 0 <= self.blank < len(self.tokens):
            raise VocabularyError(f"The blank {self.blank} is none of {len(self.tokens)} outputs", _CURE)
        if len(set(self.tokens)) < len(self.tokens):
            twice = next(token for token in self.tokens if self.tokens.count(token) > 1)
            raise VocabularyError(f"The token {twice!r} stands twice in the vocabulary", _CURE)

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def case(self) -> Literal["lower", "upper", "both"]:
        """Whether its letters are all of one case."""
        text = "".join(token for k, token in enumerate(self.tokens) if not self._stands_for_nothing(k))
        if text.upper() != text and text.lower() == text:
            return "lower"
        return "upper" if text.lower() != text and text.upper() == text else "both"

    def _stands_for_nothing(self, number: int) -> bool:
        return number == self.blank or number in self.silent

    def fold(self, text: str) -> str:
        """Text in the vocabulary's own case, words parted by one space; nothing else is changed.

        >>> Vocabulary(("<pad>", "|", "A", "B"), blank=0).fold(" ab  b ")
        'AB B'
        """
        text = {"lower": text.lower(), "upper": text.upper(), "both": text}[self.case]
        return " ".join(text.split())

    def encode(self, text: str, place: str = "The text") -> list[int]:
        """Numbers of the tokens of a text, words parted by the delimiter.

        Args:
            text: is folded first.
            place: what the error calls it.

        Raises:
            VocabularyError: a character has no token.
        """
        text = self.fold(text)
        if self.pieces is not None:
            numbers = self.pieces(text)
            if any(self._stands_for_nothing(k) for k in numbers):
                unknown = (c for c in text if any(self._stands_for_nothing(k) for k in self.pieces(c)))
                raise VocabularyError(
                    f"{place} holds {next(unknown, text)!r}, which the vocabulary has no token for", _UNSPEAKABLE
                )
            return numbers
        # Only characters: a text that happens to hold the blank's name must not become one.
        known = {token: k for k, token in enumerate(self.tokens) if not self._stands_for_nothing(k)}
        numbers = []
        for character in text:
            token = self.delimiter if character == " " else character
            if token not in known or (character == self.delimiter and character != " "):
                raise VocabularyError(
                    f"{place} holds {character!r}, which the vocabulary has no token for", _UNSPEAKABLE
                )
            numbers.append(known[token])
        return numbers

    def decode(self, numbers: Sequence[int]) -> str:
        """The text of tokens, without blanks and silent tokens; words parted by one space."""
        kept = [self.tokens[k] for k in numbers if not self._stands_for_nothing(k)]
        if self.pieces is not None:
            return " ".join("".join(kept).replace(PIECE, " ").split())
        return " ".join("".join(" " if token == self.delimiter else token for token in kept).split())

    @classmethod
    def from_mapping(cls, numbers: Mapping[str, int], blank: int) -> Vocabulary:
        """From tokens with their numbers, as in vocab.json; tokens in angle brackets stand for no text.

        Raises:
            VocabularyError: the numbers are not 0, 1, 2 ... each once.
        """
        tokens = sorted(numbers, key=lambda token: numbers[token])
        if [numbers[token] for token in tokens] != list(range(len(tokens))):
            raise VocabularyError("The numbers of the vocabulary's tokens are not 0, 1, 2 ... each once", _CURE)
        silent = {k for k, token in enumerate(tokens) if len(token) > 2 and token[0] == "<" and token[-1] == ">"}
        return cls(tuple(tokens), blank, "|" if "|" in numbers else " ", frozenset(silent - {blank}))

    @classmethod
    def from_tokenizer(cls, tokenizer: Any, outputs: int) -> Vocabulary:
        """From a tokenizer of transformers.

        Args:
            tokenizer: of characters (Wav2Vec2CTCTokenizer) or of pieces of words (ParakeetTokenizer).
            outputs: how many outputs the head has; special tokens beyond them can never be given and are left off.

        Raises:
            VocabularyError: tokens are phones, an output has no token, or a token no output.
        """
        if "Phoneme" in type(tokenizer).__name__:
            raise VocabularyError("The tokens are phones, and transcripts are words", "Use a model that spells words.")
        of = {k: token for token, k in tokenizer.get_vocab().items()}
        delimiter = getattr(tokenizer, "word_delimiter_token", None)
        special = set(tokenizer.all_special_ids) - {tokenizer.get_vocab().get(delimiter)}
        nameless = [k for k in range(outputs) if k not in of]
        beyond = [of[k] for k in of if k >= outputs and k not in special]
        if nameless or beyond:
            told = f"output {nameless[0]} has no token" if nameless else f"token {beyond[0]!r} has no output"
            raise VocabularyError(f"The vocabulary of {len(of)} tokens does not fit {outputs} outputs: {told}", _CURE)
        tokens = tuple(of[k] for k in range(outputs))
        silent = frozenset(k for k in special if k < outputs and k != tokenizer.pad_token_id)
        blank = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else -1
        if delimiter is not None:
            return cls(tokens, blank, delimiter, silent)
        return cls(tokens, blank, PIECE, silent, Pieces(tokenizer))


def read_vocabulary(place: str | Path, outputs: int) -> Vocabulary:
    """Reads the vocabulary beside a model's weights.

    Args:
        place: folder or Hub name, or the name of an embedded model.
        outputs: how many outputs the head has.

    Raises:
        VocabularyError: there is none, or it does not fit the head.
    """
    from transformers import AutoTokenizer

    from otoscope.embedded import embedded_model

    folder = Path(embedded_model(str(place)) or place).expanduser()
    local = folder.exists() or str(place).startswith((".", "/", "~"))
    if local and not any((folder / name).is_file() for name in _TOKENIZERS):
        told = f"The folder {place} holds no tokenizer" if folder.is_dir() else f"There is no folder {place}"
        raise VocabularyError(f"{told}, so nothing says what the model's outputs stand for", _CURE)
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder) if local else str(place), trust_remote_code=False)
    except Exception as error:  # whatever the library makes of an absent or broken tokenizer
        raise VocabularyError(
            f"No vocabulary can be read beside the model in {place}: {' '.join(str(error).split())[:200]}", _CURE
        ) from error
    return Vocabulary.from_tokenizer(tokenizer, outputs)


_TOKENIZERS = ("vocab.json", "tokenizer.json", "tokenizer.model", "vocab.txt")
_UNSPEAKABLE = (
    "Spell the transcript with the model's characters, or leave the utterance out (skip_bad=True, --skip-bad)."
)
