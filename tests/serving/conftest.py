"""A random model behind the model thread; doubles, so that greedy choices don't hang on rounding."""

from collections.abc import Iterator

import pytest
import torch

from deeptalk.backbone import open_backbone
from deeptalk.codec import SineCodec
from deeptalk.decoding import DecodingEngine, LoadedModel
from deeptalk.model import DeepTalk, DeepTalkConfig
from deeptalk.serving.limits import ServerLimits
from deeptalk.serving.model_thread import ModelThread
from deeptalk.streams.text import ByteTokenizer

LIMITS = ServerLimits(answer_seconds=0.8, positions_per_tick=7, encoded_per_tick=0.2)


@pytest.fixture(scope="session")
def loaded() -> LoadedModel:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        config = DeepTalkConfig.tiny()
        backbone = open_backbone(dict(config.backbone), experts="eager")  # the fast kernels know no doubles
        model = DeepTalk(config, backbone=backbone, tokenizer=ByteTokenizer()).double().eval()
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and name.startswith(("backbone.", "encoder.", "adapter.")):
                torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    return LoadedModel(engine=DecodingEngine(model), codec=SineCodec())


@pytest.fixture
def still(loaded: LoadedModel) -> ModelThread:
    """A model thread that a test ticks by hand."""
    return ModelThread(loaded, limits=LIMITS)


@pytest.fixture(scope="session")
def thread(loaded: LoadedModel) -> Iterator[ModelThread]:
    """A model thread that runs."""
    thread = ModelThread(loaded, limits=LIMITS)
    thread.start()
    yield thread
    thread.stop()
