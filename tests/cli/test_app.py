"""The command line answers at once, and a slip of the pen is told in one line."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

import deeptalk
from deeptalk.cli import app
from deeptalk.cli import talk as talk_room
from deeptalk.errors import ConfigError

runner = CliRunner()

VERBS = [
    *("talk", "transcribe", "say", "serve", "client", "profile", "partition", "pairs", "export", "convert"),
    *("train", "prepare", "synthesise", "encode", "shar", "assemble", "eval", "bench", "doctor", "reproduce"),
]


def test_help_lists_every_verb():
    result = runner.invoke(app, ["--help"])
    assert result.exit_code == 0
    assert all(f" {verb} " in result.output for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb):
    result = runner.invoke(app, [verb, "--help"])
    assert result.exit_code == 0
    assert f"deeptalk {verb}" in result.output


def test_help_imports_nothing_heavy():
    code = (
        "import sys\n"
        "from deeptalk.cli import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'numpy', 'transformers', 'accelerate', 'soundfile'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_unknown_verb_suggests_the_nearest():
    result = runner.invoke(app, ["tlak"])
    assert result.exit_code == 2
    assert "'talk'" in result.output


def test_unknown_option_suggests_the_nearest():
    result = runner.invoke(app, ["talk", "--converstion"])
    assert result.exit_code == 2
    assert "--conversation" in result.output


def test_version_is_the_installed_one():
    result = runner.invoke(app, ["--version"])
    assert result.exit_code == 0
    assert result.output.strip()[0].isdigit()


def test_nothing_to_do_is_a_mistake():
    assert runner.invoke(app, ["talk"]).exit_code == 2
    assert runner.invoke(app, ["transcribe"]).exit_code == 2
    assert runner.invoke(app, ["say", " ", "--out", "a.wav"]).exit_code == 2


def test_a_mistake_is_one_line_and_a_bug_keeps_its_traceback(monkeypatch):
    def raises(error):
        def next_dialogue(self):
            raise error

        monkeypatch.setattr(talk_room.Dialogues, "next", next_dialogue)
        return runner.invoke(app, ["talk", "--text", "hello"])

    mistake = raises(ConfigError("No voice is called 'bob'."))
    assert (mistake.exit_code, mistake.stderr, mistake.stdout) == (2, "No voice is called 'bob'.\n", "")
    assert isinstance(raises(RuntimeError("a bug")).exception, RuntimeError)


def test_the_package_names_what_it_offers():
    assert set(deeptalk.__all__) <= set(dir(deeptalk))
    with pytest.raises(AttributeError, match="nonsense"):
        deeptalk.nonsense  # noqa: B018
