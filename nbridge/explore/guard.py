"""Request guard: accepts requests only from this server's own page and from local programs.

Any web page can make a browser send requests to 127.0.0.1. A foreign page is recognised by its ``Origin`` header, or by ``Sec-Fetch-Site``
in requests without ``Origin``, such as those for images and scripts. A foreign domain that resolves to 127.0.0.1 (DNS rebinding) is
recognised by its ``Host`` header. All are refused for every path, except for a link that opens the page itself. The Content-Security-Policy
of all responses lets a browser load and run only the page's own files.
"""

from __future__ import annotations

from collections.abc import Iterable

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOSTS = ("127.0.0.1", "localhost")
"""Accepted host names, with any port, because the port can differ at the local end of a tunnel."""
FETCH = (b"sec-fetch-site", b"sec-fetch-mode", b"sec-fetch-dest")
"""Headers by which a browser says where a request comes from, and what for."""
OWN = ("same-origin", "none")
"""Values of ``Sec-Fetch-Site`` for requests of the page itself, and for addresses that the user enters."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content-Security-Policy of all responses."""
HEADERS = {
    "Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin", "Cache-Control": "no-store",
}  # fmt: skip
"""Headers of all responses."""

Headers = Iterable[tuple[bytes, bytes]]


class Guard:
    """Wraps an ASGI application in the checks of this module."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or refuses it with status 403."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif (reason := refusal(scope["headers"], page=scope["path"] == "/" and scope["method"] == "GET")) is None:
            await self._app(scope, receive, _with_headers(send))
        else:
            await JSONResponse({"error": reason}, 403)(scope, receive, _with_headers(send))


def refusal(headers: Headers, *, page: bool = False) -> str | None:
    """Why a request with these headers, for the page itself or for another path, is refused; None if it is accepted.

    Example:
        >>> refusal([(b"host", b"127.0.0.1:8642"), (b"origin", b"http://127.0.0.1:8642")])
        >>> refusal([(b"host", b"example.com")])
        "Host 'example.com': expected 127.0.0.1 or localhost"
    """
    hosts, origins, sites, modes, targets = (_values(headers, name) for name in (b"host", b"origin", *FETCH))
    host = hosts[0] if len(hosts) == 1 else ""
    name, _, port = host.partition(":")
    if name.lower() not in HOSTS or not ((port.isascii() and port.isdigit()) or host == name):
        return f"Host {host[:80]!r}: expected {' or '.join(HOSTS)}"
    if foreign := [origin for origin in origins if origin.lower() != f"http://{host.lower()}"]:
        return f"Origin {foreign[0][:80]!r}: requests from other pages are refused"
    # Local programs and old browsers do not send it.
    if (foreign := [site for site in sites if site not in OWN]) and not (page and (modes, targets) == (["navigate"], ["document"])):
        return f"Sec-Fetch-Site {foreign[0][:80]!r}: requests from other pages are refused"
    return None


def _values(headers: Headers, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in headers if key == name]


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *((key.lower().encode(), value.encode()) for key, value in HEADERS.items())]
        await send(message)

    return sending
