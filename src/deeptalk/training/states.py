"""A run's tensors by parameter, in files that any number of processes can write and read (format 2).

``states-R-N.safetensors`` holds, for the parameters that process R writes, tensors ``NAME|PART``: the weight
and what the optimiser knows of it. Buffers, the average and the generators have files of their own.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from deeptalk.errors import CheckpointError
from deeptalk.training.checkpoint import copy_into
from deeptalk.training.engine import Engine, States, trainable

_BUFFERS, _AVERAGE, _GENERATORS = "buffers.safetensors", "average.safetensors", "generators.safetensors"
_FILE_BYTES = 2**32


def write_states(path: Path, engine: Engine, *, process_index: int, num_writers: int) -> list[Path]:
    """Write every ``num_writers``-th parameter; all processes of a divided model go through all of them."""
    held: dict[str, Tensor] = {}
    files: list[Path] = []

    def flush() -> None:
        nonlocal held
        if held:
            files.append(path / f"states-{process_index:05d}-{len(files):05d}.safetensors")
            save_file(held, files[-1])
            held = {}

    for index, (name, states) in enumerate(engine.states()):
        if index % num_writers != process_index:
            continue
        held |= {f"{name}|{part}": tensor.contiguous() for part, tensor in states.items()}
        if sum(tensor.numel() * tensor.element_size() for tensor in held.values()) > _FILE_BYTES:
            flush()
    flush()
    return files


class StatesReader:
    """What `write_states` of all processes wrote, by parameter."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._files = ExitStack()
        self._places: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> Self:
        try:
            for file in sorted(self.path.glob("states-*.safetensors")):
                opened: Any = self._files.enter_context(safe_open(file, framework="pt"))
                for key in opened.keys():  # noqa: SIM118  # no mapping
                    name, _, part = key.rpartition("|")
                    self._places.setdefault(name, {})[part] = opened
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{self.path} is damaged ({error}).") from error
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def read(self, name: str) -> States:
        """All that is known of a parameter.

        Raises:
            CheckpointError: it is not there.
        """
        if name not in self._places:
            raise CheckpointError(f"{self.path} lacks {name}; it was written by another stage.")
        return {part: file.get_tensor(f"{name}|{part}") for part, file in self._places[name].items()}

    @torch.no_grad()
    def put_weights(self, model: nn.Module) -> None:
        """Give a model that isn't divided yet the weights, rounded to what it holds them in.

        Raises:
            CheckpointError: it trains other parameters.
        """
        wanted = dict(trainable(model))
        for name, parameter in wanted.items():
            weight = self.read(name)["weight"]
            if weight.shape != parameter.shape:
                shapes = f"{tuple(weight.shape)}, the model {tuple(parameter.shape)}"
                raise CheckpointError(f"{self.path}: {name} has shape {shapes}.")
            parameter.copy_(weight)
        if more := sorted(self._places.keys() - wanted.keys()):
            raise CheckpointError(f"{self.path} has {more[0]}, which doesn't train here.")


def write_rest(
    path: Path, *, model: nn.Module, average: dict[str, Tensor] | None, generators: list[dict[str, Any]]
) -> list[Path]:
    """Write what one process does beside the states."""
    tensors = {_BUFFERS: {name: t.contiguous().cpu() for name, t in _buffers(model).items()}}
    tensors |= {_AVERAGE: average} if average is not None else {}
    tensors |= {_GENERATORS: dict(_packed(generators))}
    for name, some in tensors.items():
        save_file(some, path / name)
    return [path / name for name in tensors]


def read_rest(path: Path, *, model: nn.Module, average: dict[str, Tensor] | None) -> list[dict[str, Any]]:
    """Put back what `write_rest` wrote; the generators' states are given back."""
    try:
        buffers, packed = load_file(path / _BUFFERS), load_file(path / _GENERATORS)
        averaged = {} if average is None else load_file(path / _AVERAGE)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} is damaged ({error}).") from error
    copy_into(_buffers(model), buffers, path)
    if average is not None:
        copy_into(average, averaged, path)
    return _unpacked(packed)


def _buffers(model: nn.Module) -> dict[str, Tensor]:
    stored = model.state_dict().keys()
    return {name: buffer for name, buffer in model.named_buffers() if name in stored}


def _packed(generators: list[dict[str, Any]]) -> Iterator[tuple[str, Tensor]]:
    """States of `checkpoint.generator_states` as tensors; numbers that need all bits as 64 of them."""
    for index, states in enumerate(generators):
        yield f"{index}.loop", states["loop"].cpu()
        yield f"{index}.torch", states["torch"]
        for device, state in enumerate(states["cuda"]):
            yield f"{index}.cuda.{device}", state
        _, keys, position, has_gauss, gauss = states["numpy"]
        yield f"{index}.numpy", torch.cat([keys, torch.tensor([position, has_gauss, _bits(gauss)])])
        version, internal, gauss = states["python"]
        told = [version, gauss is not None, _bits(gauss or 0.0), *internal]
        yield f"{index}.python", torch.tensor(told, dtype=torch.int64)


def _unpacked(packed: dict[str, Tensor]) -> list[dict[str, Any]]:
    generators = []
    for index in range(sum(name.endswith(".loop") for name in packed)):
        *keys, position, has_gauss, gauss = packed[f"{index}.numpy"].tolist()
        version, has_python_gauss, python_gauss, *internal = packed[f"{index}.python"].tolist()
        devices = sum(name.startswith(f"{index}.cuda.") for name in packed)
        generators.append(
            {
                "loop": packed[f"{index}.loop"],
                "torch": packed[f"{index}.torch"],
                "cuda": [packed[f"{index}.cuda.{device}"] for device in range(devices)],
                "numpy": ("MT19937", torch.tensor(keys), position, has_gauss, _number(gauss)),
                "python": (version, internal, _number(python_gauss) if has_python_gauss else None),
            }
        )
    return generators


def _bits(number: float) -> int:
    return int(np.float64(number).view(np.int64))


def _number(bits: int) -> float:
    return float(np.int64(bits).view(np.float64))
