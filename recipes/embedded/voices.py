"""Who speaks: voices of train, dev and exam, kept apart by name."""

import random
from dataclasses import dataclass

ACCENTS = ["gmw/en-US", "gmw/en", "gmw/en-GB-x-rp", "gmw/en-GB-scotland", "gmw/en-US-nyc"]
TRAIN_VARIANTS = (
    "m1 m2 m3 m4 m7 f1 f2 f5 Alex Andrea Andy Annie Denis Diogo Gene Henrique Hugo Jacky Lee Marco Mario Michael Mike "
    "adam anika antonio aunty benjamin boris caleb ed edward grandma grandpa gustave john marcelo max michel miguel "
    "norbert pablo pedro quincy rob robert sandro shelby steph travis zac"
).split()
TRAIN_FLITE = ["slt", "rms", "kal16"]
DEV_VARIANTS = "m6 f3 linda david".split()


@dataclass(frozen=True)
class Voice:
    """One examined speaker: a voice variant that keeps its accent, and its usual pitch and rate."""

    name: str
    variant: str
    accent: str
    pitch: int
    rate: int


# The voices of exam: none of their variants is ever heard in training.
EXAM = [
    Voice("m5", "m5", "gmw/en-US", 40, 165),
    Voice("m8", "m8", "gmw/en-GB-x-rp", 55, 175),
    Voice("f4", "f4", "gmw/en", 60, 160),
    Voice("alicia", "Alicia", "gmw/en-US", 50, 185),
    Voice("paul", "paul", "gmw/en-GB-scotland", 45, 170),
    Voice("iven", "iven", "gmw/en-US-nyc", 35, 155),
    Voice("belinda", "belinda", "gmw/en-GB-x-rp", 55, 165),
    Voice("victor", "victor", "gmw/en", 50, 180),
]
EXAM_FLITE = "awb"


def any_setting(draw: random.Random) -> dict[str, int]:
    """A rate, pitch and pitch range for one training sentence."""
    return {
        "rate": draw.randint(130, 210),
        "pitch": draw.randint(30, 75),
        "pitch_range": draw.randint(30, 70),
    }


def own_setting(voice: Voice, draw: random.Random) -> dict[str, int]:
    """The same voice is never twice quite alike, but stays itself."""
    return {
        "rate": voice.rate + draw.randint(-12, 12),
        "pitch": voice.pitch + draw.randint(-5, 5),
        "pitch_range": draw.randint(40, 60),
    }
