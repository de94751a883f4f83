"""Recordings of any rate and number of channels, read as 16 kHz mono."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
from jaxtyping import Float32

from otoscope.errors import AudioError
from otoscope.speech.riff import missing_bytes

RATE = 16_000
"""Samples per second of everything that otoscope computes on; all times are whole samples at this rate."""

MIN_SAMPLES = 400
"""The shortest usable recording, 25 ms: one receptive field of the usual convolutional front-end."""

FRAME = 320
"""One frame of 20 ms, in samples: how far lengths and times may be off before they are refused."""

CLIPPED = 0.9999
"""Magnitude from which a sample counts as clipped (16-bit full scale is 1 - 1/32768)."""

AUDIO_SUFFIXES = frozenset(
    [".aif", ".aiff", ".au", ".caf", ".flac", ".mp3", ".nist", ".ogg", ".opus", ".sph", ".w64", ".wav"]
)
"""Lower-case file endings that are taken for recordings when a folder is searched."""

_SKIP = "leave it out with skip_bad=True (--skip-bad)."


@dataclass(frozen=True, slots=True)
class AudioSource:
    """A stretch of a recording on disk, in samples of the recording's own rate.

    Attributes:
        path: the file.
        rate: samples per second in the file.
        start: first sample of the stretch.
        frames: length of the stretch.
    """

    path: Path
    rate: int
    start: int
    frames: int

    @property
    def n_samples(self) -> int:
        """Length after resampling to 16 kHz."""
        return resampled_length(self.frames, self.rate)


@dataclass(frozen=True, slots=True)
class Recording:
    """Samples as they were read.

    Attributes:
        samples: float32, shape (n_samples,), 16 kHz mono.
        clipped: how many samples of the file stood at full scale, before resampling, over all channels.
    """

    samples: Float32[np.ndarray, " n"]
    clipped: int


def resampled_length(frames: int, rate: int) -> int:
    """Length at 16 kHz of `frames` samples at `rate`: `frames * 16000 / rate`, halves rounded up."""
    return (2 * frames * RATE + rate) // (2 * rate)


def probe(path: str | Path) -> AudioSource:
    """Reads the header of a recording; no samples are decoded.

    Args:
        path: a file that libsndfile can read.

    Returns:
        The whole recording as a source.

    Raises:
        AudioError: the file is missing, unreadable, empty, shorter than 25 ms or, for WAV, shorter than its
            header says.
    """
    path = Path(path)
    check_name(path)
    try:
        if not path.is_file():
            raise AudioError(f"No recording at {path}", f"Check the path, remove the entry that names it, or {_SKIP}")
        with path.open("rb") as file:
            if not file.read(1):
                raise AudioError(f"{path} is empty (0 bytes)", f"Fetch it again, remove it, or {_SKIP}")
            missing, there = missing_bytes(file)
    except OSError as error:
        raise _not_opened(path, error) from error
    try:
        info = soundfile.info(str(path))
    except (soundfile.SoundFileError, OSError, RuntimeError) as error:
        raise AudioError(
            f"{path} cannot be read as audio: {error}", f"Convert it to FLAC or WAV, or {_SKIP}"
        ) from error
    source = AudioSource(path, int(info.samplerate), 0, int(info.frames))
    # As in `read_source`, what lacks less than a frame is taken for whole.
    if missing and missing * source.frames * RATE >= FRAME * source.rate * there:
        raise AudioError(
            f"{path} breaks off after {there} of the {there + missing} bytes of sound that its header promises",
            f"Fetch it again, or {_SKIP}",
        )
    check_length(source.n_samples, str(path))
    return source


def check_name(path: Path) -> None:
    """Refuses names of files that cannot be handed to libsndfile.

    A name that Python could not decode has placeholders (surrogates) for its bytes; no report could hold it.

    Args:
        path: the file.

    Raises:
        AudioError: the encoding of file names, which the locale sets, lacks a character of the path.
    """
    encoding = sys.getfilesystemencoding()
    try:
        str(path).encode(encoding)
    except UnicodeEncodeError as error:
        raise AudioError(
            # As ASCII: where the name cannot be encoded, it often cannot be printed either.
            f"{str(path)!a} cannot be opened: its name cannot be written in the locale's encoding ({encoding})",
            f"Use a UTF-8 locale (export LC_ALL=C.UTF-8), rename the file, or {_SKIP}",
        ) from error


def _not_opened(path: Path, error: OSError) -> AudioError:
    if isinstance(error, PermissionError):
        return AudioError(
            f"{path} may not be read: permission denied",
            f"Allow yourself to read it and its folder (chmod u+r, for folders u+rx), or {_SKIP}",
        )
    name = str(path)
    if len(name) > 200:
        name = f"{name[:80]}...{name[-40:]} ({len(name)} characters)"
    return AudioError(f"{name} cannot be opened: {error.strerror or error}", f"Correct the path, or {_SKIP}")


def check_length(n_samples: int, where: str) -> None:
    """Refuses recordings too short for one frame.

    Args:
        n_samples: length at 16 kHz.
        where: path or name for the message.

    Raises:
        AudioError: there are fewer than 400 samples (25 ms).
    """
    if n_samples >= MIN_SAMPLES:
        return
    length = "is empty (0 samples)" if n_samples <= 0 else f"has only {n_samples} sample(s) at 16 kHz"
    raise AudioError(
        f"{where} {length}; {MIN_SAMPLES} (25 ms) are needed",
        f"Remove the recording, or {_SKIP}",
    )


def read_source(source: AudioSource) -> Recording:
    """Reads a stretch of a recording: channels averaged, resampled by soxr (high quality) to 16 kHz.

    Args:
        source: what to read.

    Returns:
        The samples, exactly `source.n_samples` of them, and the number that were clipped.

    Raises:
        AudioError: the file cannot be read, breaks off before its header says, or holds NaN or infinity.
    """
    check_name(source.path)
    try:
        data, rate = soundfile.read(
            str(source.path), frames=source.frames, start=source.start, dtype="float32", always_2d=True
        )
    except (soundfile.SoundFileError, OSError, RuntimeError) as error:
        raise AudioError(
            f"{source.path} cannot be decoded: {error}",
            f"The file is damaged: fetch it again, or {_SKIP}",
        ) from error
    missing = source.frames - len(data)
    # Compressed formats may state a length that is off by a codec delay; more than a frame is a broken file.
    if rate != source.rate or missing * RATE > FRAME * source.rate:
        raise AudioError(
            f"{source.path} gives {len(data)} samples at {rate} Hz where its header promised"
            f" {source.frames} at {source.rate} Hz",
            f"The file is truncated or has changed: fetch it again, or {_SKIP}",
        )
    return to_recording(data, source.rate, source.n_samples, str(source.path))


def to_recording(data: np.ndarray, rate: int, n_samples: int, where: str) -> Recording:
    """Turns samples of any rate and number of channels into 16 kHz mono.

    Args:
        data: float array of shape (n, channels), full scale at 1.
        rate: samples per second of `data`.
        n_samples: length of the result; what the resampler gives is cut or padded with zeros to it.
        where: path or name for messages.

    Returns:
        The samples and the number that were clipped.

    Raises:
        AudioError: a sample is NaN or infinite.
    """
    finite = np.isfinite(data)
    if not finite.all():
        first = int(np.argmin(finite.all(axis=1)))
        raise AudioError(
            f"{where} holds {int(data.size - finite.sum())} sample(s) that are NaN or infinite,"
            f" the first at {first / rate:.3f} s",
            f"Repair the recording, or {_SKIP}",
        )
    clipped = int(np.count_nonzero(np.abs(data) >= CLIPPED))
    mono = data[:, 0] if data.shape[1] == 1 else data.mean(axis=1)
    mono = np.ascontiguousarray(mono, dtype=np.float32)
    if rate != RATE:
        mono = soxr.resample(mono, rate, RATE, quality="HQ")
    if len(mono) != n_samples:
        mono = np.pad(mono[:n_samples], (0, max(0, n_samples - len(mono))))
    return Recording(mono, clipped)


def from_array(array: np.ndarray, rate: int, where: str) -> Recording:
    """Checks and resamples samples that are already in memory.

    Args:
        array: shape (n,), floating point with full scale at 1, or signed integers with theirs.
        rate: samples per second.
        where: a name for messages.

    Returns:
        16 kHz mono samples.

    Raises:
        AudioError: the array is not one-dimensional, not real numbers, too short, or not finite.
    """
    array = np.asarray(array)
    if array.ndim != 1:
        raise AudioError(
            f"{where} is an array of shape {array.shape}",
            "Give one channel, an array of shape (samples,); average or choose channels first.",
        )
    if rate <= 0:
        raise AudioError(f"{where} has a sampling rate of {rate}", "Give the samples per second, e.g. 16000.")
    if np.issubdtype(array.dtype, np.signedinteger):
        array = array / -float(np.iinfo(array.dtype).min)
    elif not np.issubdtype(array.dtype, np.floating):
        raise AudioError(f"{where} is an array of {array.dtype}", "Give floating-point samples or signed integers.")
    n_samples = resampled_length(len(array), rate)
    check_length(n_samples, where)
    return to_recording(array[:, None].astype(np.float32), rate, n_samples, where)
