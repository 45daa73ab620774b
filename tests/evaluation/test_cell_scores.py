"""Scores of single cells by column, against their definitions, and how they are shown."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from sklearn.metrics import accuracy_score, log_loss

import nbridge
from nbridge.cli.tables import print_evaluation
from nbridge.evaluation.cell_scores import HiddenCells, cell_scores, figures_by_column, mean_figures, predict_hidden_cells, scores_of
from nbridge.evaluation.results import Measurement, OptionError, Settings, read_evaluation
from nbridge.evaluation.suite import evaluate
from nbridge.report.page import write_report
from nbridge.spec.columns import ColumnKind
from nbridge.training.run_folder import evaluation_path
from nbridge.visual.mixed_columns import ColumnView

COLUMNS: dict[str, Any] = {
    "age": {"type": "normal", "whole": True}, "sex": "bernoulli", "stage": {"type": "categorical", "classes": 3}, "visits": "poisson",
}  # fmt: skip


def table(rows: int = 200) -> np.ndarray:
    draw = np.random.default_rng(0)
    z = draw.normal(size=rows)
    columns = [(50 + 10 * z).round(), z > 0, *np.eye(3)[np.digitize(z, (-0.5, 0.5))].T, draw.poisson(np.exp(1 + z))]
    return np.stack(columns, 1).astype(float)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> nbridge.Run:
    folder = tmp_path_factory.mktemp("cells")
    np.savez(folder / "rows.npz", t=table())
    spec = {
        "latent_dim": 2, "modalities": {"t": {"columns": COLUMNS, "encoder": {"type": "table", "hidden": [8]}}},
        "data": {"source": "npz", "path": str(folder / "rows.npz")},
        "training": {"stages": {"joint": {"updates": 300}, "bridges": {"epochs": 1}}},
    }  # fmt: skip
    return nbridge.train(spec, out=folder / "run")


def view(kind: str, classes: tuple[str, ...] = (), width: int = 1) -> ColumnView:
    number = len(classes) if kind in ("categorical", "ordinal") else None
    return ColumnView("c", ColumnKind.model_validate({"type": kind, "classes": number}), 0, width, classes)


# Definitions


def test_numbers_are_scored_in_units_of_their_spread_and_counts_on_a_log_scale():
    draw = torch.Generator().manual_seed(0)
    truth = torch.poisson(torch.full((300,), 5.0), generator=draw).double()
    draws = torch.poisson(torch.full((99, 300), 5.0), generator=draw).double()
    plain = scores_of(HiddenCells(view("normal"), truth, draws, torch.zeros(0, 0)), 2.0)
    counts = scores_of(HiddenCells(view("poisson"), truth, draws, torch.zeros(0, 0)), 2.0)
    assert plain is not None
    assert counts is not None
    assert np.isclose(plain.rmse, ((draws.mean(0) - truth) ** 2).mean().sqrt().item() / 2)
    assert np.isclose(counts.rmse, ((draws.log1p().mean(0) - truth.log1p()) ** 2).mean().sqrt().item() / 2)
    # A monotone scale leaves ranks as they are. Draws are from the distribution of the truth, whose standard error is 0.017.
    assert plain.coverage == counts.coverage
    assert abs(plain.coverage - 0.9) < 0.05
    x = np.asarray(draws)
    pairs = np.abs(x[:, None] - x[None]).sum((0, 1)) / (2 * 99 * 98)
    assert np.isclose(plain.crps, (np.abs(x - truth.numpy()).mean(0) - pairs).mean() / 2)
    assert np.isnan([plain.accuracy, plain.log_score]).all()
    assert scores_of(HiddenCells(view("normal"), truth, draws, torch.zeros(0, 0)), 0.0) is None


@pytest.mark.parametrize("classes", [("f", "m"), ("I", "II", "III")])
def test_classes_are_scored_by_accuracy_and_log_score(classes: tuple[str, ...]):
    draw = np.random.default_rng(0)
    shares, truth = draw.dirichlet(np.ones(len(classes)), 200), draw.integers(len(classes), size=200)
    kind = "bernoulli" if len(classes) == 2 else "ordinal"
    done = scores_of(HiddenCells(view(kind, classes), torch.tensor(truth), torch.zeros(0, 0), torch.tensor(shares)), 0.0)
    assert done is not None
    assert np.isclose(done.accuracy, accuracy_score(truth, shares.argmax(1)))
    assert np.isclose(done.log_score, -log_loss(truth, shares))
    assert np.isclose(done.common, np.bincount(truth).max() / 200)
    assert np.isnan([done.rmse, done.crps, done.coverage]).all()


def test_predictions_of_a_column_are_of_its_hidden_cells_and_of_its_own_kind(run: nbridge.Run):
    assert run.splits.test is not None
    rows, found = predict_hidden_cells(run.model.network, run.spec, run.splits.test.sample(None), "t", samples=39)
    assert rows == 40
    assert [one.view.name for one in found] == list(COLUMNS)
    age, sex, stage, visits = found
    for number in (age, visits):
        assert number.draws.shape == (39, len(number.truth))
        assert torch.equal(number.draws, number.draws.round())
    for question, classes in ((sex, 2), (stage, 3)):
        assert question.probabilities.shape == (len(question.truth), classes)
        assert torch.allclose(question.probabilities.sum(1), torch.ones(len(question.truth)).double(), atol=1e-5)
    # About a fifth of the cells in each of five rounds: one of the four columns of each row.
    assert sum(len(one.truth) for one in found) == 5 * 40


def test_what_a_model_has_learnt_shows_in_each_column(run: nbridge.Run):
    assert run.splits.test is not None
    model, rows, train = run.model.network, run.splits.test.sample(None), run.splits.train.sample(None)
    _, learnt = cell_scores(model, run.spec, rows, "t", train=train)
    figures = mean_figures(learnt)
    assert list(figures_by_column(learnt)["accuracy"]) == ["sex", "stage"]
    by_column = figures_by_column(learnt)["RMSE/sd"]
    assert figures["RMSE/sd"] == pytest.approx(sum(by_column.values()) / 2)
    assert figures["accuracy"] > figures["most frequent"]
    assert figures["RMSE/sd"] < 0.9


# How they are asked for and shown


def test_the_metric_is_measured_by_default_also_of_a_model_of_one_table_and_reads_back(run: nbridge.Run, tmp_path: Path):
    done = evaluate(run.model.network, run.spec, run.splits, Settings(samples=10))
    (cells,) = [one for one in done.measurements if one.metric == "cells"]
    assert cells.title == "cells of t given the rest of the row"
    assert cells.kinds == {"age": "normal, whole", "sex": "bernoulli", "stage": "categorical, 3 classes", "visits": "poisson"}
    assert set(cells.series["RMSE/sd"]) == {"age", "visits"}
    assert set(cells.series["log score"]) == {"sex", "stage"}
    assert done.skipped["imputation"].startswith("it needs")
    (tmp_path / "e.json").write_text(json.dumps(done.as_dict()))
    assert read_evaluation(tmp_path / "e.json") == done
    older = {key: value for key, value in cells.as_dict().items() if key != "kinds"}
    assert Measurement.from_dict(older).kinds == {}


def test_tables_name_columns_with_their_kinds(run: nbridge.Run):
    done = evaluate(run.model.network, run.spec, run.splits, Settings(metrics=("cells",)))
    console = Console(width=80, record=True, file=StringIO())
    print_evaluation(done, console)
    text = console.export_text()
    assert "…" not in text
    for column, kind in (("age", "normal, whole"), ("stage", "categorical, 3 classes")):
        assert any(column in line and kind in line for line in text.splitlines())
    assert "a fifth of the observed columns" in text
    assert run.folder is not None
    evaluation_path(run.folder, "test").write_text(json.dumps(done.as_dict()))
    page = write_report(run).read_text()
    assert "Columns of t" in page
    assert "categorical, 3 classes" in page


def test_models_without_mixed_modalities_and_too_few_draws_are_one_clear_line(run: nbridge.Run):
    model = {"modalities": {"x": {"shape": 2, "encoder": "mlp", "likelihood": "normal"}, "y": {"shape": 2, "encoder": "mlp",
             "likelihood": "normal"}}, "training": {"stages": {"joint": {"epochs": 1}, "bridges": {"epochs": 1}}}}  # fmt: skip
    other = nbridge.train(model, {"x": table(40)[:, :2], "y": table(80)[40:, :2]})
    with pytest.raises(OptionError, match=r"^metrics cells: it needs a mixed modality; modalities: x \(Normal\), y \(Normal\)$"):
        evaluate(other.model.network, other.spec, other.splits, Settings(metrics=("cells",)))
    with pytest.raises(OptionError, match="draws 10: metric cells needs 39 or more"):
        evaluate(run.model.network, run.spec, run.splits, Settings(metrics=("cells",), draws=10))


def test_rows_in_which_nothing_can_be_hidden_are_left_out_with_the_reason(run: nbridge.Run):
    x = table(30)
    x[:, 1:] = np.nan
    with pytest.raises(OptionError, match="none of the 30 test rows has two observed columns of t"):
        run.model.evaluate({"t": x}, Settings(metrics=("cells",)), lenient=False)
