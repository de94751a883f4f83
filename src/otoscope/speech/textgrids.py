"""Praat's TextGrids: the phone and word tiers of one, in any of its formats."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from praatio.utilities import errors as praatio_errors
from praatio.utilities import textgrid_io

from otoscope.errors import AlignmentError
from otoscope.speech.alignments import ALIGNMENT_CURE, Times, seconds_to_samples

TIER_NAMES = {
    **dict.fromkeys(["phones", "phone", "phn", "segments", "mau"], "phone"),
    **dict.fromkeys(["words", "word", "wrd", "ort", "ort-mau"], "word"),
}
"""Lower-case names of tiers in files, and what otoscope calls them."""

_ORIGIN_CURE = f"Count times from the start of the recording. {ALIGNMENT_CURE}"
_ENCODING_CURE = (
    "Convert it to UTF-8 (for instance: iconv -f latin1 -t utf-8),"
    " or leave the utterance out with skip_bad=True (--skip-bad)."
)
_AGAIN_CURE = (
    "Write it again, as a TextGrid of Praat's long or short format or as JSON,"
    " or leave the utterance out with skip_bad=True (--skip-bad)."
)


@dataclass(frozen=True, slots=True)
class _Tier:
    name: str
    intervals: bool
    entries: list[tuple[Any, ...]]


def read_textgrid(path: Path) -> dict[str, Times]:
    """Reads the phone and word tiers of a Praat TextGrid (long, short or JSON; UTF-8 or UTF-16).

    A tier counts by its name without regard to case, and without a speaker before " - " ("anna - words").

    Args:
        path: the file.

    Returns:
        Times by tier, "phone" and "word", in samples at 16 kHz.

    Raises:
        AlignmentError: the file cannot be read, holds a negative time, has neither tier (names those it has),
            or has one twice.
    """
    text = _text(path)
    tiers = _parse(path, text)
    # The parser takes what is there; the sizes that the long format states tell whether the file broke off.
    sizes = [int(n) for n in re.findall(r"^\s*(?:intervals|points): ?size ?= ?(\d+)", text, re.MULTILINE)]
    number = re.search(r"^size ?= ?(\d+)", text, re.MULTILINE)
    if number and (len(tiers) != int(number[1]) or sizes != [len(tier.entries) for tier in tiers]):
        raise AlignmentError(f"{path} breaks off before the sizes that it states", _AGAIN_CURE)
    found: dict[str, Times] = {}
    for tier in tiers:
        name = tier_name(tier.name)
        if name is None or not tier.intervals:
            continue
        if name in found:
            raise AlignmentError(
                f"{path} has more than one {name} tier",
                "Keep one speaker's tiers in a TextGrid of their own.",
            )
        try:
            found[name] = [(seconds_to_samples(s), seconds_to_samples(e), x) for s, e, x in tier.entries]
        except AlignmentError as error:
            raise AlignmentError(f"{path}, tier {tier.name!r}: {error.problem}", error.cure) from None
    if not found:
        names = ", ".join(repr(tier.name) for tier in tiers) or "none at all"
        raise AlignmentError(
            f"{path} has no tier of phones or words; its tiers: {names}",
            f"Rename its tiers; known names are {', '.join(TIER_NAMES)}.",
        )
    return found


def tier_name(name: str) -> str | None:
    """What otoscope calls a tier of a file: "phone", "word", or None for any other.

    >>> tier_name("anna - Words"), tier_name("MAU"), tier_name("notes")
    ('word', 'phone', None)
    """
    return TIER_NAMES.get(name.rsplit(" - ", 1)[-1].strip().lower())


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise AlignmentError(
            f"{path} cannot be read: {error.strerror or error}", f"Make it readable. {ALIGNMENT_CURE}"
        ) from error
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        # The error itself holds all of the file: only its place is told.
        raise AlignmentError(
            f"{path} is not a text in UTF-8 or UTF-16: {error.reason} at byte {error.start}", _ENCODING_CURE
        ) from None
    if not text.strip():
        raise AlignmentError(f"{path} is empty", _AGAIN_CURE)
    return text


def _parse(path: Path, text: str) -> list[_Tier]:
    json_like = text.lstrip().startswith("{")
    if not json_like:
        _refuse_negative(path, text)
    try:
        grid = textgrid_io.parseTextgridStr(text, includeEmptyIntervals=True)
        tiers = [_tier(tier) for tier in grid["tiers"]]
        times = [grid["xmin"], *(time for tier in tiers for entry in tier.entries for time in entry[:-1])]
        negative = next((time for time in times if float(time) < 0), None)
    except (
        praatio_errors.PraatioException,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:
        # What the parser stumbled over says little (an index, a missing field): the kind of file says more.
        known = json_like or "TextGrid" in text[:200]
        problem = "is a TextGrid with missing or misspelt parts" if known else "is not a TextGrid"
        raise AlignmentError(f"{path} {problem}", _AGAIN_CURE) from error
    if negative is not None:
        raise AlignmentError(f"{path} has a negative time, {negative} s", _ORIGIN_CURE)
    return tiers


def _tier(tier: dict[str, Any]) -> _Tier:
    """A tier as the parser gives it, checked: JSON may hold anything.

    Raises:
        TypeError: a name or label is no string.
        ValueError: an entry has too many or too few parts.
    """
    intervals = tier["class"] == "IntervalTier"
    entries = [tuple(entry) for entry in tier["entries"]]
    for entry in entries:
        if len(entry) != (3 if intervals else 2):
            raise ValueError(f"an entry of {len(entry)} parts")
        if not isinstance(entry[-1], str):
            raise TypeError("a label that is no string")
    if not isinstance(tier["name"], str):
        raise TypeError("a name that is no string")
    return _Tier(tier["name"], intervals, entries)


def _refuse_negative(path: Path, text: str) -> None:
    """Refuses negative times in the long and short formats, where the parser would drop the sign.

    "-0", which some programs write, is no negative time.
    """
    # Labels may hold anything: only their line ends are kept, for the numbers of lines.
    unquoted = re.sub(r'"(?:[^"]|"")*"', lambda label: "_" + "\n_" * label[0].count("\n"), text)
    for found in re.finditer(r"(?:^|=)[ \t]*(-\d*\.?\d+\S*)", unquoted, re.MULTILINE):
        if re.search(r"[1-9]", found[1]):
            line = unquoted.count("\n", 0, found.start()) + 1
            raise AlignmentError(f"{path}, line {line} has a negative time, {found[1]} s", _ORIGIN_CURE)
