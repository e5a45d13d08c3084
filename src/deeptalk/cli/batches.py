"""Batches of dialogues for a model that is only looked at, not trained."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from deeptalk.data.dataset import DialogueBatches, Source, load_source
from deeptalk.data.library import AnswerLibrary, ClipLibrary, MelReader
from deeptalk.data.packs import SAID_SUFFIX
from deeptalk.data.tasks import TaskContext
from deeptalk.errors import CheckpointError
from deeptalk.model import DeepTalk
from deeptalk.streams import Batch


def open_batches(
    model: DeepTalk, sources: Sequence[Source], *, data: Path, num_positions: int, seed: int
) -> Iterator[Batch]:
    """Endless batches from the sources' manifests in a folder that `deeptalk prepare` has filled."""
    if model.tokenizer is None:
        raise CheckpointError("the model has no tokenizer; open it from its folder.")
    context = TaskContext(
        tokenizer=model.tokenizer,
        layout=model.layout,
        clips=ClipLibrary(
            [path for path in (data / "questions.jsonl", data / "reading.jsonl") if path.is_file()]
        ),
        answers=AnswerLibrary(
            path for path in sorted((data / "codes").glob("*.npy")) if not path.name.endswith(SAID_SUFFIX)
        ),
        reader=MelReader(model.mel),
        stride=model.config.adapter.stride,
        max_positions=num_positions,
        max_frames=model.config.encoder.max_positions,
    )
    loaded = [load_source(source, data, context) for source in sources]
    stream = DialogueBatches(loaded, context, batch_size=num_positions, seed=seed)
    while True:
        yield next(stream).to(model.device)
