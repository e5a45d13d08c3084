"""What README.md tells a reader to do in Python works as it stands there."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)
QUESTION = ROOT / "examples" / "questions" / "2-hey-whats-five-plus-thirty-four.wav"


@pytest.mark.weights
def test_the_python_block_answers_a_question(tmp_path, monkeypatch, capsys):
    (block,) = BLOCKS
    shutil.copy(QUESTION, tmp_path / "question.wav")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(block, "README.md", "exec"), names)
    reply, printed = names["conversation"].last_reply, capsys.readouterr().out
    assert reply.text
    assert reply.num_frames > 0
    assert printed.startswith(reply.text)
    assert float(printed.removeprefix(reply.text)) == reply.time_to_first_audio_ms > 0
