"""How a recogniser's words are looked up in a language model: their case, and whether the two go together at all."""

from __future__ import annotations

from collections.abc import Iterable

from otoscope.errors import VocabularyError
from otoscope.evaluation.language.model import LanguageModel
from otoscope.models.vocabulary import PIECE, Vocabulary

SPELT = 0.5  # the least share of a model's words that the recogniser must be able to write
KNOWN = 0.5  # the least share of the words of references that the model must know


class Spelling:
    """Words as a language model has them.

    A word is looked up as it stands, in lower case, in upper case and with a capital, and the first form that the model
    knows is taken; a word without such a form stays as it is, and is the model's unknown word.

    Args:
        model: the language model.
    """

    def __init__(self, model: LanguageModel) -> None:
        self.model = model
        self._forms: dict[str, str] = {}

    def form(self, word: str) -> str:
        """The word as the model has it."""
        found = self._forms.get(word)
        if found is None:
            forms = (word, word.lower(), word.upper(), word.capitalize())
            found = self._forms[word] = next((form for form in forms if self.model.knows(form)), word)
        return found

    def knows(self, word: str) -> bool:
        """Whether the model has the word in some case."""
        return self.model.knows(self.form(word))

    def check_vocabulary(self, vocabulary: Vocabulary) -> None:
        """Refuses a model whose words the recogniser cannot write; one that cannot list its words passes.

        Raises:
            VocabularyError: in fewer than half of the model's words all characters, in the vocabulary's case, stand in
                its tokens.
        """
        listed = self.model.words()
        if listed is None:
            return
        tokens = "".join(
            t for k, t in enumerate(vocabulary.tokens) if k != vocabulary.blank and k not in vocabulary.silent
        )
        written = set(tokens.replace(PIECE, "") if vocabulary.pieces is not None else tokens) - {vocabulary.delimiter}
        words, case = list(listed), vocabulary.case
        folded = ((word, {"lower": word.lower(), "upper": word.upper(), "both": word}[case]) for word in words)
        strange = [word for word, letters in folded if not written.issuperset(letters)]
        if len(words) - len(strange) < SPELT * len(words) or not words:
            raise VocabularyError(
                f"The language model {self.model.describe()['name']} is of another vocabulary: of its {len(words)} words "
                f"the recogniser can write {len(words) - len(strange)}"
                + (f", and not {strange[0]!r}" if strange else ""),
                "Use a language model of words in the recogniser's alphabet; case does not matter.",
            )

    def check_texts(self, texts: Iterable[str], place: str) -> None:
        """Refuses a model that knows too few of the words that were said.

        Args:
            texts: references, words parted by spaces.
            place: what the error calls them.

        Raises:
            VocabularyError: the model knows fewer than half of them.
        """
        words = [word for text in texts for word in text.split()]
        known = sum(self.knows(word) for word in words)
        if known < KNOWN * len(words):
            strange = next(word for word in words if not self.knows(word))
            raise VocabularyError(
                f"The language model {self.model.describe()['name']} is of another vocabulary: it knows {known} of the "
                f"{len(words)} words of {place}, and not {strange!r}",
                "Use a language model of the same language, with words spelt as in the transcripts.",
            )
