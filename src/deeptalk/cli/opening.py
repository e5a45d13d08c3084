"""Opening a model for a verb."""

import os

import torch

from deeptalk.decoding import DecodingOptions, LoadedModel, Sampling, load
from deeptalk.errors import ConfigError
from deeptalk.model.folder import read_config
from deeptalk.model.weights import MODEL_TYPE, model_folder

SMALL = 100_000_000
"""A model of fewer parameters decodes fastest with one thread: its matrices are too small to share."""


def open_model(name: str, *, device: str = "cpu") -> LoadedModel:
    """The model of a folder, or the built-in one, on as many threads as suit its size."""
    loaded = load(name, device=device, dtype=weights_dtype(name))
    num_parameters = sum(parameter.numel() for parameter in loaded.model.parameters())
    if num_parameters < SMALL and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)
    return loaded


def weights_dtype(name: str) -> torch.dtype:
    """bf16 for a model that is stored in it, as full-size recipes leave theirs; fp32 for any other."""
    stored = read_config(model_folder(name), model_type=MODEL_TYPE).get("dtype")
    return torch.bfloat16 if stored == "bfloat16" else torch.float32


def drawing(*, temperature: float, top_k: int) -> DecodingOptions:
    """Codes drawn at a temperature, text greedy; ConfigError for what can't be drawn with."""
    options = DecodingOptions(codec=Sampling(temperature=temperature, top_k=top_k))
    if top_k and not temperature:
        raise ConfigError(f"--top-k {top_k} says from how many codes --temperature draws: give both.")
    return options
