"""MuData and AnnData as rows: what lies where, who is present, and that a later file is read as the one that was learned from."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omics import KINDS, ROWS, SHAPES, adata, joined, observations, read, spec_of, study, write
from scipy import sparse

import nbridge
from nbridge.data.omics import source as h5mu
from nbridge.data.omics.source import H5MU, MuDataSource
from nbridge.data.source import open_data
from nbridge.draft.checks import check_data
from nbridge.errors import DataError
from nbridge.training.build import settle


def refused(message: str) -> Any:
    return pytest.raises(DataError, match=f"^{re.escape(message)}$")


@pytest.mark.parametrize("kind", ["dense", "csr", "csc", "csr_array"])
def test_a_matrix_is_read_as_it_is_whatever_it_is_stored_as(tmp_path: Path, kind: str):
    data = study(kind)
    rows = H5MU(path=str(write(tmp_path / "a.h5mu", data)), variables={"rna": "var/highly_variable"}).load(_shapes())
    truth = study("dense").mod["rna"].X[:, [0, 1, 3, 4]]
    assert rows.batch.present["rna"].all()  # zeros are values
    np.testing.assert_array_equal(rows.batch.values["rna"].numpy(), truth)
    assert rows.ids.tolist() == observations()


@settings(max_examples=10)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=9).map(lambda rows: [(True, True), *rows]))
def test_presence_is_that_of_the_masks_of_mudata(has: list[tuple[bool, bool]]):
    names = np.array(observations(len(has)))
    masks = {name: np.array([row[place] for row in has]) for place, name in enumerate(("a", "b"))}
    # What is observed is zero throughout, stored or not.
    parts = {name: adata(sparse.csr_matrix((mask.sum(), 2)), names[mask][::-1], [f"{name}1", f"{name}2"]) for name, mask in masks.items()}
    data = joined(parts)
    batch = MuDataSource().with_rows(open_data(data)).load({"a": (2,), "b": (2,)}).batch
    for name in parts:
        np.testing.assert_array_equal(batch.present[name].numpy(), np.asarray(data.obsm[name]).reshape(-1))
        assert batch.present[name].sum() == masks[name].sum()
    assert not any(values.any() for values in batch.values.values())


def test_nan_cells_and_empty_categories_are_absent(tmp_path: Path):
    data = study()
    data.obs["stage"] = data.obs["stage"].cat.add_categories([""])
    data.obs.loc["cell9", "stage"] = ""
    batch = H5MU(path=str(write(tmp_path / "a.h5mu", data)), variables={"rna": "var/highly_variable"}).load(_shapes()).batch
    prot, names = data.mod["prot"], data.obs_names
    there = np.isin(names, prot.obs_names)
    part = names == prot.obs_names[0]
    np.testing.assert_array_equal(batch.present["prot"].numpy(), there & (names != prot.obs_names[1]))
    assert batch.cells["prot"][part].tolist() == [[True, False, True]]
    assert (~batch.present["stage"]).nonzero()[:, 0].tolist() == [0, 1, 2, 3, 4, 9]
    assert (~batch.present["age"]).nonzero()[:, 0].tolist() == [3, 4, 5, 6, 7, 8]


def test_every_place_can_be_a_modality(tmp_path: Path):
    data = study()
    data.mod["prot"].obsm["table"] = pd.DataFrame({"x": 1.0, "y": 2.0}, index=data.mod["prot"].obs_names)
    data.obsm["joint"] = np.arange(2.0 * ROWS).reshape(ROWS, 2)
    keys = {
        "log": "rna/layers/log", "pca": "rna/obsm/X_pca", "table": "prot/obsm/table", "joint": "obsm/joint", "batch": "rna/obs/batch",
        "quality": ["rna/obs/depth", "rna/obs/good"], "good": "rna/obs/good", "prot": "prot",
    }  # fmt: skip
    shapes = {"log": (5,), "pca": (2,), "table": (1,), "joint": (2,), "batch": (2,), "quality": (2,), "good": (2,), "prot": (1,)}
    variables = {"table": "y", "prot": "CD8"}
    source = H5MU(path=str(write(tmp_path / "a.h5mu", data)), keys=keys, variables=variables)
    batch = source.load(shapes).batch
    rna, prot = data.mod["rna"], data.mod["prot"]
    same = {name: batch.values[name].numpy() for name in shapes}
    np.testing.assert_array_equal(same["log"], rna.layers["log"])
    np.testing.assert_array_equal(same["pca"], rna.obsm["X_pca"].astype(np.float32))
    np.testing.assert_array_equal(same["joint"], data.obsm["joint"])
    np.testing.assert_array_equal(same["quality"], rna.obs[["depth", "good"]].to_numpy(np.float32))
    np.testing.assert_array_equal(same["batch"], (rna.obs["batch"] == "two").to_numpy())
    np.testing.assert_array_equal(same["good"], rna.obs["good"].to_numpy())
    there = batch.present["table"].numpy()
    assert set(same["table"][there].ravel().tolist()) == {2.0}
    np.testing.assert_array_equal(same["prot"][there & batch.present["prot"].numpy()].ravel(), _in_order(data, prot.X[:, 2]))
    assert source.bind(shapes)["variables"]["table"] == ("y",)


def _in_order(data: Any, values: np.ndarray) -> np.ndarray:
    """Values of proteins in the order of all observations, without those that are missing."""
    whole = pd.Series(values, data.mod["prot"].obs_names).reindex(data.obs_names)
    return whole.dropna().to_numpy()


def test_a_later_file_with_other_orders_and_more_is_read_alike(tmp_path: Path):
    data = study()
    source = {"path": str(write(tmp_path / "a.h5mu", data)), "variables": {"rna": "var/highly_variable", "prot": "CD*"}}
    spec = settle(spec_of(SHAPES, KINDS, source="h5mu", **source))
    settled = spec.data.source.kwargs
    assert settled["variables"] == {"rna": ("gene0", "gene1", "gene3", "gene4"), "prot": ("CD3", "CD4", "CD8")}
    assert settled["classes"] == {"stage": ("III", "II", "I")}
    assert settled["keys"] == {"rna": "rna/X", "prot": "prot/X", "stage": "obs/stage", "age": "obs/age"}

    rna, prot = data.mod["rna"][:, ::-1].copy(), data.mod["prot"]
    del rna.var["highly_variable"]
    more = adata(np.hstack([prot.X[:, ::-1], prot.X]), prot.obs_names, ["CD8", "CD4", "CD3", "CD3b", "CD99", "other"])
    later = joined({"prot": more, "rna": rna}, data.obs.assign(stage=data.obs["stage"].astype(object)))
    order = [list(later.obs_names).index(name) for name in data.obs_names]
    named = {key: value for key, value in settled.items() if key != "path"}
    whole, mine = MuDataSource(**named).with_rows(open_data(later)).load(_shapes()), H5MU(**settled).load(_shapes())
    for name in SHAPES:
        np.testing.assert_array_equal(whole.batch.values[name][order], mine.batch.values[name])
        np.testing.assert_array_equal(whole.batch.present[name][order], mine.batch.present[name])


def test_names_decide_where_modalities_lie_when_nothing_else_does(tmp_path: Path):
    one = study().mod["rna"]
    shapes = {"X": (5,), "batch": (2,)}
    dataset = H5MU(path=str(write(tmp_path / "a.h5ad", one))).load(shapes)
    np.testing.assert_array_equal(dataset.batch.values["X"].numpy(), one.X.toarray())
    assert H5MU(path=str(tmp_path / "a.h5ad")).bind(shapes)["keys"] == {"X": "X", "batch": "obs/batch"}


def test_rows_of_an_object_are_those_of_its_file_and_a_spec_without_a_source_takes_them(tmp_path: Path):
    data = study()
    data.mod["rna"] = data.mod["rna"][:, data.mod["rna"].var["highly_variable"]].copy()
    path = str(write(tmp_path / "a.h5mu", data))
    one, other = H5MU(path=path).load(_shapes()), MuDataSource().with_rows(open_data(data)).load(_shapes())
    for name in SHAPES:
        np.testing.assert_array_equal(one.batch.values[name], other.batch.values[name])
        np.testing.assert_array_equal(one.batch.present[name], other.batch.present[name])
    spec = spec_of(SHAPES, KINDS).as_dict() | {"data": {"source": "memory", "validation": 0.0, "test": 0.0}}
    run = nbridge.train(spec, data)
    assert (run.spec.data.source.type, run.spec.data.source.kwargs["keys"]["stage"]) == ("mudata", "obs/stage")


BAD: dict[str, tuple[Any, dict[str, Any], str]] = {
    "no such modality": (
        None, {"keys": {"prot": "prto/X"}},
        "no modality 'prto' for modality 'prot'. Did you mean 'prot'? Found: rna, prot"),
    "no such layer": (
        None, {"keys": {"rna": "rna/layers/logs"}},
        "modality 'rna': no layers/logs for modality 'rna'. Did you mean 'layers/log'? Found: X, layers/log, obsm/X_pca",
    ),
    "no such column": (
        None, {"keys": {"stage": "obs/stag"}}, "no obs/stag for modality 'stage'. Did you mean 'obs/stage'? Found: obs/stage, obs/age",
    ),
    "no place": (
        None, {"keys": {"rna": "rna/layer/log"}},
        "keys: 'rna/layer/log' is not an address in these data. Did you mean 'layers'? Expected MODALITY, MODALITY/layers/NAME, "
        "MODALITY/obsm/NAME, obs/COLUMN (in .h5ad files X, layers/NAME, obsm/NAME, obs/COLUMN)",
    ),
    "nothing called so": (
        lambda data: data.obs.drop(columns="age", inplace=True), {},
        "modality 'age': no modality or obs column of this name. Did you mean 'stage'? Found: modalities rna, prot; columns of obs: stage. "
        "Set its address: keys: {age: rna/layers/counts}",
    ),
    "no such variable": (
        None, {"variables": {"rna": ["gene0", "gen1", "gene9", "gene3"]}},
        "modality 'rna': no variable 'gen1' for modality 'rna' (2 of 4 are missing). Did you mean 'gene1'? Found: gene0, gene1, "
        "gene2, gene3, gene4",
    ),
    "no such flag": (
        None, {"variables": {"rna": "var/variable"}},
        "modality 'rna': no column 'variable' in var for modality 'rna'. Did you mean 'highly_variable'? Found: highly_variable",
    ),
    "a number too many": (
        None, {"variables": {"rna": "gene*"}},
        "modality 'rna': 5 variables of rna/X, but the shape of modality 'rna' is (4,); write shape: 5, or choose variables "
        "(data.variables)",
    ),
    "var_names twice": (
        lambda data: setattr(data.mod["prot"], "var_names", ["a", "b", "a"]), {},
        "modality 'prot': var_name 'a' is duplicated in rows 0 and 2; var_names_make_unique() fixes it",
    ),
    "text among numbers": (
        None, {"keys": {"age": "rna/obs/batch"}, "classes": {"age": ["one", "three"]}},
        "modality 'rna': column 'obs/batch': observation 'cell1' holds \"two\", a class that data.classes does not list; it lists one, "
        "three. Leave absent cells empty.",
    ),
    "not as many classes": (
        None, {"keys": {"stage": "rna/obs/batch"}},
        "modality 'rna': obs/batch has 2 classes (one, two), but modality 'stage' is of shape (3,); write shape: 2, or list the classes in "
        "data.classes",
    ),
    "an infinite value": (
        lambda data: data.mod["prot"].X.__setitem__((2, 1), np.inf), {},
        "modality 'prot' (prot/X, 'CD4'), observation 'cell31': inf, values must be finite (NaN marks absent values)",
    ),
    "text side by side": (
        None, {"keys": {"age": ["rna/obs/depth", "rna/obs/batch"]}},
        "modality 'rna': obs/batch holds category, expected numbers; make classes a separate modality",
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*names are not unique:UserWarning")
@pytest.mark.parametrize("case", BAD)
def test_a_mistake_is_one_line_with_the_file_and_what_was_expected(tmp_path: Path, case: str):
    spoil, options, message = BAD[case]
    data = study()
    if spoil is not None:
        spoil(data)
    path = write(tmp_path / "a.h5mu", data)
    with pytest.raises(DataError) as found:
        H5MU(**{"path": str(path), "variables": {"rna": "var/highly_variable"}, **options}).load(_shapes())
    assert str(found.value).removeprefix(f"{path}: ") == message


def _shapes() -> dict[str, tuple[int, ...]]:
    return {name: (shape,) for name, shape in SHAPES.items()}


def test_files_that_are_damaged_or_of_another_kind(tmp_path: Path):
    whole = write(tmp_path / "whole.h5ad", study().mod["rna"])
    cut, text, newer, other = (tmp_path / f"{name}.h5ad" for name in ("cut", "text", "newer", "other"))
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    text.write_text("no HDF5")
    newer.write_bytes(whole.read_bytes())
    with h5py.File(newer, "r+") as file:
        file["X"].attrs["encoding-version"] = "99.0.0"
    with h5py.File(other, "w") as file:
        file["matrix"] = np.eye(3)
    for path, message in {
        cut: "truncated HDF5 file",
        text: "not an HDF5 file, as .h5ad files are, or damaged",
        newer: "X can't be read (a newer encoding than this anndata reads; upgrade anndata)",
        other: "an HDF5 file that holds no AnnData or MuData object: no obs in it. Found: matrix",
    }.items():
        with refused(f"{path}: {message}"):
            H5MU(path=str(path)).load({"X": (5,)})
    with refused(f"{tmp_path / 'none.h5ad'}: no such file"):
        H5MU(path=str(tmp_path / "none.h5ad")).load({"X": (5,)})


def test_an_object_without_x_and_arrays_that_are_no_matrix(tmp_path: Path):
    names = observations(3)
    bare = adata(None, names, ["u", "v"], layers={"counts": np.ones((3, 2))}, obsm={"deep": np.ones((3, 2, 2)), "odd": np.eye(3) > 0})
    bare.obsm["words"] = pd.DataFrame({"w": ["a", "b", "c"]}, index=names)
    path = write(tmp_path / "a.h5ad", bare)
    with refused(f"{path}: no X for modality 'X'. Found: layers/counts, obsm/deep, obsm/odd, obsm/words"):
        H5MU(path=str(path)).load({"X": (2,)})
    matrix = "expected a matrix of real numbers, a row an observation, for modality 'e'"
    with refused(f"{path}: obsm/deep: ndarray of dtype float64 and shape (3, 2, 2), {matrix}"):
        H5MU(path=str(path), keys={"e": "obsm/deep"}).load({"e": (2,)})
    with refused(f"{path}: obsm/words: ndarray of dtype object and shape (3, 1), {matrix}"):
        H5MU(path=str(path), keys={"e": "obsm/words"}).load({"e": (2,)})
    assert H5MU(path=str(path), keys={"e": "obsm/odd"}).load({"e": (3,)}).batch.values["e"].tolist() == np.eye(3).tolist()
    with refused(
        f"{path}: an AnnData object has no modalities, but modality 'e' has the address 'rna/X'; write keys: {{e: X}}, or wrap it: "
        "mudata.MuData({'rna': adata})"
    ):
        H5MU(path=str(path), keys={"e": "rna/X"}).load({"e": (2,)})


@pytest.mark.filterwarnings("ignore:Observation names are not unique:UserWarning")
def test_names_of_observations_must_differ(tmp_path: Path):
    path = write(tmp_path / "a.h5ad", adata(np.eye(3), ["a", "b", "a"], ["u", "v", "w"]))
    with refused(f"{path}: obs_name 'a' is duplicated in rows 0 and 2; obs_names_make_unique() fixes it"):
        H5MU(path=str(path)).load({"X": (3,)})


def test_a_value_outside_of_a_support_is_told_by_its_names(tmp_path: Path):
    data = study("dense")
    data.mod["rna"].X[7, 3] = -1
    path = write(tmp_path / "a.h5mu", data)
    spec = spec_of(SHAPES, KINDS, source="h5mu", path=str(path), variables={"rna": "var/highly_variable"})
    message = (
        f"{path}: modality 'rna' (rna/X, 'gene3'), observation 'cell7': value -1 is outside the support of NegativeBinomial, whole numbers "
        "from 0 (1 such row). Rescale the values or choose another likelihood."
    )
    with refused(message):
        nbridge.train(spec)
    assert check_data(spec).errors == (message,)


def test_validation_tells_all_mistakes_and_names_variables(tmp_path: Path):
    data = study("dense")
    data.mod["rna"].X[:, 4] = 2
    path = str(write(tmp_path / "a.h5mu", data))
    options = {"source": "h5mu", "path": path, "variables": {"rna": "var/highly_variable"}}
    assert (
        "modality 'rna': gene4: the same value in all rows; leave it out unless it varies in other data"
        in check_data(spec_of(SHAPES, KINDS, **options)).warnings
    )
    wrong = check_data(spec_of(SHAPES, KINDS, **{**options, "variables": {"rna": "nothing"}, "keys": {"stage": "obs/stages"}}))
    assert [line.partition(" for modality")[0] for line in wrong.errors] == [
        f"{path}: modality 'rna': no variable 'nothing'", f"{path}: no obs/stages",
    ]  # fmt: skip


def test_dense_values_that_would_not_fit_into_memory_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write(tmp_path / "a.h5mu", study())
    monkeypatch.setattr(h5mu, "free_bytes", lambda: 1000.0)
    with pytest.raises(DataError, match=r"most of them modality 'rna' \(40 observations of 5 variables\), and 0\.0 GB are free"):
        H5MU(path=str(path)).load({"rna": (5,), "prot": (3,)})


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write(tmp_path / "a.h5ad", study().mod["rna"])
    for name in [name for name in sys.modules if name.partition(".")[0] == "anndata"]:
        monkeypatch.setitem(sys.modules, name, None)
    with refused('.h5mu and .h5ad files are read by anndata, which is not installed: pip install "nbridge[omics]"'):
        H5MU(path=str(path)).load({"X": (5,)})


def test_modalities_that_share_variables_are_refused(tmp_path: Path):
    path = write(tmp_path / "a.h5mu", study())
    with h5py.File(path, "r+") as file:
        file.attrs["axis"] = 1
    with refused(f"{path}: modalities share variables (axis 1), expected modalities that share observations (axis 0)"):
        H5MU(path=str(path)).load({"rna": (5,)})


def test_an_object_that_is_backed_by_a_file_is_refused(tmp_path: Path):
    path = write(tmp_path / "a.h5ad", study().mod["rna"])
    backed = anndata.io.read_h5ad(path, backed="r")
    with refused("AnnData object is backed by a file; call to_memory(), or pass the path"):
        open_data(backed)
    backed.file.close()
    assert read(path).n_obs == ROWS


def test_rows_that_python_holds_must_be_passed():
    with refused("the rows of this spec are a MuData or AnnData object: pass it from Python, nbridge.train(spec, data=mdata)"):
        nbridge.train(spec_of(SHAPES, KINDS))
