"""`--set optim.lr=1e-5`: the one way to change a recipe from outside, typed and dotted."""

import dataclasses
import json
import types
import typing
from difflib import get_close_matches
from typing import Any, TypeVar

from deeptalk.errors import ConfigError

Value = TypeVar("Value")


def override(recipe: Value, *settings: str) -> Value:
    """The recipe with each `key.key=value` applied in turn.

    Raises:
        ConfigError: a key is unknown (the nearest one is named), or the value has the wrong type.
    """
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise ConfigError(f"{setting!r} is not of the form key=value, for example optim.lr=1e-5.")
        recipe = _replace(recipe, key.strip().split("."), text.strip(), key.strip())
    return recipe


def _replace(value: Any, path: list[str], text: str, key: str) -> Any:
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        raise ConfigError(f"{key}: {type(value).__name__} has no settings inside it.")
    names = [field.name for field in dataclasses.fields(value)]
    name, *rest = path
    if name not in names:
        near = get_close_matches(name, names, n=1, cutoff=0.0)
        raise ConfigError(f"{key}: {type(value).__name__} has no {name!r}; did you mean {near[0]!r}?")
    if rest:
        new = _replace(getattr(value, name), rest, text, key)
    else:
        new = _parse(text, typing.get_type_hints(type(value))[name], key)
    return dataclasses.replace(value, **{name: new})


def _parse(text: str, kind: Any, key: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if text in ("none", "None") and type(None) in arguments:
            return None
        plain = [argument for argument in arguments if argument is not type(None)]
        return _parse(text, plain[0], key) if len(plain) == 1 else _refuse(text, kind, key)
    if origin is typing.Literal:
        return text if text in arguments else _refuse(text, kind, key)
    if origin is tuple:
        return _parse_tuple(text, arguments, kind, key)
    if kind is bool:
        return {"true": True, "false": False}[text] if text in ("true", "false") else _refuse(text, kind, key)
    if kind in (int, float, str):
        try:
            return kind(text)
        except ValueError:
            return _refuse(text, kind, key)
    return _refuse(text, kind, key)


def _parse_tuple(text: str, arguments: tuple[Any, ...], kind: Any, key: str) -> tuple[Any, ...]:
    try:
        items = json.loads(text) if text.startswith("[") else [part for part in text.split(",") if part]
    except json.JSONDecodeError:
        return _refuse(text, kind, key)
    kinds = arguments[:1] * len(items) if arguments[-1] is Ellipsis else arguments
    if len(kinds) != len(items):
        return _refuse(text, kind, key)
    return tuple(_parse(str(item), item_kind, key) for item, item_kind in zip(items, kinds, strict=True))


def _refuse(text: str, kind: Any, key: str) -> Any:
    wanted = getattr(kind, "__name__", None) if typing.get_origin(kind) is None else str(kind)
    raise ConfigError(f"{key}: {text!r} is not a value of type {wanted or kind}.")
