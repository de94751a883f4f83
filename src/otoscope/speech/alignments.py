"""Timed labels: CTM files, times made whole samples, small faults cut and large ones refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import ROUND_FLOOR, Decimal, InvalidOperation
from pathlib import Path

from otoscope.errors import AlignmentError
from otoscope.speech.audio import FRAME, RATE
from otoscope.speech.phones import SILENCES, fold_phone, is_phone
from otoscope.speech.utterance import Interval

Times = list[tuple[int, int, str]]
"""Start, end (samples) and label, as a file has them: unsorted, unchecked."""

LONGEST = Decimal(10**9)
"""Times from here on, in seconds, are taken for mistakes."""

NO_WORDS = frozenset(["", "sil", "sp", "spn", "nsn", "<eps>", "<sil>", "<unk>", "<p:>", "<p>", "#", "_"])
"""Labels (lower case) of word tiers that name no word."""

ALIGNMENT_CURE = "Correct the alignment, or leave the utterance out with skip_bad=True (--skip-bad)."
"""What helps against most faults of an alignment."""


def seconds_to_samples(seconds: str | int | float | Decimal) -> int:
    """Seconds to whole samples at 16 kHz, exactly: the decimal number as written, halves rounded up.

    Floating-point products are not used: `floor(t / 0.02)` is wrong for one in eleven exact multiples.

    Raises:
        AlignmentError: the text is not a finite number.

    >>> seconds_to_samples("0.29"), seconds_to_samples(0.07), seconds_to_samples("0.00003125")
    (4640, 1120, 1)
    """
    try:
        value = Decimal(str(seconds).strip())
    except InvalidOperation as error:
        raise AlignmentError(f"{seconds!r} is not a time in seconds", ALIGNMENT_CURE) from error
    if not value.is_finite() or not -LONGEST < value < LONGEST:
        raise AlignmentError(f"{seconds!r} is not a time in seconds below {LONGEST}", ALIGNMENT_CURE)
    return to_samples(value, RATE)


def to_samples(seconds: Decimal, rate: int) -> int:
    """A finite number of seconds in whole samples at `rate`, exactly, halves rounded up."""
    return int((seconds * rate + Decimal("0.5")).to_integral_value(ROUND_FLOOR))


def tidy(times: Iterable[tuple[int, int, str]], n_samples: int, where: str) -> tuple[tuple[Interval, ...], int]:
    """Sorts intervals and cuts what overlaps or sticks out by at most one frame (320 samples).

    Where two overlap, the later one begins where the earlier one ends. Intervals of which nothing is left
    are dropped.

    Args:
        times: start, end (samples at 16 kHz) and label.
        n_samples: length of the utterance.
        where: file and tier for messages.

    Returns:
        Sorted intervals that do not overlap, and how many were cut or dropped.

    Raises:
        AlignmentError: an interval ends before it starts, or overlaps another, starts before zero or runs
            past the end by more than a frame.
    """
    kept: list[Interval] = []
    cut, last = 0, 0
    for start, end, label in sorted(times):
        what = f"{where}: {label!r} from {start / RATE:.4f} to {end / RATE:.4f} s"
        if end < start:
            raise AlignmentError(f"{what} ends before it starts", ALIGNMENT_CURE)
        if start < -FRAME:
            raise AlignmentError(f"{what} starts before the recording", ALIGNMENT_CURE)
        if end - n_samples > FRAME:
            raise AlignmentError(
                f"{what} runs {end - n_samples} samples past the end of the recording"
                f" ({n_samples / RATE:.4f} s); {FRAME} are allowed",
                f"Make sure that the alignment belongs to this recording. {ALIGNMENT_CURE}",
            )
        if kept and min(end, last) - start > FRAME:
            raise AlignmentError(
                f"{what} overlaps {kept[-1].label!r} by {min(end, last) - start} samples; {FRAME} are allowed",
                ALIGNMENT_CURE,
            )
        new_start, new_end = max(start, last, 0), min(end, n_samples)
        cut += (new_start, new_end) != (start, end) or start == end
        if new_start < new_end:
            kept.append(Interval(new_start, new_end, label))
            last = new_end
    return tuple(kept), cut


def build_tiers(
    raw: Mapping[str, Times], n_samples: int, where: str, phone_set: str | None
) -> tuple[dict[str, tuple[Interval, ...]], int]:
    """Tiers as utterances hold them: phones folded, words in lower case and without silences.

    Args:
        raw: times by tier, "phone" and "word".
        n_samples: length of the utterance.
        where: file for messages.
        phone_set: see `otoscope.speech.phones.fold_phone`.

    Returns:
        Sorted intervals by tier that do not overlap, and how many were cut.

    Raises:
        AlignmentError: as `tidy`; a phone is not in the phone set.
    """
    tiers: dict[str, tuple[Interval, ...]] = {}
    cut = 0
    for name, times in raw.items():
        place = f"{where}, tier {name}"
        intervals, n = tidy(times, n_samples, place)
        cut += n
        kept = []
        for interval in intervals:
            label = interval.label.strip()
            if name == "phone":
                try:
                    folded = fold_phone(label, phone_set)
                except AlignmentError as error:
                    raise AlignmentError(
                        f"{place} at {interval.start / RATE:.4f} s: {error.problem}", error.cure
                    ) from None
            else:
                folded = None if label.lower() in NO_WORDS else label.lower()
            if folded is not None:
                kept.append(Interval(interval.start, interval.end, folded))
        tiers[name] = tuple(kept)
    return tiers, cut


def read_ctm(path: Path) -> dict[str, dict[str, Times]]:
    """Reads a CTM file: lines of `utterance channel start duration label [confidence]`, times in seconds.

    Lines that start with ";;" and empty lines are skipped. The file is one of phones if its name says so
    ("phone", "phn"), one of words if its name says that ("word", "wrd"), and otherwise one of phones if every
    label is an ARPAbet phone or a silence.

    Args:
        path: the file.

    Returns:
        By utterance, times by tier, in samples at 16 kHz.

    Raises:
        AlignmentError: the file or one of its lines cannot be read (names the line).
    """
    found: dict[str, Times] = {}
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeError) as error:
        raise AlignmentError(f"{path} cannot be read: {error}", ALIGNMENT_CURE) from error
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith(";;"):
            continue
        parts = line.split()
        if len(parts) < 5:
            raise AlignmentError(
                f"{path}, line {number} has {len(parts)} fields: {line!r}",
                "Write every line as: utterance channel start duration label.",
            )
        try:
            # The end is rounded from the exact sum, so that intervals that meet in the file meet in samples.
            start, end = Decimal(parts[2]), Decimal(parts[2]) + Decimal(parts[3])
            times = (seconds_to_samples(start), seconds_to_samples(end), parts[4])
        except (ArithmeticError, AlignmentError) as error:
            raise AlignmentError(
                f"{path}, line {number} has a time that is no number: {line!r}", ALIGNMENT_CURE
            ) from error
        found.setdefault(parts[0], []).append(times)
    stem = path.stem.lower()
    if "phone" in stem or "phn" in stem:
        tier = "phone"
    elif "word" in stem or "wrd" in stem:
        tier = "word"
    else:
        labels = {label for times in found.values() for _, _, label in times}
        tier = "phone" if all(is_phone(label) for label in labels) else "word"
    return {utterance: {tier: times} for utterance, times in found.items()}


def within(times: Times, start: int, n_samples: int) -> tuple[Times, int]:
    """Times of a whole recording, moved to a stretch of it.

    Args:
        times: in samples of the whole recording.
        start: first sample of the stretch.
        n_samples: length of the stretch.

    Returns:
        The times that lie in the stretch, counted from its start, and how many were dropped because a border
        of the stretch falls into them by more than a frame (half a word is not that word). Silences are cut
        there; what sticks out by a frame at most is left for `tidy` to cut.
    """
    kept: Times = []
    dropped = 0
    for first, last, label in times:
        a, b = first - start, last - start
        if b <= 0 or a >= n_samples:
            continue
        if max(0, -a) + max(0, b - n_samples) <= FRAME:
            kept.append((a, b, label))
        elif label.strip().lower() in NO_WORDS | SILENCES:
            kept.append((max(a, 0), min(b, n_samples), label))
        else:
            dropped += 1
    return kept, dropped
