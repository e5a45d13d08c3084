"""A random model for the server; doubles, so that greedy choices don't hang on rounding."""

import torch

from deeptalk.backbone import open_backbone
from deeptalk.codec import SineCodec
from deeptalk.decoding import DecodingEngine, LoadedModel
from deeptalk.model import DeepTalk, DeepTalkConfig
from deeptalk.streams.text import ByteTokenizer


def random_model() -> LoadedModel:
    """The same tiny model each time, with a codec of tones."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        config = DeepTalkConfig.tiny()
        backbone = open_backbone(dict(config.backbone), experts="eager")  # the fast kernels know no doubles
        model = DeepTalk(config, backbone=backbone, tokenizer=ByteTokenizer()).double().eval()
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and name.startswith(("backbone.", "encoder.", "adapter.")):
                torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    return LoadedModel(engine=DecodingEngine(model), codec=SineCodec())
