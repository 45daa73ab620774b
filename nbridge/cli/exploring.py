"""``nbridge explore``."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated

import typer

from nbridge.cli.options import RunPath
from nbridge.errors import RunError

PORT = 8642


def explore(
    directory: RunPath,
    port: Annotated[int, typer.Option(metavar="N", min=0, max=65535, help="The local port; 0 for any free one.")] = PORT,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Do not open a browser.")] = False,
) -> None:
    """Explore a model in the browser. Set some modalities and see draws of the others.

    The server accepts local connections only. Stop it with Ctrl-C.
    """
    if missing := [name for name in ("starlette", "uvicorn") if find_spec(name) is None]:
        raise RunError(f'nbridge explore needs {" and ".join(missing)}, which {"is" if len(missing) == 1 else "are"} not installed: '
                       'pip install "nbridge[explore]"')  # fmt: skip
    from nbridge.explore.server import serve
    from nbridge.explore.session import open_session

    session = open_session(directory)
    if session.rows is None:
        typer.echo(f"no rows to choose from, enter values instead: {session.reason}", err=True)
    serve(session, port, browser=not no_browser, announce=lambda address: typer.echo(f"{address}  (Ctrl-C to stop)"))
