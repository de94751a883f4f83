"""Federated trainings of a second or two: tiny CTC recognisers, and tones of several speakers that spell."""

from dataclasses import replace

from transformers import Wav2Vec2ConformerConfig, Wav2Vec2ConformerModel, Wav2Vec2Model

from otoscope.models.loading import load
from otoscope.models.model import SpeechModel
from otoscope.models.recogniser import Recogniser
from otoscope.models.vocabulary import Vocabulary
from otoscope.speech.corpus import Corpus
from otoscope.training.architectures import make_config, seeded
from otoscope.training.ctc_head import with_ctc_head
from tests.training.small_training import TINY, spelt_speech

VOCABULARY = Vocabulary(("<pad>", "|", "a", "b", "c", "d"), 0)
SIZE = replace(TINY, heads=4)
SPEAKERS = ("s0", "s1", "s2", "s3")


def speech(utterances: int = 12, **other) -> Corpus:
    """Utterances of about a second by four speakers, three of each by default; every tone is a letter."""
    return spelt_speech(utterances, speakers=len(SPEAKERS), **other)


def wav2vec2(layers: int = 2) -> Recogniser:
    """A wav2vec 2.0 of two layers of four heads and a feed-forward of 64, with the same random weights every time."""
    made = seeded(0, lambda: Wav2Vec2Model(make_config("wav2vec2", replace(SIZE, layers=layers))))
    return recogniser(load(made, name="tiny"))


def conformer(layers: int = 2, positions: str = "relative") -> Recogniser:
    """A Conformer of two layers: feed-forwards of 64, four heads, batch norms in its convolution modules."""
    config = Wav2Vec2ConformerConfig(
        hidden_size=32, num_hidden_layers=layers, num_attention_heads=4, intermediate_size=64, conv_dim=(16,) * 7,
        feat_extract_norm="group", conv_depthwise_kernel_size=7, position_embeddings_type=positions, layerdrop=0.0,
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4, mask_time_prob=0.05, vocab_size=6, pad_token_id=0,
    )  # fmt: skip
    return recogniser(load(seeded(0, lambda: Wav2Vec2ConformerModel(config)), name="tiny conformer"))


def recogniser(encoder: SpeechModel) -> Recogniser:
    """Any encoder with a fresh CTC head."""
    made = with_ctc_head(encoder, VOCABULARY, 0)
    return Recogniser(SpeechModel(made, encoder.family, encoder.frontend, encoder.name), VOCABULARY)
