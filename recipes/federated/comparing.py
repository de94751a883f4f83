"""Models of several seeds held against each other, ensembles among them, and what each of them costs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from otoscope.errors import VocabularyError
from otoscope.evaluation.cost import cost_of
from otoscope.evaluation.ctc_loss import ctc_nats
from otoscope.evaluation.decoding import best_path
from otoscope.evaluation.outcome import Outcome
from otoscope.federation.result import FederationResult
from otoscope.models.recogniser import Recogniser, load_recogniser
from otoscope.speech.corpus import Corpus
from otoscope.workflow.verifying import verify
from recipes.federated.aims import FULL, RANDOM, SCHEDULES, UNIFORM
from recipes.federated.stages import DENSE, SERVER, SMALL, Job
from recipes.trials.comparing import finished

AMBIENT, CRITICAL = SCHEDULES[-2:]
ENSEMBLE = "ensemble"
VARIANTS = (SERVER, *SCHEDULES, DENSE, SMALL, ENSEMBLE)  # rows of the table, models before adaptation before the others
SAME_BYTES = (UNIFORM, RANDOM, AMBIENT, CRITICAL, SMALL)  # whose clients are as large as one another
# Before and after: every variant against both references, and what claims are decided by beside.
PAIRS = tuple(
    dict.fromkeys(
        [
            *((SERVER, one) for one in VARIANTS if one != SERVER),
            *((UNIFORM, one) for one in VARIANTS if one not in (SERVER, UNIFORM)),
            (RANDOM, AMBIENT), (CRITICAL, UNIFORM), (CRITICAL, RANDOM), (CRITICAL, AMBIENT), (SMALL, UNIFORM),
            (SMALL, AMBIENT), (AMBIENT, ENSEMBLE), (FULL, AMBIENT), (DENSE, SMALL), (DENSE, SERVER),
        ]
    )
)  # fmt: skip

Side = Sequence[tuple[Path, ...]]  # by seed the folders of a model, several where it is an ensemble


class Ensemble(Recogniser):
    """Recognisers of one vocabulary; of what they hear, greedily, that counts which all find the least improbable.

    Models with CTC emit the same characters in different frames, so that an average of their log probabilities frame by
    frame leaves blanks where either has one. Whole hypotheses can be held against each other: every member's best path is
    given its CTC loss by every member, and the log probabilities are those of the member whose path has the lowest mean.

    Args:
        members: with the same frames and vocabulary.

    Raises:
        VocabularyError: their vocabularies differ.
    """

    def __init__(self, members: Sequence[Recogniser]) -> None:
        super().__init__(members[0].model, members[0].vocabulary)
        if any(one.vocabulary.tokens != self.vocabulary.tokens for one in members):
            raise VocabularyError("The members of an ensemble spell with different tokens", "Train them with the same.")
        self.members = tuple(members)

    @property
    def name(self) -> str:
        """The members' names."""
        return " and ".join(one.name for one in self.members)

    @property
    def parameters(self) -> int:
        """Of all members."""
        return sum(one.parameters for one in self.members)

    def log_probabilities(
        self, samples: Sequence[np.ndarray], names: Sequence[str] | None = None
    ) -> list[torch.Tensor]:
        """See `Recogniser`."""
        found = [one.log_probabilities(samples, names) for one in self.members]
        return [self._likeliest(rows) for rows in zip(*found, strict=True)]

    def _likeliest(self, rows: Sequence[torch.Tensor]) -> torch.Tensor:
        """One utterance's log probabilities by the member whose best path all of them find the least improbable."""
        blank = self.vocabulary.blank
        losses = [sum(ctc_nats(row, path, blank) for row in rows) for path in (best_path(row, blank) for row in rows)]
        return rows[int(np.argmin(losses))]


@dataclass(frozen=True)
class Spent:
    """What a variant costs, by its trainings of the first seed that there is; an ensemble's members one beside the other.

    Attributes:
        rounds: of federated training; of each member.
        elements: that a client holds.
        share: of the elements of the server's model.
        download: bytes that a client is sent in a round, the mean.
        upload: bytes that it sends back.
        memory: peak bytes of a client's training step, the largest.
        failures: answers of clients that were not taken.
        parameters: in use when recognising.
        macs: multiply-accumulates for a second of speech when recognising; None where they cannot be counted.
    """

    rounds: int
    elements: int
    share: float
    download: float
    upload: float
    memory: int | None
    failures: int
    parameters: int
    macs: int | None


def folders(variant: str, seed: int, members: int, work: Path) -> tuple[Path, ...]:
    """The folders of a variant's model.

    Args:
        variant: one of `VARIANTS`.
        seed: of its training.
        members: of an ensemble.
        work: where they lie.
    """
    numbers = range(1, members + 1) if variant == ENSEMBLE else (1,)
    kind = SMALL if variant == ENSEMBLE else variant
    return tuple(work / Job(kind, seed, number).name for number in numbers)


def recogniser_in(places: Sequence[Path]) -> Recogniser:
    """A model, or an ensemble of several."""
    members = [load_recogniser(place) for place in places]
    return members[0] if len(members) == 1 else Ensemble(members)


def held_against(before: Side, after: Side, exam: Corpus, place: Path) -> Outcome | None:
    """Models of some seeds against others of the same seeds, greedily decoded; kept in a file.

    Args:
        before: one a seed.
        after: the same seeds in the same order; a seed of which a model is not there is left out on both sides.
        exam: the speech.
        place: of the outcome; the seeds are added to its name.

    Returns:
        None where no seed has both models.
    """
    pairs = [
        (k, old, new)
        for k, (old, new) in enumerate(zip(before, after, strict=True))
        if all(map(finished, (*old, *new)))
    ]
    if not pairs:
        return None
    numbers = "-".join(str(k) for k, _, _ in pairs)
    kept = place.with_name(f"{place.name}--{numbers}.json")
    if kept.exists():
        found = Outcome.load(kept)
        if found.provenance["corpus"]["fingerprint"] == exam.fingerprint():
            return found
    print(f"{kept.stem} ...", flush=True)
    sides = ([recogniser_in(old) for _, old, _ in pairs], [recogniser_in(new) for _, _, new in pairs])
    found = verify(*sides, exam, "wer,cer", time=False, cost=False)
    found.save(kept)
    return found


def spent(variant: str, places: Sequence[Path], whole: int) -> Spent | None:
    """What a variant costs; None where one of its trainings is not there, or there was none.

    Args:
        variant: one of `VARIANTS`.
        places: its folders, of one seed.
        whole: elements of the server's model.
    """
    if not all(map(finished, places)):
        return None
    costs = [cost_of(load_recogniser(place)) for place in places]
    macs = [one.macs_per_second for one in costs]
    known = [one for one in macs if one is not None]
    using = (sum(one.parameters for one in costs), sum(known) if len(known) == len(macs) else None)
    if variant in (SERVER, DENSE):
        return Spent(0, 0, 0.0, 0.0, 0.0, None, 0, *using)
    results = [FederationResult.load(place) for place in places]
    rows = [row for result in results for row in result.rows]
    rounds = len(results[0].rows)
    down, up = (sum(getattr(row, side) for row in rows) / rounds for side in ("download", "upload"))
    held = round(down / torch.float32.itemsize)
    memory = [row.memory for row in rows if row.memory is not None]
    failures = sum(len(row.failures) for row in rows)
    return Spent(
        rounds, held, held / whole, down, up, max(memory, default=None), failures, *using
    )  # fmt: skip
