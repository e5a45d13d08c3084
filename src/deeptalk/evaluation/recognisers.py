"""Who writes down what was said, where that is a reward: the model itself, the unigram judge, or Whisper.

The judge with its bigram is none of them: it scores the result, so nothing may be tuned to it.
"""

from collections.abc import Sequence
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any, Protocol

import torch

from deeptalk.audio import audible_parts, resample
from deeptalk.decoding import LoadedModel
from deeptalk.decoding.answer import Limits
from deeptalk.errors import ConfigError
from deeptalk.evaluation.answers import Respondent
from deeptalk.evaluation.pocket import open_judges
from deeptalk.model.identity import model_hash
from deeptalk.shapes import Float, Tensor

SAMPLE_RATE = 16_000
"""What every recogniser hears."""

_SHORTEST = SAMPLE_RATE // 10
_MOST_TOKENS = 160


class Recogniser(Protocol):
    """Turns sounds into words; `name` and `hash` tell which recogniser it was, for the record."""

    @property
    def name(self) -> str:
        """What kind it is."""
        ...

    @property
    def hash(self) -> str:
        """Hex digits that change with what it would hear."""
        ...

    def transcribe(self, sounds: Sequence[Float[Tensor, "S"]], *, sample_rate: int) -> list[str]:
        """The words of each sound; an empty text where none are heard."""
        ...


class ModelRecogniser:
    """A model of ours listens, for instance the one that has spoken."""

    name = "model"

    def __init__(self, loaded: LoadedModel) -> None:
        self.hash = model_hash(loaded.model)
        self._respondent = Respondent(loaded.engine, limits=Limits(max_text_tokens=_MOST_TOKENS))

    def transcribe(self, sounds: Sequence[Float[Tensor, "S"]], *, sample_rate: int) -> list[str]:
        """The words of each sound; one shorter than a tenth of a second has none."""
        clips = [resample(sound, source_rate=sample_rate, target_rate=SAMPLE_RATE) for sound in sounds]
        long_enough = [(i, clip) for i, clip in enumerate(clips) if len(clip) >= _SHORTEST]
        parts = [(i, part) for i, clip in long_enough for part in self._parts(clip)]
        asked = [self._respondent.spoken(part) for _, part in parts]
        texts: list[list[str]] = [[] for _ in clips]
        for (i, _), answer in zip(parts, self._respondent.answer(asked, mode="asr"), strict=True):
            texts[i].append(answer.text)
        return [" ".join(filter(None, said)) for said in texts]

    def _parts(self, clip: Float[Tensor, "S"]) -> list[Float[Tensor, "_"]]:
        """As much at a time as the model has learnt to hear."""
        config = self._respondent.engine.model.config
        return audible_parts(clip, longest_seconds=config.longest_part_seconds(len(clip) / SAMPLE_RATE))


class JudgeRecogniser:
    """The judge that knows how often the words of the domain's answers occur, and not their order."""

    name = "judge-unigram"

    def __init__(self, folder: Path) -> None:
        """`folder` has `judge_lexicon.json`."""
        judge = open_judges(folder).unigram
        assert judge is not None, "only whoever wants the bigram alone goes without"
        self._judge = judge
        self.hash = self._judge.hash

    def transcribe(self, sounds: Sequence[Float[Tensor, "S"]], *, sample_rate: int) -> list[str]:
        """The words of each sound."""
        return [self._judge.transcribe(sound, sample_rate=sample_rate) for sound in sounds]


class WhisperRecogniser:
    """Whisper from a local folder in Hugging Face layout; nothing is downloaded.

    It finds the language of each sound by itself unless it is told one, as ``en`` or ``zh``.
    """

    name = "whisper"

    def __init__(
        self, folder: Path, *, language: str | None = None, device: torch.device | str = "cpu"
    ) -> None:
        """`ConfigError` where the folder holds no Whisper that `transformers` can open."""
        from transformers import WhisperForConditionalGeneration, WhisperProcessor

        weights = sorted(folder.glob("*.safetensors"))
        if not (folder / "config.json").is_file() or not weights:
            raise ConfigError(
                f"{folder}: no Whisper model; give a folder with the files of openai/whisper-large-v3 "
                "or another Whisper, as safetensors."
            )
        try:
            processor: Any = WhisperProcessor.from_pretrained(folder, local_files_only=True)
            model: Any = WhisperForConditionalGeneration.from_pretrained(
                folder, local_files_only=True, use_safetensors=True
            )
        except Exception as error:  # the library's errors are of many kinds and many lines
            reason = " ".join(str(error).split())[:200]
            raise ConfigError(f"{folder}: Whisper can't be opened ({reason}).") from error
        self._processor, self._model = processor, model.eval().to(device)
        self._told = {} if language is None else {"language": language, "task": "transcribe"}
        weights_hash = _hash_of(folder / "config.json", *weights)
        self.hash = weights_hash if language is None else f"{weights_hash}-{language}"

    @torch.inference_mode()
    def transcribe(self, sounds: Sequence[Float[Tensor, "S"]], *, sample_rate: int) -> list[str]:
        """The words of each sound, at most 30 s of it."""
        if not sounds:
            return []
        clips = [resample(s, source_rate=sample_rate, target_rate=SAMPLE_RATE).cpu().numpy() for s in sounds]
        features = self._processor(clips, sampling_rate=SAMPLE_RATE, return_tensors="pt").input_features
        try:
            ids = self._model.generate(features.to(self._model.device, self._model.dtype), **self._told)
        except ValueError as error:  # a language that it does not know, or a Whisper of English alone
            raise ConfigError(f"Whisper can't be told its language: {str(error).splitlines()[0]}") from error
        return [text.strip() for text in self._processor.batch_decode(ids, skip_special_tokens=True)]


def _hash_of(*paths: Path) -> str:
    digest = sha256()
    for path in paths:
        with path.open("rb") as file:
            digest.update(file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]
