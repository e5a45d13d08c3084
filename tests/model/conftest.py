from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from deeptalk.model.config import DeepTalkConfig
from deeptalk.model.deeptalk import DeepTalk
from deeptalk.streams import Batch, Turn, collate, encode_dialogue
from deeptalk.streams.text import ByteTokenizer


@pytest.fixture
def build() -> Callable[..., DeepTalk]:
    def make(fusion: str = "sum") -> DeepTalk:
        torch.manual_seed(0)
        config = DeepTalkConfig.tiny(fusion=fusion)  # type: ignore[arg-type]
        return DeepTalk(config, tokenizer=ByteTokenizer()).eval()

    return make


@pytest.fixture
def tokenizer_path(tmp_path: Path) -> Path:
    path = tmp_path / "tokens.json"
    Tokenizer(WordLevel({"hello": 0, "there": 1}, unk_token="hello")).save(str(path))
    return path


@pytest.fixture
def text_batch(build: Callable[..., DeepTalk]) -> Batch:
    """Two text dialogues of different length."""
    layout = build().layout
    examples = [
        encode_dialogue(
            [Turn(role="user", text=question), Turn(role="assistant", text="Blue.")],
            tokenizer=ByteTokenizer(),
            layout=layout,
            mode="text",
        )
        for question in ("What?", "Which colour?")
    ]
    return collate(examples, [[], []], layout=layout, is_encoded=False, stride=2)


@pytest.fixture
def speech_batch(build: Callable[..., DeepTalk]) -> Batch:
    """A spoken question with a spoken answer, and a clip to transcribe."""
    layout, generator = build().layout, torch.Generator().manual_seed(1)
    clips = [torch.randn(8, length, generator=generator) for length in (21, 34)]
    frames = [(clip.shape[1] + 3) // 4 for clip in clips]
    codes = torch.randint(layout.codebook_size, (3, layout.num_codebooks), generator=generator)
    answers = [Turn(role="assistant", text="Yes", codes=codes), Turn(role="assistant", text="well")]
    examples = [
        encode_dialogue(
            [Turn(role="user", num_speech_frames=count), answer],
            tokenizer=ByteTokenizer(),
            layout=layout,
            mode=mode,
        )
        for count, answer, mode in zip(frames, answers, ("speaker:slt", "asr"), strict=True)
    ]
    return collate(examples, [[clip] for clip in clips], layout=layout, is_encoded=False, stride=2)
