"""Models leave for other programs, and come from them, by a command."""

import json
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig
from typer.testing import CliRunner

from deeptalk.cli import app
from deeptalk.codec import SnacCodec, SnacConfig, load_codec


def run(*arguments: object, code: int = 0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result


def export(model: Path | str, out: Path, *more: object, code: int = 0):
    return run("export", model, "--to", "transformers", "--out", out, *more, code=code)


def test_export_tells_what_it_wrote(model_folder: Path, tmp_path: Path) -> None:
    (line,) = export(model_folder, tmp_path / "text", "--json").stdout.splitlines()
    told = json.loads(line)
    assert told == {
        "to": "transformers",
        "folder": str(tmp_path / "text"),
        "architecture": "DeepseekV2ForCausalLM",
        "dtype": "float32",
        "num_parameters": told["num_parameters"],
        "num_weight_files": 1,
        "is_embedding_fused": False,
        "is_chat_exact": told["is_chat_exact"],
    }
    assert AutoConfig.from_pretrained(tmp_path / "text").model_type == "deepseek_v2"
    assert "DeepseekV2ForCausalLM" in export(model_folder, tmp_path / "again").stdout


@pytest.mark.parametrize(
    ("model", "more", "reason"),
    [
        ("nowhere", (), "There is no model 'nowhere'"),
        (None, ("--max-shard-size", "many"), "--max-shard-size must be like 500MB or 5GB, got 'many'"),
        (None, ("--to", "torch", "--max-shard-size", "5GB"), "--max-shard-size is for --to transformers"),
        (None, ("--to", "torch"), "there is nothing to write of it"),
    ],
)
def test_what_cannot_be_exported_is_one_line(model_folder: Path, tmp_path: Path, model, more, reason) -> None:
    result = export(model or model_folder, tmp_path / "out", *more, code=2)
    (line,) = result.stderr.splitlines()
    assert reason in line
    assert not list(tmp_path.iterdir())


def digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def published(tmp_path: Path) -> tuple[SnacCodec, Path]:
    """A tiny SNAC model in the files in which SNAC is published."""
    folder = tmp_path / "published"
    folder.mkdir()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        codec = SnacCodec(SnacConfig.tiny())
    settings = asdict(SnacConfig.tiny())
    del settings["latent_dim"]
    (folder / "config.json").write_text(json.dumps(settings))
    torch.save(codec.model.state_dict(), folder / "pytorch_model.bin")
    return codec, folder


def test_a_pickled_codec_becomes_safetensors(published: tuple[SnacCodec, Path], tmp_path: Path) -> None:
    codec, folder = published
    given = digest(folder / "pytorch_model.bin").upper()
    (line,) = run(
        "convert", folder, "--out", tmp_path / "codec", "--sha256", given, "--json"
    ).stdout.splitlines()
    told = json.loads(line)
    assert list(told) == ["kind", "folder", "num_tensors", "num_parameters"]
    assert (told["kind"], told["num_tensors"]) == ("codec", len(codec.model.state_dict()))
    assert {path.name for path in (tmp_path / "codec").iterdir()} == {"config.json", "model.safetensors"}
    codes = torch.randint(0, 32, (1, 7, 3), generator=torch.Generator().manual_seed(0))
    assert torch.equal(load_codec(tmp_path / "codec").decode(codes), codec.decode(codes))


class Payload:
    """Leaves a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_a_pickle_is_opened_elsewhere_and_never_runs(
    published: tuple[SnacCodec, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, folder = published
    pickled, out = folder / "pytorch_model.bin", tmp_path / "codec"
    for module, name in (("torch", "load"), ("pickle", "load"), ("pickle", "loads")):
        monkeypatch.setattr(f"{module}.{name}", lambda *_, **__: pytest.fail("opened in this process"))

    def refused(*more: object) -> str:
        (line,) = run("convert", folder, "--out", out, *more, code=2).stderr.splitlines()
        assert not out.exists()
        return line

    assert "give --sha256" in refused()
    assert "64 hex digits, got 'abc'" in refused("--sha256", "abc")
    assert f"its SHA-256 is {digest(pickled)}, not {'0' * 64}" in refused("--sha256", "0" * 64)
    torch.save({"weight": Payload(tmp_path / "ran")}, pickled)
    assert "holds more than tensors" in refused("--sha256", digest(pickled))
    assert not (tmp_path / "ran").exists()


def test_what_is_nothing_of_these_is_told(tmp_path: Path, model_folder: Path) -> None:
    def refused(folder: Path) -> str:
        (line,) = run("convert", folder, "--out", tmp_path / "out", code=2).stderr.splitlines()
        return line

    assert "config.json is missing" in refused(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert "belongs neither to" in refused(tmp_path)
    assert "was not converted" in refused(model_folder)
