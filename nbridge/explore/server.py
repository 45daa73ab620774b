"""A session on a port of this machine, until it is interrupted."""

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
"""This machine alone."""
SECONDS = 2
"""How long the end waits for answers that are under way."""


def serve(session: Session, port: int, *, browser: bool, announce: Callable[[str], None]) -> None:
    """Serves a session until SIGINT.

    Arguments:
        session: What is explored.
        port: The port; 0 for any that is free.
        browser: Whether to open the page.
        announce: Hears the address of the page once it can be asked for.

    Raises:
        RunError: when the port is taken or may not be used.
    """
    import uvicorn

    from nbridge.explore.app import make_app, warm_up

    with bind(port) as listening:
        warm_up(session)
        address = f"http://{HOST}:{listening.getsockname()[1]}/"
        listening.listen()
        config = uvicorn.Config(
            make_app(session), http="h11", ws="none", loop="asyncio", lifespan="off", log_level="warning", access_log=False,
            server_header=False, proxy_headers=False, timeout_graceful_shutdown=SECONDS,
        )  # fmt: skip
        announce(address)
        if browser:
            # In a thread of its own, for a browser of the terminal would keep this one.
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
        # Uvicorn ends by itself, and then hands on the signal that it heard.
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listening])


def bind(port: int) -> socket.socket:
    """A socket on a port of this machine.

    Raises:
        RunError: when the port is taken or may not be used.
    """
    # By its protocol asyncio tells that it must send at once (TCP_NODELAY); the end of an answer would else wait 40 ms for its beginning.
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    # Connections that ended a moment ago do not count.
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((HOST, port))
    except OSError as error:
        found.close()
        reason = "another program has it" if error.errno == errno.EADDRINUSE else str(error.strerror or error)
        raise RunError(f"--port {port}: {reason}; choose another, or 0 for any that is free") from error
    return found
