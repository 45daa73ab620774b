"""One object for a trained model: its verbs, the kinds of rows that they take and return, warnings and mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import nbridge
from nbridge.data.patterns import Patterns
from nbridge.evaluation.results import Settings
from nbridge.evaluation.suite import evaluate
from nbridge.inference import impute as parts
from nbridge.inference.intervals import summarise

SPEC: dict[str, Any] = {
    "latent_dim": 2,
    "modalities": {
        "x": {"shape": 3, "encoder": {"type": "mlp", "hidden": [8]}, "likelihood": "normal"},
        "y": {"shape": 2, "encoder": {"type": "mlp", "hidden": [8]}, "likelihood": "categorical"},
    },
    "training": {"batch_size": 16, "stages": {"joint": {"epochs": 2}, "bridges": {"epochs": 2}}},
}


def arrays(number: int = 60) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    y = np.arange(number) % 2
    return {"x": rng.normal(size=(number, 3)) + 3 * y[:, None], "y": y.astype(float)}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> nbridge.Run:
    return nbridge.train(SPEC, arrays(), out=tmp_path_factory.mktemp("run") / "run")


@pytest.fixture(scope="module")
def framed() -> tuple[nbridge.Run, pd.DataFrame]:
    values = arrays()
    frame = pd.DataFrame({"a": values["x"][:, 0], "b": values["x"][:, 1], "kind": np.where(values["y"] > 0, "yes", "no")})
    spec = nbridge.init(frame).spec
    return nbridge.train({**spec.as_dict(), "training": SPEC["training"]}, frame), frame


def test_verbs_are_those_of_the_parts(run: nbridge.Run):
    model, rows = run.model, run.splits.train.sample().hide("y")
    expected = parts.impute(model.network, rows, samples=3, seed=1)
    done = model.impute(rows, samples=3, seed=1)
    assert all(torch.equal(done.values[name], expected.values[name]) and torch.equal(done.mask[name], expected.mask[name]) for name in "xy")
    assert torch.equal(model.embed(rows).mean, parts.embed(model.network, rows).mean)
    drawn, again = model.generate(4, {"y": 1}, seed=2), parts.generate(model.network, 4, {"y": 1}, seed=2)
    assert all(torch.equal(drawn[name], again[name]) for name in "xy")
    expected_mean = summarise(model.network, rows, levels=(0.9,), draws=39).mean["x"]
    assert torch.equal(model.summarise(rows, draws=39).mean["x"], expected_mean)
    settings = Settings(metrics=("predictive",), draws=5)
    assert model.evaluate(run.splits, settings) == evaluate(model.network, run.spec, run.splits, settings)


def test_what_comes_back_is_of_the_kind_that_went_in(run: nbridge.Run, tmp_path: Path):
    given = {"x": arrays()["x"]}
    whole = run.model.impute(given)
    assert isinstance(whole, dict)
    np.savez(tmp_path / "rows.npz", **given)
    assert run.model.impute(tmp_path / "rows.npz", out=tmp_path / "done.npz").imputed == {"x": 0, "y": 60}
    with np.load(tmp_path / "done.npz") as file:
        assert np.array_equal(file["y"], whole["y"])


def test_frames_come_back_as_frames_and_are_embedded_as_their_arrays(framed: tuple[nbridge.Run, pd.DataFrame]):
    run, frame = framed
    holes = frame.assign(kind=frame["kind"].where(frame.index % 3 > 0))
    done, mask = run.model.impute(holes, mask=True)
    assert isinstance(done, pd.DataFrame)
    assert done["kind"].notna().all()
    assert mask["kind"].sum() == holes["kind"].isna().sum()
    q = run.model.embed(frame)
    assert torch.equal(q.mean, run.model.embed(frame).mean)
    assert q.mean.shape == (len(frame), run.model.network.latent_dim)


def test_rows_alone_are_evaluated_without_what_needs_training_rows(run: nbridge.Run):
    found = run.model.evaluate(arrays(), Settings(draws=39, samples=20))
    assert {one.metric for one in found.measurements} >= {"predictive", "imputation"}
    assert found.verdict is None
    with pytest.raises(nbridge.DataError, match=r"metric 'coherence' needs training rows; pass the splits of a run, model.evaluate"):
        run.model.evaluate(arrays(), Settings(metrics=("coherence",)))


def test_it_is_saved_and_loaded_with_all_that_it_knows(run: nbridge.Run, tmp_path: Path):
    assert run.folder is not None
    given = {"x": arrays()["x"]}
    expected = run.model.impute(given, samples=2)
    for place in (run.folder, run.folder / "model", run.model.save(tmp_path / "copy")):
        again = nbridge.load(place)
        assert (again.names, again.binding, again.patterns) == (run.model.names, run.model.binding, run.model.patterns)
        assert all(np.array_equal(values, expected[name]) for name, values in again.impute(given, samples=2).items())
    assert repr(again).startswith("Model(BridgedVAE: x, y; ")


def test_rows_unlike_those_of_training_are_warned_of(run: nbridge.Run, tmp_path: Path):
    model = nbridge.Model(run.model.network, run.spec, Patterns(("x", "y"), {"10": 60}))
    np.savez(tmp_path / "rows.npz", y=arrays()["y"])
    for work in (
        lambda: model.impute(run.splits.train.sample().only("y")),
        lambda: model.impute({"y": arrays()["y"]}),
        lambda: model.impute(tmp_path / "rows.npz", out=tmp_path / "done.npz"),
    ):
        with pytest.warns(nbridge.NBridgeWarning, match="with only y observed"):
            work()


def test_a_run_keeps_what_it_was_warned_of():
    apart = arrays()
    apart["x"][:30], apart["y"][30:] = np.nan, np.nan
    with pytest.warns(nbridge.NBridgeWarning, match="no training row has both x and y"):
        run = nbridge.train({**SPEC, "model": "mvae", "training": {"updates": 4}}, apart)
    assert [one.kind for one in run.warnings] == ["apart"]


def test_a_batch_gets_the_statistics_of_its_missing_values(run: nbridge.Run):
    batch = run.splits.train.sample().hide("x")
    done, summary = run.model.impute(batch, intervals=(0.5, 0.9)), run.model.summarise(batch, (0.5, 0.9))
    assert done.draws is None
    assert done.statistics.levels == summary.levels
    for what in ("mean", "sd", "lower", "upper", "probability"):
        one, other = getattr(done.statistics, what), getattr(summary, what)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert run.model.impute(batch, samples=3).draws == 3


def test_mistakes_are_one_line(run: nbridge.Run, tmp_path: Path):
    model, bare, batch = run.model, nbridge.Model(run.model.network), run.splits.train.sample()
    cases = [
        (lambda: model.impute("rows.npz"), "rows.npz: rows in files need out, the file to write"),
        (lambda: model.impute(["a.csv", "b.csv"]), "a.csv: rows in files need out, the folder to write"),
        (lambda: model.impute(arrays(), out="done.npz"), "out is for rows in files; rows in memory are returned"),
        (lambda: model.impute(arrays(), shard=(1, 2)), "shard is for rows in files; rows in memory are returned"),
        (lambda: model.impute(batch, mask=True), "mask is for data frames; an imputed batch has masks"),
        (lambda: model.impute("rows.npz", out="done.npz", mask=True), "mask is for data frames; "),
        (lambda: model.impute(pd.DataFrame({"x": [1.0]})), "this model was trained from arrays; "),
        (lambda: bare.save(tmp_path / "bare"), "a model without a spec cannot be saved"),
        (lambda: bare.evaluate(batch), "a model without a spec cannot be evaluated"),
        (lambda: nbridge.load(tmp_path / "nothing"), f"{tmp_path}/nothing: no such run folder"),
    ]
    for work, message in cases:
        with pytest.raises(nbridge.NBridgeError) as caught:
            work()
        assert str(caught.value).startswith(message)
        assert "\n" not in str(caught.value)
    with pytest.raises(TypeError, match="network is a Model, expected a MultimodalVAE"):
        nbridge.Model(model)  # pyright: ignore[reportArgumentType]
