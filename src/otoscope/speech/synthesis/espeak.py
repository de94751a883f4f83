"""espeak-ng through its library: phone and word times come as events with the sound, exact to about a millisecond."""

import ctypes
import ctypes.util
from functools import lru_cache

import numpy as np

from otoscope.errors import MissingPackageError, SpeechError
from otoscope.speech.synthesis.espeak_phones import to_arpabet
from otoscope.speech.synthesis.spoken import Spoken, Timed, share_phones, spoken_from_seconds

_SYNCHRONOUS, _PHONEME_EVENTS, _UTF8 = 2, 1, 1
_WORD, _PHONEME, _END = 1, 7, 0
_RATE, _PITCH, _RANGE = 1, 3, 4


class _Id(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    """`espeak_EVENT` of speak_lib.h."""

    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    ]


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


@lru_cache(maxsize=1)
def _library() -> tuple[ctypes.CDLL, int]:
    """The library, initialised once a process, and its sampling rate."""
    name = ctypes.util.find_library("espeak-ng") or "libespeak-ng.so.1"
    try:
        library = ctypes.CDLL(name)
    except OSError as error:
        raise MissingPackageError(
            f"espeak-ng's library is not installed ({error})",
            "Install it, on Debian or Ubuntu with: apt-get install espeak-ng",
        ) from error
    rate = library.espeak_Initialize(_SYNCHRONOUS, 0, None, _PHONEME_EVENTS)
    if rate <= 0:
        raise MissingPackageError(
            "espeak-ng cannot start: its data folder is absent", "Install Debian's espeak-ng-data."
        )
    return library, rate


class Espeak:
    """A speaker of sentences, one language and voice variant a call.

    Raises:
        MissingPackageError: espeak-ng is not installed.
    """

    def __init__(self) -> None:
        self._lib, self.rate = _library()
        self._pcm: list[np.ndarray] = []
        self._events: list[tuple[int, int, int, str]] = []  # type, sample, text position, phoneme
        self._callback = _Callback(self._on_audio)  # kept: ctypes does not hold a reference
        self._alone: dict[tuple[str, str], int] = {}

    @property
    def version(self) -> str:
        """The library's version."""
        info = self._lib.espeak_Info
        info.restype = ctypes.c_char_p
        return info(None).decode().split()[0]

    def _on_audio(self, wave: "ctypes._Pointer[ctypes.c_short]", n: int, events: "ctypes._Pointer[_Event]") -> int:
        if n > 0 and wave:
            self._pcm.append(np.ctypeslib.as_array(wave, shape=(n,)).copy())
        k = 0
        while events[k].type != _END:
            event = events[k]
            if event.type in (_WORD, _PHONEME):
                name = event.id.string.decode("utf8", "replace") if event.type == _PHONEME else ""
                self._events.append((event.type, event.sample, event.text_position, name))
            k += 1
        return 0

    def _run(self, text: str, voice: str, rate: int, pitch: int, pitch_range: int) -> np.ndarray:
        self._pcm, self._events = [], []
        self._lib.espeak_SetSynthCallback(self._callback)
        if self._lib.espeak_SetVoiceByName(voice.encode()):
            raise SpeechError(f"espeak-ng knows no voice {voice!r}", "List them with: espeak-ng --voices=en")
        for parameter, value in ((_RATE, rate), (_PITCH, pitch), (_RANGE, pitch_range)):
            self._lib.espeak_SetParameter(parameter, int(value), 0)
        data = text.encode()
        self._lib.espeak_Synth(data, len(data) + 1, 0, 1, 0, _UTF8, None, None)
        self._lib.espeak_Synchronize()
        if not self._pcm:
            raise SpeechError(f"espeak-ng said nothing for {text!r}", "Give it a sentence with words.")
        return np.concatenate(self._pcm).astype(np.float32) / 32768

    def say(self, text: str, voice: str, rate: int = 170, pitch: int = 50, pitch_range: int = 50) -> Spoken:
        """Says a sentence.

        Args:
            text: words separated by single spaces, no digits or punctuation.
            voice: language and variant, such as "gmw/en-US+f2".
            rate: words per minute.
            pitch: 0 to 99.
            pitch_range: 0 (monotone) to 99.

        Raises:
            SpeechError: the voice is unknown, or its phones cannot be written in ARPAbet.
        """
        # Sentences first, single words after: asking for a word's own length runs the synthesiser again.
        rhotic = _is_rhotic(voice)
        wave = self._run(text, voice, rate, pitch, pitch_range)
        events = self._events
        groups = _word_groups(events, text)
        alone = {word: self._length_alone(word, voice) for _, words in groups if len(words) > 1 for word in words}
        # A phoneme event carries the first sample of its phone; the next event's sample is its end.
        starts = [sample for kind, sample, _, _ in events if kind == _PHONEME]
        ends = iter([*starts[1:], len(wave)])
        phones: list[Timed] = []
        timed_words: list[Timed] = []
        if starts and starts[0] > 0:
            phones.append((0.0, starts[0] / self.rate, "sil"))
        by_group: dict[int, list[Timed]] = {}
        position = 1  # what sounds before the first word event belongs to the words before it
        for kind, sample, text_position, name in events:
            if kind == _WORD:
                position = text_position
                continue
            labels = to_arpabet(name, rhotic)
            begin, end = sample / self.rate, next(ends) / self.rate
            if not labels:  # a mark without a sound of its own lengthens what went before
                if phones:
                    phones[-1] = (phones[-1][0], end, phones[-1][2])
                    if by_group.get(position):
                        by_group[position][-1] = phones[-1]
                continue
            step = (end - begin) / len(labels)
            for k, label in enumerate(labels):
                phone = (begin + k * step, begin + (k + 1) * step, label)
                phones.append(phone)
                if label != "sil":
                    by_group.setdefault(position, []).append(phone)
        for position, words in groups:
            sounds = by_group.get(position, [])
            shares = share_phones(words, len(sounds), [alone.get(word, 0) for word in words])
            first = 0
            for word, share in zip(words, shares, strict=False):
                timed_words.append((sounds[first][0], sounds[first + share - 1][1], word))
                first += share
        return spoken_from_seconds(wave, self.rate, phones, timed_words)

    def _length_alone(self, word: str, voice: str) -> int:
        key = (word, voice.split("+")[0])
        if key not in self._alone:
            rhotic = _is_rhotic(voice)
            self._run(word, voice, 170, 50, 50)
            names = [name for kind, _, _, name in self._events if kind == _PHONEME]
            self._alone[key] = sum(label != "sil" for name in names for label in to_arpabet(name, rhotic))
        return self._alone[key]


def _is_rhotic(voice: str) -> bool:
    """Of the English accents, the American and the Scottish sound an r after vowels."""
    return voice.split("+")[0].lower().endswith(("en-us", "scotland"))


def _word_groups(events: list[tuple[int, int, int, str]], text: str) -> list[tuple[int, list[str]]]:
    """Text position of each word event and the words from there to the next event's position."""
    positions = sorted({1} | {position for kind, _, position, _ in events if kind == _WORD})
    bounds = [*(position - 1 for position in positions), len(text)]
    groups = [(position, text[a:b].split()) for position, a, b in zip(positions, bounds[:-1], bounds[1:], strict=True)]
    return [(position, words) for position, words in groups if words]
