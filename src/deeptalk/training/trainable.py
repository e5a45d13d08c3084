"""The white list of a stage: what it names trains, everything else is frozen."""

from collections import Counter
from fnmatch import fnmatchcase

from torch import nn

from deeptalk.errors import ConfigError


def freeze_all_but(model: nn.Module, patterns: tuple[str, ...]) -> tuple[str, ...]:
    """Let exactly the parameters that `patterns` name train, and return their names.

    A pattern is a shell pattern over whole parameter names; `!pattern` takes names away again.

    Raises:
        ConfigError: a pattern matches no parameter, or nothing is left to train.
    """
    names = [name for name, _ in model.named_parameters()]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern.removeprefix("!")) for name in names):
            raise ConfigError(
                f"the pattern {pattern!r} matches no parameter; the model has:\n{describe_names(names)}"
            )
    chosen = {name for name in names if is_named(name, patterns)}
    if not chosen:
        raise ConfigError(f"the patterns {patterns} leave nothing to train; name at least one parameter.")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in chosen)
    return tuple(name for name in names if name in chosen)


def is_named(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether the last shell pattern that matches a parameter's name is one without `!`."""
    found = [pattern for pattern in patterns if fnmatchcase(name, pattern.removeprefix("!"))]
    return bool(found) and not found[-1].startswith("!")


def describe_names(names: list[str]) -> str:
    """Parameter names with numbers replaced by `*`, one kind per line with its count."""
    kinds = Counter(".".join("*" if part.isdigit() else part for part in name.split(".")) for name in names)
    return "\n".join(f"  {kind}  ({count})" if count > 1 else f"  {kind}" for kind, count in kinds.items())
