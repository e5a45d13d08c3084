"""Scorers of sounds that other people made: whose voice it is, and how it sounds to listeners."""

from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from deeptalk.errors import ConfigError
from deeptalk.evaluation.recognisers import SAMPLE_RATE
from deeptalk.files import digest_of
from deeptalk.shapes import Float, Tensor

Measure = Callable[[Float[Tensor, "S"]], Mapping[str, float]]
"""From a sound at 16 kHz to figures of it."""

Embed = Callable[[Float[Tensor, "S"]], Float[Tensor, "D"]]
"""From a sound at 16 kHz to a vector that tells its speaker."""


def dnsmos() -> tuple[Measure, str]:
    """Microsoft's DNSMOS P.835 (1 to 5, no reference needed), and its version.

    Raises:
        ConfigError: speechmos is not installed.
    """
    try:
        from speechmos import dnsmos as model  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ConfigError(
            f"DNSMOS needs speechmos ({error.name} is missing): pip install 'deeptalk[quality]'."
        ) from error
    names = {"sig_mos": "dnsmos/signal", "bak_mos": "dnsmos/background", "ovrl_mos": "dnsmos/overall"}

    def measure(sound: Float[Tensor, "S"]) -> dict[str, float]:
        found: Any = model.run(sound.clamp(-1, 1).numpy(), SAMPLE_RATE, return_df=False)
        return {ours: float(found[theirs]) for theirs, ours in names.items()}

    return measure, f"speechmos {version('speechmos')}"


def wavlm(folder: Path) -> tuple[Embed, str]:
    """A speaker-verification model (WavLM with x-vectors) from a local folder, and the hash of its weights.

    Raises:
        ConfigError: the folder holds none that `transformers` can open.
    """
    from transformers import AutoFeatureExtractor, WavLMForXVector

    weights = sorted(folder.glob("*.safetensors"))
    if not (folder / "config.json").is_file() or not weights:
        raise ConfigError(f"{folder}: no speaker model; give a folder with the files of wavlm-base-plus-sv.")
    try:
        extractor: Any = AutoFeatureExtractor.from_pretrained(folder, local_files_only=True)
        model: Any = WavLMForXVector.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    except Exception as error:  # the library's errors are of many kinds and many lines
        raise ConfigError(
            f"{folder}: the speaker model can't be opened ({' '.join(str(error).split())[:200]})."
        ) from error
    model.eval()

    def embed(sound: Float[Tensor, "S"]) -> Float[Tensor, "D"]:
        values = extractor(sound.numpy(), sampling_rate=SAMPLE_RATE, return_tensors="pt").input_values
        with torch.inference_mode():
            return model(values).embeddings[0]

    return embed, f"wavlm {digest_of(weights[0])}"
