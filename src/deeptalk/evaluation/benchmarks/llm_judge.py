"""A language model that says whether an answer is right, behind any URL that speaks OpenAI's chat protocol.

Its scores drift with its version: they stand in a table of their own, with the model's name and the prompt's
hash. An answer that it can't judge counts as wrong, and is counted.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from http.client import HTTPException
from pathlib import Path
from typing import Any, Protocol
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from deeptalk.errors import ConfigError, DataError
from deeptalk.evaluation.benchmarks.records import append_line, read_appended

PROMPT = """A question was asked and answered. Is the given answer right?

Question: {question}
Right answers, each of which is enough: {references}
Given answer: {answer}

The given answer is right if it says what one of the right answers says, in whatever words; it may say more as
long as nothing contradicts it. Reply with one word: "yes" if it is right, "no" if not.
"""
"""What the judge reads, unless it is given another text with the same three fields."""

_FIELDS = ("{question}", "{references}", "{answer}")
_FIELD = re.compile(r"\{(question|references|answer)\}")
_LONGEST_REPLY = 1 << 20
_VERDICTS = {"yes": True, "no": False}


class Transport(Protocol):
    """Posts a body and returns the reply's body; raises OSError (a time-out is one) where there is none."""

    def __call__(self, url: str, body: bytes, *, headers: Mapping[str, str], timeout_seconds: float) -> bytes:
        """The reply's body."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """``reason`` is ``judged``, or why it could not be: ``no answer``, ``unreadable`` or ``no reply``."""

    is_right: bool
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgeSettings:
    """``url`` is the base, as in ``http://127.0.0.1:8000/v1``; ``num_tries`` bounds the requests."""

    url: str
    model: str
    key: str | None = None
    prompt: str = PROMPT
    timeout_seconds: float = 60.0
    num_tries: int = 3

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise ConfigError(f"the judge's URL must begin with http:// or https://, got {self.url!r}.")
        lacking = [field for field in _FIELDS if field not in self.prompt]
        if lacking:
            raise ConfigError(
                f"the judge's prompt lacks {', '.join(lacking)}; it needs {', '.join(_FIELDS)}."
            )
        if self.num_tries < 1 or self.timeout_seconds <= 0:
            raise ConfigError(
                f"the judge needs num_tries >= 1 and timeout_seconds > 0, got {self.num_tries} and "
                f"{self.timeout_seconds}."
            )

    @property
    def prompt_hash(self) -> str:
        """Sixteen hex digits that change with the prompt."""
        return sha256(self.prompt.encode()).hexdigest()[:16]


class _NoRedirects(HTTPRedirectHandler):
    """A server that points elsewhere is refused: the key is for the server that was named."""

    def redirect_request(self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> None:
        return None


_OPENER = build_opener(_NoRedirects)


def post(url: str, body: bytes, *, headers: Mapping[str, str], timeout_seconds: float) -> bytes:
    """The transport of the standard library; it follows no redirection, and cuts replies at a megabyte."""
    request = Request(url, data=body, headers=dict(headers), method="POST")
    with _OPENER.open(request, timeout=timeout_seconds) as reply:
        return reply.read(_LONGEST_REPLY)


class LlmJudge:
    """Asks once per answer; a file of replies, where one is given, saves asking again.

    ``wait`` is called with the seconds to wait before each further try.
    """

    def __init__(
        self,
        settings: JudgeSettings,
        *,
        transport: Transport = post,
        wait: Callable[[float], None] = lambda _: None,
        replies: Path | None = None,
    ) -> None:
        self.settings = settings
        self._transport, self._wait, self._file = transport, wait, replies
        self._replies = {} if replies is None else _read_replies(replies)

    def judge(self, question: str, answer: str | None, references: Sequence[str]) -> Verdict:
        """Whether ``answer`` is right; one that is missing or blank is wrong without being asked about.

        Raises:
            ConfigError: the server refuses such requests (status 3xx or 4xx), so that it would refuse all.
        """
        if answer is None or not answer.strip():
            return Verdict(is_right=False, reason="no answer")
        texts = {"question": question, "references": json.dumps(list(references), ensure_ascii=False)}
        reply = self.ask(_filled(self.settings.prompt, texts | {"answer": answer}))
        if reply is None:
            return Verdict(is_right=False, reason="no reply")
        said = reply.strip().strip("\"'*.").lower()
        if said not in _VERDICTS:
            return Verdict(is_right=False, reason="unreadable")
        return Verdict(is_right=_VERDICTS[said], reason="judged")

    def ask(self, prompt: str) -> str | None:
        """The reply's text; None where no try brought one.

        Raises:
            ConfigError: the server refuses such requests.
        """
        content: dict[str, Any] = {
            "model": self.settings.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": 0,
        }
        key = sha256(json.dumps([self.settings.url, content]).encode()).hexdigest()
        for number in range(self.settings.num_tries):
            if key in self._replies:
                break
            if number:
                self._wait(2.0 ** (number - 1))
            text = self._post(json.dumps(content).encode())
            if text is not None:
                self._keep(key, text)
        return self._replies.get(key)

    def _post(self, body: bytes) -> str | None:
        headers = {"Content-Type": "application/json"}
        if self.settings.key is not None:
            headers["Authorization"] = f"Bearer {self.settings.key}"
        url = self.settings.url.rstrip("/") + "/chat/completions"
        try:
            reply = self._transport(url, body, headers=headers, timeout_seconds=self.settings.timeout_seconds)
            text = json.loads(reply)["choices"][0]["message"]["content"]
        except HTTPError as error:
            if 300 <= error.code < 500 and error.code not in (408, 429):
                raise ConfigError(
                    f"the judge refuses to answer (status {error.code}); check its URL, its model "
                    f"{self.settings.model!r} and its key."
                ) from error
            return None
        except (OSError, HTTPException, ValueError, LookupError, TypeError):
            return None
        return text if isinstance(text, str) else None

    def _keep(self, key: str, text: str) -> None:
        self._replies[key] = text
        if self._file is not None:
            append_line(self._file, {"key": key, "reply": text})


def _filled(prompt: str, texts: Mapping[str, str]) -> str:
    """The prompt with its fields replaced once: braces inside the texts stay what they are."""
    return _FIELD.sub(lambda field: texts[field[1]], prompt)


def _read_replies(path: Path) -> dict[str, str]:
    try:
        return {row.text("key"): row.text("reply") for row in read_appended(path)}
    except DataError as error:
        raise DataError(f"{path}: no file of a judge's replies ({error})") from error
