"""Covariates: what encoders and decoders are given beside the modalities, so that z need not hold it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from strategies import MODELS

import nbridge
from nbridge.data.batch import Batch
from nbridge.errors import DataError, RunError, SpecError
from nbridge.explore import requests, responses
from nbridge.explore.session import session_of
from nbridge.models.joint import contrast_by_row
from nbridge.nn.covariates import Covariates
from nbridge.spec.reader import spec_from_dict
from nbridge.testing import check_model

LEVELS = np.array(["A", "B", "C"])
SHIFTS = {"a": np.random.default_rng(7).normal(0, 1.5, (3, 6)), "b": np.random.default_rng(8).normal(0, 1.5, (3, 4))}


def spec(covariates: object = None, **more: Any) -> dict[str, Any]:
    part = {"encoder": {"type": "mlp", "hidden": [32]}, "features": 16, "likelihood": "normal"}
    return {
        "latent_dim": 4, "fusion": {"hidden": [16]}, "bridges": {"hidden": [16]},
        "covariates": {"batch": "categorical", "age": "normal"} if covariates is None else covariates,
        "modalities": {"a": {"shape": 6, **part}, "b": {"shape": 4, **part}}, "training": {"updates": 4}, **more,
    }  # fmt: skip


def cells(rows: int, seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Two panels that two factors, the batch and the age set, and panel b as it would be in batch A."""
    rng, fixed = np.random.default_rng(seed), np.random.default_rng(9)
    batch, factors, age = rng.integers(0, 3, rows), rng.normal(size=(rows, 2)), rng.normal(50, 10, rows)
    values, in_a = {"batch": LEVELS[batch], "age": age}, np.empty(0)
    for name, shifts in SHIFTS.items():
        width = shifts.shape[1]
        plain = factors @ fixed.normal(size=(2, width)) + (age[:, None] - 50) / 10 * fixed.normal(size=width)
        noise = 0.3 * rng.normal(size=(rows, width))
        values[name], in_a = plain + shifts[batch] + noise, plain + shifts[0]
    return values, in_a


@pytest.fixture(scope="module")
def run() -> nbridge.runs.run.Run:
    stages = {"joint": {"epochs": 45}, "bridges": {"epochs": 25}}
    return nbridge.train(spec(training={"stages": stages}), cells(2500)[0])


@pytest.fixture(scope="module")
def brief() -> nbridge.runs.run.Run:
    return nbridge.train(spec(), cells(120)[0])


@pytest.fixture(scope="module")
def plain() -> nbridge.runs.run.Run:
    """Trained without the covariates."""
    return nbridge.train(spec({}, training={"updates": 300}), {name: x for name, x in cells(1000)[0].items() if name in SHIFTS})


def without_b(values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {**values, "b": np.full_like(values["b"], np.nan)}


@pytest.mark.parametrize("model", MODELS)
def test_every_model_conforms_with_covariates(model: str):
    given = {"batch": {"type": "categorical", "classes": ["A", "B"]}, "age": "normal"}
    check_model(nbridge.build_model(spec_from_dict(spec(given, model=model))))


def test_a_flow_conforms_with_covariates():
    given = {"batch": {"type": "categorical", "classes": ["A", "B"]}}
    check_model(nbridge.build_model(spec_from_dict(spec(given, bridges={"type": "flow", "width": 5}))))


@pytest.mark.parametrize("shown", [("a", "b"), ("a",)])
def test_the_batch_is_not_in_z_and_a_model_without_covariates_has_it_there(
    run: nbridge.runs.run.Run, plain: nbridge.runs.run.Run, shown: tuple[str, ...]
):
    values = cells(1500, seed=1)[0]
    given = values if "b" in shown else without_b(values)

    def found(model: nbridge.Model, rows: dict[str, np.ndarray]) -> float:
        return cross_val_score(LogisticRegression(max_iter=2000), model.embed(rows).mean.numpy(), values["batch"], cv=5).mean()

    assert found(run.model, given) < 1 / 3 + 0.05 + 0.02  # two standard errors of 1,500 rows are .024
    assert found(plain.model, {name: given[name] for name in SHIFTS}) > 0.8


def test_imputations_at_a_fixed_batch_are_what_they_would_have_been_there(run: nbridge.runs.run.Run):
    values, in_a = cells(1000, seed=2)
    hidden = without_b(values)
    own, fixed = run.model.impute(hidden)["b"], run.model.impute(hidden, covariates={"batch": "A"})["b"]
    np.testing.assert_allclose(fixed.mean(0), in_a.mean(0), atol=0.15)
    assert np.sqrt(np.mean((fixed - in_a) ** 2)) < 0.4
    assert np.sqrt(np.mean((own - values["b"]) ** 2)) < 0.5
    in_batch_a = values["batch"] == "A"
    np.testing.assert_allclose(fixed[in_batch_a], own[in_batch_a], rtol=1e-5, atol=1e-5)
    inside = run.model.impute(hidden, covariates={"batch": "A"}, intervals=(0.9,))
    share = ((inside["b__lower"] <= values["b"]) & (values["b"] <= inside["b__upper"]))[in_batch_a].mean()
    assert 0.8 < share < 0.98


def test_generated_rows_are_of_the_batch_that_is_asked_for(run: nbridge.runs.run.Run):
    for level, name in enumerate(LEVELS):
        mean = run.model.generate(400, covariates={"batch": name, "age": 50})["b"].mean(0).numpy()
        distances = np.linalg.norm(mean - SHIFTS["b"], axis=1)
        assert distances.argmin() == level
        assert distances[level] < 0.5 * np.delete(distances, level).min()
    # By default the levels are drawn as they are in the training rows.
    anywhere = run.model.generate(600)["b"].mean(0).numpy()
    assert np.linalg.norm(anywhere - SHIFTS["b"].mean(0)) < 0.5 * np.linalg.norm(SHIFTS["b"] - SHIFTS["b"].mean(0), axis=1).min()


def test_the_vector_of_covariates_is_one_hot_and_standardised():
    covariates = Covariates({"batch": ("A", "B", "C"), "age": ()})
    values = {"batch": torch.tensor([0, 2, 2, 1]), "age": torch.tensor([10.0, 20.0, 30.0, 40.0])}
    covariates.fit(values)
    c = covariates(values)
    assert torch.equal(c[:, :3], torch.eye(3)[values["batch"]])
    torch.testing.assert_close(c[:, 3], (values["age"] - 25) / values["age"].std(correction=0))
    torch.testing.assert_close(covariates.shares, torch.tensor([0.25, 0.25, 0.5]))
    assert covariates.usual(1)["batch"].item() == 2
    drawn = covariates.draw(4000)["batch"]
    torch.testing.assert_close(torch.bincount(drawn) / 4000, covariates.shares, atol=0.03, rtol=0)


def test_inputs_are_centred_by_what_covariates_predict():
    covariates = Covariates({"batch": ("A", "B", "C")}, shapes={"a": (6,)})
    batch = torch.arange(300) % 3
    x = torch.randn(300, 6, generator=torch.Generator().manual_seed(0)) + torch.tensor(SHIFTS["a"]).float()[batch]
    covariates.fit({"batch": batch})
    covariates.fit_centres("a", x, {"batch": batch})
    centred = covariates.centred("a", x, {"batch": batch})
    means = torch.stack([centred[batch == level].mean(0) for level in range(3)])
    # But for the small ridge, of one row in a hundred.
    torch.testing.assert_close(means, x.mean(0).expand(3, -1), atol=0.05, rtol=0)


def test_the_contrast_compares_rows_of_like_covariates():
    covariates = Covariates({"batch": ("A", "B")})
    batch = torch.arange(8) % 2
    alike = covariates.alike({"batch": batch})
    assert alike is not None
    one = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    found = contrast_by_row(one, one, alike=alike)
    for level in range(2):
        torch.testing.assert_close(found[batch == level], contrast_by_row(one[batch == level], one[batch == level]))


# Sources


def frame(values: dict[str, np.ndarray]) -> pd.DataFrame:
    columns = {f"{name}_{place}": values[name][:, place] for name in SHIFTS for place in range(values[name].shape[1])}
    return pd.DataFrame({"batch": values["batch"], "age": values["age"], **columns})


COLUMNS = {"a": "a_*", "b": "b_*"}


@pytest.mark.parametrize("kind", ["csv", "parquet", "npz", "frame", "h5ad"])
def test_each_format_has_them_as_columns_and_gives_the_same(kind: str, tmp_path: Path, brief: nbridge.runs.run.Run):
    values = cells(120)[0]
    new = {name: x[:20] for name, x in without_b(values).items()}
    expected = brief.model.impute(new, covariates={"batch": "B"})["b"]
    path, out = str(tmp_path / f"rows.{kind}"), str(tmp_path / f"done.{kind}")
    data: dict[str, Any] = {"source": "table", "path": path, "columns": COLUMNS}

    def write(rows: dict[str, np.ndarray]) -> Any:
        if kind == "csv":
            frame(rows).to_csv(path, index=False)
        elif kind == "parquet":
            frame(rows).to_parquet(path)
        elif kind == "npz":
            np.savez(path, **rows)
        elif kind == "h5ad":
            obs = pd.DataFrame({"batch": rows["batch"], "age": rows["age"]}, index=[f"c{row}" for row in range(len(rows["age"]))])
            anndata.AnnData(rows["a"], obs=obs, obsm={"b": rows["b"]}).write_h5ad(path)
        return frame(rows) if kind == "frame" else path

    given = write(values)
    if kind in ("npz", "h5ad"):
        data = {"source": kind, "path": path} | ({"keys": {"a": "X", "b": "obsm/b"}} if kind == "h5ad" else {})
    in_memory = spec(data={"source": "frame", "columns": COLUMNS})
    run = nbridge.train(in_memory, given) if kind == "frame" else nbridge.train(spec(data=data))
    assert run.spec.covariates["batch"].classes == ("A", "B", "C")
    new_rows = write(new)
    if kind == "frame":
        done = run.model.impute(new_rows, covariates={"batch": "B"})
        found = done[[f"b_{place}" for place in range(4)]].to_numpy()
    else:
        run.model.impute(new_rows, out, covariates={"batch": "B"})
        read = {"csv": pd.read_csv, "parquet": pd.read_parquet, "npz": np.load, "h5ad": anndata.read_h5ad}[kind](out)
        found = read["b"] if kind == "npz" else read.obsm["b"] if kind == "h5ad" else read[[f"b_{place}" for place in range(4)]].to_numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_a_saved_model_keeps_its_covariates(brief: nbridge.runs.run.Run, tmp_path: Path):
    loaded = nbridge.load(brief.model.save(tmp_path / "model"))
    new = without_b(cells(10, seed=3)[0])
    assert np.array_equal(loaded.impute(new)["b"], brief.model.impute(new)["b"])


def test_a_batch_has_its_covariates_as_numbers(brief: nbridge.runs.run.Run):
    values = cells(10, seed=3)[0]
    codes = {"batch": torch.from_numpy(np.searchsorted(LEVELS, values["batch"])), "age": torch.from_numpy(values["age"])}
    batch = Batch.complete({name: torch.from_numpy(values[name]).float() for name in SHIFTS}).hide("b").with_covariates(codes)
    np.testing.assert_allclose(brief.model.impute(batch).values["b"], brief.model.impute(without_b(values))["b"], rtol=1e-4, atol=1e-5)
    with pytest.raises(DataError, match="covariate 'batch', row 0: 3, expected an index from 0 to 2"):
        brief.model.impute(batch.with_covariates({"batch": torch.full((10,), 3)}))
    with pytest.raises(DataError, match="covariate 'batch': not in this batch"):
        brief.model.impute(Batch.complete({"a": torch.zeros(2, 6)}))


# Bad input


def test_an_unseen_level_a_missing_value_and_a_missing_column_are_one_line_each(brief: nbridge.runs.run.Run, tmp_path: Path):
    path, out = tmp_path / "new.csv", tmp_path / "done.csv"
    run = nbridge.train(spec(data={"source": "frame", "columns": COLUMNS}), frame(cells(120)[0]))
    rows = frame(cells(4, seed=4)[0])

    def fails(change: pd.DataFrame, **options: Any) -> str:
        change.to_csv(path, index=False)
        with pytest.raises(DataError) as error:
            run.model.impute(path, out, **options)
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "new.csv: column 'batch' (covariate 'batch'): row 2" in fails(rows.assign(batch=["A", "B", "D", "A"]))
    assert "'D' is a level that no training row had" in fails(rows.assign(batch=["A", "B", "D", "A"]))
    text = fails(rows.assign(age=[1.0, np.nan, 3.0, np.nan]))
    assert "new.csv: column 'age' (covariate 'age'): row 1" in text
    assert "has no value (1 more such row); fill it in" in text
    assert "'x' is not a number" in fails(rows.assign(age=["1", "2", "x", "4"]))
    assert "no column 'batch'" in fails(rows.drop(columns="batch"))
    assert "no covariate 'bach' in this model. Did you mean 'batch'?" in fails(rows, covariates={"bach": "A"})
    assert "covariate 'batch': 'D' is a level that no training row had" in fails(rows, covariates={"batch": "D"})
    # A fixed value stands in for what the rows lack.
    rows.drop(columns="batch").assign(b_0=np.nan).to_csv(path, index=False)
    run.model.impute(path, out, covariates={"batch": "A"})
    assert pd.read_csv(out)["b_0"].notna().all()
    with pytest.raises(DataError, match=r"column 'age'.*row 0 has no value"):
        nbridge.train(spec(data={"source": "frame", "columns": COLUMNS}), frame(cells(50)[0]).assign(age=[None, *range(49)]))


def test_what_has_no_covariates_is_told_so():
    plain = nbridge.train(spec({}), {name: x for name, x in cells(60)[0].items() if name in SHIFTS}).model
    with pytest.raises(DataError, match="no covariate 'batch': this model has no covariates"):
        plain.impute({"a": np.zeros((1, 6))}, covariates={"batch": "A"})
    with pytest.raises(SpecError, match="'a' is a modality too"):
        spec_from_dict(spec({"a": "normal"}))
    with pytest.raises(SpecError, match=r"covariates\.batch: its classes are not known"):
        nbridge.build_model(spec_from_dict(spec({"batch": "categorical"})))


def test_export_refuses_and_the_explorer_works(brief: nbridge.runs.run.Run, tmp_path: Path):
    with pytest.raises(RunError, match=r"a model with covariates or columns of size factors \(batch, age\) cannot be exported"):
        brief.model.export(tmp_path / "model.pt2")
    session = session_of(brief)
    answer = responses.impute(session, requests.Impute(given={"a": requests.Given(values=[0.0] * 6)}))
    assert np.isfinite(answer["modalities"]["b"]["mean"]).all()
    own = responses.impute(session, requests.Impute(given={"a": requests.Given(row=0)}))
    assert np.isfinite(own["modalities"]["b"]["mean"]).all()
    assert np.isfinite(responses.prior(session, requests.Prior())["modalities"]["a"]["mean"]).all()


def test_a_run_with_covariates_is_evaluated(brief: nbridge.runs.run.Run):
    found = brief.model.evaluate(brief.splits)
    assert {one.metric for one in found.measurements} >= {"predictive", "imputation", "likelihood"}
    assert not found.skipped.keys() & {"predictive", "imputation", "likelihood"}
    assert found.verdict is not None


# Depth from a column


def test_the_depth_of_a_row_is_that_of_its_column():
    rng = np.random.default_rng(0)
    depth = np.exp(rng.uniform(-1, 1, 200))
    counts = rng.poisson(depth[:, None] * np.linspace(5, 30, 12)).astype(float)
    part = {"encoder": "mlp", "features": 8}
    likelihood = {"type": "poisson", "size_factor": "depth"}
    given = {
        "latent_dim": 2, "training": {"updates": 3},
        "modalities": {"rna": {"shape": 12, "likelihood": likelihood, **part}, "x": {"shape": 2, "likelihood": "normal", **part}},
    }  # fmt: skip
    rows = {"rna": counts, "x": rng.normal(size=(200, 2)), "depth": depth}
    model = nbridge.train(given, rows).model
    batch = Batch.complete({"rna": torch.from_numpy(counts), "x": torch.zeros(200, 2)}).with_covariates({"depth": torch.from_numpy(depth)})
    size = model.network.log_size("rna", batch)
    assert size is not None
    np.testing.assert_allclose(size[:, 0].exp() / size[0, 0].exp(), depth / depth[0], rtol=1e-4)
    for parameter in model.network.decoder("rna").network.parameters():
        torch.nn.init.zeros_(parameter)
    deep, shallow = (model.impute({"x": np.zeros((1, 2)), "depth": np.array([value])})["rna"].sum() for value in (4.0, 1.0))
    assert deep / shallow == pytest.approx(4, rel=0.1)
    with pytest.raises(DataError, match="column 'depth': row 1 has no size factor, but counts of modality 'rna'"):
        nbridge.train(given, {**rows, "depth": np.where(np.arange(200) == 1, np.nan, depth)})
    with pytest.raises(DataError, match=r"array 'depth'.*row 3: '-1': expected a positive number"):
        nbridge.train(given, {**rows, "depth": np.where(np.arange(200) == 3, -1, depth)})
