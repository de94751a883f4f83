"""How much sound the header of a WAV file promises, and how much of it is there."""

from __future__ import annotations

import struct
from typing import BinaryIO

UNKNOWN_SIZES = frozenset([0, 0x7FFF_F000, 0x8000_0000, 0xFFFF_FFFF])
"""What programs that write to a pipe state in place of a size: the usual two, SoX's and arecord's."""

_MOST_CHUNKS = 1000
_DS64_BYTES = 16
_UNKNOWN_LONG = 0xFFFF_FFFF_FFFF_FFFF


def missing_bytes(file: BinaryIO) -> tuple[int, int]:
    """Compares the `data` chunk of a RIFF, RIFX or RF64 file with the size of the file.

    libsndfile shortens its count of samples to what a file holds, so that a WAV file that breaks off looks
    whole to it; only the header tells.

    Args:
        file: opened for reading bytes.

    Returns:
        Bytes of sound that are missing and bytes that are there; (0, 0) where the file is of another kind,
        has no `data` chunk, or was written without knowing its size.
    """
    file.seek(0, 2)
    end = file.tell()
    file.seek(0)
    head = file.read(12)
    if head[:4] not in (b"RIFF", b"RIFX", b"RF64") or head[8:] != b"WAVE":
        return 0, 0
    order = ">" if head[:4] == b"RIFX" else "<"
    long_size = 0
    for _ in range(_MOST_CHUNKS):
        chunk = file.read(8)
        if len(chunk) < 8:
            break
        kind, size = chunk[:4], struct.unpack(f"{order}I", chunk[4:])[0]
        start = file.tell()
        if kind == b"ds64" and head[:4] == b"RF64":
            # RF64 keeps its 64-bit sizes here, first that of the file, then that of the sound.
            body = file.read(_DS64_BYTES)
            long_size = struct.unpack("<QQ", body)[1] if len(body) == _DS64_BYTES else 0
        if kind == b"data":
            if size == 0xFFFF_FFFF and long_size != _UNKNOWN_LONG:
                size = long_size
            there = max(0, end - start)
            return (0, 0) if size in UNKNOWN_SIZES else (max(0, size - there), min(size, there))
        # Chunks begin at even bytes.
        file.seek(start + size + size % 2)
    return 0, 0
