"""``/v1/completions``: texts continued and scored, as harnesses for language models ask for it."""

import time
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from deeptalk.decoding import Sampling
from deeptalk.serving.continuation import Continuation, ContinuationOptions, Scored
from deeptalk.serving.http import Handler, hold, number, read_body, tells_errors, unless_gone, whole
from deeptalk.serving.items import new_id
from deeptalk.serving.model_thread import ContextFullError
from deeptalk.serving.service import Service
from deeptalk.serving.turns import tokenizer_of
from deeptalk.serving.wire import ClientError, parse_json

MAX_PROMPTS = 128
MAX_STOPS = 16
MAX_TOP = 20
DEFAULT_TOKENS = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class _Prompt:
    """The words of a prompt and their ids."""

    text: str
    ids: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Wanted:
    """A request that has been read."""

    prompts: list[_Prompt]
    options: ContinuationOptions
    is_echoed: bool
    is_scored: bool


def completions_route(service: Service) -> Handler:
    """The handler of ``POST /v1/completions``."""

    @tells_errors
    async def completions(request: HttpRequest) -> Response:
        body = parse_json(await read_body(request, most=service.limits.max_body_bytes))
        wanted = _read(service, body)
        async with hold(service, request):
            return await unless_gone(request, _completed(service, wanted))

    return completions


async def _completed(service: Service, wanted: _Wanted) -> Response:
    choices, num_read, num_added = [], 0, 0
    for index, prompt in enumerate(wanted.prompts):
        going_on = Continuation(service.thread.loaded.engine, prompt.ids, wanted.options)
        await service.thread.work(going_on)
        choices.append(_choice(service, wanted, prompt, going_on) | {"index": index})
        num_read += len(prompt.ids)
        num_added += len(going_on.added)
    usage = {
        "prompt_tokens": num_read,
        "completion_tokens": num_added,
        "total_tokens": num_read + num_added,
    }
    common = {"id": new_id("cmpl"), "object": "text_completion", "created": int(time.time())}
    return JSONResponse(common | {"model": service.model, "choices": choices, "usage": usage})


def _choice(service: Service, wanted: _Wanted, prompt: _Prompt, going_on: Continuation) -> dict[str, Any]:
    logprobs = None
    if wanted.is_scored:
        logprobs = _logprobs(service, [*going_on.prompt, *going_on.added])
    text = (prompt.text if wanted.is_echoed else "") + going_on.text
    return {"text": text, "logprobs": logprobs, "finish_reason": going_on.finish_reason}


def _logprobs(service: Service, scored: list[Scored]) -> dict[str, Any]:
    """The four lists of OpenAI's object; of ids with the same words the likeliest is in ``top_logprobs``."""
    tokenizer = tokenizer_of(service.thread.loaded.engine)
    ids = {each.id for each in scored} | {token for each in scored for token, _ in each.top}
    words = {token: tokenizer.decode([token]) for token in ids}
    tops: list[dict[str, float] | None] = []
    for each in scored:
        top: dict[str, float] = {}
        for token, log_prob in each.top:
            top.setdefault(words[token], log_prob)
        if each.log_prob is not None:
            top.setdefault(words[each.id], each.log_prob)
        tops.append(None if each.log_prob is None else top)
    lengths = [len(words[each.id]) for each in scored]
    return {
        "tokens": [words[each.id] for each in scored],
        "token_logprobs": [each.log_prob for each in scored],
        "top_logprobs": tops,
        "text_offset": [end - length for end, length in zip(accumulate(lengths), lengths, strict=True)],
    }


def _read(service: Service, body: dict[str, Any]) -> _Wanted:
    """Check what is asked for."""
    for name in ("n", "best_of"):
        if body.get(name) not in (None, 1):
            raise ClientError("invalid_value", f"{name} must be 1.", param=name)
    for name in ("stream", "suffix"):
        if body.get(name):
            raise ClientError("invalid_value", f"{name} is not understood here.", param=name)
    is_echoed, num_top = (
        body.get("echo") is True,
        whole(body, "logprobs", default=None, least=0, most=MAX_TOP),
    )
    most = whole(body, "max_tokens", default=DEFAULT_TOKENS, least=0, most=10**6) or 0
    prompts = _prompts(service, body.get("prompt"))
    room = service.thread.max_positions
    for prompt in prompts:
        if len(prompt.ids) + max(0, most - 1) > room:
            raise ContextFullError(f"A prompt and what follows it have at most {room} positions.")
    return _Wanted(
        prompts=prompts,
        options=ContinuationOptions(
            max_tokens=most,
            stops=_stops(body.get("stop")),
            sampling=Sampling(temperature=number(body, "temperature", default=0.0, least=0.0, most=2.0)),
            seed=whole(body, "seed", default=0, least=0, most=2**63 - 1) or 0,
            num_top=num_top or 0,
            scores_prompt=is_echoed and num_top is not None,
        ),
        is_echoed=is_echoed,
        is_scored=num_top is not None,
    )


def _prompts(service: Service, given: Any) -> list[_Prompt]:
    """One prompt or several, each as text or as ids; nothing is added to either."""
    several = given if isinstance(given, list) and given and isinstance(given[0], str | list) else [given]
    if len(several) > MAX_PROMPTS:
        raise ClientError("invalid_value", f"A request has at most {MAX_PROMPTS} prompts.", param="prompt")
    return [_prompt(service, each) for each in several]


def _prompt(service: Service, given: Any) -> _Prompt:
    engine = service.thread.loaded.engine
    tokenizer, num_ids = tokenizer_of(engine), engine.layout.vocab_size
    if isinstance(given, str) and given:
        return _Prompt(text=given, ids=tuple(tokenizer.encode(given)))
    if isinstance(given, list) and given and all(_is_id(each, num_ids) for each in given):
        return _Prompt(text=tokenizer.decode(given), ids=tuple(given))
    raise ClientError(
        "invalid_value",
        f"prompt must be text or a list of ids from 0 to {num_ids - 1}, not empty, or a list of these.",
        param="prompt",
    )


def _is_id(given: Any, num_ids: int) -> bool:
    return isinstance(given, int) and not isinstance(given, bool) and 0 <= given < num_ids


def _stops(given: Any) -> tuple[str, ...]:
    stops = [] if given is None else [given] if isinstance(given, str) else given
    if (
        not isinstance(stops, list)
        or len(stops) > MAX_STOPS
        or not all(isinstance(stop, str) and stop for stop in stops)
    ):
        raise ClientError(
            "invalid_value", f"stop must be text or a list of at most {MAX_STOPS} texts.", param="stop"
        )
    return tuple(stops)
