"""The words of the sentence grammar: kinds, frequencies and forms."""

import random
import re
from bisect import bisect
from functools import cache
from importlib.resources import files
from itertools import accumulate

# Words of a kind are drawn by rank as in running text (Zipf), the flat start as Mandelbrot put it: 1 / (rank + 5).
_FLAT = 5


class Kind:
    """The words of one kind, the frequent ones first.

    Args:
        entries: words with the forms that no rule gives, such as "man/men" or "see/saw/seen"
            (base, past, participle and, where that is irregular too, the form in -ing).
    """

    def __init__(self, entries: list[str]) -> None:
        self.entries = [tuple(entry.replace("_", " ").split("/")) for entry in entries]
        self._bounds = list(accumulate(1 / (rank + _FLAT) for rank in range(1, len(entries) + 1)))

    def draw(self, draw: random.Random) -> tuple[str, ...]:
        """The forms of a word, drawn by its rank."""
        return self.entries[bisect(self._bounds, draw.random() * self._bounds[-1])]

    def word(self, draw: random.Random) -> str:
        """A word as it stands in the list."""
        return self.draw(draw)[0]


@cache
def vocabulary(common: int | None = None) -> dict[str, Kind]:
    """All kinds of words by name, as `vocabulary.txt` lists them.

    Args:
        common: of each kind so many words, the most frequent; None for all.
    """
    text = files("otoscope.speech.synthesis").joinpath("vocabulary.txt").read_text(encoding="utf-8")
    kinds: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("["):
            entries = kinds.setdefault(line.strip("[]"), [])
        elif line and not line.startswith("#"):
            entries += line.split()
    return {name: Kind(entries[:common]) for name, entries in kinds.items()}


def plural(forms: tuple[str, ...]) -> str:
    """The plural of a noun.

    >>> plural(("city",)), plural(("box",)), plural(("man", "men"))
    ('cities', 'boxes', 'men')
    """
    return forms[1] if len(forms) > 1 else add_s(forms[0])


def add_s(word: str) -> str:
    """A noun's plural, or the third person of a verb, by rule.

    >>> add_s("carry"), add_s("play"), add_s("watch"), add_s("go")
    ('carries', 'plays', 'watches', 'goes')
    """
    if re.search(r"[^aeiou]y$", word):
        return f"{word[:-1]}ies"
    return f"{word}es" if re.search(r"(s|x|z|ch|sh|[dg]o)$", word) else f"{word}s"


def past(forms: tuple[str, ...]) -> str:
    """The past tense of a verb.

    >>> past(("see", "saw", "seen")), past(("stop",)), past(("carry",)), past(("close",))
    ('saw', 'stopped', 'carried', 'closed')
    """
    if len(forms) > 1:
        return forms[1]
    word = forms[0]
    if word.endswith("e"):
        return f"{word}d"
    return f"{word[:-1]}ied" if re.search(r"[^aeiou]y$", word) else f"{_doubled(word)}ed"


def participle(forms: tuple[str, ...]) -> str:
    """The past participle of a verb.

    >>> participle(("see", "saw", "seen")), participle(("open",))
    ('seen', 'opened')
    """
    return forms[2] if len(forms) > 2 else past(forms)


def gerund(forms: tuple[str, ...]) -> str:
    """The form of a verb in -ing.

    >>> gerund(("run", "ran", "run")), gerund(("lie", "lay", "lain")), gerund(("prefer", "preferred", "preferred"))
    ('running', 'lying', 'preferring')
    """
    word = forms[0]
    if len(forms) > 3:
        return forms[3]
    if word.endswith("ie"):
        return f"{word[:-2]}ying"
    if word.endswith("e") and not word.endswith(("ee", "oe", "ye")):
        return f"{word[:-1]}ing"
    doubled = f"{word}{word[-1]}"
    return f"{doubled if past(forms) == f'{doubled}ed' else _doubled(word)}ing"


def _doubled(word: str) -> str:
    """A verb of one syllable that ends in a single vowel and a consonant doubles the consonant."""
    return f"{word}{word[-1]}" if re.fullmatch(r"(qu|[^aeiou])*[aeiou][^aeiouwxy]", word) else word


def article(phrase: str) -> str:
    """The phrase with "a" or "an" before it, by sound.

    >>> article("hour"), article("useful tool"), article("umbrella")
    ('an hour', 'a useful tool', 'an umbrella')
    """
    silent_h = phrase.startswith(("hour", "honest", "honour", "heir"))
    like_you = phrase.startswith(("uni", "use", "usual", "euro", "one", "once"))
    vowel = phrase[0] in "aeiou" and not like_you
    return f"an {phrase}" if silent_h or vowel else f"a {phrase}"
