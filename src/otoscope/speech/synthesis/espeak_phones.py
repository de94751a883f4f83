"""espeak-ng's names of English phonemes as ARPAbet."""

from functools import lru_cache

from otoscope.errors import SpeechError

# Longest name first within each start, since names are matched greedily.
_TABLE = """
aI@ ay er|aI3 ay er|aI2 ay|aU@ aw er|i@3 ih r|i@ ih r|e@ eh r|o@ ao r|O@ ao r|A@ aa r|U@ uh r
tS ch|dZ jh|aI ay|eI ey|oU ow|OI oy|aU aw|3: er|A: aa|O: ao|u: uw|i: iy|e: ey|E: eh|o: ow|a: aa|U: uw
I2 ih|@2 ah|@L ah l|@5 ah|@r er|a# ah|I# ih|t# t|t2 t|n- ah n|m- ah m|l- ah l|r- r|O2 ao|aa ae|l^ l|r/ r|u# uh|E2 eh|02 aa
0 aa|a ae|A aa|E eh|I ih|i iy|V ah|U uh|@ ah|3 er|O ao|o ow|e eh|u uw|Y uw|y iy
D dh|T th|S sh|Z zh|N ng|j y|h hh|H hh|x k|X k|C hh|* t|l l|L l|p p|b b|t t|d d|k k|g g
f f|v v|s s|z z|m m|n n|r r|R r|w w|w# w|t[ t|d[ d|z; z|s; s|Z; zh|S; sh
"""
_NAMES: dict[str, list[str]] = {}
for _line in _TABLE.strip().splitlines():
    for _entry in _line.split("|"):
        _name, *_phones = _entry.split()
        _NAMES[_name] = _phones
_LONGEST = max(map(len, _NAMES))
_PAUSES = {"", "_", "_:", "_!", "_|", "_^_", "_::", "_X1"}
_MARKS = "';,%=|-?!~:\"_"  # stress, length, palatalisation, glottal stop: no phone of their own


@lru_cache(maxsize=1024)
def to_arpabet(name: str, rhotic: bool = True) -> tuple[str, ...]:
    """ARPAbet phones of one espeak-ng phoneme.

    Args:
        name: espeak-ng's own name of an English phoneme, such as "aI@".
        rhotic: whether the accent sounds an r after vowels; without it the vowels written with "@" lose theirs
            (a linking r is a phoneme of its own).

    Returns:
        One or two of the 39 phones, ("sil",) for a pause, () for a mark that has no sound of its own.

    Raises:
        SpeechError: no such English phoneme is known.

    >>> to_arpabet("aI@"), to_arpabet("_:"), to_arpabet(";")
    (('ay', 'er'), ('sil',), ())
    """
    if name in _PAUSES:
        return ("sil",)
    phones: list[str] = []
    at = 0
    while at < len(name):
        for length in range(min(_LONGEST, len(name) - at), 0, -1):
            if name[at : at + length] in _NAMES:
                found = _NAMES[name[at : at + length]]
                phones += (
                    found[:1] if not rhotic and "@" in name[at + 1 : at + length] and found[1:] == ["r"] else found
                )
                at += length
                break
        else:
            if name[at] not in _MARKS:
                raise SpeechError(
                    f"espeak-ng's phoneme {name!r} has no ARPAbet name", "Use an English voice (gmw/en...)."
                )
            at += 1
    return tuple(phones)
