from pathlib import Path

import numpy as np
import pytest
from data_samples import ANSWERS, QUESTIONS, SPEAKERS, dialogue

from deeptalk.audio import MelSpec
from deeptalk.data.dataset import DialogueBatches, Source, load_source
from deeptalk.data.library import AnswerLibrary, ClipLibrary, MelReader
from deeptalk.data.manifest import write_manifest
from deeptalk.data.packs import AudioPackWriter, write_code_pack
from deeptalk.data.tasks import TaskContext
from deeptalk.streams import StreamLayout
from deeptalk.streams.text import ByteTokenizer


@pytest.fixture
def data_folder(tmp_path: Path) -> Path:
    """A data folder in small: questions by two voices each, answers with codes, dialogues."""
    generator = np.random.default_rng(0)
    clips = []
    with AudioPackWriter(tmp_path / "questions.wav") as pack:
        for i, text in enumerate(QUESTIONS * 2):
            samples = (3_000 * generator.standard_normal(1_600 * (3 + i))).astype(np.int16)
            offset, duration = pack.append(samples)
            clip = {"id": f"question-{i}", "audio": "questions.wav", "offset": offset, "duration": duration}
            clips.append(clip | {"text": text, "voice": f"voice-{i % 2}"})
    write_manifest(tmp_path / "questions.jsonl", clips, kind="recording")
    said = [(text, name) for text in ANSWERS for name in SPEAKERS]
    codes = [generator.integers(0, 32, (3 + i, 7)) for i in range(len(said))]
    spans = write_code_pack(tmp_path / "codes" / "answers.npy", codes)
    answers = [
        {"id": f"answer-{i}", "audio": "a.wav", "text": text, "speaker": name, "order": "breadth"}
        | {"first_frame": span.offset, "num_frames": span.length}
        for i, ((text, name), span) in enumerate(zip(said, spans, strict=True))
    ]
    write_manifest(tmp_path / "codes" / "answers.jsonl", answers, kind="recording")
    pairs = list(zip(QUESTIONS, ANSWERS, strict=True))
    dialogues = [dialogue(f"d{i}", pairs[i]) for i in range(4)] + [dialogue("long", pairs[0], pairs[1])]
    write_manifest(tmp_path / "speech_train.jsonl", dialogues, kind="dialogue")
    return tmp_path


@pytest.fixture
def context(data_folder: Path) -> TaskContext:
    return TaskContext(
        tokenizer=ByteTokenizer(),
        layout=StreamLayout.tiny(),
        clips=ClipLibrary([data_folder / "questions.jsonl"]),
        answers=AnswerLibrary([data_folder / "codes" / "answers.npy"]),
        reader=MelReader(MelSpec.tiny()),
        stride=4,
        max_positions=200,
    )


@pytest.fixture
def batches(data_folder: Path, context: TaskContext):
    """Makes one and the same stream, as often as it is called."""

    def make(**changes: int) -> DialogueBatches:
        tasks = ("speech_to_speech", "speech_to_text", "text_to_speech")
        sources = [load_source(Source(manifest="speech_train", task=t), data_folder, context) for t in tasks]
        settings = {"batch_size": 600, "seed": 3, "round_size": 24} | changes
        return DialogueBatches(sources, context, **settings)

    return make
