"""The CTC loss of transcripts: how improbable a model finds what was said, summed over all alignments."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from otoscope.evaluation.metric import Counts, Recognised, RecognitionMetric
from otoscope.evaluation.references import Reference, check_frames
from otoscope.models.recogniser import Recogniser
from otoscope.speech.utterance import Utterance


def ctc_nats(log_probabilities: Float[Tensor, "frames tokens"], tokens: Sequence[int], blank: int) -> float:
    """Negative log probability of a token sequence under CTC (Graves et al. 2006, equation 8), in nats.

    Args:
        log_probabilities: log probabilities of the tokens at every frame, (T, V).
        tokens: the sequence, without blanks; may be empty.
        blank: number of the blank.

    Returns:
        The loss, taken in float64; infinite where the frames cannot hold the sequence.

    >>> ctc_nats(torch.full((1, 2), 0.5).log(), [1], blank=0)
    0.6931...
    """
    place = log_probabilities.device
    loss = torch.nn.functional.ctc_loss(
        log_probabilities.double()[:, None],
        torch.tensor([list(tokens)], dtype=torch.long, device=place),
        torch.tensor([len(log_probabilities)]),
        torch.tensor([len(tokens)]),
        blank,
        reduction="none",
    )
    return float(loss[0])


class CTCLoss(RecognitionMetric):
    """Nats of the transcript, over its tokens: characters and word delimiters (pieces where tokens are pieces).

    An utterance with an empty transcript counts its nats and adds nothing to the denominator.
    """

    name = "ctc-loss"
    unit = "nats per token"

    def check(self, recogniser: Recogniser, utterance: Utterance, reference: Reference) -> None:
        """Refuses audio that is shorter, in frames, than its transcript.

        Raises:
            EvaluationError: see `check_frames`.
        """
        check_frames(recogniser, utterance, reference)

    def count(self, recogniser: Recogniser, one: Recognised) -> Counts:
        """See `RecognitionMetric`."""
        tokens = one.reference.tokens
        return Counts(ctc_nats(one.log_probabilities, tokens, recogniser.vocabulary.blank), len(tokens))
