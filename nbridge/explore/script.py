"""Python code that makes the draws that the page shows."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from nbridge.data.batch import Batch
from nbridge.explore.inputs import batch_of, levels_of, levels_shown, nothing_given
from nbridge.explore.requests import Script
from nbridge.explore.responses import draws_of
from nbridge.explore.session import Session
from nbridge.inference.impute import mixture_for

HEAD = """# The draws that the page of nbridge explore shows.
import nbridge
import torch

model = nbridge.load({folder!r})
"""
TAIL = """for name, values in draws.items():
    print(name, tuple(values.shape), values.double().mean(0).flatten()[:12].tolist())
"""


def script(session: Session, request: Script) -> dict[str, str]:
    """The code of a request; ``draws`` has all draws of each modality, K rows of it.

    Raises:
        DataError: when a given value does not match the model, or the requested prior is not available.
    """
    head = HEAD.format(folder=session.folder or "runs/NAME")
    return {"python": head + (_imputed(session, request) if request.given else _generated(session, request)) + TAIL}


def _imputed(session: Session, request: Script) -> str:
    batch = batch_of(session, request.given, request.covariates)
    fixed = f", covariates={request.fixed!r}" if levels_of(session, request.fixed) else ""
    how = f"samples={draws_of(session.model)}, seed={request.seed}{fixed}"
    return f"""{_rows(batch)}imputed = model.impute(rows, {how})  # noise=False: without the spread of the likelihood
draws = {{name: values[:, 0] for name, values in imputed.values.items()}}
"""


def _generated(session: Session, request: Script) -> str:
    mixture_for(session.model, request.prior)
    # What is decoded has the fixed values; nothing is encoded.
    levels = {**levels_shown(session, nothing_given(session, request.covariates).covariates), **request.fixed}
    levels_of(session, request.fixed)
    fixed = f", covariates={levels!r}" if levels else ""
    return f"draws = model.generate({draws_of(session.model)}, noise=True, seed={request.seed}, prior={request.prior!r}{fixed})\n"


def _rows(batch: Batch) -> str:
    parts = {"values": batch.values, "present": batch.present, "cells": batch.cells, "covariates": batch.covariates}
    lines = [f"    {what}={{{_tensors(tensors)}}},\n" for what, tensors in parts.items() if tensors]
    return f"rows = nbridge.Batch(\n{''.join(lines)})\n"


def _tensors(tensors: Mapping[str, Tensor]) -> str:
    return ", ".join(f"{name!r}: torch.tensor({x.tolist()!r}, dtype={x.dtype})" for name, x in tensors.items())
