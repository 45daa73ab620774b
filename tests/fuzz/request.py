"""Damaged requests to the explorer: bytes and trees of their bodies, paths and headers."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import quote

import numpy as np
from PIL import Image
from starlette.testclient import TestClient

import nbridge
from nbridge.explore.app import make_app
from nbridge.explore.session import Session
from nbridge.visual.png import data_uri

from .mutations import WORDS, as_json, changed, damaged
from .rows import ENCODER, SMALL

MODALITIES = {
    "x": {"shape": 3, "likelihood": "normal", **ENCODER},
    "n": {"shape": 2, "likelihood": "poisson", **ENCODER},
    "kind": {"shape": 3, "likelihood": "categorical", **ENCODER},
    "image": {"shape": [1, 4, 4], "likelihood": "bernoulli", **ENCODER},
}
STATUSES = {200, 400, 403, 404, 405, 413, 422}
GREY = np.arange(16, dtype=np.uint8).reshape(4, 4, 1) * 16
QUESTIONS: tuple[tuple[str, Any], ...] = (
    ("/api/impute", {"given": {"x": {"values": [1.5, None, -2]}, "kind": {"label": 1}}, "show": {"n": [0, 1]}, "seed": 3}),
    ("/api/impute", {"given": {"image": {"picture": data_uri(GREY)}, "n": {"values": [1, 2]}}}),
    ("/api/prior", {"prior": None, "show": {"x": [2]}, "seed": 1}),
    ("/api/decode", {"point": [0.5, -0.5], "show": {}, "seed": 0}),
)
PATHS = ("/", "/explore.js", "/api/spec", "/api/row/0", "/api/latent", "/api/impute", "/api/upload", "/palette.css")
HEADERS = (
    "host",
    "origin",
    "sec-fetch-site",
    "content-length",
    "content-type",
    "connection",
    "expect",
    "transfer-encoding",
    "range",
    "accept",
)


@functools.cache
def client() -> TestClient:
    """A client of an untrained model."""
    spec = nbridge.Spec.model_validate({"modalities": MODALITIES, **SMALL})
    return TestClient(
        make_app(Session(nbridge.build_model(spec, seed=0).eval(), spec, "fuzzed", reason="none")), base_url="http://127.0.0.1"
    )


@functools.cache
def pictures() -> list[bytes]:
    """Pictures in files of several formats."""
    import io

    found = []
    for kind in ("PNG", "JPEG", "WEBP", "BMP", "GIF"):
        buffer = io.BytesIO()
        Image.fromarray(np.kron(GREY[:, :, 0], np.ones((4, 4), np.uint8))).save(buffer, format=kind)
        found.append(buffer.getvalue())
    return found


def prepare(folder: Path) -> None:
    """Makes the client."""
    client().get("/api/spec")


def case(rng: Random, folder: Path) -> None:
    """Sends a damaged request."""
    method, path, body, headers = "POST", "", b"", {}
    match rng.randrange(8):
        case 0 | 1 | 2:
            path, question = rng.choice(QUESTIONS)
            body = as_json(changed(rng, question))
        case 3:
            path, question = rng.choice(QUESTIONS)
            body = damaged(rng, as_json(question))
        case 4 | 5:
            path, body = "/api/upload?modality=image", damaged(rng, rng.choice(pictures()))
        case 6:
            method = rng.choice(("GET", "POST", "PUT", "HEAD", "OPTIONS", "DELETE"))
            path = "/" + quote(damaged(rng, rng.choice(PATHS)[1:].encode()), safe="/%?=&")
        case _:
            method, path = "GET", rng.choice(PATHS)
            headers = {rng.choice(HEADERS): rng.choice(WORDS).encode("ascii", "replace").replace(b"\x00", b"").replace(b"\n", b"")}
    (folder / "request.json").write_text(json.dumps([method, path, body.decode("latin-1"), {k: repr(v) for k, v in headers.items()}]))
    answer = client().request(method, path, content=body, headers=headers)
    assert answer.status_code in STATUSES, answer.text
    if method == "HEAD":
        return
    if answer.status_code != 200:
        (line,) = answer.json().values()
        raise nbridge.NBridgeError(line)
    if answer.headers["content-type"] == "application/json":
        json.loads(answer.text, parse_constant=_refuse)


def _refuse(word: str) -> None:
    raise AssertionError(f"{word} in an answer")
