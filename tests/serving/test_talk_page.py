"""The talk page without a browser: what is served, what it refers to, and which events it sends."""

import asyncio
import re
from html.parser import HTMLParser

import pytest
from realtime_client import Client
from starlette.testclient import TestClient

from deeptalk.decoding import LoadedModel
from deeptalk.serving import events
from deeptalk.serving.app import create_app
from deeptalk.serving.limits import ServerLimits
from deeptalk.serving.model_thread import ModelThread
from deeptalk.serving.security import Security
from deeptalk.serving.service import Service
from deeptalk.serving.talk_page import FILES, FOLDER, PATHS

SCRIPTS = {path.name: path.read_text(encoding="utf-8") for path in FILES.values() if path.suffix == ".js"}
CODE = "\n".join(SCRIPTS.values())
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


class Page(HTMLParser):
    """The elements of an HTML page, and the text inside scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inline = ""
        self._is_code = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._is_code = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._is_code = False

    def handle_data(self, data: str) -> None:
        self.inline += data if self._is_code else ""

    def all(self, name: str) -> list[str]:
        """The values of an attribute."""
        return [attributes[name] or "" for _, attributes in self.elements if name in attributes]


INDEX = Page((FOLDER / "index.html").read_text(encoding="utf-8"))


def client_of(loaded: LoadedModel, *, has_page: bool = True) -> TestClient:
    service = Service(ModelThread(loaded, limits=ServerLimits()), model="tiny")
    return TestClient(
        create_app(service, Security(key="a-key-of-tests"), has_page=has_page),
        base_url="http://127.0.0.1:8000",
    )


def test_every_file_is_served_without_a_key(loaded: LoadedModel):
    client = client_of(loaded)
    assert {path.name for path in FILES.values()} == {path.name for path in FOLDER.iterdir()}
    for url, path in FILES.items():
        answer = client.get(url)
        assert (answer.status_code, answer.content) == (200, path.read_bytes())
        assert answer.headers["content-type"] == TYPES[path.suffix]
        assert answer.headers["x-content-type-options"] == "nosniff"
        policy = dict(
            part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";")
        )
        assert policy["default-src"] == "'self'"
        assert policy["frame-ancestors"] == "'none'"
        assert not {"script-src", "style-src", "connect-src"} & set(policy)
        assert "microphone=(self)" in answer.headers["permissions-policy"]
        head = client.head(url)
        assert (head.status_code, head.content) == (200, b"")
        assert client.post(url).status_code == 405
    assert client.get("/static/about.json").json() == {"model": "tiny", "voices": list(loaded.voices)}


def test_nothing_else_is_served(loaded: LoadedModel):
    paths = (
        "/static/",
        "/static/index.html",
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static//main.js",
    )
    client = client_of(loaded)
    key = {"authorization": "Bearer a-key-of-tests"}
    for path in (*paths, "/static/main.js%00", "/index.html", "/static/..%5capp.py"):
        assert client.get(path).status_code == 401, path
        assert client.get(path, headers=key, follow_redirects=False).status_code == 404, path


def test_the_page_can_be_left_out(loaded: LoadedModel):
    client = client_of(loaded, has_page=False)
    key = {"authorization": "Bearer a-key-of-tests"}
    assert [client.get(path, headers=key).status_code for path in PATHS] == [404] * len(PATHS)


def test_the_page_has_no_code_inside_and_asks_for_its_own_files_only():
    assert INDEX.inline.strip() == ""
    names = {name for _, attributes in INDEX.elements for name in attributes}
    assert not {name for name in names if name.startswith("on") or name in ("style", "action", "srcdoc")}
    asked = INDEX.all("src") + INDEX.all("href")
    assert "static/main.js" in asked
    assert {"/" + url for url in asked} <= set(PATHS)
    ids = INDEX.all("id")
    assert len(set(ids)) == len(ids)
    pointed = [*INDEX.all("aria-describedby"), *INDEX.all("aria-labelledby")]
    assert set(re.findall(r'\$\("([\w-]+)"\)', CODE)) | set(pointed) <= set(ids)


def test_scripts_and_styles_ask_for_the_server_only():
    imports = re.findall(r'from "([^"]+)"', CODE) + re.findall(r'new URL\("([\w./-]+\.js)"', CODE)
    assert {f"/static/{name.removeprefix('./')}" for name in imports} <= set(PATHS)
    assert imports.count("./pcm.js") > 1
    everything = CODE + "".join(path.read_text(encoding="utf-8") for path in FILES.values())
    hosts = set(re.findall(r"(?:https?|wss?):?//[^\s\"'`<>]*", everything))
    assert hosts <= {"http://www.w3.org/2000/svg", "http://127.0.0.1"}
    style = (FOLDER / "style.css").read_text(encoding="utf-8")
    assert not re.search(r"url\(|@import|//", style)
    assert not re.search(r"\beval\(|new Function|innerHTML|insertAdjacentHTML|document\.write|import\(", CODE)
    asked = set(re.findall(r'new URL\("([\w./]+)", (?:this\.#base|base|document\.baseURI)\)', CODE))
    assert asked == {"v1/realtime", "v1/models", "ready", "static/about.json"}


def event_names(pattern: str) -> set[str]:
    return set(re.findall(pattern, CODE))


SENT, HANDLED = event_names(r'\.send\("([\w.]+)"'), event_names(r'\.on\("([\w.]+)"')


def test_every_event_of_the_page_has_a_name_that_the_server_knows():
    assert len(SENT) >= 7
    assert len(HANDLED) >= 12
    assert HANDLED <= events.SERVER_EVENTS
    beginnings = r'"((?:session|conversation|input_audio_buffer|output_audio_buffer|response)\.[\w.]+)"'
    assert event_names(beginnings) | {"error"} == SENT | HANDLED


def test_the_server_takes_every_event_that_the_page_sends(thread: ModelThread):
    async def unknown(name: str) -> bool:
        async with Client(thread) as client:
            await client.send(name)
            return any(event["error"]["code"] == "unknown_event" for event in client.of(events.ERROR))

    assert asyncio.run(unknown("input_audio_buffer.never"))
    for name in SENT:
        assert not asyncio.run(unknown(name)), name


@pytest.mark.parametrize("name", ["capture", "playback"])
def test_worklets_are_registered_under_the_name_that_is_asked_for(name: str):
    assert f'registerProcessor("{name}"' in SCRIPTS[f"{name}-worklet.js"]
    assert len(re.findall(rf'AudioWorkletNode\(context, "{name}"', CODE)) == 1


def test_the_page_reads_well_to_a_screen_reader():
    roles = {attributes.get("role") for _, attributes in INDEX.elements}
    assert {"log", "alert", "status", "meter"} <= roles
    assert [attributes["lang"] for tag, attributes in INDEX.elements if tag == "html"] == ["en"]
    tags = [tag for tag, _ in INDEX.elements]
    assert tags.count("h1") == tags.count("main") == 1
    for tag, attributes in INDEX.elements:
        assert tag != "button" or attributes["type"] == "button"
        assert "tabindex" not in attributes or attributes["tabindex"] == "0"


def test_the_folder_is_small():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 100_000
    assert all(path.is_file() and not path.is_symlink() for path in FOLDER.iterdir())
