"""Limits of what clients can make the server hold: the number of connections, the size of bodies, and the time to send and to read."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from anyio import fail_after
from starlette.requests import Request

from nbridge.errors import NBridgeError

SMALL = 2**18
"""Size in bytes up to which a body does not count towards the memory of all bodies, so that small requests are read when it is used up."""


@dataclass(frozen=True)
class Limits:
    """Limits over all requests.

    Arguments:
        connections: Number of connections. A new one closes the one whose client is awaited for the longest time.
        request_seconds: Time until the headers of a request have arrived.
        body_seconds: Time until its body has arrived.
        response_seconds: Time until the client has read the response.
        shutdown_seconds: Time to finish pending responses on shutdown.
        bodies: Memory for request bodies in bytes, over all requests.
    """

    connections: int = 64
    request_seconds: float = 10
    body_seconds: float = 60
    response_seconds: float = 60
    shutdown_seconds: float = 1
    bodies: int = 64 * 2**20


class TooLargeError(NBridgeError):
    """A request body that is too large."""


class TooSlowError(NBridgeError):
    """A request body that does not arrive in time."""


class BusyError(NBridgeError):
    """A request that exceeds the memory for request bodies, because of other requests."""


class Bodies:
    """Reads request bodies, within the memory and the time of the limits."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._held = 0

    @asynccontextmanager
    async def read(self, request: Request, most: int) -> AsyncIterator[bytes]:
        """The body of a request, of at most ``most`` bytes, without trusting its Content-Length; it counts as held within the context.

        Raises:
            TooLargeError: when it is larger.
            TooSlowError: when it does not arrive in time.
            BusyError: when the bodies of other requests use up the memory.
        """
        length = request.headers.get("content-length", "0")
        if length.isdigit() and int(length) > most:
            raise _too_large(most)
        held = 0
        try:
            content = bytearray()
            try:
                with fail_after(self._limits.body_seconds):
                    async for chunk in request.stream():
                        content += chunk
                        if len(content) > most:
                            raise _too_large(most)
                        counted = max(0, len(content) - SMALL)
                        self._held += counted - held
                        held = counted
                        if self._held > self._limits.bodies:
                            raise BusyError("other requests use all the memory for uploads; try again in a minute")
            except TimeoutError as error:
                raise TooSlowError(f"the request took longer than {self._limits.body_seconds:g} s to arrive") from error
            whole = bytes(content)
            del content
            yield whole
        finally:
            self._held -= held


def _too_large(most: int) -> TooLargeError:
    return TooLargeError(f"too large: at most {most // 2**20} MiB are allowed")
