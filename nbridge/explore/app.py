"""The page and its API, as an ASGI application.

=========================  =======================================================================
``GET /``                  the page; it loads `SCRIPTS`, ``explore.css`` and ``palette.css``
``GET /api/spec``          the controls, by modality
``GET /api/row/{number}``  a row of the run
``GET /api/latent``        the latent map
``POST /api/impute``       draws of the modalities that are not given
``POST /api/prior``        draws of rows from the prior
``POST /api/decode``       decodes a point of the latent map
``POST /api/python``       the Python code of an imputation or of draws from the prior
``POST /api/rows``         reads the rows of a csv file, the body
``POST /api/upload``       scales an image file, the body, to the size of ``?modality=NAME``
=========================  =======================================================================

Errors are returned as ``{"error": LINE}``: 400 for invalid JSON, 403 for foreign pages (see `nbridge.explore.guard`), 404 for unknown paths
and rows, 408 for bodies that do not arrive in time, 413 for too large bodies, 422 for invalid requests, 503 when the bodies of other
requests use up the memory (see `nbridge.explore.limits`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from mimetypes import guess_type
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from anyio import CapacityLimiter
from anyio.lowlevel import RunVar
from anyio.to_thread import run_sync
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from nbridge.common.messages import clip
from nbridge.errors import DataError, NBridgeError
from nbridge.explore import controls, requests, responses, tables
from nbridge.explore.guard import Guard
from nbridge.explore.inputs import row_of
from nbridge.explore.latent import latent_map
from nbridge.explore.limits import Bodies, BusyError, Limits, TooLargeError, TooSlowError
from nbridge.explore.script import script
from nbridge.explore.session import Session
from nbridge.explore.uploads import upload
from nbridge.visual.palette import PALETTE

STATIC = Path(__file__).parent / "static"
"""Folder of the page's files."""
SCRIPTS = ("explore.js", "page.js", "cards.js", "map.js", "sharing.js")
"""The page's scripts: the start, its tools, the modalities, the latent map, and comparing, saving and uploading."""
BODY = 8 * 2**20
"""Maximum size of a request body in bytes."""

Endpoint = Callable[[Request], Awaitable[Response]]
Given = ParamSpec("Given")
Answer = TypeVar("Answer")

_TURN: RunVar[CapacityLimiter] = RunVar("turn")
"""Lets one request use the model at a time; those that wait hold no thread, and can be cancelled."""


class _NotFoundError(NBridgeError):
    """A row that does not exist."""


def make_app(session: Session, limits: Limits | None = None) -> ASGIApp:
    """The application that serves a session."""
    bodies = Bodies(limits or Limits())

    async def spec(_: Request) -> Response:
        return JSONResponse(await _in_turn(session, controls.describe, session))

    async def row(request: Request) -> Response:
        return JSONResponse(await _in_turn(session, _row, session, request.path_params["number"]))

    async def latent(_: Request) -> Response:
        return JSONResponse(await _in_turn(session, latent_map, session))

    async def uploaded(request: Request) -> Response:
        async with bodies.read(request, controls.UPLOAD) as content:
            return JSONResponse(await _in_turn(session, upload, session, request.query_params.get("modality", ""), content))

    async def rows(request: Request) -> Response:
        async with bodies.read(request, controls.ROWS_UPLOAD) as content:
            return JSONResponse(await _in_turn(session, tables.upload_rows, session, content))

    app = Starlette(
        routes=[
            Route("/", _file("index.html"), methods=["GET"]),
            *(Route(f"/{name}", _file(name), methods=["GET"]) for name in SCRIPTS),
            Route("/explore.css", _file("explore.css"), methods=["GET"]),
            Route("/palette.css", _palette, methods=["GET"]),
            Route("/api/spec", spec, methods=["GET"]),
            Route("/api/row/{number}", row, methods=["GET"]),
            Route("/api/latent", latent, methods=["GET"]),
            Route("/api/impute", _answering(session, bodies, requests.Impute, responses.impute), methods=["POST"]),
            Route("/api/prior", _answering(session, bodies, requests.Prior, responses.prior), methods=["POST"]),
            Route("/api/decode", _answering(session, bodies, requests.Decode, responses.decode), methods=["POST"]),
            Route("/api/python", _answering(session, bodies, requests.Script, script), methods=["POST"]),
            Route("/api/rows", rows, methods=["POST"]),
            Route("/api/upload", uploaded, methods=["POST"]),
        ],
        exception_handlers={
            NBridgeError: _client_error,
            HTTPException: _http_error,
            ClientDisconnect: _disconnected,
            Exception: _failure,
        },
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


def _answering(
    session: Session, bodies: Bodies, kind: type[requests.Request], answer: Callable[[Session, requests.Request], Any]
) -> Endpoint:
    """An endpoint that reads a request and answers it in a worker thread, with exclusive access to the model."""

    def answered(body: bytes) -> Any:
        return answer(session, requests.read(kind, body, session.model))

    async def endpoint(request: Request) -> Response:
        async with bodies.read(request, BODY) as body:
            return JSONResponse(await _in_turn(session, answered, body))

    return endpoint


async def _in_turn(session: Session, work: Callable[Given, Answer], *arguments: Given.args, **options: Given.kwargs) -> Answer:
    """Calls a function in a worker thread, with exclusive access to the model."""
    try:
        turn = _TURN.get()
    except LookupError:
        _TURN.set(turn := CapacityLimiter(1))
    return await run_sync(lambda: session.locked(work, *arguments, **options), limiter=turn)


def _row(session: Session, number: str) -> dict[str, Any]:
    if not (number.isascii() and number.isdigit() and len(number) < 16):
        raise _NotFoundError(f"row {clip(number)}: expected a number")
    try:
        return row_of(session, int(number))
    except DataError as error:
        raise _NotFoundError(str(error)) from error


def _file(name: str) -> Endpoint:
    # Not a FileResponse, which answers any number of byte ranges, and invalid ones in plain text.
    content, kind = (STATIC / name).read_bytes(), guess_type(name)[0]

    async def endpoint(_: Request) -> Response:
        return Response(content, media_type=kind)

    return endpoint


async def _palette(_: Request) -> Response:
    return Response(PALETTE, media_type="text/css")


async def _client_error(_: Request, error: Exception) -> Response:
    kinds = {TooSlowError: 408, TooLargeError: 413, BusyError: 503, _NotFoundError: 404, requests.UnreadableError: 400}
    return JSONResponse({"error": " ".join(str(error).splitlines())}, kinds.get(type(error), 422))


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": f"{request.method} {clip(request.url.path)}: {error.detail.lower()}"}, error.status_code)


async def _disconnected(_: Request, error: Exception) -> Response:  # noqa: ARG001 (the interface of handlers)
    # Nobody reads this response.
    return Response(status_code=400)


async def _failure(_: Request, error: Exception) -> Response:
    # The server writes the traceback to the terminal.
    return JSONResponse({"error": f"nbridge failed ({type(error).__name__}); see the terminal for details"}, 500)
