"""Small random models of every family, written to folders by transformers itself."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers as T

from otoscope.models import mockingjay

_WAVE = dict(
    hidden_size=48, num_hidden_layers=3, num_attention_heads=4, intermediate_size=64, conv_dim=(16,) * 7,
    num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4, vocab_size=32, mask_time_prob=0.05,
    num_codevectors_per_group=8, codevector_dim=16, proj_codevector_dim=16, layerdrop=0.5,
)  # fmt: skip
_LAYER = dict(feat_extract_norm="layer", do_stable_layer_norm=True, conv_bias=True)
_GROUP = dict(feat_extract_norm="group", do_stable_layer_norm=False)
_CONFORMER = dict(conv_depthwise_kernel_size=7)
_BERT = dict(
    hidden_size=48, num_hidden_layers=3, num_attention_heads=4, intermediate_size=64, vocab_size=32,
    conv_depthwise_kernel_size=7, layerdrop=0.5,
)  # fmt: skip
_WHISPER = dict(
    d_model=48, encoder_layers=3, encoder_attention_heads=4, encoder_ffn_dim=64, decoder_layers=1,
    decoder_attention_heads=4, decoder_ffn_dim=64, num_mel_bins=80, max_source_positions=100, vocab_size=60,
    pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
)  # fmt: skip
_MOCKINGJAY = dict(hidden_size=48, num_hidden_layers=3, num_attention_heads=4, intermediate_size=64)
_PARAKEET = dict(
    hidden_size=48, num_hidden_layers=3, num_attention_heads=4, intermediate_size=64, conv_kernel_size=5,
    subsampling_conv_channels=8, num_mel_bins=80, layerdrop=0.5,
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One kind of model that the conformance suite runs on."""

    name: str
    family: str
    model_class: str
    config: Any

    def build(self, seed: int = 0) -> torch.nn.Module:
        torch.manual_seed(seed)
        model = _named(self.model_class)(self.config())
        with torch.no_grad():  # the library's initial weights are so small that all maps are nearly uniform
            for name, parameter in model.named_parameters():
                if parameter.ndim > 1 and "parametrizations" not in name:
                    parameter.mul_(3)
                elif name.endswith("bias"):
                    parameter.normal_(0, 0.1)
        return model

    def write(self, folder: Path) -> Path:
        self.build().save_pretrained(folder)
        return folder


def _case(name: str, family: str, model_class: str, config_class: str, **settings: Any) -> Case:
    return Case(name, family, model_class, lambda: _named(config_class)(**settings))


def _named(name: str) -> Any:
    return getattr(mockingjay if name.startswith("Mockingjay") else T, name)


def _parakeet() -> Any:
    return T.ParakeetCTCConfig(vocab_size=32, encoder_config=T.ParakeetEncoderConfig(**_PARAKEET).to_dict())


CASES = [
    _case("wav2vec2-group", "wav2vec2", "Wav2Vec2Model", "Wav2Vec2Config", **_WAVE, **_GROUP),
    _case("wav2vec2-stable", "wav2vec2", "Wav2Vec2Model", "Wav2Vec2Config", **_WAVE, **_LAYER),
    _case("wav2vec2-ctc", "wav2vec2", "Wav2Vec2ForCTC", "Wav2Vec2Config", **_WAVE, **_GROUP),
    _case("wav2vec2-pretraining", "wav2vec2", "Wav2Vec2ForPreTraining", "Wav2Vec2Config", **_WAVE, **_GROUP),
    _case("hubert-group", "hubert", "HubertModel", "HubertConfig", **_WAVE, **_GROUP),
    _case("hubert-ctc-stable", "hubert", "HubertForCTC", "HubertConfig", **_WAVE, **_LAYER),
    _case("wavlm-group", "wavlm", "WavLMModel", "WavLMConfig", **_WAVE, **_GROUP),
    _case("wavlm-ctc-stable", "wavlm", "WavLMForCTC", "WavLMConfig", **_WAVE, **_LAYER),
    _case(
        "data2vec-audio", "data2vec-audio", "Data2VecAudioModel", "Data2VecAudioConfig",
        **{**_WAVE, "num_conv_pos_embeddings": 3}, conv_pos_kernel_size=5,
    ),
    _case("data2vec-audio-ctc", "data2vec-audio", "Data2VecAudioForCTC", "Data2VecAudioConfig",
          **{**_WAVE, "num_conv_pos_embeddings": 3}, conv_pos_kernel_size=5),
    _case("unispeech-sat", "unispeech-sat", "UniSpeechSatModel", "UniSpeechSatConfig", **_WAVE, **_GROUP),
    _case("unispeech-sat-ctc", "unispeech-sat", "UniSpeechSatForCTC", "UniSpeechSatConfig", **_WAVE, **_LAYER),
    _case("conformer-relative", "wav2vec2-conformer", "Wav2Vec2ConformerModel", "Wav2Vec2ConformerConfig",
          **_WAVE, **_GROUP, **_CONFORMER),
    _case("conformer-rotary-ctc", "wav2vec2-conformer", "Wav2Vec2ConformerForCTC", "Wav2Vec2ConformerConfig",
          **_WAVE, **_LAYER, **_CONFORMER, position_embeddings_type="rotary"),
    _case("bert-relative-key", "wav2vec2-bert", "Wav2Vec2BertModel", "Wav2Vec2BertConfig", **_BERT),
    _case("bert-relative-ctc", "wav2vec2-bert", "Wav2Vec2BertForCTC", "Wav2Vec2BertConfig", **_BERT,
          position_embeddings_type="relative"),
    _case("whisper", "whisper", "WhisperModel", "WhisperConfig", **_WHISPER),
    _case("whisper-generation", "whisper", "WhisperForConditionalGeneration", "WhisperConfig", **_WHISPER),
    _case("parakeet", "parakeet", "ParakeetEncoder", "ParakeetEncoderConfig", **_PARAKEET),
    Case("parakeet-ctc", "parakeet", "ParakeetForCTC", _parakeet),
    _case("mockingjay", "mockingjay", "MockingjayModel", "MockingjayConfig", **_MOCKINGJAY),
    _case("mockingjay-pretraining", "mockingjay", "MockingjayForPreTraining", "MockingjayConfig", **_MOCKINGJAY),
]  # fmt: skip
