"""Numbers as words."""

import random

UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()


def spell(number: int) -> str:
    """A number from 0 to 999,999 as words.

    >>> spell(42), spell(305), spell(12000)
    ('forty two', 'three hundred and five', 'twelve thousand')
    """
    if number < 20:
        return UNITS[number]
    if number < 100:
        tens, units = divmod(number, 10)
        return f"{TENS[tens - 2]} {UNITS[units]}" if units else TENS[tens - 2]
    if number < 1000:
        hundreds, rest = divmod(number, 100)
        return f"{UNITS[hundreds]} hundred and {spell(rest)}" if rest else f"{UNITS[hundreds]} hundred"
    thousands, rest = divmod(number, 1000)
    link = " and " if 0 < rest < 100 else " "
    return f"{spell(thousands)} thousand{link}{spell(rest)}" if rest else f"{spell(thousands)} thousand"


def digits(draw: random.Random) -> str:
    """Digits read one by one, as of a telephone."""
    return " ".join(draw.choice(UNITS[:10]) for _ in range(draw.randint(3, 7)))


def year(draw: random.Random) -> str:
    """A year between 1801 and 1999 as it is read."""
    century, rest = draw.choice([18, 19]), draw.randint(1, 99)
    return f"{spell(century)} {f'oh {spell(rest)}' if rest < 10 else spell(rest)}"


def clock(draw: random.Random) -> str:
    """A time of day."""
    hour = spell(draw.randint(1, 12))
    kind = draw.random()
    if kind < 0.3:
        return f"{hour} o'clock"
    if kind < 0.5:
        return f"half past {hour}"
    if kind < 0.8:
        minutes = draw.choice(["five", "ten", "a quarter", "twenty", "twenty five"])
        return f"{minutes} {draw.choice(['past', 'to'])} {hour}"
    return f"{hour} {spell(draw.randint(10, 59))}"


def amount(draw: random.Random) -> int:
    """A count as people mention it: small ones often, round ones rather than odd ones."""
    kind = draw.random()
    if kind < 0.4:
        return draw.randint(2, 12)
    if kind < 0.7:
        return draw.randint(13, 99)
    return (
        draw.randint(1, 9) * 100
        if kind < 0.85
        else draw.randint(101, 999)
        if kind < 0.93
        else 1000 * draw.randint(1, 40)
    )
