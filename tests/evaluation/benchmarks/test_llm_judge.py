"""A judge whose server answers well, badly, late or not at all: bounded tries, then wrong."""

import io
import json
import threading
from collections.abc import Mapping
from email.message import Message
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.error import HTTPError, URLError

import pytest

from deeptalk.errors import ConfigError, DataError
from deeptalk.evaluation.benchmarks.llm_judge import PROMPT, JudgeSettings, LlmJudge, Verdict, post

URL = "http://127.0.0.1:9/v1"


class Server:
    """A transport that gives its replies in turn, the last one again and again."""

    def __init__(self, *replies: str | bytes | Exception) -> None:
        self.replies, self.asked, self.headers, self.urls = list(replies), [], [], []

    def __call__(self, url: str, body: bytes, *, headers: Mapping[str, str], timeout_seconds: float) -> bytes:
        assert timeout_seconds == 60.0
        self.urls.append(url)
        self.asked.append(json.loads(body))
        self.headers.append(dict(headers))
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if isinstance(reply, Exception):
            raise reply
        return reply if isinstance(reply, bytes) else spoken(reply)


def spoken(text: object) -> bytes:
    return json.dumps({"choices": [{"message": {"content": text}}]}).encode()


def status(code: int) -> HTTPError:
    return HTTPError(URL, code, "no", Message(), io.BytesIO())


def judge(server: Server, **given: object) -> LlmJudge:
    return LlmJudge(JudgeSettings(url=URL, model="judge-1"), transport=server, **given)  # pyright: ignore


@pytest.mark.parametrize(
    ("reply", "is_right", "reason"),
    [
        ("yes", True, "judged"),
        (" Yes.\n", True, "judged"),
        ("**no**", False, "judged"),
        ("yes, but no", False, "unreadable"),
        ("The answer is right: yes", False, "unreadable"),
        ("", False, "unreadable"),
    ],
)
def test_only_one_word_is_a_verdict(reply: str, is_right: bool, reason: str) -> None:
    server = Server(reply)
    assert judge(server).judge("q", "a", ["r"]) == Verdict(is_right=is_right, reason=reason)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "failure",
    [
        *(TimeoutError(), URLError("refused"), ConnectionResetError(), status(500), status(429), status(408)),
        *(b"<html>", b"{}", b"[]", b'{"choices": []}', spoken(None), spoken({"a": 1}), b"\xff"),
    ],
)
def test_what_is_no_reply_is_asked_again_three_times_in_all(failure: Exception | bytes) -> None:
    waits: list[float] = []
    server = Server(failure)
    assert judge(server, wait=waits.append).judge("q", "a", ["r"]) == Verdict(
        is_right=False, reason="no reply"
    )
    assert (len(server.asked), waits) == (3, [1.0, 2.0])
    recovered = Server(failure, "yes")
    assert judge(recovered).judge("q", "a", ["r"]).is_right
    assert len(recovered.asked) == 2


@pytest.mark.parametrize("answer", [None, "", " \n"])
def test_no_answer_is_wrong_without_being_asked_about(answer: str | None) -> None:
    server = Server("yes")
    assert judge(server).judge("q", answer, ["r"]) == Verdict(is_right=False, reason="no answer")
    assert not server.asked


@pytest.mark.parametrize("code", [302, 400, 401, 404])
def test_a_refusal_of_all_requests_ends_the_run(code: int) -> None:
    server = Server(status(code))
    with pytest.raises(ConfigError, match=f"status {code}.*'judge-1'"):
        judge(server).judge("q", "a", ["r"])
    assert len(server.asked) == 1


def test_what_is_sent() -> None:
    server = Server("no")
    settings = JudgeSettings(url=URL + "/", model="m", key="secret")
    LlmJudge(settings, transport=server).judge("Who {answer}?", "{references} yes", ["Zoë", "two"])
    (content,) = server.asked
    assert server.urls == [URL + "/chat/completions"]
    assert server.headers[0]["Authorization"] == "Bearer secret"
    assert (content["model"], content["temperature"]) == ("m", 0)
    (message,) = content["messages"]
    assert message["role"] == "user"
    assert "Question: Who {answer}?\n" in message["content"]
    assert 'enough: ["Zoë", "two"]\n' in message["content"]
    assert "Given answer: {references} yes\n" in message["content"]


def test_replies_are_kept_by_content(tmp_path: Path) -> None:
    replies = tmp_path / "replies.jsonl"
    server = Server("yes", "perhaps", "no")
    first = judge(server, replies=replies)
    found = [first.judge(question, "a", ["r"]) for question in ("one", "two", "three", "one")]
    assert len(server.asked) == 3
    silent = Server(TimeoutError())
    second = judge(silent, replies=replies)
    assert [second.judge(question, "a", ["r"]) for question in ("one", "two", "three", "one")] == found
    assert not silent.asked
    assert second.judge("one", "another", ["r"]).reason == "no reply"
    other = LlmJudge(JudgeSettings(url=URL, model="judge-2"), transport=silent, replies=replies)
    assert other.judge("one", "a", ["r"]).reason == "no reply"
    lines = replies.read_text().splitlines()
    assert len(lines) == 3
    replies.write_text("\n".join(lines)[:-9])  # killed while it wrote
    third = judge(Server("no"), replies=replies)
    assert [third.judge(question, "a", ["r"]) for question in ("one", "two", "three")] == found[:3]
    assert judge(silent, replies=replies).judge("three", "a", ["r"]) == found[2]
    replies.write_text("nonsense\n")
    with pytest.raises(DataError, match="no file of a judge's replies"):
        judge(silent, replies=replies)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"url": "file:///etc/passwd"}, "must begin with http:// or https://"),
        ({"prompt": "{question} {answer}"}, r"lacks \{references\}"),
        ({"num_tries": 0}, "num_tries >= 1"),
        ({"timeout_seconds": 0.0}, "timeout_seconds > 0"),
    ],
)
def test_settings_are_checked(given: dict[str, object], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        JudgeSettings(**{"url": URL, "model": "m", **given})  # pyright: ignore


def test_a_prompt_is_told_by_its_hash() -> None:
    hashes = {JudgeSettings(url=URL, model="m", prompt=PROMPT + end).prompt_hash for end in ("", " ", "")}
    assert len(hashes) == 2


def test_a_server_on_this_machine() -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            is_known = self.headers["Authorization"] == "Bearer k" and self.path == "/v1/chat/completions"
            self.send_response(302 if self.path.startswith("/moved/") else 200 if is_known else 401)
            self.send_header("Location", url + "/chat/completions")
            self.end_headers()
            self.wfile.write(spoken("yes" if "Paris" in body["messages"][0]["content"] else "no"))

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/v1"
        asked = LlmJudge(JudgeSettings(url=url, model="m", key="k"), transport=post)
        assert asked.judge("capital?", "Paris", ["P"]).is_right
        assert not asked.judge("capital?", "Rome", ["P"]).is_right
        with pytest.raises(ConfigError, match="status 401"):
            LlmJudge(JudgeSettings(url=url, model="m"), transport=post).judge("q", "a", ["r"])
        moved = JudgeSettings(url=url.replace("/v1", "/moved"), model="m", key="k")
        with pytest.raises(ConfigError, match="status 302"):
            LlmJudge(moved, transport=post).judge("q", "a", ["r"])
    finally:
        server.shutdown()
        server.server_close()
