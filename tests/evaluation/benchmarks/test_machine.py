"""Reports tell the commit of the code and what computed; outside of a checkout there is no commit."""

import re
import subprocess
from pathlib import Path

import pytest
import torch

from deeptalk.evaluation.benchmarks import machine


def test_the_commit_of_the_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine.git_hash.cache_clear()
    found = machine.git_hash()
    assert found is None or re.fullmatch(r"[0-9a-f]{12}\+?", found)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / "__init__.py").write_text("")  # an installed copy in a checkout of somebody's own
    for folder in (tmp_path, tmp_path / "none"):
        monkeypatch.setattr(machine, "_CODE", folder)
        machine.git_hash.cache_clear()
        assert machine.git_hash() is None
    machine.git_hash.cache_clear()


def test_what_computes_has_a_name() -> None:
    assert machine.device_name(torch.device("cpu"))
    assert machine.scorer().startswith("deeptalk ")
