"""Sentences from a small grammar: everyday commands, statements, numbers and names."""

import random

DIGITS = "zero one two three four five six seven eight nine".split()
ADJECTIVES = (
    "old young small large red blue green yellow white black quick slow warm cold happy quiet heavy light strong broken "
    "golden wooden round empty rough smooth bright joyful thick usual"
).split()
NOUNS = (
    "house river dog cat horse ship garden window table chair teacher doctor sailor farmer village mountain bridge letter "
    "picture basket hammer bottle pencil engine market forest island camera jacket boy voice treasure book path feather judge"
).split()
VERBS = (
    "saw found carried painted followed left passed bought sold washed moved lifted watched visited fixed pushed enjoyed "
    "measured shook caught"
).split()
PREPOSITIONS = "near behind under above beside before after without beyond".split()
NAMES = "john mary peter alice george susan thomas helen joyce hugh".split()
ROOMS = "kitchen bedroom bathroom hall garage office".split()
DEVICES = "light radio heater fan music television alarm".split()
CITIES = "london paris boston dublin chicago berlin madrid tokyo".split()
DAYS = "monday tuesday wednesday thursday friday saturday sunday".split()


def sentence(draw: random.Random) -> str:
    """One sentence; the kinds have fixed shares."""
    one = draw.choice
    kind = draw.random()
    if kind < 0.30:
        return f"the {one(ADJECTIVES)} {one(NOUNS)} {one(VERBS)} the {one(ADJECTIVES)} {one(NOUNS)}"
    if kind < 0.45:
        return f"{one(NAMES)} {one(VERBS)} the {one(NOUNS)} {one(PREPOSITIONS)} the {one(ADJECTIVES)} {one(NOUNS)}"
    if kind < 0.58:
        return " ".join(one(DIGITS) for _ in range(draw.randint(2, 6)))
    if kind < 0.69:
        return f"please turn {one(['on', 'off'])} the {one(DEVICES)} in the {one(ROOMS)}"
    if kind < 0.80:
        return f"what is the weather in {one(CITIES)} on {one(DAYS)}"
    if kind < 0.90:
        return f"{one(NAMES)} will call {one(DIGITS)} {one(DIGITS)} {one(DIGITS)} on {one(DAYS)}"
    return f"there is a {one(ADJECTIVES)} {one(NOUNS)} {one(PREPOSITIONS)} the {one(NOUNS)}"
