"""A clip of silence for batches without speech, so that every process of a divided model uses its ear."""

from dataclasses import replace

import torch

from deeptalk.model.deeptalk import DeepTalk
from deeptalk.streams.batch import Batch

_NUM_FRAMES = 32


def with_silence(batch: Batch, model: DeepTalk, *, is_encoded: bool) -> Batch:
    """The batch, with a clip that no position reads if it has none; its loss stays what it was.

    ``is_encoded`` says that clips come as the encoder's output.
    """
    if batch.mel is not None or batch.encoded is not None:
        return batch
    width = model.config.encoder.d_model if is_encoded else model.mel.num_mels
    shape = (1, _NUM_FRAMES, width) if is_encoded else (1, width, _NUM_FRAMES)
    clip, device = torch.zeros(shape, device=batch.grid.device), batch.grid.device
    lengths = torch.tensor([_NUM_FRAMES], dtype=torch.long, device=device)
    part = {"encoded": clip} if is_encoded else {"mel": clip}
    return replace(batch, speech_lengths=lengths, **part)
