"""The attention cache of a dialogue: made empty, and copied row by row so that rows can fork and retire."""

import copy
from typing import Any

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


def _copy(cache: DynamicCache, index: Tensor | None) -> DynamicCache:
    copied: Any = copy.copy(cache)
    copied.layers = [copy.copy(layer) for layer in cache.layers]
    layer: Any
    for layer in copied.layers:
        if index is not None and layer.is_initialized:
            layer.keys, layer.values = layer.keys[index], layer.values[index]
    return copied
