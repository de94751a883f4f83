"""Sentences of everyday English from a grammar: statements, questions, commands, times and numbers."""

import random

from otoscope.speech.synthesis.numbers import amount, clock, digits, spell, year
from otoscope.speech.synthesis.phrases import Phrases, Subject
from otoscope.speech.synthesis.vocabulary import article, participle, plural

_SHORTEST, _LONGEST = 3, 12  # words


class Sentences:
    """Sentences in lower case, letters and apostrophes only, of 3 to 12 words; none comes twice.

    Args:
        seed: the same sentences for the same seed.
        common: of each kind of word so many, the most frequent; None for all.

    >>> one = Sentences(0)
    >>> one.new() == Sentences(0).new()
    True
    """

    def __init__(self, seed: int, common: int | None = None) -> None:
        self._draw = random.Random(f"sentences {seed}")
        self._parts = Phrases(self._draw, common)
        self._said: set[str] = set()
        kinds = {
            self._act: 24, self._alone: 7, self._motion: 9, self._giving: 5, self._state: 8, self._being: 4,
            self._there: 5, self._saying: 5, self._wanting: 4, self._question: 12, self._command: 8, self._number: 6,
            self._time: 5, self._joined: 6, self._passive: 4, self._weather: 2, self._animal: 3, self._event: 3,
        }  # fmt: skip
        self._kinds, self._weights = list(kinds), list(kinds.values())

    def new(self) -> str:
        """A sentence that was not given before."""
        while True:
            text = self._draw.choices(self._kinds, self._weights)[0]()
            if _SHORTEST <= len(text.split()) <= _LONGEST and text not in self._said:
                self._said.add(text)
                return text

    def _end(self, tense: str, place: float = 0.2, time: float = 0.25, manner: float = 0.08) -> str:
        """What may follow a clause: a manner, a place, a time."""
        parts = self._parts
        text = f" {parts.word('manner')}" if parts.chance(manner) else ""
        text += f" {parts.place()}" if parts.chance(place) else ""
        # A perfect takes no time of its own ("he has come yesterday").
        return text + (f" {parts.when(tense)}" if tense != "perfect" and parts.chance(time) else "")

    def _object(self) -> tuple[tuple[str, ...], str]:
        """A verb that takes an object, and the object."""
        parts = self._parts
        kind = parts.of({"thing": 34, "person": 20, "food": 11, "drink": 7, "place": 12, "idea": 16})
        verb = parts.forms(f"verb_{kind}")
        if kind == "person":
            return verb, parts.whom()
        if kind == "place" and parts.chance(0.25):
            return verb, parts.word("city")
        return verb, parts.noun(kind).text

    def _act(self) -> str:
        parts = self._parts
        who, tense = parts.someone(), parts.tense()
        verb, what = self._object()
        return f"{who.text} {parts.verb(who, verb, tense)} {what}{self._end(tense)}"

    def _alone(self) -> str:
        parts = self._parts
        who, tense = parts.someone(), parts.tense()
        return f"{who.text} {parts.verb(who, parts.forms('verb_alone'), tense)}{self._end(tense, 0.4, 0.4, 0.3)}"

    def _motion(self) -> str:
        parts = self._parts
        who, tense = parts.someone(), parts.tense()
        verb = parts.verb(who, parts.forms("verb_motion"), tense)
        return f"{who.text} {verb} {parts.goal()}{self._end(tense, 0, 0.35)}"

    def _giving(self) -> str:
        parts = self._parts
        who, tense = parts.someone(), parts.tense()
        verb = parts.verb(who, parts.forms("verb_give"), tense)
        what = parts.noun("thing" if parts.chance(0.75) else "food").text
        return f"{who.text} {verb} {parts.whom()} {what}{self._end(tense, 0.05, 0.15)}"

    def _state(self) -> str:
        parts = self._parts
        tense = parts.of({"past": 45, "present": 45, "future": 10})
        kind = parts.of({"person": 45, "thing": 20, "food": 8, "place": 12, "idea": 15})
        who = parts.someone() if kind == "person" else parts.noun(kind, 0.1)
        share = self._draw.random()
        if share < 0.62:
            very = f"{parts.word('very')} " if parts.chance(0.35) else ""
            what = very + parts.word(f"adjective_{kind}")
        elif share < 0.72:
            what = f"as {parts.word(f'adjective_{kind}')} as {parts.noun(kind, 0).text}"
        elif kind == "idea":
            what = f"about {parts.noun('stuff').text}"
        else:
            what = parts.spot() if kind in ("thing", "food") else parts.place()
        return f"{who.text} {parts.be(who, tense)} {what}{self._end(tense, 0, 0.2, 0)}"

    def _being(self) -> str:
        parts = self._parts
        who = Subject(parts.of({"he": 3, "she": 3, "it": 2}), "one") if parts.chance(0.4) else None
        who = who or (Subject(parts.name(), "one") if parts.chance(0.4) else Subject(self._own_person(), "one"))
        kind = parts.of({"thing": 2, "place": 3, "idea": 4}) if who.text == "it" else "person"
        adjective = f"{parts.word(f'adjective_{kind}')} " if parts.chance(0.5) else ""
        what = article(adjective + parts.forms(kind)[0])
        tense = parts.of({"past": 4, "present": 6})
        return f"{who.text} {parts.be(who, tense)} {what}{self._end(tense, 0.25, 0.05, 0)}"

    def _own_person(self) -> str:
        return f"{self._parts.owner()} {self._parts.forms('person')[0]}"

    def _there(self) -> str:
        parts = self._parts
        kind = parts.of({"thing": 4, "person": 2, "animal": 2, "food": 2})
        adjective = f"{parts.word('adjective_thing')} " if kind == "thing" and parts.chance(0.5) else ""
        forms = parts.forms(kind)
        past = parts.chance(0.5)
        if parts.chance(0.55):
            be, what = "was" if past else "is", article(adjective + forms[0])
        else:
            count = spell(amount(self._draw)) if parts.chance(0.6) else self._draw.choice(["some", "many", "no"])
            be, what = "were" if past else "are", f"{count} {adjective}{plural(forms)}"
        return f"there {be} {what} {parts.spot() if kind in ('thing', 'food') else parts.place()}"

    def _short(self, tense: str) -> str:
        """A clause of a few words."""
        parts = self._parts
        who, share = parts.someone(), self._draw.random()
        if share < 0.35:
            return f"{who.text} {parts.verb(who, parts.forms('verb_alone'), tense)}"
        if share < 0.55:
            return f"{who.text} {parts.be(who, tense)} {parts.word('adjective_person')}"
        verb, what = self._object()
        return f"{who.text} {parts.verb(who, verb, tense)} {what}"

    def _saying(self) -> str:
        parts = self._parts
        who, tense = parts.someone(), parts.of({"past": 6, "present": 4})
        that = " that" if parts.chance(0.5) else ""
        inner = tense if parts.chance(0.7) else "modal"
        return f"{who.text} {parts.verb(who, parts.forms('verb_say'), tense)}{that} {self._short(inner)}"

    def _wanting(self) -> str:
        parts = self._parts
        who, tense = parts.someone(), parts.tense()
        want = parts.verb(who, parts.forms("verb_to"), tense)
        if parts.chance(0.3):
            return f"{who.text} {want} to {parts.forms('verb_motion')[0]} {parts.goal()}"
        verb, what = self._object()
        return f"{who.text} {want} to {verb[0]} {what}{self._end(tense, 0.1, 0.15)}"

    def _question(self) -> str:
        parts = self._parts
        who, share = parts.someone(), self._draw.random()
        verb, what = self._object()
        past = parts.chance(0.5)
        do = "did" if past else "does" if who.number == "one" else "do"
        tense = "past" if past else "present"
        if share < 0.3:
            return f"{do} {who.text} {verb[0]} {what}{self._end(tense)}"
        if share < 0.45:
            ask = self._draw.choice(["can", "could", "will", "should", "would"])
            return f"{ask} {who.text} {verb[0]} {what}{self._end('future', 0.1)}"
        if share < 0.58:
            return f"{parts.of({'why': 5, 'when': 4, 'where': 4, 'how': 3})} {do} {who.text} {verb[0]} {what}"
        if share < 0.68:
            noun = parts.noun(parts.of({"thing": 5, "person": 4, "place": 3, "idea": 2}), 0.25)
            be = parts.be(noun, tense)
            return f"{self._draw.choice(['where', 'what', 'how', 'why'])} {be} {noun.text}{self._end(tense, 0, 0.2, 0)}"
        if share < 0.78:
            kind = parts.of({"thing": 5, "person": 3, "food": 3, "animal": 1})
            seen = self._draw.choice(["see", "have", "need", "want", "find", "buy"])
            return f"how many {plural(parts.forms(kind))} {do} {who.text} {seen}{self._end(tense, 0.15, 0.3, 0)}"
        if share < 0.88:
            asker = Subject("who", "one")
            return f"who {parts.verb(asker, verb, tense)} {what}{self._end(tense, 0.15)}"
        if share < 0.91:
            kind = self._draw.choice(["thing", "idea", "place"])
            noun = parts.noun(kind, 0.2)
            return f"{parts.be(noun, tense)} {noun.text} {parts.word(f'adjective_{kind}')}"
        if share < 0.94:
            return f"what is the weather in {parts.word('city')} {parts.day()}"
        return f"what time does the {parts.forms('place')[0]} {self._draw.choice(['open', 'close'])} {parts.day()}"

    def _command(self) -> str:
        parts = self._parts
        share = self._draw.random()
        please = "please " if parts.chance(0.35) else ""
        if share < 0.15:
            return f"{please}{parts.word('command')}{self._end('future', 0.3, 0.2, 0)}"
        if share < 0.27:
            switch = self._draw.choice(["turn on", "turn off", "switch on", "switch off"])
            what = self._draw.choice(
                ["light", "radio", "heater", "fan", "television", "alarm", "lamp", "music", "oven"]
            )
            return f"{please}{switch} the {what}{self._end('future', 0.6, 0.2, 0)}"
        if share < 0.37:
            return f"{please}{parts.forms('verb_motion')[0]} {parts.goal()}{self._end('future', 0, 0.2)}"
        if share < 0.47:
            return f"{please}give {parts.whom()} {parts.noun('thing').text}"
        verb, what = self._object()
        start = "let us " if share < 0.53 else "don't " if share < 0.6 else "never " if share < 0.63 else please
        return f"{start}{verb[0]} {what}{self._end('future', 0.25)}"

    def _number(self) -> str:
        parts = self._parts
        share = self._draw.random()
        if share < 0.25:
            return digits(self._draw)
        if share < 0.4:
            whose = self._draw.choice(["number", "phone number", "room number", "code", "address"])
            return f"{parts.owner()} {whose} is {digits(self._draw)}"
        if share < 0.6:
            costs = parts.noun("thing")
            unit = self._draw.choice([("pound",), ("dollar",), ("euro",), ("cent",)])
            verb = "costs" if costs.number == "one" else "cost"
            return f"{costs.text} {verb} {spell(amount(self._draw))} {plural(unit)}"
        if share < 0.75:
            unit = self._draw.choice([("mile",), ("kilometre",), ("minute",), ("hour",)])
            far = f"{spell(amount(self._draw))} {plural(unit)}"
            return f"the {parts.forms('place')[0]} is {far} from {self._draw.choice(['here', parts.word('city')])}"
        if share < 0.88:
            who = parts.someone()
            old = f"{spell(self._draw.randint(2, 99))} years old"
            return f"{who.text} {parts.be(who, self._draw.choice(['past', 'present', 'future']))} {old}"
        one, two = self._draw.randint(1, 60), self._draw.randint(1, 60)
        return f"{spell(one)} plus {spell(two)} is {spell(one + two)}"

    def _time(self) -> str:
        parts = self._parts
        share = self._draw.random()
        if share < 0.2:
            return f"it is {clock(self._draw)}{self._end('present', 0.5, 0.2, 0)}"
        if share < 0.45:
            what = self._draw.choice(["train", "bus", "plane", "ship", "ferry", "taxi", "flight"])
            verb = self._draw.choice(["leaves", "arrives", "left", "arrived", "will leave", "will arrive"])
            return f"the {what} {self._draw.choice(['to', 'from'])} {parts.word('city')} {verb} at {clock(self._draw)}"
        if share < 0.7:
            what = parts.forms("idea")[0]
            return f"{parts.owner() if parts.chance(0.4) else 'the'} {what} is {parts.day()} at {clock(self._draw)}"
        if share < 0.85:
            who = parts.someone()
            return f"{who.text} {parts.be(who, 'past')} born in {year(self._draw)}"
        return f"the {parts.forms('place')[0]} {self._draw.choice(['opens', 'closes'])} at {clock(self._draw)} {parts.day()}"

    def _joined(self) -> str:
        parts = self._parts
        tense = parts.of({"past": 6, "present": 4})
        link = parts.of(
            {"and": 6, "but": 6, "because": 6, "when": 5, "before": 3, "after": 3, "while": 2, "so": 3, "if": 2}
        )
        if link in ("when", "if", "because", "after", "while") and parts.chance(0.35):
            return f"{link} {self._short(tense)} {self._short(tense)}"
        return f"{self._short(tense)} {link} {self._short(tense)}"

    def _passive(self) -> str:
        parts = self._parts
        kind = parts.of({"thing": 5, "food": 2, "place": 2, "idea": 2, "person": 2})
        what, tense = parts.noun(kind), parts.of({"past": 7, "present": 2, "future": 2, "modal": 1})
        done = participle(parts.forms(f"verb_{kind}"))
        by = f" by {parts.whom()}" if parts.chance(0.45) else f" in {year(self._draw)}" if parts.chance(0.1) else ""
        return f"{what.text} {parts.be(what, tense)} {done}{by}{self._end(tense, 0.15, 0.25)}"

    def _weather(self) -> str:
        parts = self._parts
        tense = parts.of({"past": 4, "present": 4, "future": 2})
        be = parts.be(Subject("it", "one"), tense)
        what = parts.word("weather") if parts.chance(0.6) else parts.word("weather_verb")
        return f"it {be} {what}{self._end(tense, 0.5, 0.7, 0)}"

    def _animal(self) -> str:
        parts = self._parts
        who, tense = parts.noun("animal"), parts.tense()
        if parts.chance(0.35):
            return f"{who.text} {parts.verb(who, parts.forms('verb_motion'), tense)} {parts.goal()}"
        return f"{who.text} {parts.verb(who, parts.forms('verb_animal'), tense)}{self._end(tense, 0.6, 0.2, 0.15)}"

    def _event(self) -> str:
        parts = self._parts
        tense = parts.tense()
        if parts.chance(0.4):
            stuff = Subject(f"{parts.owner() if parts.chance(0.3) else 'the'} {parts.word('stuff')}", "one")
            look = self._draw.choice(["look", "sound", "seem", "become/became/become"]).split("/")
            return f"{stuff.text} {parts.verb(stuff, tuple(look), tense)} {parts.word('adjective_idea')}"
        who = parts.noun("idea")
        return f"{who.text} {parts.verb(who, parts.forms('verb_event'), tense)}{self._end(tense, 0.2, 0.6, 0.2)}"
