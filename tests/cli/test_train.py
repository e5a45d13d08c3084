"""A stage trains, stops, goes on and is refused from the command line."""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from typer.testing import CliRunner

from deeptalk.cli import app
from deeptalk.training.interruption import Interruption
from deeptalk.training.metrics import read_metrics


def run(*arguments: object, code: int = 0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result


@pytest.fixture
def root(tmp_path: Path) -> Path:
    data = tmp_path / "data"
    data.mkdir()
    messages = [{"role": "user", "text": "what is red"}, {"role": "assistant", "text": "a colour"}]
    lines = [json.dumps({"id": str(i), "messages": messages}) + "\n" for i in range(8)]
    for name in ("text_train", "text_more", "text_eval"):
        (data / f"{name}.jsonl").write_text("".join(lines))
    reading = [json.dumps({"id": str(i), "text": "the rain is wet"}) + "\n" for i in range(8)]
    (data / "reading_train.jsonl").write_text("".join(reading))
    vocab = {
        byte: i for i, byte in enumerate(["<bos>", "<eos>", *sorted(pre_tokenizers.ByteLevel.alphabet())])
    }
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore
    tokenizer.save(str(data / "tokenizer.json"))
    return tmp_path


def test_a_stage_trains_and_is_finished(root):
    given = ("train", "pocket-text", "--tiny", "--root", root, "--json")
    line = json.loads(run(*given).stdout)
    assert (line["recipe"], line["step"], line["is_interrupted"]) == ("pocket-text", 2, False)
    assert line["rejected"] == {}
    assert Path(line["folder"]) == root / "pocket-text" / "model"
    assert (root / "pocket-text" / "model" / "recipe.json").is_file()
    assert "step" not in json.loads(run(*given, "--resume").stdout)


def test_samples_that_are_left_out_are_told(root):
    with (root / "data" / "text_train.jsonl").open("a") as file:
        file.write("{}\n")
    given = ("train", "pocket-text", "--tiny", "--root", root)
    assert json.loads(run(*given, "--json").stdout)["rejected"] == {"no id": 1}
    first, second = read_metrics(root / "pocket-text" / "run" / "metrics.jsonl")
    assert first["rejected"] == {"no id": 1}
    assert "rejected" not in second
    assert "samples left out: 1 no id" in run(*given).stdout


def test_settings_change_the_recipe(root):
    given = ("train", "pocket-text", "--tiny", "--root", root, "--json")
    assert json.loads(run(*given, "--set", "num_steps=1", "--set", "optim.lr=1e-5").stdout)["step"] == 1
    note = json.loads((root / "pocket-text" / "model" / "recipe.json").read_text())
    assert note["recipe"]["optim"]["lr"] == 1e-5
    assert "another recipe" in run(*given, "--resume", code=2).stderr


OWN = """
from dataclasses import replace
from deeptalk.recipes.pocket import POCKET_TEXT
OWN = replace(POCKET_TEXT, name="own-text")
"""


def test_a_recipe_of_ones_own_trains(root):
    (root / "own.py").write_text(OWN)
    given = ("train", "own-text", "--recipes", root / "own.py", "--tiny", "--root", root, "--json")
    line = json.loads(run(*given).stdout)
    assert (line["recipe"], line["step"]) == ("own-text", 2)
    assert Path(line["folder"]) == root / "own-text" / "model"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (OWN, "there is no recipe 'own-txt'; did you mean 'own-text'?"),
        (OWN + OWN.replace("OWN", "OTHER"), "own.py calls two recipes the same"),
        (OWN.replace("own-text", "align"), "'align' is built in; give your recipe a name of its own"),
        ("from deeptalk.recipes import PIPELINE\nFIRST = PIPELINE[0]", "own.py holds no recipe"),
        ("1 / 0", "own.py can't be run: ZeroDivisionError: division by zero"),
        (None, "there is no file"),
    ],
)
def test_slips_in_recipes_of_ones_own_are_one_line(root, text, words):
    if text is not None:
        (root / "own.py").write_text(text)
    stderr = run("train", "own-txt", "--recipes", root / "own.py", "--root", root, code=2).stderr
    assert words in stderr
    assert len(stderr.splitlines()) == 1


class Interrupted(Interruption):
    """Ctrl-C in the first step."""

    def __init__(self) -> None:
        super().__init__()
        self.requested = True


def test_an_interrupted_run_is_deleted_only_when_asked(root, monkeypatch):
    given = ("train", "pocket-text", "--tiny", "--root", root, "--json")
    monkeypatch.setattr("deeptalk.training.loop.Interruption", Interrupted)
    line = json.loads(run(*given, code=130).stdout)
    assert (line["step"], line["is_interrupted"]) == (1, True)
    monkeypatch.undo()
    stderr = run(*given, code=2).stderr
    assert "interrupted after step 1" in stderr
    assert len(stderr.splitlines()) == 1
    assert "give one of them" in run(*given, "--resume", "--anew", code=2).stderr
    assert json.loads(run(*given, "--anew").stdout)["step"] == 2


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("pocket-txt",), "did you mean 'pocket-text'?"),
        (("pocket-text", "--set", "optim.lrr=1"), "did you mean 'lr'?"),
        (("pocket-text", "--set", "optim.lr=fast"), "not a value of type float"),
        (("pocket-text", "--dense"), "only stage 2.1 trains without them"),
        (("pocket-audio-experts", "--dense"), "train the recipe 'pocket-align' first"),
        (("align",), "'whisper-medium', a public checkpoint, and"),
        (("audio-experts",), "train the recipe 'align' first"),
        (("pocket-joint",), "train the recipe 'pocket-text-experts' first"),
    ],
)
def test_slips_are_one_line(root, given, words):
    stderr = run("train", *given, "--root", root, code=2).stderr
    assert words in stderr
    assert len(stderr.splitlines()) == 1
