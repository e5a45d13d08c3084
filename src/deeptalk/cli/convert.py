"""``deeptalk convert``: published checkpoints as folders of ours, and back."""

from pathlib import Path
from typing import Annotated, Any

import typer

from deeptalk.cli.arguments import Json


def convert(
    source: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A checkpoint: a folder, or an id of the hub.", show_default=False
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="A new folder for the result.", show_default=False)
    ],
    audio_experts: Annotated[
        Path | None,
        typer.Option(
            "--audio-experts",
            metavar="F.json",
            help="A list of its audio experts for each layer, where the checkpoint has been divided.",
            show_default=False,
        ),
    ] = None,
    sha256: Annotated[
        str | None,
        typer.Option(
            "--sha256",
            metavar="HEX",
            help="Digest of a pickle, from whoever published it; of the hub's files the hub tells it. "
            "Without one no pickle is opened.",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Convert a published checkpoint, whatever of these it is.

    The authors' released model becomes a model; a model that was one becomes the authors' layout again; a
    SNAC codec becomes safetensors, its pickle being opened in a process of its own.
    """
    from deeptalk.backbone.checkpoint import find_checkpoint
    from deeptalk.cli.output import print_counts, print_json
    from deeptalk.errors import ConfigError
    from deeptalk.model.folder import CONFIG, read_json
    from deeptalk.model.fresh import check_free
    from deeptalk.model.released import is_released
    from deeptalk.model.weights import MODEL_TYPE

    check_free(out)
    folder = Path(source) if Path(source).exists() else find_checkpoint(source)
    settings = read_json(folder / CONFIG)
    if is_released(settings):
        told = _from_released(folder, out, audio_experts)
    elif settings.get("model_type") == MODEL_TYPE:
        told = _to_released(folder, out)
    elif "vq_strides" in settings:
        hub_id = None if Path(source).exists() else source
        told = _snac(folder, out, sha256=sha256, hub_id=hub_id)
    else:
        raise ConfigError(
            f"{folder / CONFIG} belongs neither to the authors' released model, nor to a model of ours that "
            "was one, nor to a SNAC codec; only these are converted."
        )
    if json:
        print_json(told)
    else:
        print_counts(told.pop("folder"), told, is_json=False)


def _from_released(source: Path, out: Path, audio_experts: Path | None) -> dict[str, Any]:
    from dataclasses import asdict

    from deeptalk.model.released import from_released

    return {"kind": "model", **asdict(from_released(source, out, audio_experts=audio_experts))}


def _to_released(source: Path, out: Path) -> dict[str, Any]:
    from dataclasses import asdict

    from deeptalk.model.released import to_released

    return {"kind": "released", **asdict(to_released(source, out))}


def _snac(source: Path, out: Path, *, sha256: str | None, hub_id: str | None) -> dict[str, Any]:
    """A published SNAC folder as one of ours."""
    from tempfile import TemporaryDirectory

    from deeptalk.cli.unpickle import PICKLE, published_pickle, unpickle
    from deeptalk.codec import load_codec, save_codec
    from deeptalk.codec.snac import SnacCodec
    from deeptalk.errors import CheckpointError
    from deeptalk.model.fresh import fresh_folder

    with TemporaryDirectory() as scratch:
        plain, pickle = Path(scratch), source / PICKLE
        (plain / "config.json").write_bytes((source / "config.json").read_bytes())
        if (source / "model.safetensors").is_file():
            (plain / "model.safetensors").symlink_to((source / "model.safetensors").resolve())
        else:
            if hub_id is not None:
                pickle, told = published_pickle(hub_id, revision=source.name)
                sha256 = sha256 or told
            if not pickle.is_file():
                raise CheckpointError(f"{source} holds neither model.safetensors nor {PICKLE}.")
            if sha256 is None:
                raise CheckpointError(
                    f"{pickle} is a pickle, which can run code when opened: give --sha256 with the digest "
                    "that its publisher gives for it."
                )
            unpickle(pickle, plain / "model.safetensors", sha256=sha256)
        codec = load_codec(plain)
    assert isinstance(codec, SnacCodec)
    with fresh_folder(out) as folder:
        save_codec(codec, folder)
    tensors = codec.model.state_dict().values()
    sizes = {"num_tensors": len(tensors), "num_parameters": sum(tensor.numel() for tensor in tensors)}
    return {"kind": "codec", "folder": str(out), **sizes}
