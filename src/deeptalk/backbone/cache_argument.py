"""What ``transformers`` calls the cache that a module extends: the word has changed in 5.24."""

import inspect
from functools import cache

from torch import nn


@cache
def cache_argument(module: type[nn.Module]) -> str:
    """The name of the argument: ``cache``, or ``past_key_values`` before 5.24."""
    return "cache" if "cache" in inspect.signature(module.forward).parameters else "past_key_values"
