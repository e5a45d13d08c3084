"""The attention cache of a dialogue: made empty, and copied row by row so that rows can fork and retire."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from transformers import DynamicCache

from deeptalk.backbone.backbone import Backbone
from deeptalk.shapes import Int, Tensor


def new_cache(backbone: Backbone) -> DynamicCache:
    """An empty cache for this backbone."""
    return DynamicCache(config=backbone.model.config)


def copy_rows(cache: DynamicCache, index: Int[Tensor, "R"]) -> DynamicCache:
    """A cache of the rows named by ``index``, repeats allowed; the given cache stays as it is."""
    return _copy(cache, index)


def snapshot(cache: DynamicCache) -> DynamicCache:
    """The cache as it stands, at no cost: steps that extend the original don't reach it."""
    return _copy(cache, None)


def cropped(cache: DynamicCache, num_positions: int) -> DynamicCache:
    """The first positions of a cache; the given cache stays as it is."""
    copied = _copy(cache, None)
    for layer in _filled_layers(copied):
        layer.keys, layer.values = layer.keys[..., :num_positions, :], layer.values[..., :num_positions, :]
    return copied


def joined(caches: Sequence[DynamicCache]) -> DynamicCache:
    """The rows of several filled caches below each other, shorter ones padded on the left."""
    length = max(cache.get_seq_length() for cache in caches)
    whole = _copy(caches[0], None)
    every_layer = [_filled_layers(cache) for cache in caches]
    for number, layer in enumerate(_filled_layers(whole)):
        layers = [layers[number] for layers in every_layer]
        layer.keys = torch.cat([_padded(each.keys, length) for each in layers])
        layer.values = torch.cat([_padded(each.values, length) for each in layers])
    return whole


def part(cache: DynamicCache, start: int, end: int, num_positions: int) -> DynamicCache:
    """Rows ``start`` to ``end`` without their padding: the last positions alone, as views."""
    copied = _copy(cache, None)
    for layer in _filled_layers(copied):
        layer.keys = layer.keys[start:end, ..., -num_positions:, :]
        layer.values = layer.values[start:end, ..., -num_positions:, :]
    return copied


def _padded(states: Tensor, length: int) -> Tensor:
    return F.pad(states, (0, 0, length - states.shape[-2], 0))


def _filled_layers(cache: DynamicCache) -> list[Any]:
    """The layers that hold something; each must keep every position (no sliding window)."""
    every: list[Any] = list(cache.layers)
    layers = [layer for layer in every if layer.is_initialized]
    assert all(layer.keys.shape[-2] == layer.get_seq_length() for layer in layers)
    return layers


def _copy(cache: DynamicCache, index: Tensor | None) -> DynamicCache:
    copied: Any = copy.copy(cache)
    copied.layers = [copy.copy(layer) for layer in cache.layers]
    layer: Any
    for layer in copied.layers:
        if index is not None and layer.is_initialized:
            layer.keys, layer.values = layer.keys[index], layer.values[index]
    return copied
