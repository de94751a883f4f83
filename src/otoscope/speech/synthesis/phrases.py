"""Parts of sentences: who, what, where, when, and verbs that agree with them."""

import random
from dataclasses import dataclass

from otoscope.speech.synthesis.numbers import amount, clock, spell
from otoscope.speech.synthesis.vocabulary import add_s, article, gerund, participle, past, plural, vocabulary

# Which adjectives go with which nouns; kinds without an entry take none.
_ADJECTIVES = {
    "person": "adjective_person",
    "animal": "adjective_person",
    "thing": "adjective_thing",
    "food": "adjective_food",
    "drink": "adjective_food",
    "place": "adjective_place",
    "idea": "adjective_idea",
}
_MASS = ("drink", "stuff")
_SUBJECTS = {"i": 25, "he": 22, "she": 20, "they": 12, "we": 12, "you": 9}
_OBJECTS = {"me": 20, "him": 20, "her": 20, "them": 15, "us": 15, "you": 10}
_OWNERS = {"my": 34, "your": 15, "his": 18, "her": 17, "our": 10, "their": 6}
_MODALS = {"can": 20, "could": 18, "will": 14, "would": 14, "must": 12, "should": 12, "may": 5, "might": 5}
_NOT_MODALS = {"can't": 6, "cannot": 5, "won't": 4, "couldn't": 4, "should not": 3, "must not": 3, "would not": 3}
# Verbs that have no "is doing".
_STATES = frozenset("want need like love hate know believe understand prefer own remember see hear".split())
_BE = {"i": ("am", "was"), "one": ("is", "was"), "many": ("are", "were")}


@dataclass(frozen=True)
class Subject:
    """Who or what a verb agrees with.

    Attributes:
        text: as it stands in the sentence.
        number: "i", "one" (third person singular), or "many" (plural, and "you").
    """

    text: str
    number: str


class Phrases:
    """Draws phrases.

    Args:
        draw: where all choices come from.
        common: see `vocabulary`.
    """

    def __init__(self, draw: random.Random, common: int | None = None) -> None:
        self.draw = draw
        self._kinds = vocabulary(common)

    def chance(self, share: float) -> bool:
        """True in this share of the calls."""
        return self.draw.random() < share

    def of(self, weights: dict[str, int]) -> str:
        """A key, drawn by its weight."""
        return self.draw.choices(list(weights), list(weights.values()))[0]

    def word(self, kind: str) -> str:
        """A word of a kind, as listed."""
        return self._kinds[kind].word(self.draw)

    def forms(self, kind: str) -> tuple[str, ...]:
        """A word of a kind, with its irregular forms."""
        return self._kinds[kind].draw(self.draw)

    def name(self) -> str:
        """A person's first name, now and then with the surname, or a surname with its title."""
        woman = self.chance(0.5)
        first = self.word("name_woman" if woman else "name_man")
        kind = self.draw.random()
        if kind < 0.72:
            return first
        if kind < 0.86:
            return f"{first} {self.word('surname')}"
        title = self.draw.choice(["miss", "doctor", "professor"] if woman else ["mister", "doctor", "captain"])
        return f"{title} {self.word('surname')}"

    def owner(self) -> str:
        """A possessive."""
        return f"{self.word('name_woman')}'s" if self.chance(0.05) else self.of(_OWNERS)

    def noun(self, kind: str, adjective: float = 0.36) -> Subject:
        """A noun with its determiner and, in the share `adjective` of calls, an adjective."""
        forms = self.forms(kind)
        before = f"{self.word(_ADJECTIVES[kind])} " if kind in _ADJECTIVES and self.chance(adjective) else ""
        share = self.draw.random()
        if kind in _MASS:
            start = "the" if share < 0.5 else "some" if share < 0.7 else self.owner() if share < 0.85 else ""
            return Subject(f"{start} {before}{forms[0]}".strip(), "one")
        if self.chance(0.72):
            one = before + forms[0]
            if share < 0.5:
                return Subject(f"the {one}", "one")
            if share < 0.74:
                return Subject(article(one), "one")
            if share < 0.9:
                return Subject(f"{self.owner()} {one}", "one")
            return Subject(f"{self.of({'this': 5, 'that': 4, 'every': 2, 'another': 2, 'each': 1})} {one}", "one")
        many = before + plural(forms)
        if share < 0.38:
            return Subject(f"the {many}", "many")
        if share < 0.54:
            return Subject(f"{self.owner()} {many}", "many")
        if share < 0.72:
            return Subject(
                f"{spell(self.draw.randint(2, 12) if self.chance(0.8) else amount(self.draw))} {many}", "many"
            )
        weights = {"some": 8, "these": 4, "those": 4, "many": 4, "several": 2, "all the": 2, "most": 1, "a few": 2}
        return Subject(f"{self.of(weights)} {many}", "many")

    def someone(self) -> Subject:
        """Who does something: a pronoun, a name or a person."""
        share = self.draw.random()
        if share < 0.36:
            word = self.of(_SUBJECTS)
            return Subject(word, "i" if word == "i" else "one" if word in ("he", "she") else "many")
        if share < 0.56:
            return Subject(self.name(), "one")
        if share < 0.60:
            return Subject(f"{self.name()} and {self.name()}", "many")
        if share < 0.63:
            return Subject(self.of({"nobody": 2, "everyone": 3, "someone": 3, "everybody": 1}), "one")
        return self.noun("person")

    def whom(self) -> str:
        """To whom something is done."""
        share = self.draw.random()
        return self.of(_OBJECTS) if share < 0.35 else self.name() if share < 0.55 else self.noun("person").text

    def place(self) -> str:
        """Where something happens."""
        share = self.draw.random()
        if share < 0.2:
            return f"in {self.word('city')}"
        if share < 0.4:
            return f"in the {self.forms('place')[0]}"
        return f"{self.word('inside')} {self.noun('place', 0.2).text}"

    def goal(self) -> str:
        """Where someone goes."""
        share = self.draw.random()
        if share < 0.12:
            return "home"
        return f"to {self.word('city')}" if share < 0.3 else f"{self.word('towards')} {self.noun('place', 0.2).text}"

    def spot(self) -> str:
        """Where a thing lies."""
        return f"{self.word('surface')} {self.noun('thing', 0.2).text}" if self.chance(0.7) else self.place()

    def day(self) -> str:
        """A day or a part of the year."""
        share = self.draw.random()
        if share < 0.4:
            return f"on {self.word('weekday')}"
        if share < 0.55:
            part = self.draw.choice(["morning", "evening", "afternoon", "night"])
            return f"on {self.word('weekday')} {part}"
        if share < 0.7:
            return f"in {self.word('month')}"
        return f"on the {self.word('ordinal')} of {self.word('month')}" if share < 0.85 else f"in {self.word('season')}"

    def when(self, tense: str) -> str:
        """A time that suits a tense."""
        share = self.draw.random()
        if share < 0.25:
            return self.day()
        if share < 0.4:
            return f"at {clock(self.draw)}"
        if tense in ("past", "then"):
            if share < 0.5:
                unit = plural(self.draw.choice([("minute",), ("hour",), ("day",), ("week",), ("month",), ("year",)]))
                return f"{spell(self.draw.randint(2, 20))} {unit} ago"
            return self.word("past_time")
        return self.word("future_time" if tense in ("future", "modal") else "now_time")

    def tense(self) -> str:
        """A tense: "past", "present", "future", "now" (is doing), "then" (was doing), "modal" or "perfect"."""
        return self.of({"past": 42, "present": 19, "future": 10, "now": 8, "then": 6, "modal": 9, "perfect": 6})

    def be(self, who: Subject, tense: str) -> str:
        """The verb "to be" that agrees with its subject."""
        if tense in ("future", "modal"):
            return "will be" if tense == "future" else f"{self.of(_MODALS)} be"
        return _BE[who.number][tense in ("past", "then", "perfect")]

    def verb(self, who: Subject, forms: tuple[str, ...], tense: str) -> str:
        """A verb that agrees with its subject, at times negated or with an adverb of frequency."""
        if forms[0] in _STATES:
            tense = {"now": "present", "then": "past"}.get(tense, tense)
        if self.chance(0.09):
            return self._negated(who, forms, tense)
        often = f"{self.word('often')} " if tense in ("past", "present", "perfect") and self.chance(0.07) else ""
        if tense == "past":
            return often + past(forms)
        if tense == "present":
            return often + (add_s(forms[0]) if who.number == "one" else forms[0])
        if tense == "perfect":
            have = "had" if self.chance(0.4) else "has" if who.number == "one" else "have"
            return f"{have} {often}{participle(forms)}"
        if tense in ("now", "then"):
            return f"{_BE[who.number][tense == 'then']} {gerund(forms)}"
        return f"{'will' if tense == 'future' else self.of(_MODALS)} {forms[0]}"

    def _negated(self, who: Subject, forms: tuple[str, ...], tense: str) -> str:
        short = self.chance(0.4)
        if tense == "past":
            return f"didn't {forms[0]}" if short else f"did not {forms[0]}"
        if tense == "present":
            do = "does" if who.number == "one" else "do"
            return f"{do}n't {forms[0]}" if short else f"{do} not {forms[0]}"
        if tense == "perfect":
            return f"{'has' if who.number == 'one' else 'have'} not {participle(forms)}"
        if tense in ("now", "then"):
            return f"{_BE[who.number][tense == 'then']} not {gerund(forms)}"
        return f"{'will not' if tense == 'future' else self.of(_NOT_MODALS)} {forms[0]}"
