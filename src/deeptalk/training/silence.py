"""Every process of a divided model uses all its parts, whatever its own batch needs.

Else gradients of different parameters would meet. Banks of experts are both used wherever tokens may choose
between them, and a batch without speech hears a clip of silence.
"""

from dataclasses import replace

import torch

from deeptalk.backbone.banks import use_both_banks
from deeptalk.model.deeptalk import DeepTalk
from deeptalk.streams.batch import Batch
from deeptalk.training.objective import Task
from deeptalk.training.recipe import Recipe
from deeptalk.training.supervised import Supervised

_NUM_FRAMES = 32


def use_all_parts(task: Task, recipe: Recipe) -> None:
    """Let a task's forward pass use the same parameters whatever its batch."""
    model = task.model
    if recipe.routing is None or recipe.routing.is_free:
        use_both_banks(model)
    if isinstance(model, DeepTalk) and isinstance(recipe.objective, Supervised):
        is_encoded = bool(recipe.encoded_passes)
        task.complete = lambda batch: with_silence(batch, model, is_encoded=is_encoded)


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
