"""Values far from zero keep their spread: they are centred in float64, and come back in the precision of their column."""

from __future__ import annotations

import csv
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

import nbridge
from nbridge.data.column import ROUNDING, read_column
from nbridge.draft.checks import check_data

SHIFTS = (0.0, 1.6e9, -1e12)
PART = {"encoder": {"type": "mlp", "hidden": [8]}, "features": 8}


def spec_of(likelihood: str = "normal", **more: Any) -> dict[str, Any]:
    return {
        "latent_dim": 2,
        "modalities": {name: {**PART, "shape": shape, "likelihood": likelihood} for name, shape in (("x", 2), ("y", 3))},
        "training": {"updates": 6, "batch_size": 16},
        "data": {"validation": 0.2, "test": 0.2},
        **more,
    }


def rows(shift: float = 1.6e9, count: int = 60) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    # Multiples of 1/8, which the shifts keep exactly.
    x, y = (np.round(generator.normal(size=(count, width)) * 80) / 8 for width in (2, 3))
    return {"x": x + shift, "y": y}


@pytest.mark.parametrize("likelihood", ["normal", "laplace"])
def test_the_shift_of_a_column_changes_nothing_but_the_shift(likelihood: str):
    runs = {shift: nbridge.train(spec_of(likelihood), rows(shift)) for shift in SHIFTS}
    for shift, run in runs.items():
        found = run.model.network.likelihoods["x"]
        assert (found.wide, run.model.network.likelihoods["y"].wide) == (shift != 0, False)
        batch = run.model.network.prepare(run.splits.train.sample())
        values = run.splits.train.sample().values["x"].double().numpy()
        expected = (values - values.mean(0)) / values.std(0)
        inputs = run.model.network.inputs(batch)["x"]
        assert inputs.dtype == torch.float32
        np.testing.assert_allclose(inputs.numpy(), expected, atol=2e-6)
    hidden = {shift: {**rows(shift), "x": np.where(np.arange(60)[:, None] < 20, np.nan, rows(shift)["x"])} for shift in SHIFTS}
    done = {shift: run.model.impute(hidden[shift])["x"] for shift, run in runs.items()}
    drawn = {shift: run.model.impute(hidden[shift], samples=2, noise=False)["x"] for shift, run in runs.items()}
    ends = {shift: run.model.impute(hidden[shift], intervals=(0.5,), draws=19) for shift, run in runs.items()}
    for shift in SHIFTS:
        assert done[shift].dtype == np.float64
        assert np.array_equal(done[shift][20:], rows(shift)["x"][20:])
        np.testing.assert_allclose(done[shift] - shift, done[0.0], atol=2e-2)
        np.testing.assert_allclose(drawn[shift] - shift, drawn[0.0], atol=5e-2)
        assert np.ptp(done[shift][:20]) > 0.1
        assert (ends[shift]["x__lower"] < ends[shift]["x__upper"])[:20].all()


def test_a_model_is_saved_loaded_and_goes_on_as_it_was(tmp_path: Path):
    run = nbridge.train(spec_of(), rows(), out=tmp_path / "run")
    hidden = {"y": rows()["y"]}
    loaded = nbridge.load(tmp_path / "run")
    assert loaded.network.likelihoods["x"].wide
    assert np.array_equal(loaded.impute(hidden)["x"], run.model.impute(hidden)["x"])
    again = nbridge.train(spec_of(), rows())
    for one, other in zip(run.model.network.state_dict().values(), again.model.network.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_files_in_blocks_and_shards_equal_their_rows_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("nbridge.inference.complete.BLOCK", 16)
    model = nbridge.train(spec_of(), rows()).model
    hidden = {**rows(), "x": np.where(np.arange(60)[:, None] < 20, np.nan, rows()["x"])}
    # A block of one value alone would not ask for float64.
    hidden["x"][32:48] = 1.6e9
    np.savez(tmp_path / "rows.npz", **hidden)
    model.impute(tmp_path / "rows.npz", out=tmp_path / "done.npz")
    expected = model.impute(hidden)
    with np.load(tmp_path / "done.npz") as done:
        assert all(np.array_equal(done[name], expected[name]) for name in done)


@pytest.mark.parametrize("kind", ["npy", "parquet"])
def test_rows_on_disk_give_what_rows_in_memory_give(kind: str, tmp_path: Path):
    if kind == "npy":
        (tmp_path / "rows").mkdir()
        for name, array in rows().items():
            np.save(tmp_path / "rows" / f"{name}.npy", array)
    else:
        columns = {name: pa.FixedSizeListArray.from_arrays(pa.array(array.reshape(-1)), array.shape[1]) for name, array in rows().items()}
        parquet.write_table(pa.table(columns), tmp_path / "rows", row_group_size=7)
    spec = spec_of(data={"source": kind, "path": str(tmp_path / "rows"), "validation": 0.2, "test": 0.2})
    stored = nbridge.train(spec)
    assert stored.model.network.likelihoods["x"].wide
    batch = stored.splits.train.sample()
    assert batch.values["x"].dtype == torch.float64
    assert set(batch.values["x"].flatten().tolist()) <= set(rows()["x"].flatten().tolist())
    done = stored.model.impute({"y": rows()["y"]})["x"]
    assert abs(done - 1.6e9).max() < 100


def test_times_in_seconds_are_told_apart_and_imputed_to_the_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    minutes = generator.integers(0, 98, 300)
    with Path("rows.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["time", "a", "b"])
        for row, minute in enumerate(minutes.tolist()):
            writer.writerow(["" if row < 30 else 1600000000 + minute, f"{minute / 10 + generator.normal() / 20:.3f}", f"{-minute / 7:.3f}"])
    document = nbridge.init("rows.csv").spec.as_dict()
    document["data"]["columns"] = {"time": ["time"], "rest": ["a", "b"]}
    document["modalities"] = {name: {**PART, "shape": shape, "likelihood": "normal"} for name, shape in (("time", 1), ("rest", 2))}
    document["training"] = {"updates": 300}
    found = check_data(nbridge.Spec.model_validate(document))
    assert not found.errors
    assert not [line for line in found.warnings if "the same value" in line]
    nbridge.train(document).model.impute("rows.csv", out="done.csv")
    with Path("done.csv").open() as file:
        done = [float(row["time"]) for row in csv.DictReader(file)]
    error = np.array(done[:30]) - (1600000000 + minutes[:30])
    # The standard deviation of the times is 28 seconds.
    assert np.sqrt((error**2).mean()) < 12
    assert len(set(done[:30])) > 10


@given(
    st.sampled_from([0.0, 1.0, 1e3, 1e5, 1e7, 1e9]),
    st.floats(1e-3, 1e3),
    st.sampled_from([np.float64, np.int64, np.float32, np.int16]),
    st.integers(0, 2**32 - 1),
)
def test_float64_is_kept_where_float32_would_round_off_the_spread(shift: float, scale: float, dtype: Any, seed: int):
    values = np.random.default_rng(seed).normal(size=(50, 3)) * scale
    values[:, 1] += shift if np.dtype(dtype) != np.int16 else 0
    array = values.astype(dtype)
    column = read_column("x", array, (3,))
    exact = array.astype(np.float64)
    lost = np.abs(exact - exact.astype(np.float32)).max(0) > ROUNDING * exact.std(0)
    wide = bool((lost & (exact.std(0) > 0)).any())
    assert column.values.dtype == (torch.float64 if wide else torch.float32)
    assert np.array_equal(column.values.numpy(), exact if wide else exact.astype(np.float32))
    assert read_column("x", array, (3,), wide=False).values.dtype == torch.float32
    assert read_column("x", array, (3,), wide=True).values.dtype == torch.float64


def test_values_that_float32_merges_after_standardisation_are_named():
    values = rows(0.0)
    values["x"][0, 1] = 1e12
    with pytest.warns(nbridge.NBridgeWarning, match=r"modality 'x': 1: many values are equal in float32 once standardised"):
        nbridge.train(spec_of(), values)


def test_values_whose_spread_rounds_to_zero_are_named_in_one_line():
    values = rows(0.0)
    values["x"] = values["x"].astype(np.float64)
    values["x"][:, 1] *= 1e-310
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        nbridge.train(spec_of(), values)
    assert [one.category for one in caught] == [nbridge.NBridgeWarning]
    assert str(caught[0].message).startswith("modality 'x': 1: many values are equal in float32 once standardised")


def test_times_with_many_decimals_and_their_intervals_keep_their_digits(tmp_path: Path):
    generator = np.random.default_rng(0)
    times = 1.6e9 + generator.normal(size=60)
    cells = [[f"{times[row]:.7f}" if row > 9 else "", *(f"{value:.3f}" for value in generator.normal(size=3))] for row in range(60)]
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["t", "a", "b", "c"], *cells])
    source = {"source": "table", "path": str(tmp_path / "rows.csv"), "columns": {"x": ["t"], "y": ["a", "b", "c"]}}
    document = spec_of(data=source)
    document["modalities"]["x"]["shape"] = 1
    model = nbridge.train(document).model
    model.impute(tmp_path / "rows.csv", out=tmp_path / "done.csv", intervals=(0.9,))
    with (tmp_path / "done.csv").open(newline="") as file:
        done = list(csv.DictReader(file))[:10]
    for row in done:
        assert abs(float(row["t"]) - 1.6e9) < 5
        assert float(row["t__lower"]) < float(row["t"]) < float(row["t__upper"])
        assert len(row["t__sd"]) >= 3
    assert len({row["t"] for row in done}) > 5
