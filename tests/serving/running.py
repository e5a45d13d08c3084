"""A server with a random model on a real socket, for as long as a test needs it."""

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any

from deeptalk.decoding import LoadedModel
from deeptalk.serving.app import create_app
from deeptalk.serving.limits import ServerLimits
from deeptalk.serving.model_thread import ModelThread
from deeptalk.serving.security import Security
from deeptalk.serving.server import Server, bind, configured
from deeptalk.serving.service import Service
from deeptalk.serving.tls import Certificate

Script = Callable[[Server, Service, str], Coroutine[Any, Any, None]]


def serve(
    loaded: LoadedModel,
    script: Script,
    *,
    security: Security | None = None,
    certificate: Certificate | None = None,
    **limits: float,
) -> Server:
    """Run a script against a server that is ready, to the server's end, which leaves no task behind."""

    async def main() -> Server:
        bounds = ServerLimits(**{"answer_seconds": 0.8} | limits)  # pyright: ignore[reportArgumentType]
        service = Service(ModelThread(loaded, limits=bounds), model="tiny")
        listening = bind("127.0.0.1", 0)
        app = create_app(service, security or Security())
        server = Server(configured(app, bounds, certificate=certificate), service)
        serving = asyncio.create_task(server.serve([listening]))
        while not service.is_ready:
            await asyncio.sleep(0.01)
        scheme, port = "ws" if certificate is None else "wss", listening.getsockname()[1]
        try:
            await script(server, service, f"{scheme}://127.0.0.1:{port}/v1/realtime")
        except BaseException:  # a failing test does not hang
            server.should_exit = server.force_exit = True
            await serving
            service.thread.stop()
            raise
        if not server.should_exit and not service.is_draining:
            server.handle_exit(signal.SIGTERM, None)
        await serving
        if server.force_exit:  # leaves without the application's own end
            service.thread.stop()
        else:
            async with asyncio.timeout(60):  # no task of the server outlives it
                while len(asyncio.all_tasks()) > 1:
                    await asyncio.sleep(0.01)
        assert not service.thread.is_alive(within_seconds=1e9)
        return server

    return asyncio.run(main())
