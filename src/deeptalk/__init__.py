"""DeepTalk: a mixture-of-experts language model that hears and speaks inside one backbone.

``deeptalk.load("pocket").conversation()`` listens and replies. The rooms behind the names below are imported
when a name is first used, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from deeptalk.errors import DeepTalkError

if TYPE_CHECKING:
    from deeptalk.decoding import Conversation, load
    from deeptalk.model import DeepTalk
    from deeptalk.recipes import PIPELINE
    from deeptalk.training.recipe import Recipe

__all__ = ["PIPELINE", "Conversation", "DeepTalk", "DeepTalkError", "Recipe", "load"]

_ROOMS = {
    "Conversation": "deeptalk.decoding",
    "DeepTalk": "deeptalk.model",
    "PIPELINE": "deeptalk.recipes",
    "Recipe": "deeptalk.training.recipe",
    "load": "deeptalk.decoding",
}


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module 'deeptalk' has no attribute {name!r}")
    return getattr(import_module(_ROOMS[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
