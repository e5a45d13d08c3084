"""The attention cache of a dialogue: made empty, and copied row by row so that rows can fork and retire."""

import copy

from transformers import DynamicCache, PreTrainedModel

from deeptalk.shapes import Int, Tensor


def new_cache(model: PreTrainedModel) -> DynamicCache:
    """An empty cache for one stock model."""
    return DynamicCache(config=model.config)


def copy_rows(cache: DynamicCache, index: Int[Tensor, "R"]) -> DynamicCache:
    """A cache of the rows named by ``index``, repeats allowed; the given cache stays as it is."""
    return _copy(cache, index)


def snapshot(cache: DynamicCache) -> DynamicCache:
    """The cache as it stands, at no cost: steps that extend the original don't reach it."""
    return _copy(cache, None)


def _copy(cache: DynamicCache, index: Tensor | None) -> DynamicCache:
    copied = copy.copy(cache)
    copied.layers = [copy.copy(layer) for layer in cache.layers]
    for layer in copied.layers:
        if index is not None and layer.is_initialized:
            layer.keys, layer.values = layer.keys[index], layer.values[index]
    return copied
