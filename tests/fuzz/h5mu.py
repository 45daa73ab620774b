"""Damaged h5mu files: bytes, and groups, links, shapes, types and indices of sparse matrices."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path
from random import Random
from typing import Any

import anndata
import h5py
import mudata
import numpy as np
import pandas as pd
from scipy import sparse

import nbridge
from nbridge.spec.spec import Spec

from .mutations import WORDS, damaged
from .rows import ROWS, model_of, same, small, use

SHAPES = {
    "rna": {"shape": 4, "likelihood": "poisson"},
    "prot": {"shape": 3, "likelihood": "normal"},
    "stage": {"shape": 3, "likelihood": "categorical"},
}


def study() -> mudata.MuData:
    """Sparse counts of all observations, proteins of some, and a class."""
    rng = np.random.default_rng(0)
    names = np.array([f"cell{row}" for row in range(ROWS)])
    has = names[rng.random(ROWS) < 0.7]
    parts = {
        "rna": anndata.AnnData(sparse.csr_matrix(rng.poisson(1, (ROWS, 4)).astype(np.float32)), obs=pd.DataFrame(index=names)),
        "prot": anndata.AnnData(rng.normal(size=(len(has), 3)).astype(np.float32), obs=pd.DataFrame(index=has)),
    }
    with mudata.set_options(pull_on_update=False):
        found = mudata.MuData(parts)
        stage = pd.Categorical(rng.choice(["I", "II", "III"], ROWS), categories=["I", "II", "III"])
        found.obs = pd.DataFrame({"stage": pd.Series(stage, index=names)}).reindex(found.obs_names)
    return found


def spec(path: Path) -> Spec:
    """A spec of the observations in a file."""
    return small(SHAPES, {"source": "h5mu", "path": str(path)})


@functools.cache
def whole(folder: Path) -> tuple[Path, nbridge.Model]:
    """The undamaged file and a model of it."""
    path = folder / "base.h5mu"
    with mudata.set_options(pull_on_update=False):
        study().write(path)
    return path, model_of(spec(path))


def prepare(folder: Path) -> None:
    """Makes the model."""
    whole(folder)


def case(rng: Random, folder: Path) -> None:
    """Uses a damaged file."""
    base, model = whole(folder.parent)
    path = folder / "rows.h5mu"
    if rng.random() < 0.5:
        path.write_bytes(damaged(rng, base.read_bytes()))
    else:
        shutil.copy(base, path)
        with h5py.File(path, "r+") as file:
            for _ in range(rng.choice((1, 1, 2))):
                change(rng, file)
    use(rng, path, spec, model, unchanged)


def change(rng: Random, file: h5py.File) -> None:
    """Changes one thing in a file."""
    names: list[str] = []
    file.visit(names.append)
    sets = [name for name in names if isinstance(file[name], h5py.Dataset)]
    name = rng.choice([*names, *[one for one in sets if one.endswith(("indices", "indptr", "data", "codes"))] * 3])
    node = file[name]
    match rng.randrange(7):
        case 0:
            del file[name]
        case 1:
            del file[name]
            file[name] = h5py.SoftLink(rng.choice(("/", name, f"{name}/a", "/mod", "/nothing")))
        case 2:
            del file[name]
            file[name] = rng.choice((0, 1.5, "text", np.zeros(3), np.zeros((2, 2)), np.array([b"a", b"b"])))
        case 3:
            key = rng.choice(list(node.attrs) or ["shape"])
            node.attrs[key] = rng.choice((0, "csr_matrix", "dataframe", "0.9", [1, 2], [2**40, 4], [-1, 4], np.array([ROWS, 1]), "a" * 100))
        case 4:
            file[f"{name.rpartition('/')[0]}/{rng.choice(('x', '_index', 'X', 'indices', 'ü'))}{rng.randrange(99)}"] = file[
                rng.choice(names)
            ]
        case _:
            changed_values(rng, node)


def changed_values(rng: Random, node: Any) -> None:
    """Changes a value of a dataset, or its length."""
    if not isinstance(node, h5py.Dataset) or not node.size:
        return
    values = node[()]
    if isinstance(values, np.ndarray) and values.dtype.kind in "iuf":
        strange = (0, -1, 1, ROWS, 10**6, 2**31 - 1, 2**62, -(2**62), np.nan, np.inf)
        place = rng.randrange(values.size)
        with np.errstate(all="ignore"):
            values.flat[place] = np.array(rng.choice(strange[:-2] if values.dtype.kind != "f" else strange)).astype(values.dtype)
    elif isinstance(values, np.ndarray):
        values.flat[rng.randrange(values.size)] = rng.choice(WORDS[2:12]).replace("\x00", "")
    parent, name, attrs = node.parent, node.name, dict(node.attrs)
    del parent[name]
    parent[name] = values if not isinstance(values, np.ndarray) or rng.random() < 0.8 else values[: rng.randrange(len(values) + 1)]
    parent[name].attrs.update(attrs)


def unchanged(before: Path, after: Path) -> None:
    """Proteins that are there are those of the file."""
    with h5py.File(before, "r") as old, h5py.File(after, "r") as new:
        if "X" not in old["mod/prot"]:
            return
        values, completed = old["mod/prot/X"][()], new["mod/prot/X"][()]
        kept = {name: place for place, name in enumerate(new["mod/prot/obs/_index"][()])}
        places = [kept[name] for name in old["mod/prot/obs/_index"][()]]
        same(values, completed[places])
