"""Weights in safetensors and modules that have none yet: each tensor is read by itself, in the dtype wanted.

A module made in `hollow` takes no memory for its parameters. `fill` then gives them the stored numbers one by
one, so that beside the model itself there is never more than one tensor.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from deeptalk.backbone.backbone import Backbone, config_from_dict, model_options
from deeptalk.backbone.few_tokens import FEW_TOKENS
from deeptalk.errors import CheckpointError
from deeptalk.shapes import Tensor


class StoredTensors:
    """The tensors of safetensors files by name; none stays in memory, and no file stays open."""

    def __init__(self, files: Iterable[Path]) -> None:
        self._files: dict[str, Path] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        for path in files:
            try:
                with safe_open(path, framework="pt") as file:
                    for name in file.keys():  # noqa: SIM118
                        self._files[name] = path
                        self._shapes[name] = tuple(file.get_slice(name).get_shape())
            except (SafetensorError, OSError) as error:
                raise CheckpointError(f"{path} is damaged or no safetensors file ({error}).") from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def check(self, name: str, shape: tuple[int, ...]) -> None:
        """Refuse files that lack a tensor, or have it in another shape.

        Raises:
            CheckpointError: they do.
        """
        if name not in self._files:
            raise CheckpointError(
                f"the checkpoint has no tensor {name}; experts must be stacked in one tensor for each layer."
            )
        if self._shapes[name] != shape:
            raise CheckpointError(
                f"the checkpoint's {name} is {list(self._shapes[name])} instead of {list(shape)}: another "
                "backbone's."
            )

    def read(
        self, name: str, *, dtype: torch.dtype | None = None, rows: Iterable[int] | None = None
    ) -> Tensor:
        """A copy of a tensor, or of some of its rows, as ``dtype`` or as it is stored.

        Raises:
            CheckpointError: it holds numbers that are not finite floats.
        """
        path = self._files[name]
        with safe_open(path, framework="pt") as file:
            if rows is None:
                tensor = file.get_tensor(name)
            else:
                part = file.get_slice(name)
                tensor = torch.cat([part[row : row + 1] for row in rows])
            if not tensor.is_floating_point() or not bool(tensor.isfinite().all()):
                raise CheckpointError(f"{path}: {name} holds numbers that are not finite floats.")
            # a copy in any case: what the library gives is a view of the file
            return tensor.to(dtype=dtype or tensor.dtype, copy=rows is None)


def hollow() -> AbstractContextManager[None]:
    """Parameters of modules made in it have no numbers (they are on the meta device); buffers have theirs."""
    return init_empty_weights(include_buffers=False)


def fill(module: nn.Module, names: Mapping[str, str], stored: StoredTensors, *, dtype: torch.dtype) -> None:
    """Give the tensors of a module, by their names in it, the numbers of the stored ones.

    Parameters become new objects of ``dtype``; buffers keep theirs.
    """
    buffers = dict(module.named_buffers())
    for own, name in names.items():
        put(module, own, stored.read(name, dtype=None if own in buffers else dtype))


def put(module: nn.Module, name: str, tensor: Tensor) -> None:
    """Make a tensor the parameter of this name, which keeps whether it trains; a buffer takes its numbers."""
    owner, _, leaf = name.rpartition(".")
    part: Any = module.get_submodule(owner)
    old = getattr(part, leaf)
    if isinstance(old, nn.Parameter):
        setattr(part, leaf, nn.Parameter(tensor, requires_grad=old.requires_grad))
    else:
        old.copy_(tensor)


def open_stacked(
    settings: Mapping[str, Any],
    files: Iterable[Path],
    *,
    prefix: str = "",
    dtype: torch.dtype = torch.float32,
    attention: str | None = None,
    experts: str = FEW_TOKENS,
) -> Backbone:
    """Open a backbone that stands among other tensors, as `deeptalk.model.weights.save` writes it.

    ``settings`` is its config, ``files`` are safetensors under stock names behind ``prefix``, the experts of
    a layer stacked in one tensor. Beside the backbone in ``dtype`` one tensor is in memory.

    Raises:
        ConfigError: the family isn't supported.
        CheckpointError: a tensor is missing, of another shape, or holds numbers that are not finite.
    """
    config = config_from_dict(dict(settings))
    options = model_options(config, dtype=torch.float32, attention=attention, experts=experts)
    with hollow():
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, **options)
    stored, tied = StoredTensors(files), model.all_tied_weights_keys
    own = {name: tuple(t.shape) for name, t in model.state_dict().items() if name not in tied}
    for name, shape in own.items():
        stored.check(prefix + name, shape)
    fill(model, {name: prefix + name for name in own}, stored, dtype=dtype)
    model.tie_weights()
    return Backbone(model)
