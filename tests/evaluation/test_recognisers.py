"""Who listens for a reward: the model itself, the unigram judge, Whisper from a folder."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
    WhisperTokenizerFast,
)

from deeptalk.audio import audible_parts
from deeptalk.decoding import LoadedModel
from deeptalk.errors import ConfigError
from deeptalk.evaluation.judge import SpeechJudge
from deeptalk.evaluation.pocket import Judges
from deeptalk.evaluation.recognisers import JudgeRecogniser, ModelRecogniser, WhisperRecogniser
from deeptalk.model.identity import model_hash

CORPUS = ["the capital of france is paris", "the capital of spain is madrid"]


def noise(seconds: float, rate: int = 24_000) -> torch.Tensor:
    return 0.1 * torch.randn(round(seconds * rate), generator=torch.Generator().manual_seed(0))


def test_the_model_hears_what_is_long_enough(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("deeptalk.evaluation.recognisers._MOST_TOKENS", 4)
    ears = ModelRecogniser(loaded)
    assert ears.hash == model_hash(loaded.model)
    short, long = noise(0.09), noise(0.5)
    first, empty, again = ears.transcribe([long, short, long], sample_rate=24_000)
    assert empty == ""
    assert first == again
    assert ears.transcribe([], sample_rate=24_000) == []


def test_a_model_of_sentences_hears_one_after_the_other(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("deeptalk.evaluation.recognisers._MOST_TOKENS", 4)
    sounds, ears = [noise(1.2, 16_000), noise(0.5, 16_000)], ModelRecogniser(loaded)
    (whole, short) = ears.transcribe(sounds, sample_rate=16_000)
    monkeypatch.setattr(loaded.model, "config", replace(loaded.model.config, sentence_seconds=0.5))
    parts = audible_parts(sounds[0], longest_seconds=0.5)
    expected = " ".join(filter(None, ears.transcribe(parts, sample_rate=16_000)))
    assert ears.transcribe(sounds, sample_rate=16_000) == [expected, short]
    assert expected != whole


def test_the_judge_is_the_one_without_word_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    bigram, unigram = (SpeechJudge(CORPUS, lexicon={}, order=order) for order in (2, 1))
    assert bigram.hash != unigram.hash
    assert unigram.hash == SpeechJudge(CORPUS, lexicon={}, order=1).hash
    monkeypatch.setattr(
        "deeptalk.evaluation.recognisers.open_judges", lambda folder: Judges(bigram=bigram, unigram=unigram)
    )
    judge = JudgeRecogniser(tmp_path)
    assert judge.hash == unigram.hash
    assert judge.transcribe([torch.zeros(100)], sample_rate=24_000) == [""]


def test_a_recogniser_that_is_not_installed_is_one_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "pocketsphinx", None)
    with pytest.raises(ConfigError, match="pip install") as caught:
        SpeechJudge(CORPUS, lexicon={}, order=1)
    assert "\n" not in str(caught.value)


def test_a_folder_without_whisper_is_one_line(tmp_path: Path):
    with pytest.raises(ConfigError, match="no Whisper model"):
        WhisperRecogniser(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "whisper"}))
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ConfigError, match="can't be opened") as caught:
        WhisperRecogniser(tmp_path)
    assert "\n" not in str(caught.value)


def test_whisper_opens_from_a_folder(tmp_path: Path):
    words = ["<|endoftext|>", "<|startoftranscript|>", "<|notimestamps|>"]
    vocab = {
        word: number for number, word in enumerate([*words, *sorted(pre_tokenizers.ByteLevel.alphabet())])
    }
    tokenizer = WhisperTokenizerFast(
        tokenizer_object=Tokenizer(models.BPE(vocab=vocab, merges=[])),
        eos_token=words[0],
        bos_token=words[0],
        unk_token=words[0],
        pad_token=words[0],
    )
    features = WhisperFeatureExtractor(feature_size=8, chunk_length=1)
    WhisperProcessor(feature_extractor=features, tokenizer=tokenizer).save_pretrained(tmp_path)
    ids = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0, "decoder_start_token_id": 1}
    config = WhisperConfig(
        vocab_size=len(vocab),
        num_mel_bins=8,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        max_source_positions=50,
        max_target_positions=12,
        suppress_tokens=None,
        begin_suppress_tokens=None,
        **ids,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        WhisperForConditionalGeneration(config).save_pretrained(tmp_path)
    whisper = WhisperRecogniser(tmp_path)
    assert len(whisper.hash) == 16
    heard = whisper.transcribe([noise(0.4), noise(0.8)], sample_rate=24_000)
    assert len(heard) == 2
    assert all(isinstance(text, str) for text in heard)
    assert whisper.transcribe([], sample_rate=24_000) == []
