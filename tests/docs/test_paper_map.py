"""Every symbol that the paper map names exists."""

import re
from importlib import import_module
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "paper-map.md"
SYMBOLS = re.findall(r"`(deeptalk[\w.]*):(\w+)`", PAGE.read_text(encoding="utf-8"))


def test_the_map_names_symbols() -> None:
    assert len(SYMBOLS) >= 15


@pytest.mark.parametrize(("module", "name"), SYMBOLS)
def test_symbol_exists(module: str, name: str) -> None:
    assert getattr(import_module(module), name).__doc__
