"""Serves a session on a local port until interrupted."""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
import webbrowser
from collections.abc import Callable

from nbridge.errors import RunError
from nbridge.explore.session import Session

HOST = "127.0.0.1"
"""Local connections only."""


def serve(session: Session, port: int, *, browser: bool, announce: Callable[[str], None]) -> None:
    """Serves a session until a signal ends it. Port 0 is any free one. ``announce`` is called with the page's URL once it listens.

    Raises:
        RunError: when the port is in use or not permitted.
    """
    from nbridge.explore.app import make_app, warm_up
    from nbridge.explore.connections import Server
    from nbridge.explore.limits import Limits

    with bind(port) as listening:
        warm_up(session)
        address = f"http://{HOST}:{listening.getsockname()[1]}/"
        listening.listen()
        limits = Limits()
        server = Server(make_app(session, limits), limits)
        announce(address)
        if browser:
            # In a separate thread, because a terminal browser would block this one.
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
        # Uvicorn shuts down on the signal and then raises it again.
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[listening])


def bind(port: int) -> socket.socket:
    """Binds a socket to a local port.

    Raises:
        RunError: when the port is in use or not permitted.
    """
    # asyncio sets TCP_NODELAY only with an explicit protocol; without it, the end of a response can be delayed by 40 ms.
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    # Ignores connections in TIME_WAIT.
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((HOST, port))
    except OSError as error:
        found.close()
        reason = "already in use" if error.errno == errno.EADDRINUSE else str(error.strerror or error)
        raise RunError(f"--port {port}: {reason}; choose another, or 0 for any free one") from error
    return found
