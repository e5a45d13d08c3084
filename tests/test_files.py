"""Texts are written whole or not at all, wherever the code keeps something that it reads again."""

import ast
from pathlib import Path

import pytest

import deeptalk
from deeptalk.files import write_text

WHOLE = (
    "cli/times.py",
    "data/encoded.py",
    "experts/load.py",
    "experts/partition.py",
    "training/metrics.py",
    "training/stage_dialogue.py",
)


def test_a_text_replaces_the_old_one_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "new" / "note.json"
    write_text(path, "é\n")
    assert path.read_bytes() == "é\n".encode()

    def stop(path: Path, text: str, encoding: str) -> int:
        path.write_bytes(text[:1].encode(encoding))
        raise OSError("no room")

    monkeypatch.setattr(Path, "write_text", stop)
    with pytest.raises(OSError, match="no room"):
        write_text(path, "longer")
    assert path.read_bytes() == "é\n".encode()
    assert [each.name for each in path.parent.iterdir()] == ["note.json"]


@pytest.mark.parametrize("name", WHOLE)
def test_nothing_is_written_in_place(name: str):
    source = (Path(deeptalk.__file__).parent / name).read_text()
    methods = {node.attr for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)}
    names = {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
    assert "write_text" in names
    assert "write_text" not in methods
