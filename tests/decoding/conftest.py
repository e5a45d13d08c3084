"""Random models of every part, in double precision so that greedy choices don't hang on rounding."""

from dataclasses import replace

import pytest
import torch

from deeptalk.audio import MelSpec
from deeptalk.backbone import open_backbone
from deeptalk.codec import SineCodec
from deeptalk.decoding import Conversation, DecodingEngine, DecodingOptions, Limits
from deeptalk.model import DeepTalk, DeepTalkConfig, EncoderConfig
from deeptalk.streams.text import ByteTokenizer

OPTIONS = DecodingOptions(limits=Limits(max_frames=9, max_text_tokens=12))


def build(config: DeepTalkConfig) -> DeepTalk:
    torch.manual_seed(5)
    backbone = open_backbone(dict(config.backbone), experts="eager")  # the fast kernels know no doubles
    model = DeepTalk(config, backbone=backbone, tokenizer=ByteTokenizer()).double().eval()
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 and name.startswith(("backbone.", "encoder.", "adapter.")):
            torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    return model


@pytest.fixture(scope="session")
def model() -> DeepTalk:
    """Its encoder hears in blocks."""
    return build(DeepTalkConfig.tiny())


@pytest.fixture(scope="session")
def whole_model() -> DeepTalk:
    """Its encoder needs the whole clip."""
    mel = MelSpec(num_mels=8, reference="clip")
    return build(replace(DeepTalkConfig.tiny(), encoder=EncoderConfig.tiny(mode="native"), mel=mel))


@pytest.fixture(scope="session")
def worded_model() -> DeepTalk:
    """Its speech frames carry the words that they are like."""
    config = DeepTalkConfig.tiny()
    return build(replace(config, adapter=replace(config.adapter, levelled=True, worded=True)))


@pytest.fixture
def conversation(model: DeepTalk) -> Conversation:
    return Conversation(DecodingEngine(model), SineCodec(), options=OPTIONS)
