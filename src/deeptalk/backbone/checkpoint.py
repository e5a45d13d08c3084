"""Find a checkpoint, in a folder or on the hub, and refuse what can't be used before any tensor is read."""

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from re import fullmatch, search
from typing import Any

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

from deeptalk.errors import CheckpointError

CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer.json"
INDEX = WEIGHTS + ".index.json"
UNPACKED = ("mxfp4", "fp8")
"""Quantised formats that are unpacked when they are opened: GPT-OSS and DeepSeek-V3 are published in them."""

# some models come twice on the hub; the copy isn't called model*.safetensors
_TEXTS, _TENSORS = ("*.json", "*.jinja", "*.txt", "*.model"), "model*.safetensors"
_PICKLES = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt")
_FLOATS = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredTensor:
    """What a safetensors header says of a tensor; ``dtype`` in its words, such as BF16."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def num_bytes(self) -> int:
        """What the tensor takes in its file; dtypes without a number of bits take a byte."""
        bits = search(r"\d+", self.dtype)
        return prod(self.shape) * (int(bits[0]) if bits else 8) // 8


def find_checkpoint(source: str | Path, *, weights: bool = True) -> Path:
    """The folder of a checkpoint: a local one, or one of the hub by its id ``ORGANISATION/NAME``.

    What the hub's cache lacks is downloaded, safetensors only where ``weights``; no pickle and no code ever
    is. The switches of huggingface_hub hold (HF_HUB_OFFLINE, HF_HOME, HF_TOKEN).

    Raises:
        CheckpointError: there is no such folder or model, it isn't open to everyone, or the hub can't be
            reached and the cache lacks it.
    """
    if Path(source).is_dir():
        return Path(source)
    if not is_hub_id(source):
        raise CheckpointError(
            f"{str(source)!r} is no folder with a {CONFIG} and no id of the hub (ORGANISATION/NAME)."
        )
    patterns = [*_TEXTS, _TENSORS] if weights else [*_TEXTS]
    try:
        return Path(snapshot_download(str(source), allow_patterns=patterns))
    except GatedRepoError as error:
        raise CheckpointError(
            f"{source!r} is gated: accept its terms on the hub and log in (hf auth login), or give a folder."
        ) from error
    except LocalEntryNotFoundError as error:
        why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "the hub can't be reached"
        raise CheckpointError(
            f"There is no folder {source!r}, {why}, and the cache {constants.HF_HUB_CACHE} lacks files of "
            "it; download it where the hub can be reached, or give a folder."
        ) from error
    except HfHubHTTPError as error:
        raise CheckpointError(
            f"There is no folder {source!r}, and the hub gives no model of this name "
            f"({type(error).__name__}; a private one needs hf auth login)."
        ) from error
    except Exception as error:  # the network's libraries raise families of their own
        raise CheckpointError(f"{source!r} can't be downloaded ({_line(error)}).") from error


def is_hub_id(source: str | Path) -> bool:
    """Whether a name that is no folder can be that of a model on the hub."""
    return isinstance(source, str) and fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", source) is not None


def read_settings(folder: Path) -> dict[str, Any]:
    """The config.json of a folder.

    What it says of code of its own (auto_map) is left out: stock classes are opened, and nothing else runs.
    """
    settings = _read_json(folder / CONFIG)
    settings.pop("auto_map", None)
    return settings


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The safetensors of a folder, one or the shards that its index names, all of them there.

    Raises:
        CheckpointError: there are none, shards are missing, or the weights are pickles.
    """
    if not (folder / INDEX).exists():
        if (folder / WEIGHTS).exists():
            return (folder / WEIGHTS,)
        pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
        if pickles:
            raise CheckpointError(
                f"{folder} has its weights as pickles ({pickles[0]}), which can run code when opened; "
                "give safetensors, which most models on the hub have, too."
            )
        raise CheckpointError(f"{folder} holds no {WEIGHTS}, neither whole nor in shards with an index.")
    names, missing = shard_names(folder), missing_shards(folder)
    if missing:
        raise CheckpointError(
            f"{folder} lacks {len(missing)} of its {len(names)} shards ({_some(missing)}); "
            "download them again."
        )
    return tuple(folder / name for name in names)


def missing_shards(folder: Path) -> tuple[str, ...]:
    """The files of weights that a folder's index names, or one for all, and that aren't there."""
    return tuple(name for name in shard_names(folder) if not (folder / name).exists())


def shard_names(folder: Path) -> list[str]:
    """The files of weights that a folder's index names, or the one for all where it has no index.

    Raises:
        CheckpointError: the index is damaged, or names files outside the folder.
    """
    if not (folder / INDEX).exists():
        return [WEIGHTS]
    names = _read_json(folder / INDEX).get("weight_map")
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise CheckpointError(f"{folder / INDEX} has no weight_map of file names.")
    if any(Path(name).name != name for name in names.values()):
        raise CheckpointError(f"{folder / INDEX} names files outside its folder.")
    return sorted(set(names.values()))


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Every tensor of a folder by name, from the headers alone.

    Raises:
        CheckpointError: as `weight_files`, or a file is damaged.
    """
    found: dict[str, StoredTensor] = {}
    for path in weight_files(folder):
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118
                    part = file.get_slice(name)
                    found[name] = StoredTensor(shape=tuple(part.get_shape()), dtype=part.get_dtype())
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"{path} can't be opened: damaged, cut short or no safetensors file ({_line(error)})."
            ) from error
    return found


def check_dtype(folder: Path, settings: Mapping[str, Any], stored: Mapping[str, StoredTensor]) -> None:
    """Refuse weights in a format that can neither be trained nor unpacked.

    Raises:
        CheckpointError: numbers that are no floats of 16 to 64 bits, but for the formats `UNPACKED`.
    """
    method = (settings.get("quantization_config") or {}).get("quant_method")
    other = sorted(name for name, tensor in stored.items() if tensor.dtype not in _FLOATS)
    if method in UNPACKED or (method is None and not other):
        return
    what = f"quantised ({method})" if method else f"as {stored[other[0]].dtype}, {other[0]} among them"
    raise CheckpointError(
        f"{folder} stores its weights {what}, which can't be trained; give a copy in bf16, fp16 or fp32."
    )


def check_room(folder: Path, num_bytes: int) -> None:
    """Refuse weights that main memory can't hold, once for each process that was launched here.

    Raises:
        CheckpointError: they take more than there is.
    """
    import psutil  # comes with accelerate

    number = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    there = psutil.virtual_memory().total
    if number * num_bytes > there:
        each = f", {num_bytes / 2**30:,.1f} for each of {number} processes" if number > 1 else ""
        raise CheckpointError(
            f"{folder} takes {number * num_bytes / 2**30:,.1f} GiB of main memory{each}; this machine has "
            f"{there / 2**30:,.1f}."
        )


def check_tokenizer(folder: Path, config: PreTrainedConfig) -> int:
    """How many ids the tokenizer of a folder knows.

    Raises:
        CheckpointError: it is missing or damaged, knows more ids than the text table has rows, or lacks the
            token that ends a text, or the one that begins it where ``config`` names one.
    """
    path = folder / TOKENIZER
    if not path.is_file():
        raise CheckpointError(
            f"{folder} holds no {TOKENIZER}; save it with AutoTokenizer(…).save_pretrained, which writes one."
        )
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare exceptions
        raise CheckpointError(
            f"{path} is not a tokenizer of the tokenizers library ({_line(error)})."
        ) from error
    size, rows = tokenizer.get_vocab_size(), config.vocab_size
    if size > rows:
        raise CheckpointError(f"{path} has {size:,} ids, the model's text table {rows:,} rows.")
    for key, use in (("eos_token_id", "ends"), ("bos_token_id", "begins")):
        token = first_id(getattr(config, key, None))
        is_known = tokenizer.id_to_token(token) is not None if token is not None else use == "begins"
        if not is_known:
            raise CheckpointError(
                f"{path} lacks the token that {use} a text: {key} is {token} in {CONFIG}; "
                "name one that the tokenizer knows."
            )
    return size


def first_id(given: int | list[int] | None) -> int | None:
    """The one id, or the first of several, that a config gives for a token."""
    return (given[0] if given else None) if isinstance(given, list) else given


def map_tensors(model: PreTrainedModel, names: Iterable[str]) -> dict[str, str | None]:
    """The tensor of the model that each stored one is read into, by the library's rules; None for none."""
    transforms = get_model_conversion_mapping(model)
    renamings = [one for one in transforms if isinstance(one, WeightRenaming)]
    converters = [one for one in transforms if isinstance(one, WeightConverter)]
    own = model.state_dict()
    mapped = {name: rename_source_key(name, renamings, converters)[0] for name in names}
    return {name: target if target in own else None for name, target in mapped.items()}


def check_tensors(
    folder: Path, model: PreTrainedModel, stored: Mapping[str, StoredTensor], *, is_exact: bool = True
) -> None:
    """Refuse a checkpoint whose tensors don't fill every tensor of the model, or more than that.

    Raises:
        CheckpointError: tensors are missing, of another size, or, where ``is_exact``, have no place in the
            model.
    """
    ignored = model._keys_to_ignore_on_load_unexpected or ()
    sizes: dict[str, int] = defaultdict(int)
    foreign = []
    for name, target in map_tensors(model, stored).items():
        if target is not None:
            sizes[target] += prod(stored[name].shape)
        elif not name.endswith("rotary_emb.inv_freq") and not any(search(key, name) for key in ignored):
            foreign.append(name)
    tied = set(model.all_tied_weights_keys)
    expected = {name: tensor.numel() for name, tensor in model.state_dict().items()}
    missing = [name for name in expected if name not in sizes and name not in tied]
    unequal = [name for name, size in sizes.items() if size != expected[name]]
    faults = {"missing": missing, "of another size": unequal, "without a place": foreign if is_exact else []}
    refuse_tensors(folder, faults)


def refuse_tensors(path: Path, faults: Mapping[str, Sequence[str]]) -> None:
    """Raise ``CheckpointError`` where any tensors have a fault; the first few are named."""
    told = [f"{len(names)} {what} ({_some(names)})" for what, names in faults.items() if names]
    if told:
        raise CheckpointError(f"{path} doesn't fit its {CONFIG}: tensors {'; '.join(told)}.")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path.parent} holds no readable {path.name} ({_line(error)}).") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} must hold a JSON object, got a {type(values).__name__}.")
    return values


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
