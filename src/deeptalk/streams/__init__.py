"""The token grid: one text stream and one stream per codebook; integers only."""

from deeptalk.streams.batch import Batch, collate
from deeptalk.streams.delay import DelayBuffer, DelayPattern
from deeptalk.streams.layout import IGNORE, TEXT, StreamLayout, Template
from deeptalk.streams.modality import Kind, Row
from deeptalk.streams.prompt import Example, Prompt, Turn, encode_dialogue, encode_prompt

__all__ = [
    "IGNORE",
    "TEXT",
    "Batch",
    "DelayBuffer",
    "DelayPattern",
    "Example",
    "Kind",
    "Prompt",
    "Row",
    "StreamLayout",
    "Template",
    "Turn",
    "collate",
    "encode_dialogue",
    "encode_prompt",
]
