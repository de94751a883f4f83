"""Phone labels folded to a fixed inventory."""

from __future__ import annotations

import re

from otoscope.errors import AlignmentError

SILENCE = "sil"
"""The label of every silence in a "phone" tier."""

SILENCES = frozenset(["", "sil", "sp", "spn", "nsn", "<eps>", "<sil>", "<p:>", "<p>", "#", "_", "pau", "epi", "h#"])
"""Labels (lower case) of pauses and noises in the usual aligners and hand-labelled corpora."""

_VOWELS = ["aa", "ae", "ah", "ao", "aw", "ay", "eh", "er", "ey", "ih", "iy", "ow", "oy", "uh", "uw"]
_STOPS = ["b", "d", "g", "k", "p", "t"]
_FRICATIVES = ["ch", "dh", "f", "hh", "jh", "s", "sh", "th", "v", "z", "zh"]
_SONORANTS = ["l", "m", "n", "ng", "r", "w", "y"]

ARPABET_39 = frozenset([*_VOWELS, *_STOPS, *_FRICATIVES, *_SONORANTS])
"""The 39 phones of the CMU dictionary, without stress: the phones of layer-wise analysis."""

# Lee and Hon 1989 (IEEE TASSP 37(11):1641-1648), table I: allophones onto 39 classes, closures onto silence.
_CLOSURES = ["bcl", "dcl", "gcl", "kcl", "pcl", "tcl"]
_ALLOPHONES = {
    "ax": "ah",
    "ax-h": "ah",
    "axr": "er",
    "hv": "hh",
    "ix": "ih",
    "el": "l",
    "em": "m",
    "en": "n",
    "nx": "n",
    "eng": "ng",
    "ux": "uw",
    **dict.fromkeys(_CLOSURES, SILENCE),
}
_LEE_HON_MERGED = {"ao": "aa", "zh": "sh"}
_DROPPED = "q"

TIMIT_61 = ARPABET_39 | frozenset([*_ALLOPHONES, _DROPPED, "dx", "pau", "epi", "h#"])
"""The 61 labels of TIMIT's transcription."""

PHONE_SETS = ("arpabet39", "arpabet61", "timit39")


def fold_phone(label: str, phone_set: str | None = "arpabet39") -> str | None:
    """Folds a phone label.

    Case, stress digits ("AA1") and Kaldi's position marks ("AA_B") are stripped; every silence becomes "sil".

    Args:
        label: as the alignment has it.
        phone_set: "arpabet39": the 39 phones of the CMU dictionary; TIMIT's allophones go where Lee and Hon
            1989 put them and the flap "dx" to "d", but "ao" and "zh" stay, for they are two of the 39.
            "arpabet61": TIMIT's 61 labels, of which its three silences are written "sil".
            "timit39": Lee and Hon's 39 classes ("sil" is one of them, "dx" stays, "ao" is "aa", "zh" "sh").
            None: labels stay as they stand, but for silences.

    Returns:
        The folded label, or None for the glottal stop "q", which both sets of 39 leave out.

    Raises:
        AlignmentError: the label is not in the inventory, or there is no such phone set.

    >>> fold_phone("AA1"), fold_phone("sp"), fold_phone("ix"), fold_phone("zh", "timit39")
    ('aa', 'sil', 'ih', 'sh')
    """
    plain = label.strip()
    if plain.lower() in SILENCES:
        return SILENCE
    if phone_set is None:
        return plain
    if phone_set not in PHONE_SETS:
        raise AlignmentError(
            f"There is no phone set {phone_set!r}",
            f"Choose one of {', '.join(PHONE_SETS)}, or None (--phone-set none) for labels as they stand.",
        )
    phone = re.sub(r"_[bies]$", "", plain.lower())
    if phone in SILENCES:
        return SILENCE
    phone = re.sub(r"[012]$", "", phone)
    if phone not in TIMIT_61:
        raise AlignmentError(
            f"{label!r} is not an ARPAbet phone (phone set {phone_set!r})",
            "Pass phone_set=None (--phone-set none) to keep labels as they stand, or correct the alignment.",
        )
    if phone_set == "arpabet61":
        return phone
    if phone == _DROPPED:
        return None
    phone = _ALLOPHONES.get(phone, phone)
    if phone_set == "timit39":
        return _LEE_HON_MERGED.get(phone, phone)
    return "d" if phone == "dx" else phone


def is_phone(label: str) -> bool:
    """Whether a label is a silence or an ARPAbet phone, with or without stress and position marks."""
    try:
        fold_phone(label, "arpabet61")
    except AlignmentError:
        return False
    return True
