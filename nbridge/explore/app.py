"""The page and its API, as an ASGI application.

=========================  =======================================================================
``GET /``                  the page; it loads ``explore.js``, ``explore.css`` and ``palette.css``
``GET /api/spec``          the controls, by modality
``GET /api/row/{number}``  a row of the run
``GET /api/latent``        the latent map
``POST /api/impute``       draws of the modalities that are not given
``POST /api/prior``        draws of rows from the prior
``POST /api/decode``       decodes a point of the latent map
``POST /api/upload``       scales an image file, the body, to the size of ``?modality=NAME``
=========================  =======================================================================

Errors are returned as ``{"error": LINE}``: 400 for invalid JSON, 403 for foreign pages (see `nbridge.explore.guard`), 404 for unknown paths
and rows, 413 for too large bodies, 422 for invalid requests.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from nbridge.common.messages import clip
from nbridge.errors import DataError, NBridgeError
from nbridge.explore import controls, requests, responses
from nbridge.explore.guard import Guard
from nbridge.explore.inputs import row_of
from nbridge.explore.latent import latent_map
from nbridge.explore.session import Session
from nbridge.explore.uploads import upload
from nbridge.visual.palette import PALETTE

STATIC = Path(__file__).parent / "static"
"""Folder of the page's files."""
BODY = 8 * 2**20
"""Maximum size of a request body in bytes."""

Endpoint = Callable[[Request], Awaitable[Response]]


class _TooLargeError(NBridgeError):
    """A request body that is too large."""


class _NotFoundError(NBridgeError):
    """A row that does not exist."""


def make_app(session: Session) -> ASGIApp:
    """The application that serves a session."""

    async def spec(_: Request) -> Response:
        return JSONResponse(await run_in_threadpool(session.locked, controls.describe, session))

    async def row(request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(session.locked, _row, session, request.path_params["number"]))

    async def latent(_: Request) -> Response:
        return JSONResponse(await run_in_threadpool(session.locked, latent_map, session))

    async def uploaded(request: Request) -> Response:
        content = await _body(request, controls.UPLOAD)
        return JSONResponse(await run_in_threadpool(session.locked, upload, session, request.query_params.get("modality", ""), content))

    app = Starlette(
        routes=[
            Route("/", _file("index.html"), methods=["GET"]),
            Route("/explore.js", _file("explore.js"), methods=["GET"]),
            Route("/explore.css", _file("explore.css"), methods=["GET"]),
            Route("/palette.css", _palette, methods=["GET"]),
            Route("/api/spec", spec, methods=["GET"]),
            Route("/api/row/{number}", row, methods=["GET"]),
            Route("/api/latent", latent, methods=["GET"]),
            Route("/api/impute", _answering(session, requests.Impute, responses.impute), methods=["POST"]),
            Route("/api/prior", _answering(session, requests.Prior, responses.prior), methods=["POST"]),
            Route("/api/decode", _answering(session, requests.Decode, responses.decode), methods=["POST"]),
            Route("/api/upload", uploaded, methods=["POST"]),
        ],
        exception_handlers={NBridgeError: _client_error, HTTPException: _http_error, Exception: _failure},
    )
    # Outermost, so that error responses are guarded too.
    return Guard(app)


def warm_up(session: Session) -> None:
    """Computes the page's first answers once, so that later the first one is as fast as the others."""
    session.locked(controls.describe, session)
    session.locked(responses.prior, session, requests.Prior())
    for name, there in ({} if session.rows is None else session.rows.present).items():
        if there[0]:
            session.locked(responses.impute, session, requests.Impute(given={name: requests.Given(row=0)}))
    if not session.map_unavailable:
        session.locked(latent_map, session)


def _answering(session: Session, kind: type[requests.Request], answer: Callable[[Session, requests.Request], Any]) -> Endpoint:
    """An endpoint that reads a request and answers it in a worker thread, with exclusive access to the model."""

    async def endpoint(request: Request) -> Response:
        question = requests.read(kind, await _body(request, BODY))
        return JSONResponse(await run_in_threadpool(session.locked, answer, session, question))

    return endpoint


async def _body(request: Request, most: int) -> bytes:
    """Reads a request body of at most ``most`` bytes, without trusting its Content-Length."""
    length = request.headers.get("content-length", "0")
    content = bytearray()
    if not length.isdigit() or int(length) <= most:
        async for chunk in request.stream():
            content += chunk
            if len(content) > most:
                break
        else:
            return bytes(content)
    raise _TooLargeError(f"too large: at most {most // 2**20} MiB are allowed")


def _row(session: Session, number: str) -> dict[str, Any]:
    if not (number.isascii() and number.isdigit() and len(number) < 16):
        raise _NotFoundError(f"row {clip(number)}: expected a number")
    try:
        return row_of(session, int(number))
    except DataError as error:
        raise _NotFoundError(str(error)) from error


def _file(name: str) -> Endpoint:
    async def endpoint(_: Request) -> Response:
        return FileResponse(STATIC / name)

    return endpoint


async def _palette(_: Request) -> Response:
    return Response(PALETTE, media_type="text/css")


async def _client_error(_: Request, error: Exception) -> Response:
    kinds = {_TooLargeError: 413, _NotFoundError: 404, requests.UnreadableError: 400}
    return JSONResponse({"error": " ".join(str(error).splitlines())}, kinds.get(type(error), 422))


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": f"{request.method} {clip(request.url.path)}: {error.detail.lower()}"}, error.status_code)


async def _failure(_: Request, error: Exception) -> Response:
    # The server writes the traceback to the terminal.
    return JSONResponse({"error": f"nbridge failed ({type(error).__name__}); see the terminal for details"}, 500)
