"""A random model of every part, in double precision so that greedy choices don't hang on rounding."""

import pytest
import torch

from deeptalk.backbone import open_backbone
from deeptalk.model.config import DeepTalkConfig
from deeptalk.model.deeptalk import DeepTalk
from deeptalk.streams.text import ByteTokenizer


@pytest.fixture(scope="session")
def model() -> DeepTalk:
    torch.manual_seed(5)
    config = DeepTalkConfig.tiny()
    backbone = open_backbone(dict(config.backbone), experts="eager")  # the fast kernels know no doubles
    model = DeepTalk(config, backbone=backbone, tokenizer=ByteTokenizer()).double().eval()
    for parameter in model.backbone.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    return model
