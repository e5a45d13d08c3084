"""The talk page: static files, read once, so that no path of a client ever reaches the disk."""

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

FOLDER = Path(__file__).parent / "page"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
INDEX, ABOUT = "/", "/static/about.json"
FILES = {
    INDEX if path.name == "index.html" else f"/static/{path.name}": path
    for path in sorted(FOLDER.iterdir())
    if path.suffix in TYPES
}
PATHS = (*FILES, ABOUT)
"""What of the page is served; none of it needs a key."""

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
"""Only the page's own files are loaded and called, nobody frames it, and it may ask for the microphone."""


def page_routes(*, model: str, voices: Sequence[str]) -> list[Route]:
    """The page's files, and what it needs to know of the server."""
    about = JSONResponse({"model": model, "voices": list(voices)}, headers=HEADERS)
    files = {
        url: Response(path.read_bytes(), media_type=TYPES[path.suffix], headers=HEADERS)
        for url, path in FILES.items()
    }
    return [Route(url, _always(response)) for url, response in {**files, ABOUT: about}.items()]


def _always(response: Response) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        return response

    return endpoint
