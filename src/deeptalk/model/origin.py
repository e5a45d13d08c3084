"""Which text backbone a model was made of, as its folder tells."""

from pathlib import Path

from deeptalk.backbone.stock import stock_hash
from deeptalk.errors import CheckpointError
from deeptalk.model.folder import CONFIG, PROVENANCE, read_json

BACKBONE_HASH = "backbone_hash"
"""Where a model's folder tells it: in its provenance, or of a lossless model in its config."""

_OURS = "deeptalk"


def origin_of(folder: Path) -> str | None:
    """The hash of the text backbone that a model was made of, or of the text backbone that lies here itself.

    None where the folder does not tell, and of parts that have no backbone.
    """
    notes = []
    for name in (PROVENANCE, CONFIG):
        try:
            notes.append(read_json(folder / name))
        except CheckpointError:
            notes.append({})
    for note in notes:
        if isinstance(note.get(BACKBONE_HASH), str):
            return note[BACKBONE_HASH]
    kind = str(notes[1].get("model_type") or _OURS)
    has_weights = any(folder.glob("*.safetensors"))
    return stock_hash(folder) if has_weights and not kind.startswith(_OURS) else None
