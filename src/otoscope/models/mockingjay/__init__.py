"""Mockingjay, the encoder of Self-Attention on SATs, as a transformers model of its own."""

from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoModelForPreTraining

from otoscope.models.mockingjay.configuration import MockingjayConfig
from otoscope.models.mockingjay.features import MockingjayFeatureExtractor
from otoscope.models.mockingjay.modelling import MockingjayForPreTraining, MockingjayModel

__all__ = ["MockingjayConfig", "MockingjayFeatureExtractor", "MockingjayForPreTraining", "MockingjayModel"]

AutoConfig.register(MockingjayConfig.model_type, MockingjayConfig, exist_ok=True)
AutoModel.register(MockingjayConfig, MockingjayModel, exist_ok=True)
AutoModelForPreTraining.register(MockingjayConfig, MockingjayForPreTraining, exist_ok=True)
AutoFeatureExtractor.register(MockingjayConfig, MockingjayFeatureExtractor, exist_ok=True)
