"""Who may ask: the pages that this server itself gave out, and programs on this machine; nobody else's pages.

A browser sends what any page asks of 127.0.0.1 here. A page of another origin says so in ``Origin``; a name of somebody else that was made
to mean 127.0.0.1 (DNS rebinding) stands in ``Host``. Both are refused, whatever the path. Answers bring a policy by which a browser
loads and runs nothing but the page's own files.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOSTS = ("127.0.0.1", "localhost")
"""Names of this machine, with any port: it may be another one on the near end of a tunnel."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""What a browser may load, and from where."""
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""What every answer says."""

Headers = Iterable[tuple[bytes, bytes]]


class Guard:
    """An application behind the checks of this file.

    Arguments:
        app: The application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves a request, or refuses it with status 403."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif (reason := refusal(scope["headers"])) is None:
            await self._app(scope, receive, _with_headers(send))
        else:
            await _refuse(reason, _with_headers(send))


def refusal(headers: Headers) -> str | None:
    """Why a request with these headers is refused; None where it is not.

    Example:
        >>> refusal([(b"host", b"127.0.0.1:8642"), (b"origin", b"http://127.0.0.1:8642")])
        >>> refusal([(b"host", b"example.com")])
        "Host 'example.com': this page is served as 127.0.0.1 or localhost alone"
    """
    hosts, origins = ([value.decode("latin-1") for key, value in headers if key == wanted] for wanted in (b"host", b"origin"))
    host = hosts[0] if len(hosts) == 1 else ""
    name, _, port = host.partition(":")
    if name.lower() not in HOSTS or not ((port.isascii() and port.isdigit()) or host == name):
        return f"Host {host[:80]!r}: this page is served as {' or '.join(HOSTS)} alone"
    if foreign := [origin for origin in origins if origin.lower() != f"http://{host.lower()}"]:
        return f"Origin {foreign[0][:80]!r}: only this page itself may ask"
    return None


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *((key.lower().encode(), value.encode()) for key, value in HEADERS.items())]
        await send(message)

    return sending


async def _refuse(reason: str, send: Send) -> None:
    body = json.dumps({"error": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": body})
