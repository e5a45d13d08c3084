"""``deeptalk convert`` of a model on the hub, over HTTP, from a server that answers as the hub does."""

import json
import shutil
import threading
from collections.abc import Iterator
from dataclasses import asdict
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import pytest
import torch
from typer.testing import CliRunner

from deeptalk.cli import app
from deeptalk.codec import SnacCodec, SnacConfig, load_codec

NAME, COMMIT = "someone/snac_24khz", "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """One repository, whose files are those of a folder; `told` are the digests that it gives of some."""

    folder: Path
    told: dict[str, str]

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path.startswith(f"/api/models/{NAME}/tree/"):
            return self._json([self._entry(file.name) for file in self._files()])
        if path.startswith(f"/api/models/{NAME}"):
            siblings = [{"rfilename": file.name} for file in self._files()]
            return self._json({"id": NAME, "sha": COMMIT, "siblings": siblings})
        return self._file(with_content=True)

    def do_HEAD(self) -> None:
        self._file(with_content=False)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        assert self.path.startswith(f"/api/models/{NAME}/paths-info/{COMMIT}")
        self._json([self._entry("pytorch_model.bin")])

    def log_message(self, *_: object) -> None:
        pass

    def _files(self) -> list[Path]:
        return sorted(self.folder.iterdir())

    def _entry(self, name: str) -> dict:
        size = (self.folder / name).stat().st_size
        lfs = {"oid": self.told[name], "size": size, "pointerSize": 130} if name in self.told else None
        return {"type": "file", "path": name, "size": size, "oid": "0" * 40} | ({"lfs": lfs} if lfs else {})

    def _file(self, *, with_content: bool) -> None:
        path = self.folder / self.path.rpartition("/")[2]
        if not self.path.startswith(f"/{NAME}/resolve/") or not path.is_file():
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.end_headers()
            return
        content = path.read_bytes()
        self.send_response(200)
        self.send_header("ETag", f'"{sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if with_content:
            self.wfile.write(content)

    def _json(self, value: object) -> None:
        content = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SnacCodec]:
    """A tiny SNAC in the files in which SNAC is published, on a hub of this machine."""
    Hub.folder, Hub.told = tmp_path / "hub", {}
    Hub.folder.mkdir()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        codec = SnacCodec(SnacConfig.tiny())
    settings = asdict(SnacConfig.tiny())
    del settings["latent_dim"]
    (Hub.folder / "config.json").write_text(json.dumps(settings))
    (Hub.folder / "evil.py").write_text("raise SystemExit")
    torch.save(codec.model.state_dict(), Hub.folder / "pytorch_model.bin")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
    monkeypatch.setattr(
        huggingface_hub.constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        address + "/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    yield codec
    huggingface_hub.close_session()
    server.shutdown()
    thread.join()
    server.server_close()


def convert(out: Path, *more: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["convert", NAME, "--out", str(out), *more])
    assert result.exit_code == code, (result.output, result.exception)
    if code:
        assert "Traceback" not in result.stderr
        return result.stderr.splitlines()[-1]  # the lines before are the bars of the download
    return result.stdout


def digest() -> str:
    return sha256((Hub.folder / "pytorch_model.bin").read_bytes()).hexdigest()


def test_a_pickle_of_the_hub_is_opened_with_the_digest_that_the_hub_tells(
    published: SnacCodec, tmp_path: Path
) -> None:
    Hub.told = {"pytorch_model.bin": digest()}
    told = json.loads(convert(tmp_path / "codec", "--json"))
    assert (told["kind"], told["num_tensors"]) == ("codec", len(published.model.state_dict()))
    codes = torch.randint(0, 32, (1, 7, 3), generator=torch.Generator().manual_seed(0))
    assert torch.equal(load_codec(tmp_path / "codec").decode(codes), published.decode(codes))
    assert not list((tmp_path / "cache").rglob("*.py"))


def test_another_file_than_the_digest_says_is_not_opened(published: SnacCodec, tmp_path: Path) -> None:
    Hub.told = {"pytorch_model.bin": "0" * 64}
    assert f"its SHA-256 is {digest()}, not {'0' * 64}" in convert(tmp_path / "codec", code=2)
    convert(tmp_path / "codec", "--sha256", digest())  # what the user gives comes first


def test_a_digest_that_nobody_tells_has_to_be_given(published: SnacCodec, tmp_path: Path) -> None:
    assert "give --sha256 with the digest" in convert(tmp_path / "codec", code=2)
    assert not (tmp_path / "codec").exists()
    (Hub.folder / "pytorch_model.bin").unlink()
    shutil.rmtree(tmp_path / "cache")
    assert "has no safetensors, and no pytorch_model.bin either" in convert(tmp_path / "codec", code=2)


def test_offline_what_is_in_the_cache_is_opened_with_a_given_digest(
    published: SnacCodec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Hub.told = {"pytorch_model.bin": digest()}
    convert(tmp_path / "codec")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert "give --sha256" in convert(tmp_path / "again", code=2)
    convert(tmp_path / "again", "--sha256", digest())
