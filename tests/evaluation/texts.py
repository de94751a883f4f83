"""Two sets of hypotheses whose true difference is known."""

from dataclasses import dataclass

import numpy as np

from otoscope.evaluation.scores import Scores


def scores_of(top, bottom, speakers=None, ids=None, **changes):
    n = len(top)
    settings = {
        "metric": "wer", "unit": "errors per word", "higher_is_better": False,
        "ids": tuple(ids) if ids is not None else tuple(f"u{k:04d}" for k in range(n)),
        "speakers": tuple(speakers) if speakers is not None else (None,) * n,
        "numerator": np.array(top, float), "denominator": np.array(bottom, float),
    }  # fmt: skip
    return Scores(**{**settings, **changes})


@dataclass
class Hypotheses:
    """Which words of a corpus two systems get wrong.

    Attributes:
        speakers: of each utterance.
        words: number in each utterance.
        wrong: "before" and "after" -> for each word of all utterances in turn whether it is wrong.
    """

    speakers: list
    words: np.ndarray
    wrong: dict

    def scores(self, which, speakers=None):
        starts = np.cumsum(self.words) - self.words
        return scores_of(
            np.add.reduceat(self.wrong[which].astype(float), starts), self.words, speakers or self.speakers
        )

    def texts(self, which):
        """References and hypotheses; a wrong word is substituted."""
        rows = np.split(self.wrong[which], np.cumsum(self.words)[:-1])
        said = [" ".join(f"w{k}" for k in range(len(row))) for row in rows]
        return said, [" ".join("oops" if bad else f"w{k}" for k, bad in enumerate(row)) for row in rows]


def draw_corpus(rng, speakers=20, repaired=0.2, spoilt=0.01, varied=(6, 18), utterances=8):
    """References and two sets of hypotheses.

    A speaker's words are wrong with a probability from Beta(4, 36), of mean 0.1. Of the wrong ones the second system
    repairs a share whose mean over speakers is `repaired`, and of the right ones it spoils a share of mean `spoilt`; so
    that the second system's error rate is less by `0.1 * repaired - 0.9 * spoilt` in expectation. Both shares go
    with the speaker: a share is its mean times four times a Beta(*varied) variable, whose mean must be 1/4. It is
    independent of the speaker's rate, so that expectations multiply.
    """
    wrong = rng.beta(4, 36, speakers)
    better, worse = (mean * 4 * rng.beta(*varied, speakers) for mean in (repaired, spoilt))
    owner = np.repeat(np.arange(speakers), utterances)
    words = rng.integers(4, 16, len(owner))
    of_word = np.repeat(owner, words)
    before = rng.random(len(of_word)) < wrong[of_word]
    after = rng.random(len(of_word)) < np.where(before, 1 - better[of_word], worse[of_word])
    return Hypotheses([f"s{k:03d}" for k in owner], words, {"before": before, "after": after})
