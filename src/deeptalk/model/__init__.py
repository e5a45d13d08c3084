"""The speech-dialogue model: encoder, adapter, stream embeddings, backbone, heads, and weights on disk."""

from deeptalk.model.adapter import Adapter, AdapterConfig, AdapterStream
from deeptalk.model.config import DeepTalkConfig
from deeptalk.model.deeptalk import DeepTalk, DeepTalkOutput
from deeptalk.model.encoder import EncodedSpeech, EncoderConfig, SpeechEncoder
from deeptalk.model.encoder_stream import EncoderStream
from deeptalk.model.heads import StreamLogits
from deeptalk.model.weights import load, save

__all__ = [
    "Adapter",
    "AdapterConfig",
    "AdapterStream",
    "DeepTalk",
    "DeepTalkConfig",
    "DeepTalkOutput",
    "EncodedSpeech",
    "EncoderConfig",
    "EncoderStream",
    "SpeechEncoder",
    "StreamLogits",
    "load",
    "save",
]
