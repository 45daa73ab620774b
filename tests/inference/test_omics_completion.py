"""Imputation of MuData and AnnData: what was observed stays bit for bit, and what was not is filled in, in a copy."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import commands
import h5py
import mudata
import numpy as np
import pandas as pd
import pytest
from commands import Call
from omics import KINDS, ROWS, adata, contents, copy_of, dense, joined, observations, read, spec_of, study, study_model, write
from scipy import sparse

import nbridge
from nbridge.data.numpy.archive import read_npz
from nbridge.data.omics import rows as omics_rows
from nbridge.draft.draft import init
from nbridge.errors import DataError
from nbridge.explore.session import open_session
from nbridge.visual.modality_kinds import class_names, element_names

GENES = [0, 1, 3, 4]


def refused(message: str) -> Any:
    return pytest.raises(DataError, match=f"^{re.escape(message)}$")


@pytest.fixture(scope="module")
def model() -> nbridge.Model:
    return study_model()


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs a command in this process, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return commands.in_this_process(monkeypatch, capsys, columns=100)


def arrays_of(data: mudata.MuData) -> dict[str, np.ndarray]:
    """The modalities of a study as arrays, NaN where they are absent."""
    prot = pd.DataFrame(data.mod["prot"].X, data.mod["prot"].obs_names).reindex(data.obs_names).to_numpy()
    stage = pd.Categorical(data.obs["stage"], categories=["I", "II", "III"]).codes.astype(float)
    rna = dense(data.mod["rna"].X)[:, GENES]
    return {"rna": rna, "prot": prot, "stage": np.where(stage < 0, np.nan, stage), "age": data.obs["age"].to_numpy()}


def by_observation(data: mudata.MuData, part: str, matrix: Any) -> np.ndarray:
    return pd.DataFrame(dense(matrix), data.mod[part].obs_names).reindex(data.obs_names).to_numpy()


@pytest.mark.parametrize("kind", ["dense", "csr", "csc", "csr_array"])
def test_what_is_imputed_is_what_arrays_get_and_what_was_observed_stays(tmp_path: Path, model: nbridge.Model, kind: str):
    data = study(kind)
    prot = data.mod["prot"]
    prot.X = prot.X if kind == "dense" else sparse.csr_matrix(prot.X).asformat(kind[:3])
    path = write(tmp_path / "in.h5mu", data)
    plain = study()
    expected = model.impute(arrays_of(plain))
    told = model.impute(path, out=tmp_path / "out.h5mu")
    done = read(tmp_path / "out.h5mu")

    assert told.imputed == {"rna": 0, "prot": 17, "stage": 5, "age": 6}
    np.testing.assert_array_equal(by_observation(done, "prot", done.mod["prot"].X), expected["prot"])
    assert done.obs["stage"].astype(str).tolist() == [("I", "II", "III")[int(code)] for code in expected["stage"]]
    np.testing.assert_array_equal(done.obs["age"], expected["age"])
    before, after = read(path).mod["prot"], done.mod["prot"]
    assert after.obs_names[: before.n_obs].tolist() == before.obs_names.tolist()
    assert (type(after.X), after.X.dtype, getattr(after.X, "format", "")) == (type(before.X), np.float32, getattr(before.X, "format", ""))
    observed = ~np.isnan(dense(before.X))
    assert dense(after.X)[: before.n_obs][observed].tobytes() == dense(before.X)[observed].tobytes()
    cells = by_observation(done, "prot", done.mod["prot"].layers["prot__imputed"]).astype(bool)
    np.testing.assert_array_equal(cells, np.isnan(arrays_of(plain)["prot"]))
    for name in KINDS:
        rows = np.isnan(arrays_of(plain)[name].reshape(ROWS, -1)).any(1)
        np.testing.assert_array_equal(done.obs[f"{name}__imputed"], rows)


def test_all_else_in_a_file_is_copied_byte_by_byte(tmp_path: Path, model: nbridge.Model):
    path = write(tmp_path / "in.h5mu", study(), "gzip")
    with h5py.File(path, "r+") as file:
        file.create_group("of_another_program")["x"] = [1, 2]
    model.impute(path, out=tmp_path / "out.h5mu")
    before, after = contents(path), contents(tmp_path / "out.h5mu")
    grown = [f"mod/prot/{slot}" for slot in ("X", "obs", "layers", "obsm", "obsp")] + ["obs/stage", "obs/age", "obsm/prot", "obsmap/prot"]
    kept = {name: held for name, held in before.items() if not any(name == one or name.startswith(f"{one}/") for one in grown)}
    del kept["obs"]  # its attributes list the columns
    assert {name: after[name] for name in kept} == kept
    assert {"obs/_index", "mod/rna/X/data", "mod/rna/raw/X/data", "mod/prot/uns/panel", "uns/title", "of_another_program/x"} <= kept.keys()
    assert (tmp_path / "out.h5mu").read_bytes()[:64] == path.read_bytes()[:64]
    with h5py.File(tmp_path / "out.h5mu") as file:
        assert (file["mod/prot/X"].compression, file["mod/prot/layers/raw"].compression) == ("gzip", "gzip")
        assert dict(file.attrs)["encoding-type"] == "MuData"


def test_what_nobody_knows_of_observations_that_a_modality_gets_is_nan_and_told(tmp_path: Path, model: nbridge.Model):
    path = write(tmp_path / "in.h5mu", study())
    (told,) = [finding for finding in model.impute(path, out=tmp_path / "out.h5mu").warnings if finding.kind == "slot"]
    assert told.text == (
        f"{path}: modality 'prot': gets 15 observations, unknown in layers/raw, obsm/X_umap, obsp/near, obs (NaN; obsp has no edges)"
    )
    before, after = read(path).mod["prot"], read(tmp_path / "out.h5mu").mod["prot"]
    n = before.n_obs
    np.testing.assert_array_equal(after.layers["raw"][:n], before.layers["raw"])
    assert np.isnan(after.layers["raw"][n:]).all()
    assert np.isnan(after.obsm["X_umap"][n:]).all()
    assert (after.obsp["near"] != sparse.block_diag([before.obsp["near"], sparse.csr_matrix((15, 15))])).nnz == 0
    pd.testing.assert_frame_equal(after.obs[:n].astype(before.obs.dtypes), before.obs)
    assert after.obs[n:].isna().all(axis=None)
    assert [str(kind) for kind in after.obs.dtypes] == ["Int64", "boolean", "category"]


def test_an_object_is_completed_in_a_copy_as_its_file_is(tmp_path: Path, model: nbridge.Model):
    data = study()
    before, option = copy_of(data), mudata.set_options(pull_on_update=None).opts  # the user's own setting
    done = model.impute(data, intervals=(0.5, 0.9))
    model.impute(write(tmp_path / "in.h5mu", copy_of(data)), out=tmp_path / "out.h5mu", intervals=(0.5, 0.9))
    same = read(tmp_path / "out.h5mu")
    assert write(tmp_path / "memory.h5mu", copy_of(done)).is_file()
    assert mudata.set_options(pull_on_update=None).opts == option
    assert done.obs_names.tolist() == same.obs_names.tolist()
    pd.testing.assert_frame_equal(done.obs, same.obs)
    pd.testing.assert_frame_equal(done.obsm["stage__probability"], same.obsm["stage__probability"])
    for name in ("rna", "prot"):
        mine, other = done.mod[name], same.mod[name]
        np.testing.assert_array_equal(dense(mine.X), dense(other.X))
        assert mine.layers.keys() == other.layers.keys()
        for layer in mine.layers:
            np.testing.assert_array_equal(dense(mine.layers[layer]), dense(other.layers[layer]))
        np.testing.assert_array_equal(done.obsmap[name], same.obsmap[name])
        # The object that was given is as it was.
        np.testing.assert_array_equal(dense(data.mod[name].X), dense(before.mod[name].X))
        pd.testing.assert_frame_equal(data.mod[name].obs, before.mod[name].obs)
        assert data.mod[name].layers.keys() == before.mod[name].layers.keys()
    pd.testing.assert_frame_equal(data.obs, before.obs)
    assert done.mod["rna"].raw is not None
    assert not np.shares_memory(done.mod["rna"].layers["log"], data.mod["rna"].layers["log"])


def test_views_and_columns_that_were_pulled_from_modalities(model: nbridge.Model):
    data = study()
    with pytest.warns(FutureWarning, match="will not pull"):
        pulled = mudata.MuData(dict(data.mod))
    pulled.obs = pulled.obs.join(data.obs)
    whole = model.impute(pulled)
    pd.testing.assert_frame_equal(whole.obs[pulled.obs.columns].drop(columns=["stage", "age"]), pulled.obs.drop(columns=["stage", "age"]))
    half = model.impute(pulled[pulled.obs_names[::2]])
    assert not half.is_view
    np.testing.assert_allclose(half.mod["prot"][half.obs_names].X, whole.mod["prot"][half.obs_names].X, rtol=1e-5)  # other batches


@pytest.mark.filterwarnings("ignore:.*without encoding metadata")
def test_tables_of_old_files_are_written_anew_since_their_categories_are_references(tmp_path: Path):
    path = write(tmp_path / "in.h5ad", adata(np.eye(12) + 1, observations(12), [f"v{place}" for place in range(12)]))
    codes = np.array([-1, 0, 1] * 4, dtype=np.int8)
    with h5py.File(path, "r+") as file:
        for slot in ("obs", "obsm/table"):
            if slot in file:
                del file[slot]
            group = file.create_group(slot)
            group.attrs.update({"encoding-type": "dataframe", "encoding-version": "0.1.0", "_index": "_index", "column-order": ["kind"]})
            group["_index"], group["__categories/kind"], group["kind"] = observations(12), ["one", "two"], codes
            group["kind"].attrs["categories"] = group["__categories/kind"].ref
    run = nbridge.train(spec_of({"X": 12, "kind": 2}, {"X": "normal", "kind": "categorical"}, source="h5ad", path=str(path)))
    run.model.impute(path, out=tmp_path / "out.h5ad")
    done = read(tmp_path / "out.h5ad")
    assert done.obs["kind"].notna().all()
    assert done.obs["kind"][codes >= 0].tolist() == ["one", "two"] * 4
    assert done.obsm["table"]["kind"].cat.codes.tolist() == codes.tolist()


def test_draws_and_figures_lie_beside_the_matrix(model: nbridge.Model):
    data = study()
    draws, expected = model.impute(data, samples=3, seed=7), model.impute(arrays_of(data), samples=3, seed=7)
    prot = draws.mod["prot"]
    for draw in range(3):
        np.testing.assert_array_equal(by_observation(draws, "prot", prot.layers[f"prot__draw_{draw}"]), expected["prot"][draw])
        assert draws.obs[f"stage__draw_{draw}"].tolist() == [("I", "II", "III")[int(code)] for code in expected["stage"][draw]]
        np.testing.assert_array_equal(draws.obs[f"age__draw_{draw}"], expected["age"][draw])
    np.testing.assert_array_equal(dense(prot.X), dense(prot.layers["prot__draw_0"]))
    assert draws.mod["rna"].layers.keys() == data.mod["rna"].layers.keys()  # nothing was missing there

    figures, expected = (
        model.impute(data, intervals=(0.5, 0.9)),
        model.impute(arrays_of(data), intervals=(0.5, 0.9)),
    )
    prot = figures.mod["prot"]
    for what in ("mean", "sd"):
        np.testing.assert_array_equal(by_observation(figures, "prot", prot.layers[f"prot__{what}"]), expected[f"prot__{what}"])
        np.testing.assert_array_equal(figures.obs[f"age__{what}"], expected[f"age__{what}"])
    for place, level in enumerate((0.5, 0.9)):
        np.testing.assert_array_equal(by_observation(figures, "prot", prot.layers[f"prot__upper_{level}"]), expected["prot__upper"][place])
        np.testing.assert_array_equal(figures.obs[f"age__lower_{level}"], expected["age__lower"][place])
    np.testing.assert_allclose(figures.obsm["stage__probability"], expected["stage__probability"], atol=1e-7)
    assert figures.obsm["stage__probability"].columns.tolist() == ["I", "II", "III"]


def test_marks_of_an_earlier_imputation_stay_and_its_draws_and_statistics_do_not(tmp_path: Path, model: nbridge.Model):
    path, once, twice = (tmp_path / f"{name}.h5mu" for name in ("in", "once", "twice"))
    model.impute(write(path, study()), out=once, samples=2)
    assert model.impute(once, out=twice, intervals=(0.9,)).imputed == dict.fromkeys(KINDS, 0)
    first, second = read(once), read(twice)
    for done in (second, model.impute(first, samples=3)):
        assert done.obs.columns.tolist() == ["stage", "age", *(f"{name}__imputed" for name in KINDS)]
        assert done.obs[[f"{name}__imputed" for name in KINDS]].equals(first.obs[[f"{name}__imputed" for name in KINDS]])
        assert set(done.mod["prot"].layers) == {"raw", "prot__imputed"}
        assert (done.mod["prot"].layers["prot__imputed"] != first.mod["prot"].layers["prot__imputed"]).nnz == 0
        np.testing.assert_array_equal(done.mod["prot"].X, first.mod["prot"].X)
    assert list(init([str(once)]).spec.modalities) == list(init([str(path)]).spec.modalities)


def test_what_a_file_lacks_altogether_is_made(tmp_path: Path, model: nbridge.Model):
    only = joined({"rna": study().mod["rna"]})
    only.var["flag"], only.varm["loadings"] = True, np.ones((5, 2))
    path = write(tmp_path / "in.h5mu", only)
    assert model.impute(path, out=tmp_path / "out.h5mu").imputed == {"rna": 0, "prot": ROWS, "stage": ROWS, "age": ROWS}
    expected = model.impute({"rna": arrays_of(study())["rna"]})
    for done in (read(tmp_path / "out.h5mu"), model.impute(only)):
        assert list(done.mod) == ["rna", "prot"]
        assert done.mod["prot"].var_names.tolist() == ["CD3", "CD4", "CD8"]
        assert done.mod["prot"].obs_names.tolist() == observations()
        np.testing.assert_array_equal(done.mod["prot"].X, expected["prot"])
        assert done.obs["stage"].tolist() == [("I", "II", "III")[int(code)] for code in expected["stage"]]
        assert done.var_names.tolist() == [*done.mod["rna"].var_names, "CD3", "CD4", "CD8"]
        assert np.asarray(done.varm["prot"]).ravel().tolist() == [False] * 5 + [True] * 3
        with mudata.set_options(pull_on_update=False):
            done.update()  # it is an object that mudata takes for whole
        assert done.varmap["prot"].tolist() == [0] * 5 + [1, 2, 3]
        assert done.var["flag"].isna().tolist() == [False] * 5 + [True] * 3
        assert np.isnan(done.varm["loadings"]).all(1).tolist() == [False] * 5 + [True] * 3


def test_anndata_with_layers_embeddings_and_types_of_every_kind(tmp_path: Path):
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 9, (30, 3))
    obs = pd.DataFrame({
        "kind": ["a", "b", ""] * 10, "flag": pd.array([True, None, False] * 10, dtype="boolean"),
        "number": pd.array([3, 4, None] * 10, dtype="Int64"), "code": np.arange(30) % 2 + 1.0,
    })  # fmt: skip
    obs.loc[4, "code"] = np.nan
    data = adata(None, observations(30), ["u", "v", "w"], obs=obs, layers={"counts": sparse.csr_matrix(counts)})
    embedding = rng.normal(size=(30, 2))
    embedding[::4] = np.nan
    data.obsm["e"] = embedding
    data.obsm["table"] = pd.DataFrame(embedding.astype(np.float32), data.obs_names, columns=["x", "y"])
    shapes = {"counts": 3, "kind": 2, "flag": 1, "number": 1, "code": 2, "e": 2, "table": 1}
    kinds = {"counts": "poisson", "kind": "categorical", "flag": "bernoulli", "number": "poisson", "code": "categorical", "e": "normal"}
    keys = {"counts": "layers/counts", "e": "obsm/e", "table": "obsm/table"}
    spec = spec_of(shapes, {**kinds, "table": "normal"}, keys=keys, variables={"table": "y"}, classes={"code": [1, 2]})
    run = nbridge.train(spec, data)
    memory = run.model.impute(data)
    run.model.impute(write(tmp_path / "in.h5ad", data), out=tmp_path / "out.h5ad")
    for done in (memory, read(tmp_path / "out.h5ad")):
        assert set(done.obs["kind"]) == {"a", "b"}
        assert done.obs["kind"][obs["kind"].to_numpy() != ""].tolist() == obs["kind"][obs["kind"] != ""].tolist()
        assert (done.obs["flag"].dtype, done.obs["number"].dtype, done.obs["code"].dtype) == ("boolean", "Int64", np.float64)
        assert not done.obs[["flag", "number", "code"]].isna().any(axis=None)
        assert done.obs["code"].isin([1, 2]).all()
        np.testing.assert_array_equal(done.obsm["e"][1::4], embedding[1::4])
        assert not np.isnan(done.obsm["e"]).any()
        assert done.obsm["table"]["x"].isna().sum() == 8
        assert not done.obsm["table"]["y"].isna().any()
        assert (done.layers["counts"] != data.layers["counts"]).nnz == 0
        assert done.layers["counts"].dtype == counts.dtype
        assert done.X is None


def test_counts_that_are_whole_stay_whole_where_all_variables_are_known_and_become_floating_point_where_not(tmp_path: Path):
    rng = np.random.default_rng(0)
    names = np.array(observations(12))
    parts = {
        "a": adata(rng.integers(0, 9, (12, 2)), names, ["a1", "a2"]),
        "b": adata(rng.integers(0, 9, (8, 3)), names[:8], ["b1", "b2", "b3"]),
    }
    data = joined(parts)
    for variables, kind in ((["b1", "b2", "b3"], np.int64), (["b1", "b3"], np.float64)):
        spec = spec_of({"a": 2, "b": len(variables)}, {"a": "poisson", "b": "poisson"}, variables={"b": variables})
        done = nbridge.train(spec, data).model.impute(data).mod["b"]
        assert done.X.dtype == kind
        np.testing.assert_array_equal(done.X[:8], parts["b"].X)
        assert np.isnan(done.X[8:, 1]).all() == (kind is np.float64)


def test_large_codes_of_classes_are_imputed_to_the_last_digit():
    # None of them is a float.
    codes = 10**18 + 1 + np.arange(24) % 3
    parts = {name: adata(np.eye(24, 3) + codes[:, None] % 10, observations(24), [f"{name}{place}" for place in range(3)]) for name in "ab"}
    data = joined(parts, pd.DataFrame({"kind": codes}, index=observations(24)))
    spec = spec_of({"a": 3, "b": 3, "kind": 3}, {"a": "normal", "b": "normal", "kind": "categorical"}, keys={"kind": "obs/kind"})
    model = nbridge.train(spec, data).model
    holes = copy_of(data)
    holes.obs["kind"] = pd.array([None if row % 2 else int(code) for row, code in enumerate(codes)], dtype="Int64")
    done: Any = model.impute(holes)
    assert set(done.obs["kind"].tolist()) <= set(codes.tolist())
    assert done.obs["kind"][::2].tolist() == codes[::2].tolist()


def test_nothing_is_written_when_writing_fails(tmp_path: Path, model: nbridge.Model, monkeypatch: pytest.MonkeyPatch):
    path, out = write(tmp_path / "in.h5mu", study()), tmp_path / "out.h5mu"
    out.write_text("older")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(omics_rows, "write_file", fail)
    with refused(f"{out}: cannot be written (No space left on device)"):
        model.impute(path, out=out)
    assert out.read_text() == "older"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in.h5mu", "out.h5mu"]


def test_mistakes_in_files_to_complete(tmp_path: Path, model: nbridge.Model):
    data, out = study(), tmp_path / "out.h5mu"
    slip = write(tmp_path / "slip.h5mu", joined({"rna": data.mod["rna"], "prott": data.mod["prot"]}))
    with refused(f"{slip}: no modality 'prot' for modality 'prot'. Did you mean 'prott'? Found: rna, prott"):
        model.impute(slip, out=out)
    nothing = write(tmp_path / "nothing.h5mu", joined({"other": adata(np.eye(3), observations(3), ["x", "y", "z"])}))
    with refused(
        f"{nothing}: none of the model's modalities found: rna (rna/X), prot (prot/X), stage (obs/stage), age (obs/age). Found: other"
    ):
        model.impute(nothing, out=out)
    few = copy_of(data)
    few.mod["prot"] = data.mod["prot"][:, :2].copy()
    with refused(
        f"{write(tmp_path / 'few.h5mu', few)}: modality 'prot': no variable 'CD8' for modality 'prot' (1 of 3 are missing). "
        "Did you mean 'CD4'? Found: CD3, CD4"
    ):
        model.impute(tmp_path / "few.h5mu", out=out)
    far = copy_of(data)
    far.mod["prot"].X[2, 1] = np.inf
    with refused(
        f"{write(tmp_path / 'far.h5mu', far)}: modality 'prot' (prot/X, 'CD4'), observation 'cell31': inf, values must be finite (NaN "
        "marks absent values)"
    ):
        model.impute(tmp_path / "far.h5mu", out=out)
    one = write(tmp_path / "one.h5ad", data.mod["rna"])
    with pytest.raises(DataError, match=r"an AnnData object has no modalities, but modality 'rna' has the address 'rna/X'"):
        model.impute(one, out=tmp_path / "out.h5ad")
    whole = write(tmp_path / "in.h5mu", data)
    with refused(f"{whole}: .h5mu files are written whole; leave the shard out"):
        model.impute(whole, out=out, shard=(2, 2))
    other = nbridge.build_model(spec_of({"x": 2}, {"x": "normal"}, source="memory"))
    with refused(f"{whole}: no modality addresses: this model was not trained from such a file (data: {{source: h5mu}})"):
        nbridge.Model(other).impute(whole, out=out)
    with refused("this model was not trained from MuData or AnnData, in memory or in files (data: {source: h5mu})"):
        nbridge.Model(other).impute(data)
    with refused("mask is for data frames; obs of the copy has NAME__imputed"):
        model.impute(data, mask=True)
    assert not out.exists()


def test_from_a_file_to_a_completed_file_by_commands(tmp_path: Path, call: Call):
    data = study(rows=120)
    data.mod["rna"].obs["leiden"] = pd.Categorical(["0", "1"] * 60)
    write(tmp_path / "study.h5mu", data)
    code, told, _ = call("init", "study.h5mu")
    assert code == 0
    assert "study.yaml: 5 modalities, 120 rows" in told
    assert "left out: rna/obs/leiden: clusters, which were found in the data themselves" in told
    assert re.search(r"│ +120 │ +100% +│ +\d+% +│", told)
    code, told, _ = call("validate", "study.yaml", "--data")
    assert (code, told.splitlines()[-1]) == (0, "data: 120 rows, no errors, no warnings")
    fewer = [f"training.stages.{stage}.epochs=2" for stage in ("joint", "bridges")]
    code, told, _ = call("train", "study.yaml", "--out", "run", *(word for one in fewer for word in ("--set", one)))
    assert code == 0
    assert "nbridge impute run ROWS.h5mu --out COMPLETED.h5mu" in told
    code, told, warned = call("impute", "run", "study.h5mu", "--out", "completed.h5mu", "--intervals", "0.9")
    assert (code, told) == (0, "completed.h5mu: 120 rows; imputed rna 0, prot 45, stage 5, good 0, batch 0\n")
    assert "warning: " in warned
    assert "gets 45 observations, unknown in" in warned
    done = read(tmp_path / "completed.h5mu")
    assert done.obs["stage"].notna().all()
    assert not np.isnan(done.mod["prot"].layers["prot__upper"]).any()
    code, _, told = call("impute", "run", "study.h5mu", "--out", "completed.npz")
    assert (code, told) == (2, "--out completed.npz: expected a file that ends in .h5mu\n")
    for command in (("evaluate", "run", "--metrics", "imputation"), ("report", "run"), ("generate", "run", "--out", "drawn.npz")):
        assert call(*command)[0] == 0
    assert {"rna", "prot", "stage"} <= read_npz("drawn.npz").keys()
    assert call("embed", "run", "study.h5mu", "--out", "codes.npz")[0] == 0
    assert read_npz("codes.npz")["id"].tolist() == observations(120)
    session = open_session("run")
    assert (session.reason, class_names(session.spec, "stage")) == ("", ["III", "II", "I"])
    assert element_names(session.spec, "prot", (3,)) == ["CD3", "CD4", "CD8"]
    assert session.ids is not None
    assert set(session.ids.tolist()) < set(observations(120))


def test_what_is_guessed_of_an_object_and_why(tmp_path: Path):
    rng = np.random.default_rng(0)
    names = observations(60)
    counts = rng.poisson(1, (60, 2100))
    flags = pd.DataFrame({"highly_variable": np.arange(2100) % 3 == 0}, index=[f"g{place}" for place in range(2100)])
    obs = pd.DataFrame({"kind": ["a", "b", "c"] * 20, "doublet": [True, False] * 30, "depth": np.arange(60.0), "louvain": ["0", "1"] * 30})
    rna = adata(sparse.csr_matrix(np.log1p(counts)), names, [], var=flags, obs=obs, layers={"raw_counts": sparse.csr_matrix(counts)})
    rna.obsm["X_pca"], rna.obsm["protein"] = rng.normal(size=(60, 2)), pd.DataFrame({"CD3": rng.poisson(9, 60)}, index=names)
    atac = adata(sparse.csr_matrix(rng.random((40, 9)) < 0.3), names[:40], [f"peak{place}" for place in range(9)])
    many = adata(rng.normal(size=(60, 2001)), names, [f"m{place}" for place in range(2001)])
    data = joined({"rna": rna, "atac": atac, "methyl-450k": many})
    found = init([str(write(tmp_path / "a.h5mu", data))])
    assert {name: (one.shape, one.likelihood.type) for name, one in found.spec.modalities.items()} == {
        "rna": ((700,), "negative_binomial"), "atac": ((9,), "bernoulli"), "methyl_450k": ((2001,), "normal"),
        "protein": ((1,), "negative_binomial"), "kind": ((3,), "categorical"), "doublet": ((2,), "categorical"),
    }  # fmt: skip
    assert found.spec.modalities["rna"].likelihood.kwargs["size_factor"] == "auto"
    assert found.spec.modalities["protein"].likelihood.kwargs.get("size_factor", 1) == 1
    options = found.spec.data.source.kwargs
    assert options["keys"] == {
        "rna": "rna/layers/raw_counts", "methyl_450k": "methyl-450k/X", "protein": "rna/obsm/protein", "kind": "rna/obs/kind",
        "doublet": "rna/obs/doublet",
    }  # fmt: skip
    assert options["variables"] == {"rna": "var/highly_variable"}
    assert found.present["atac"].sum() == 40
    assert [line.partition(":")[0] for line in found.remarks] == ["methyl_450k", "left out", "left out", "left out"]
    assert "2,001 variables, and no column highly_variable in var chooses from them" in found.remarks[0]
    memory = nbridge.init(data)
    assert memory.spec.modalities == found.spec.modalities
    assert memory.spec.data.source.type == "mudata"
    one = nbridge.init(rna)
    assert list(one.spec.modalities) == ["X", "protein", "kind", "doublet"]
    assert one.spec.data.source.kwargs["keys"]["X"] == "layers/raw_counts"
    few = {"training": {"batch_size": 64, "stages": {stage: {"epochs": 1} for stage in ("joint", "bridges")}}}
    assert nbridge.train({**one.spec.as_dict(), **few}, rna).model.names == ("X", "protein", "kind", "doublet")


def test_proteins_that_were_never_measured_are_imputed_from_the_rest(tmp_path: Path, real_data: Path):
    cohort = read_npz(real_data / "tcga_brca_mixomics" / "tcga_brca.npz")
    names = np.concatenate([cohort["train_ids"], cohort["test_ids"]]).astype(str)
    learned = len(cohort["train_ids"])
    parts = {
        name: adata(np.concatenate([cohort[f"train_{name}"], cohort[f"test_{name}"]]), names, cohort[f"{name}_names"].astype(str).tolist())
        for name in ("mirna", "mrna")
    }
    parts["protein"] = adata(cohort["train_protein"], names[:learned], [f"p_{one}" for one in cohort["protein_names"].astype(str)])
    subtype = np.concatenate([cohort["train_subtype"], cohort["test_subtype"]]).astype(str)
    known = pd.Series(pd.Categorical(subtype), names)
    known[learned:] = np.nan
    path = write(tmp_path / "tcga.h5mu", joined(parts, pd.DataFrame({"subtype": known})))
    shapes = {"mirna": 184, "mrna": 200, "protein": 142, "subtype": 3}
    spec = spec_of(shapes, dict.fromkeys(shapes, "normal") | {"subtype": "categorical"}, source="h5mu", path=str(path)).as_dict()
    for part in spec["modalities"].values():
        part |= {"encoder": {"type": "mlp", "hidden": [64], "dropout": 0.3}, "features": 32, "decoder": {"type": "mlp", "hidden": [64]}}
    spec["modalities"]["subtype"]["weight"] = 10
    spec |= {"latent_dim": 8}
    spec["training"] = {"batch_size": 32, "learning_rate": 3e-3, "stages": {"joint": {"epochs": 25}, "bridges": {"epochs": 15}}}
    run = nbridge.train(spec)
    run.model.impute(path, out=tmp_path / "done.h5mu", intervals=(0.9,))
    done = read(tmp_path / "done.h5mu")
    assert done.obs["protein__imputed"].tolist() == [False] * learned + [True] * (len(names) - learned)
    protein = done.mod["protein"]
    assert protein.X[:learned].tobytes() == cohort["train_protein"].tobytes()
    new = protein[names[learned:]]
    assert ((new.layers["protein__lower"] < new.X) & (new.layers["protein__upper"] > new.X)).mean() > 0.99
    # What was imputed tells patients apart by what nobody said of them: their subtype.
    assert (done.obs["subtype"].astype(str)[learned:] == subtype[learned:]).mean() > 0.8
    basal = subtype[learned:] == "Basal"
    gap = cohort["train_protein"][subtype[:learned] == "Basal"].mean(0) - cohort["train_protein"][subtype[:learned] != "Basal"].mean(0)
    imputed = new.X[basal].mean(0) - new.X[~basal].mean(0)
    assert np.corrcoef(gap, imputed)[0, 1] > 0.9
