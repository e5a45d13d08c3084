"""A random model that is heard out quickly, and an evaluation set of a dozen questions."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from small_set import GAP, ITEMS, RATE, SECONDS, pitch_of

from deeptalk.codec import SineCodec
from deeptalk.decoding import DecodingEngine, DecodingOptions, Limits, LoadedModel
from deeptalk.evaluation.questions import EvalSet
from deeptalk.model import DeepTalk, DeepTalkConfig
from deeptalk.streams.text import ByteTokenizer


@pytest.fixture(scope="session")
def questions_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every turn is a tone of its own of half a second."""
    folder, lines, parts = tmp_path_factory.mktemp("evaluation"), [], []
    for number, (category, text_only, asked, answers) in enumerate(ITEMS):
        messages = []
        for text, answer in zip(asked, answers, strict=True):
            at = len(parts) * (SECONDS + GAP)
            messages.append(
                {"role": "user", "text": text, "voice": "none", "offset": at, "duration": SECONDS}
            )
            messages.append({"role": "assistant", "text": answer})
            tone = 0.3 * np.sin(2 * np.pi * pitch_of(len(parts)) * np.arange(round(SECONDS * RATE)) / RATE)
            parts.append(np.pad(tone, (0, round(GAP * RATE))))
        entry = {"id": str(number), "category": category, "text_only": text_only, "messages": messages}
        lines.append(json.dumps(entry) + "\n")
    (folder / "questions.jsonl").write_text("".join(lines))
    soundfile.write(folder / "questions.opus", np.concatenate(parts), RATE, format="OGG", subtype="OPUS")
    return folder


@pytest.fixture(scope="session")
def questions(questions_folder: Path) -> EvalSet:
    return EvalSet(questions_folder)


@pytest.fixture(scope="session")
def loaded() -> LoadedModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = DeepTalk(DeepTalkConfig.tiny(), tokenizer=ByteTokenizer())
    return LoadedModel(engine=DecodingEngine(model), codec=SineCodec())


@pytest.fixture
def short_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers of two frames and three bytes at most, asked for one by one or in batches."""
    limits = Limits(max_frames=2, max_text_tokens=3)
    monkeypatch.setattr("deeptalk.evaluation.answers.LIMITS", limits)
    options = DecodingOptions(limits=limits)
    monkeypatch.setattr("deeptalk.decoding.conversation.DecodingOptions", lambda: options)
