"""Random numbers that depend on names alone, so that order and split of the data do not matter."""

from hashlib import blake2b


def uniform(seed: int, utterance: str, segment: int = 0, purpose: str = "") -> float:
    """A number in [0, 1) that is fixed by its arguments: on any machine, in any order, in any process.

    Args:
        seed: seed of the run.
        utterance: id of the utterance (or of a speaker).
        segment: index of the segment in its utterance.
        purpose: what the number is for; numbers for different purposes are independent.

    Returns:
        The first 53 bits of the BLAKE2b hash of the arguments, as a fraction of 2^53.

    >>> uniform(0, "84-121123-0001", 3) == uniform(0, "84-121123-0001", 3)
    True
    """
    # The text comes last and numbers hold no separator, so no two sets of arguments look the same.
    key = f"{seed}/{segment}/{len(purpose)}/{purpose}{utterance}".encode()
    return (int.from_bytes(blake2b(key, digest_size=8).digest(), "big") >> 11) / (1 << 53)
