"""What the kinds of rows share: small rows, models of them, and the ways in which rows are used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

import nbridge
from nbridge.data.batch import Batch
from nbridge.draft.checks import check_data
from nbridge.spec.spec import Spec
from nbridge.training.build import build_data, build_model, settle

ROWS = 24
SMALL = {"fusion": {"hidden": [4]}, "bridges": {"hidden": [4]}, "latent_dim": 2}
ENCODER = {"features": 4, "encoder": {"type": "mlp", "hidden": [4]}}


def model_of(spec: Spec) -> nbridge.Model:
    """A model that has seen the rows of its spec, untrained."""
    spec = settle(spec)
    network = build_model(spec, seed=0)
    splits = build_data(spec, network)
    train = splits.train
    network.fit_statistics(train if isinstance(train, Batch) else train.slice(0, len(train)))
    return nbridge.Model(network.eval(), spec)


def small(modalities: dict[str, Any], data: dict[str, Any]) -> Spec:
    """A spec of a small model."""
    return Spec.model_validate({
        "modalities": {name: {**ENCODER, **modality} for name, modality in modalities.items()},
        "data": {"validation": 0, "test": 0, **data},
        **SMALL,
    })  # fmt: skip


def use(rng: Random, path: Path, spec: Callable[[Path], Spec], model: nbridge.Model, unchanged: Callable[[Path, Path], None]) -> None:
    """Drafts a spec of a file, checks a spec against it, or imputes it."""
    match rng.randrange(4):
        case 0:
            draft = nbridge.init(path)
            # A draft that cannot be read, or that names what is not there, is a fault of nbridge, whatever its rows.
            try:
                check(draft.spec)
            except nbridge.NBridgeError as error:
                if isinstance(error, nbridge.SpecError) or ": no " in str(error):
                    raise AssertionError(f"a draft that is refused: {error}") from error
                raise
        case 1:
            check(spec(path))
        case _:
            out = path.with_name(f"completed{path.suffix}")
            options = rng.choice(({}, {}, {"samples": 2}, {"intervals": (0.9,)}))
            try:
                model.impute(path, out, **options)
            except nbridge.NBridgeError:
                assert not out.exists(), "a refusal leaves an output"
                raise
            assert sorted(one.name for one in path.parent.iterdir()) == sorted({path.name, out.name}), "files are left"
            if options != {"samples": 2}:
                unchanged(path, out)


def check(spec: Spec) -> None:
    """Checks a spec against its rows; raises the first error."""
    found = check_data(spec)
    if found.errors:
        raise nbridge.DataError(found.errors[0])


def same(before: np.ndarray, after: np.ndarray) -> None:
    """Asserts that what is in an array is in another, bit for bit, with the same type."""
    assert before.dtype == after.dtype, f"{before.dtype} became {after.dtype}"
    assert before.shape == after.shape, f"{before.shape} became {after.shape}"
    there = ~np.isnan(before) if before.dtype.kind == "f" else np.ones(before.shape, dtype=bool)
    assert before[there].tobytes() == after[there].tobytes(), "an observed value has changed"
