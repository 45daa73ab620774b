"""Serving: a model behind HTTP, with FastAPI. Rows are JSON objects by modality; a missing value is null, or its name is left out.

Run `pip install fastapi uvicorn`, then `MODEL=runs/mine uvicorn --app-dir examples serve:app`, and ask:

    curl localhost:8000/impute --json '{"rows": [{"x": [0.5, null], "kind": null}], "samples": 5}'
"""

import os
from contextlib import suppress
from typing import Any

import numpy as np
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, Field

import nbridge
from nbridge.nn.likelihoods import Categorical


class Question(BaseModel):
    rows: list[dict[str, Any]] = Field(min_length=1, max_length=10_000)
    samples: int | None = Field(None, ge=1, le=100)
    intervals: list[float] = Field([], max_length=5)


def serve(model: nbridge.Model) -> FastAPI:
    app = FastAPI(title="nbridge")
    shapes = {name: () if isinstance(one, Categorical) else one.shape for name, one in model.likelihoods.items()}

    def column(rows: list[dict[str, Any]], name: str) -> np.ndarray:
        absent = np.full(shapes[name], np.nan)
        with suppress(TypeError, ValueError):
            values = [absent if row.get(name) is None else np.array(row[name], dtype=float) for row in rows]
            if all(array.shape == shapes[name] for array in values):
                return np.stack(values)
        raise nbridge.DataError(f"modality {name!r}: expected numbers of shape {shapes[name]}, or a class index for (), in each row")

    @app.post("/impute")
    def impute(question: Question) -> dict[str, Any]:
        try:
            if unknown := {name for row in question.rows for name in row} - set(shapes):
                raise nbridge.DataError(f"no modality {sorted(unknown)[0]!r}, expected {', '.join(shapes)}")
            rows = {name: column(question.rows, name) for name in shapes}
            done = model.impute(rows, samples=question.samples, intervals=question.intervals)
        except nbridge.NBridgeError as error:
            raise HTTPException(422, str(error)) from error
        return {name: np.where(np.isfinite(array), array.astype(object), np.array(None)).tolist() for name, array in done.items()}

    return app


if "MODEL" in os.environ:
    app = serve(nbridge.load(os.environ["MODEL"]))
