"""Vocabularies of pieces of words, made from transcripts by byte-pair encoding."""

from __future__ import annotations

from collections.abc import Iterable

from otoscope.errors import TrainingError
from otoscope.models.vocabulary import PIECE, Vocabulary
from otoscope.speech.utterance import Utterance

BLANK, UNKNOWN = "<pad>", "<unk>"


def pieces_of(utterances: Iterable[Utterance], size: int) -> Vocabulary:
    """Pieces of the words of all transcripts in lower case.

    The blank comes first, then a token for characters that no transcript has, which no transcript is spelt with, then
    every character, then the pieces in the order in which pairs were joined; a word's first piece begins with "▁".
    Source: Sennrich, Haddow and Birch 2016 (arXiv 1508.07909), section 3.2, as the library `tokenizers` has it.

    Args:
        utterances: with transcripts.
        size: tokens in all, with the blank and the unknown one.

    Raises:
        TrainingError: there is no transcript, one holds the mark of a word's start, or the transcripts have more
            characters or fewer pieces than that.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import ParakeetTokenizer

    texts = []
    for utterance in utterances:
        text = " ".join((utterance.transcript or "").lower().split())
        if PIECE in text:
            raise TrainingError(
                f"The transcript of utterance {utterance.id!r} holds {PIECE!r}, which marks the start of a word in the "
                "vocabulary",
                "Write the transcript without it.",
            )
        texts.append(text)
    if not any(texts):
        raise TrainingError("No utterance has a transcript", "CTC needs transcripts: add them, or pre-train instead.")
    single = len({BLANK, UNKNOWN, PIECE} | set("".join(texts)) - {" "})
    if size < single:
        raise TrainingError(
            f"A vocabulary of {size} pieces cannot hold the {single} characters and special tokens of the transcripts",
            f"Ask for {single} or more (--vocabulary bpe:SIZE).",
        )
    inner = Tokenizer(models.BPE(unk_token=UNKNOWN))
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=[BLANK, UNKNOWN], show_progress=False)
    inner.train_from_iterator(texts, trainer)
    found = inner.get_vocab_size()
    if found != size:
        raise TrainingError(
            f"The transcripts give {found} pieces, not {size}", f"Ask for {found} or fewer (--vocabulary bpe:SIZE)."
        )
    # This class of the library also decodes as CTC does, for those who read the folder without otoscope.
    return Vocabulary.from_tokenizer(
        ParakeetTokenizer(tokenizer_object=inner, unk_token=UNKNOWN, pad_token=BLANK), size
    )
