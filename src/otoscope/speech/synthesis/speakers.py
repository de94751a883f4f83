"""Who speaks: the speakers of train, dev and exam, kept apart by voice."""

import random
from dataclasses import dataclass
from typing import Literal

Split = Literal["train", "dev", "exam"]
SPLITS: tuple[Split, ...] = ("train", "dev", "exam")

ACCENTS = {
    "us": "gmw/en-US",
    "gb": "gmw/en",
    "rp": "gmw/en-GB-x-rp",
    "scots": "gmw/en-GB-scotland",
    "nyc": "gmw/en-US-nyc",
}
_TRAIN_VARIANTS = (
    "m1 m2 m3 m4 m7 f1 f2 f5 Alex Andrea Andy Annie Denis Diogo Gene Henrique Hugo Jacky Lee Marco Mario Michael Mike "
    "adam anika antonio aunty benjamin boris caleb ed edward grandma grandpa gustave john marcelo max michel miguel "
    "norbert pablo pedro quincy rob robert sandro shelby steph travis zac"
).split()
_DEV_VARIANTS = "m6 f3 linda david".split()
# variant, accent, rate, pitch
_EXAM = (
    ("m5", "us", 165, 40),
    ("m8", "rp", 175, 55),
    ("f4", "gb", 160, 60),
    ("Alicia", "us", 185, 50),
    ("paul", "scots", 170, 45),
    ("iven", "nyc", 155, 35),
    ("belinda", "rp", 165, 55),
    ("victor", "gb", 180, 50),
)
# The settings of a recorded voice that are heard as speakers of their own: name, stretch, shift of the pitch.
_FLITE_SETTINGS = (("", 1.0, 1.0), ("_high", 0.92, 1.22), ("_low", 1.12, 0.83), ("_slow", 1.28, 1.1))
_FLITE_TRAIN = ("slt", "awb", "kal16")


@dataclass(frozen=True)
class Speaker:
    """A voice with an accent, a rate and a pitch of its own.

    Attributes:
        name: of its folder, such as "m5_us".
        split: the split in which it speaks.
        engine: the synthesiser.
        variant: the synthesiser's voice; a variant speaks in one split only.
        accent: a key of ACCENTS; None where the voice has but one.
        rate: words per minute (espeak-ng), or a factor on durations, above 1 is slower (flite).
        pitch: 0 to 99 (espeak-ng), or a factor on the fundamental frequency (flite).
        formants: factor on the formants, above 1 as of a shorter vocal tract (flite).
    """

    name: str
    split: Split
    engine: Literal["espeak-ng", "flite"]
    variant: str
    accent: str | None
    rate: float
    pitch: float
    formants: float = 1.0


def speakers(split: Split, flite: bool = True) -> list[Speaker]:
    """The speakers of a split; they are the same for every seed.

    Args:
        split: "train", "dev" or "exam".
        flite: whether flite's recorded voices speak too.
    """
    if split == "exam":
        table = [_espeak(variant, accent, split, rate, pitch) for variant, accent, rate, pitch in _EXAM]
        return [*table, Speaker("rms", split, "flite", "rms", None, 1.0, 1.0)] if flite else table
    names = list(ACCENTS)
    table = []
    for at, variant in enumerate(_TRAIN_VARIANTS if split == "train" else _DEV_VARIANTS):
        for accent in (names[at % 5], names[(at + 1 + at // 5 % 4) % 5]):
            own = random.Random(f"{variant} {accent}")
            table.append(_espeak(variant, accent, split, own.randint(135, 205), own.randint(30, 72)))
    if flite and split == "train":
        table += [
            Speaker(f"{voice}{name}", split, "flite", voice, None, stretch, shift)
            for voice in _FLITE_TRAIN
            for name, stretch, shift in _FLITE_SETTINGS
        ]
    return table


def _espeak(variant: str, accent: str, split: Split, rate: int, pitch: int) -> Speaker:
    return Speaker(f"{variant.lower()}_{accent}", split, "espeak-ng", variant, accent, rate, pitch)
