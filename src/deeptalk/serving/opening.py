"""A server from its first moment: alive while its model is opened, ready later."""

import asyncio
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from threading import Thread
from typing import Any, TypeVar

import torch
from starlette.responses import JSONResponse

from deeptalk.serving.security import App, Guard, Receive, Refusal, Scope, Security, Send, refuse
from deeptalk.serving.service import Service

NOT_READY = Refusal(status=503, code="not_ready", message="The server is starting: try again in a moment.")

Result = TypeVar("Result")


class Opening:
    """The application before there is one, and afterwards that which ``open_app`` has made, in a thread.

    Until then ``/health`` is well, ``/ready`` is not, and whoever may come in is asked to come again. On the
    event loop ``on_open`` is given what was made, or ``on_failure`` what went wrong.
    """

    def __init__(
        self,
        open_app: Callable[[], tuple[App, Service]],
        security: Security,
        *,
        on_open: Callable[[Service], None],
        on_failure: Callable[[Exception], None],
    ) -> None:
        self._open_app, self._on_open, self._on_failure = open_app, on_open, on_failure
        self._app: App = Guard(_answer_early, security)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass on to the application."""
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Be there at once; the application's life begins and ends within this one."""
        await receive()
        await send({"type": "lifespan.startup.complete"})
        leaving = asyncio.ensure_future(receive())
        opened = _in_thread(lambda: (self._open_app(), torch.get_num_threads()))
        await asyncio.wait([opened, leaving], return_when=asyncio.FIRST_COMPLETED)
        if opened.done():
            try:
                (app, service), num_threads = opened.result()
                torch.set_num_threads(num_threads)  # every thread has a number of its own
                await self._hand_over(app, service, scope, leaving)
            except Exception as error:
                self._on_failure(error)
        await leaving
        await send({"type": "lifespan.shutdown.complete"})

    async def _hand_over(
        self, app: App, service: Service, scope: Scope, leaving: asyncio.Future[MutableMapping[str, Any]]
    ) -> None:
        """Let the application begin, answer everything from then on, and end."""
        coming = [{"type": "lifespan.startup"}]

        async def receive() -> MutableMapping[str, Any]:
            return coming.pop() if coming else await leaving

        async def send(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "lifespan.startup.complete":
                self._app = app
                self._on_open(service)

        await app(scope, receive, send)


async def _answer_early(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http" and scope["path"] == "/health":
        await JSONResponse({"status": "ok"})(scope, receive, send)
    elif scope["type"] == "http" and scope["path"] == "/ready":
        await JSONResponse({"status": "unavailable"}, status_code=503)(scope, receive, send)
    else:
        await refuse(scope, receive, send, NOT_READY, {"retry-after": "1"})


def _in_thread(work: Callable[[], Result]) -> asyncio.Future[Result]:
    """What a thread comes to; the process may end before it does."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Result] = loop.create_future()

    def run() -> None:
        try:
            result = work()
        except Exception as error:
            tell: Callable[[], None] = lambda error=error: done.set_exception(error)  # noqa: E731
        else:
            tell = lambda: done.set_result(result)  # noqa: E731
        with suppress(RuntimeError):  # the loop has been closed: nobody waits any more
            loop.call_soon_threadsafe(tell)

    Thread(target=run, name="opening", daemon=True).start()
    return done
