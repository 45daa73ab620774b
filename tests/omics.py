"""Small MuData and AnnData objects, of modalities that some observations lack."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata
import h5py
import mudata
import numpy as np
import pandas as pd
import torch
from scipy import sparse

import nbridge

ROWS = 40
SHAPES: dict[str, int] = {"rna": 4, "prot": 3, "stage": 3, "age": 1}
KINDS = {"rna": "negative_binomial", "prot": "normal", "stage": "categorical", "age": "normal"}


def observations(rows: int = ROWS) -> list[str]:
    return [f"cell{row}" for row in range(rows)]


def adata(x: Any, names: Any, variables: list[str], **slots: Any) -> anndata.AnnData:
    obs = slots.pop("obs", None)
    obs = pd.DataFrame(index=list(names)) if obs is None else obs.set_index(pd.Index(list(names)))
    return anndata.AnnData(X=x, obs=obs, var=slots.pop("var", pd.DataFrame(index=variables)), **slots)


def joined(parts: dict[str, anndata.AnnData], obs: pd.DataFrame | None = None) -> mudata.MuData:
    """A MuData object, as the coming version of mudata makes it."""
    with mudata.set_options(pull_on_update=False):
        found = mudata.MuData(parts)
        if obs is not None:
            found.obs = obs.reindex(found.obs_names)
        return found


def study(kind: str = "csr", rows: int = ROWS) -> mudata.MuData:
    """Counts of all observations, of one variable too many; protein of some, in an order of its own; and a stage and an age of some."""
    rng = np.random.default_rng(0)
    names = np.array(observations(rows))
    counts = rng.poisson(2, (rows, 5)).astype(np.float32)
    as_kind = {"dense": np.asarray, "csr": sparse.csr_matrix, "csc": sparse.csc_matrix, "csr_array": sparse.csr_array}[kind]
    var = pd.DataFrame({"highly_variable": [True, True, False, True, True]}, index=[f"gene{place}" for place in range(5)])
    obs = pd.DataFrame({"depth": counts.sum(1).astype(int), "good": counts.sum(1) > 8, "batch": ["one", "two"] * (rows // 2)})
    rna = adata(as_kind(counts), names, [], obs=obs, var=var, uns={"method": {"name": "made"}})
    rna.layers["log"] = np.log1p(counts)
    rna.obsm["X_pca"] = rng.normal(size=(rows, 2))
    rna.raw = rna.copy()

    has = rng.permutation(rows)[: rows * 5 // 8]
    protein = rng.normal(size=(len(has), 3)).astype(np.float32)
    protein[0, 1], protein[1] = np.nan, np.nan
    obs = pd.DataFrame({"depth": np.arange(len(has)), "good": [True] * len(has), "text": [f"t{row}" for row in range(len(has))]})
    prot = adata(protein, names[has], ["CD3", "CD4", "CD8"], obs=obs, uns={"panel": "A"})
    prot.layers["raw"] = np.arange(protein.size).reshape(protein.shape)
    prot.obsm["X_umap"] = rng.normal(size=(len(has), 2)).astype(np.float32)
    prot.obsp["near"] = sparse.eye(len(has)).tocsr()

    stage = pd.Series(pd.Categorical(rng.choice(["I", "II", "III"], rows), categories=["III", "II", "I"]), index=names)
    stage[:5] = np.nan
    age = pd.Series(rng.normal(60, 9, rows), index=names)
    age[3:9] = np.nan
    found = joined({"rna": rna, "prot": prot}, pd.DataFrame({"stage": stage, "age": age}))
    found.uns["title"] = "a study"
    return found


def copy_of(data: mudata.MuData) -> mudata.MuData:
    with mudata.set_options(pull_on_update=False):
        return data.copy()


def write(path: Path, data: Any, compression: str | None = None) -> Path:
    with mudata.set_options(pull_on_update=False):
        data.write(path, **({} if compression is None else {"compression": compression}))
    return path


def read(path: Path) -> Any:
    with mudata.set_options(pull_on_update=False):
        return mudata.read_h5mu(path) if path.suffix == ".h5mu" else anndata.io.read_h5ad(path)


def spec_of(shapes: dict[str, int], kinds: dict[str, str], **data: Any) -> nbridge.Spec:
    part = {"features": 4, "encoder": {"type": "mlp", "hidden": [4]}}
    return nbridge.Spec.model_validate({
        "latent_dim": 2, "modalities": {name: {**part, "shape": shape, "likelihood": kinds[name]} for name, shape in shapes.items()},
        "data": {"source": "mudata", "validation": 0.0, "test": 0.0, **data},
        "fusion": {"hidden": [4]}, "bridges": {"hidden": [4]},
        "training": {"batch_size": 8, "stages": {"joint": {"epochs": 1}, "bridges": {"epochs": 1}}},
    })  # fmt: skip


def study_model() -> nbridge.Model:
    """A model that knows the study, of weights that nobody trained."""
    torch.manual_seed(0)
    return nbridge.Model.from_spec(
        spec_of(
            SHAPES,
            KINDS,
            keys={"rna": "rna/X", "prot": "prot/X", "stage": "obs/stage", "age": "obs/age"},
            variables={"rna": ("gene0", "gene1", "gene3", "gene4"), "prot": ("CD3", "CD4", "CD8")},
            classes={"stage": ("I", "II", "III")},
        )
    )


def dense(value: Any) -> np.ndarray:
    return value.toarray() if hasattr(value, "toarray") else np.asarray(value)


def contents(path: Path) -> dict[str, bytes]:
    """The bytes of every dataset of a file, and its attributes, by path."""
    found: dict[str, bytes] = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.update({name: _bytes(item)}))
    return found


def _bytes(item: Any) -> bytes:
    attributes = repr(sorted((key, str(value)) for key, value in item.attrs.items()))
    held = repr((np.asarray(item[()]).tolist(), str(item.dtype))) if isinstance(item, h5py.Dataset) else ""
    return (attributes + held).encode()
