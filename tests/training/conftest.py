from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from deeptalk.codec import SineCodec, save_codec
from deeptalk.data.manifest import write_lines, write_manifest
from deeptalk.data.packs import AudioPackWriter
from deeptalk.data.vocabulary import train_tokenizer, words_of, write_lexicon
from deeptalk.training.recipe import Recipe
from deeptalk.training.run import run_stage
from deeptalk.training.stage_dialogue import HEARD, SPOKEN

QUESTIONS = ("what is one", "and two", "who are you", "name a color")
ANSWERS = ("It is one.", "It is two.", "A voice.", "Red.")
TEXTS = (*QUESTIONS, *ANSWERS)


def _record(folder: Path, part: str, texts: tuple[str, ...], speakers: tuple[str, ...]) -> None:
    generator = np.random.default_rng(len(part))
    records = []
    with AudioPackWriter(folder / f"{part}.wav") as pack:
        for i, (text, speaker) in enumerate((t, s) for t in texts for s in speakers):
            seconds = 0.8 + 0.1 * (i % 3)
            pitch = 2 * np.pi * 200 * (1 + i) * np.arange(round(16_000 * seconds)) / 16_000
            samples = 6_000 * np.sin(pitch) + 500 * generator.standard_normal(len(pitch))
            offset, duration = pack.append(samples.astype(np.int16))
            record = {"id": f"{part}-{i}", "audio": f"{part}.wav", "offset": offset, "duration": duration}
            phones = [["pau", 0.1], *([p, 0.1 + 0.2 * (k + 1)] for k, p in enumerate(("s", "aa", "t")))]
            records.append(record | {"text": text, "speaker": speaker, "phones": phones})
    write_manifest(folder / f"{part}.jsonl", records, kind="recording")


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All that the pocket recipes ask for, with four questions and four answers."""
    folder = tmp_path_factory.mktemp("data")
    for part in HEARD:
        _record(folder, part, QUESTIONS, ("a", "b"))
    for part in SPOKEN:
        _record(folder, part, ANSWERS, ("slt", "rms"))
    dialogues = [
        {"id": f"d{i}", "messages": [{"role": "user", "text": q}, {"role": "assistant", "text": a}]}
        for i, (q, a) in enumerate(zip(QUESTIONS, ANSWERS, strict=True))
    ]
    write_manifest(folder / "speech_train.jsonl", dialogues, kind="dialogue")
    for name in ("text_train", "text_more", "text_eval"):
        write_manifest(folder / f"{name}.jsonl", dialogues, kind="text")
    write_lines(folder / "reading_train.jsonl", [{"id": f"r{i}", "text": t} for i, t in enumerate(TEXTS)])
    train_tokenizer(TEXTS, vocab_size=300).save(str(folder / "tokenizer.json"))
    words = {word.lower() for text in TEXTS for word in words_of(text)}
    write_lexicon(folder / "lexicon.json", {word: tuple(word) for word in words})
    write_lines(folder / "names.json", [{"names": []}])
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of results in which a codec of sines stands for a trained one."""
    save_codec(SineCodec(num_codebooks=7, codebook_size=512), tmp_path / "pocket-codec-phones" / "model")
    return tmp_path


@pytest.fixture
def complete(root: Path, data: Path) -> Callable[[Recipe], Path]:
    """Runs a recipe to its end and gives the folder of its result."""

    def run(recipe: Recipe) -> Path:
        torch.manual_seed(0)
        reports = list(run_stage(recipe, root=root, data=data))
        assert all(np.isfinite(report.loss) for report in reports)
        return root / recipe.name / "model"

    return run
