"""The HTTP server: uvicorn's, with limits on the number of connections and on the time that a client takes, and a prompt end.

Uvicorn limits the time between requests and the size of headers only. A client that stops in the middle of a request, or does not read the
response, would keep its connection for ever.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from nbridge.explore.limits import Limits

BACKLOG = 64
"""Number of connections accepted at a time; together with `Limits.connections`, less than 256, a common limit of open files."""


class Server(uvicorn.Server):
    """Serves an application within limits until SIGINT, SIGTERM or SIGHUP."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        protocol = type("LimitedConnection", (_Connection,), {"limits": limits})
        config = uvicorn.Config(
            _quiet_when_cancelled(app), http=protocol, ws="none", loop="asyncio", lifespan="off", log_level="error", access_log=False,
            server_header=False, proxy_headers=False, timeout_graceful_shutdown=1, backlog=BACKLOG,
        )  # fmt: skip
        super().__init__(config)
        self._limits = limits

    async def on_tick(self, counter: int) -> bool:
        """Closes the connections of clients that take too long; uvicorn calls this ten times per second."""
        for connection in self._connections():
            connection.close_if_late()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finishes the responses being computed within their time; closes all other connections at once."""
        for server in self.servers:
            server.close()
        for connection in self._connections():
            if connection.awaited() is not None:
                connection.transport.abort()
        end = asyncio.get_running_loop().time() + self._limits.shutdown_seconds
        while self.server_state.tasks and asyncio.get_running_loop().time() < end and not self.force_exit:
            await asyncio.sleep(0.02)
        for connection in self._connections():
            connection.transport.abort()
        # Lets the connections close first, so that nothing is written to them.
        await asyncio.sleep(0)
        for task in list(self.server_state.tasks):
            task.cancel()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Ends on SIGHUP as well, which a closed terminal sends, unless it is ignored (nohup)."""
        number = getattr(signal, "SIGHUP", None)
        if number is None or threading.current_thread() is not threading.main_thread() or signal.getsignal(number) is signal.SIG_IGN:
            with super().capture_signals():
                yield
            return
        before = signal.signal(number, self.handle_exit)
        try:
            with super().capture_signals():
                yield
        finally:
            signal.signal(number, before)

    def _connections(self) -> list[_Connection]:
        return [connection for connection in self.server_state.connections if isinstance(connection, _Connection)]


class _Connection(H11Protocol):
    """A connection whose client has a limited time for each step of a request."""

    limits: Limits

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._step: tuple[object, str | None] = (None, "request")
        self._since = self.loop.time()
        if len(self.connections) > self.limits.connections:
            known = [connection for connection in self.connections if isinstance(connection, _Connection)]
            awaited = [one for one in known if one.awaited() is not None]
            oldest = min(awaited, key=lambda one: one._since)
            self.connections.discard(oldest)
            oldest.transport.abort()

    def awaited(self) -> str | None:
        """What the client is awaited for: "request", "body" or "response" (to read it); None while a response is computed."""
        if self.transport.get_write_buffer_size():
            return "response"
        if self.cycle is None or self.cycle.response_complete:
            return "request"
        if self.cycle.response_started:
            return "response"
        return "body" if self.cycle.more_body else None

    def close_if_late(self) -> None:
        """Closes the connection if the client has been awaited for too long."""
        step, now = (self.cycle, self.awaited()), self.loop.time()
        if step != self._step:
            self._step, self._since = step, now
        # The application responds to a late body; this closes the connection only if that fails.
        body = self.limits.body_seconds + self.limits.request_seconds
        most = {"request": self.limits.request_seconds, "body": body, "response": self.limits.response_seconds}
        if step[1] is not None and now - self._since > most[step[1]]:
            self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        """Responds to invalid HTTP, unless a response has begun."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            self.transport.abort()
        if self.cycle is not None:
            # The application must not respond as well.
            self.cycle.disconnected = True

    def _unsupported_upgrade_warning(self) -> None:
        """Prints nothing: an upgrade is the wish of a client."""


def _quiet_when_cancelled(app: ASGIApp) -> ASGIApp:
    """An application whose requests end without a traceback when the server cancels them on shutdown."""

    async def quiet(scope: Scope, receive: Receive, send: Send) -> Any:
        try:
            await app(scope, receive, send)
        except asyncio.CancelledError:
            return

    return quiet
