"""flite as a subprocess: recorded voices, phone end times printed beside the sound."""

import shutil
import subprocess
import tempfile
from pathlib import Path

import soundfile

from otoscope.errors import MissingPackageError, SpeechError
from otoscope.speech.synthesis.spoken import Spoken, Timed, share_phones, spoken_from_seconds

# flite's CMU phones that are not among the 39.
_FOLD = {
    "pau": "sil",
    "h#": "sil",
    "brth": "sil",
    "ax": "ah",
    "axr": "er",
    "el": "l",
    "em": "m",
    "en": "n",
    "ix": "ih",
}
_PHONES = frozenset(
    "sil aa ae ah ao aw ay b ch d dh eh er ey f g hh ih iy jh k l m n ng ow oy p r s sh t th uh uw v w y z zh".split()
)


class Flite:
    """A speaker of sentences.

    Raises:
        MissingPackageError: flite is not installed.
    """

    def __init__(self) -> None:
        self._program = shutil.which("flite")
        if self._program is None:
            raise MissingPackageError(
                "flite is not installed", "Install it, on Debian or Ubuntu with: apt-get install flite"
            )
        self._alone: dict[tuple[str, str], int] = {}

    @property
    def version(self) -> str:
        """What the program says of itself, such as "flite-2.2-current"."""
        done = subprocess.run([str(self._program), "--version"], capture_output=True, text=True, check=False)
        return next((word for word in done.stdout.split() if word.startswith("flite-")), "unknown")

    def say(
        self, text: str, voice: str = "slt", stretch: float = 1.0, shift: float = 1.0, formants: float = 1.0
    ) -> Spoken | None:
        """Says a sentence.

        Args:
            text: words separated by single spaces.
            voice: "slt", "rms", "awb" or "kal16".
            stretch: duration factor, above 1 is slower.
            shift: factor on the fundamental frequency; "rms" has its recorded pitch only.
            formants: factor on the formants; pitch and durations stay what `shift` and `stretch` make them.

        Returns:
            The sentence, or None where its phones do not add up to those of its words, so that no exact word
            times can be given.

        Raises:
            SpeechError: flite fails or does not know the voice, or a pitch is asked of "rms".
        """
        if voice == "rms" and not shift == formants == 1:
            raise SpeechError("flite's voice 'rms' cannot change its pitch", "Leave its shift and formants at 1.")
        with tempfile.TemporaryDirectory() as folder:
            wav = Path(folder) / "said.wav"
            # Played faster by the factor on formants, slower and lower speech ends as long and as high as asked.
            arguments = ["--setf", f"duration_stretch={stretch * formants:.3f}", "-o", str(wav), "-psdur"]
            if shift != formants:
                arguments += ["--setf", f"f0_shift={shift / formants:.3f}"]
            printed = self._run(text, voice, arguments)
            samples, rate = soundfile.read(wav, dtype="float32")
        rate *= formants
        phones: list[Timed] = []
        end = 0.0
        for token in printed.split():
            name, until = token.rsplit(":", 1)
            phones.append((end, float(until) / formants, _phone(name)))
            end = float(until) / formants
        if end < len(samples) / rate:
            phones.append((end, len(samples) / rate, "sil"))
        words = text.split()
        alone = [self._length_alone(word, voice) for word in words]
        sounds = [phone for phone in phones if phone[2] != "sil"]
        if sum(alone) != len(sounds):
            return None
        timed_words: list[Timed] = []
        first = 0
        for word, share in zip(words, share_phones(words, len(sounds), alone), strict=True):
            timed_words.append((sounds[first][0], sounds[first + share - 1][1], word))
            first += share
        return spoken_from_seconds(samples, rate, phones, timed_words)

    def _run(self, text: str, voice: str, arguments: list[str]) -> str:
        command = [str(self._program), "-voice", voice, *arguments, "-t", text]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode or "unknown voice" in done.stderr.lower():
            raise SpeechError(
                f"flite failed with voice {voice!r}: {done.stderr.strip() or done.stdout.strip()}",
                "List its voices with: flite -lv",
            )
        return done.stdout

    def _length_alone(self, word: str, voice: str) -> int:
        key = (word, voice)
        if key not in self._alone:
            names = self._run(word, voice, ["-ps", "-o", "none"]).split()
            self._alone[key] = sum(_phone(name) != "sil" for name in names)
        return self._alone[key]


def _phone(name: str) -> str:
    phone = _FOLD.get(name, name)
    if phone not in _PHONES:
        raise SpeechError(f"flite's phone {name!r} has no ARPAbet name", "Use one of the voices slt, rms, awb, kal16.")
    return phone
