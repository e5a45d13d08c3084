"""A model and its codec, opened together."""

from dataclasses import dataclass
from pathlib import Path

import torch

from deeptalk.codec import Codec, load_codec
from deeptalk.decoding.conversation import Conversation
from deeptalk.decoding.engine import DecodingEngine
from deeptalk.decoding.state import DecodingOptions
from deeptalk.errors import CheckpointError
from deeptalk.model import DeepTalk
from deeptalk.model import load as load_model
from deeptalk.model.weights import model_folder


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LoadedModel:
    """A model that can speak: ``conversation`` begins a dialogue with it."""

    engine: DecodingEngine
    codec: Codec

    @property
    def model(self) -> DeepTalk:
        """The model itself."""
        return self.engine.model

    @property
    def voices(self) -> tuple[str, ...]:
        """The speakers it can answer as, the default first."""
        return tuple(self.engine.layout.speakers)

    def conversation(
        self, *, voice: str | None = None, seed: int = 0, options: DecodingOptions | None = None
    ) -> Conversation:
        """A new dialogue; sampled replies depend on ``seed`` alone."""
        return Conversation(self.engine, self.codec, voice=voice, seed=seed, options=options)


def load(
    name_or_path: str | Path = "pocket",
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> LoadedModel:
    """Open a packaged model by name or any model by its folder, with the codec in its subfolder ``codec``.

    Raises ``CheckpointError`` for a folder that is incomplete, damaged, unsafe or of another format.
    """
    model = load_model(name_or_path, device=device, dtype=dtype)
    codec = load_codec(model_folder(name_or_path) / "codec")
    layout = model.layout
    if (codec.num_codebooks, codec.codebook_size) != (layout.num_codebooks, layout.codebook_size):
        raise CheckpointError(
            f"{name_or_path}: the codec has {codec.num_codebooks} codebooks of {codec.codebook_size} codes, "
            f"the model speaks {layout.num_codebooks} of {layout.codebook_size}."
        )
    return LoadedModel(engine=DecodingEngine(model), codec=codec)
