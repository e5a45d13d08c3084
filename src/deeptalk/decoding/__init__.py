"""One frame at a time: sampling, the engine with its two rows, and the conversation on top of it."""

from deeptalk.decoding.answer import Frame, Limits
from deeptalk.decoding.conversation import Conversation
from deeptalk.decoding.engine import DecodingEngine, Generated
from deeptalk.decoding.loading import LoadedModel, load
from deeptalk.decoding.sampling import Sampling, sample_token
from deeptalk.decoding.speech import Reply, Spoken
from deeptalk.decoding.state import DecodingOptions, DialogueState, History

__all__ = [
    "Conversation",
    "DecodingEngine",
    "DecodingOptions",
    "DialogueState",
    "Frame",
    "Generated",
    "History",
    "Limits",
    "LoadedModel",
    "Reply",
    "Sampling",
    "Spoken",
    "load",
    "sample_token",
]
