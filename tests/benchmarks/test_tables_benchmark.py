"""The comparison of imputers on mixed tables: kinds of columns, masks, scores by closed forms, rivals, and a tiny run from end to end."""

from __future__ import annotations

import doctest
import json
import math
import re
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from scipy.stats import norm
from sklearn.impute import KNNImputer

import nbridge
from benchmarks import imputers
from benchmarks.tables import __main__ as tables
from benchmarks.tables import ours, report, rivals, scores, speed
from benchmarks.tables.data import GROUPS, TARGETS, Table, load, table_of
from benchmarks.tables.environments import RUNNERS, Environments, UnavailableError
from benchmarks.tables.masks import MECHANISMS, Task, hide, kept_column, ranks, task_of
from benchmarks.tables.report import Figures, key_of
from benchmarks.tables.scores import Answer
from nbridge.data.batch import Batch

ROWS = 4000


@pytest.fixture(scope="module")
def made() -> Table:
    """A mixed table with holes, its columns in three groups."""
    table = speed.made(ROWS, width=10)
    names = [column.name for column in table.columns]
    return replace(table, groups={"first": names[:2], "second": names[2:4], "third": names[4:]})


def small(values: list[list[float]], counts: tuple[int, ...]) -> Table:
    """A table of plain columns, of classes a, b and so on where they have a count."""
    frame = {
        f"c{place}": ["ab"[int(x)] if count else x for x in column]
        for place, (count, column) in enumerate(zip(counts, values, strict=True))
    }
    return table_of("small", pa.table(frame), {"all": tuple(frame)})


@pytest.mark.parametrize("module", [scores, report], ids=lambda module: module.__name__)
def test_the_examples_hold(module):
    found = doctest.testmod(module)
    assert found.attempted
    assert not found.failed


# Data


def test_kinds_follow_from_the_values():
    frame = pa.table({
        "id": pa.array([4, 3, 2, 1]), "text": ["b", "a", None, "b"], "pair": [1.5, 2.25, 2.25, None], "half": [0.0, 0.5, 1.0, 1.0],
        "number": [0.1, 0.2, 0.3, 0.1], "whole": [10, 20, 10, 20], "pbc": [0, 1, 2, 2],
    })  # fmt: skip
    found = {column.name: column for column in table_of("t", frame, {"all": tuple(frame.column_names)}).columns}
    assert list(found) == ["text", "pair", "half", "number", "whole", "pbc"]
    assert {name: column.classes for name, column in found.items()} == {
        "text": ("a", "b"), "pair": (1.5, 2.25), "half": (0.0, 0.5, 1.0), "number": (), "whole": (10, 20), "pbc": (0, 1, 2),
    }  # fmt: skip
    assert [name for name, column in found.items() if column.ordered] == ["half", "pbc"]


def test_many_whole_numbers_are_numbers():
    assert table_of("t", pa.table({"x": [*range(11), 10]}), {"all": ("x",)}).columns[0].classes == ()
    assert len(table_of("t", pa.table({"x": [*range(10), 9]}), {"all": ("x",)}).columns[0].classes) == 10


def first(made, classes: int) -> str:
    """The first column with this number of classes."""
    return next(column.name for column in made.columns if len(column.classes) == classes)


def test_a_table_is_written_as_it_was_read(made):
    frame = made.arrow(made.values)
    assert [str(frame.schema.field(first(made, classes)).type) for classes in (0, 2, 5)] == ["double", "string", "int64"]
    np.testing.assert_array_equal(made.read(frame), made.values)


def test_a_number_that_is_no_class_counts_as_the_nearest(made):
    frame = made.arrow(made.values[:3])
    place = frame.column_names.index(first(made, 5))
    changed = frame.set_column(place, first(made, 5), pa.array([2.4, 2.6, 9.0]))
    assert made.read(changed)[:, place].tolist() == [1, 2, 4]


@pytest.mark.parametrize("name", TARGETS)
def test_every_column_of_scikit_learns_tables_is_in_a_group(name):
    table = load(name)
    assert sorted(column for names in GROUPS[name].values() for column in names) == sorted(column.name for column in table.columns)
    assert not np.isnan(table.values).any()
    assert bool(table.counts[-1]) == (name != "diabetes")


# Masks


def shares(table: Table, mechanism: str, groups: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """The cells that are hidden, and those that are known."""
    return hide(table, table.values, mechanism, groups, np.random.default_rng(0)), ~np.isnan(table.values)


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_only_known_cells_are_hidden_and_one_of_a_row_stays(made, mechanism):
    hidden, known = shares(made, mechanism)
    assert not hidden[~known].any()
    assert (known & ~hidden).any(1).all()


def test_cells_at_random_are_a_fifth_of_every_column_and_of_every_value(made):
    hidden, known = shares(made, "mcar")
    for place in range(hidden.shape[1]):
        rows = known[:, place]
        high = ranks(made.values)[:, place] > 0.5
        assert hidden[rows, place].mean() == pytest.approx(0.2, abs=0.03)
        assert hidden[rows & high, place].mean() == pytest.approx(hidden[rows & ~high, place].mean(), abs=0.05)


def test_cells_by_another_column_follow_its_rank_alone(made):
    hidden, known = shares(made, "mar")
    kept = kept_column(made)
    assert made.counts[kept] == 0
    assert not hidden[:, kept].any()
    rank, others = ranks(made.values)[:, kept], np.delete(np.arange(hidden.shape[1]), kept)
    for low, high in ((0.0, 0.25), (0.75, 1.0)):
        rows = (rank > low) & (rank < high) & known[:, kept]
        assert hidden[rows][:, others][known[rows][:, others]].mean() == pytest.approx(0.2 * (low + high), abs=0.02)
    assert hidden[:, others][known[:, others]].mean() == pytest.approx(0.2, abs=0.01)
    rows = ~known[:, kept]
    assert hidden[rows][:, others][known[rows][:, others]].mean() == pytest.approx(0.2, abs=0.03)


def test_cells_by_their_own_value_follow_its_rank(made):
    hidden, known = shares(made, "mnar")
    rank = ranks(made.values)
    assert hidden[known].mean() == pytest.approx(0.2, abs=0.01)
    numbers = made.counts == 0
    for low, high in ((0.0, 0.25), (0.75, 1.0)):
        cells = known & (rank > low) & (rank < high) & numbers
        assert hidden[cells].mean() == pytest.approx(0.2 * (low + high), abs=0.02)


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_groups_are_hidden_whole(made, share):
    full = replace(made, values=np.nan_to_num(made.values))
    hidden, _ = shares(full, "modalities", share)
    for group in range(3):
        columns = hidden[:, full.memberships == group]
        assert (columns.all(1) | ~columns.any(1)).all()
        # Rows of which all three would be hidden keep one of them.
        assert columns[:, 0].mean() == pytest.approx(share - share**3 / 3, abs=0.03)


def test_groups_and_cells_are_hidden_together(made):
    hidden, known = shares(replace(made, values=np.nan_to_num(made.values)), "both", 0.25)
    columns, share = hidden[:, made.memberships == 2], 0.25 - 0.25**3 / 3
    assert columns.all(1).mean() == pytest.approx(share + (1 - share) * 0.2**2, abs=0.02)
    assert columns.mean() == pytest.approx(share + (1 - share) * 0.2, abs=0.02)
    assert known.all()


def test_ranks_of_equal_values_are_equal_and_their_mean_is_a_half():
    found = ranks(np.array([[3.0, np.nan], [1.0, 5.0], [1.0, 6.0], [7.0, np.nan]]))
    np.testing.assert_allclose(found, [[0.625, 0.5], [0.25, 0.25], [0.25, 0.75], [0.875, 0.5]])


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_task_is_made_by_its_seed(made, mechanism):
    first, again, other = (task_of(made, mechanism, seed) for seed in (0, 0, 1))
    assert (len(first.train), len(first.rows)) == (ROWS * 4 // 5, ROWS // 5)
    for name in ("train", "rows", "truth"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert not np.array_equal(first.truth, other.truth, equal_nan=True)
    assert np.isnan(first.train).mean() > np.isnan(made.values).mean()
    known = ~np.isnan(first.rows)
    np.testing.assert_array_equal(first.rows[known], first.truth[known])


def test_a_class_that_no_training_row_shows_is_not_scored():
    values = np.array([[float(row == 0), row] for row in range(10)])
    table = small(values.T.tolist(), (2, 0))
    seed = next(seed for seed in range(50) if 0 in np.random.default_rng(seed).permutation(10)[:2])
    task = task_of(table, "mcar", seed)
    assert not (task.truth[:, 0] == 1).any()
    assert np.isnan(task.truth[:, 0]).sum() == 1


# Scores


def numbers(truth: list[float], train: list[float]) -> Task:
    """A column of numbers, all of them hidden."""
    table = small([[0.1, 0.2, 0.3]], (0,))
    return Task(table, np.array(train)[:, None], np.full((len(truth), 1), np.nan), np.array(truth)[:, None])


def classes(truth: list[float]) -> Task:
    """A column of two classes, all of them hidden."""
    return Task(small([[0, 1]], (2,)), np.array([[0.0], [1.0]]), np.full((len(truth), 1), np.nan), np.array(truth)[:, None])


def test_numbers_are_scored_in_deviations_of_the_training_column():
    task = numbers([1.0, 5.0], [0.0, 4.0])
    found = scores.scores(task, Answer(np.array([[3.0], [5.0]]), seconds=1.0))
    assert found == pytest.approx({"rmse": math.sqrt(0.5), "crps": 0.5, "seconds": 1.0})


def test_draws_of_the_right_normal_distribution_reach_its_closed_form_scores():
    rng = np.random.default_rng(0)
    truth, spread = rng.normal(size=400), 1.0
    task = numbers(truth.tolist(), [-1.0, 1.0])
    draws = rng.normal(scale=spread, size=(800, 400, 1))
    found = scores.scores(task, Answer(np.zeros((400, 1)), draws, seconds=0.0))
    crps = truth * (2 * norm.cdf(truth) - 1) + 2 * norm.pdf(truth) - 1 / math.sqrt(math.pi)
    assert found["crps"] == pytest.approx(crps.mean(), abs=0.01)
    assert found["log"] == pytest.approx(norm.logpdf(truth).mean(), abs=0.02)
    assert found["in 90 %"] == pytest.approx((np.abs(truth) < norm.ppf(0.95)).mean(), abs=0.02)


def test_draws_that_are_the_whole_distribution_are_scored_as_such():
    task, draws = numbers([0.0], [-1.0, 1.0]), np.array([[[-1.0]], [[1.0]]])
    # E|X - x| is 1, and E|X - X'| 1 for the distribution of two values, 2 for two different draws.
    assert scores.scores(task, Answer(np.zeros((1, 1)), draws, exact=True))["crps"] == pytest.approx(0.5)
    assert scores.scores(task, Answer(np.zeros((1, 1)), draws))["crps"] == pytest.approx(0.0)


def test_equal_draws_have_the_least_spread():
    found = scores.scores(numbers([0.0], [-1.0, 1.0]), Answer(np.zeros((1, 1)), np.zeros((3, 1, 1))))
    assert found["log"] == pytest.approx(norm.logpdf(0, scale=scores.FLOOR))


def test_classes_are_scored_by_probabilities_or_shares_of_draws():
    task, values = classes([0.0, 1.0, 1.0]), np.array([[0.0], [0.0], [1.0]])
    draws = np.array([[[0.0], [0.0], [1.0]], [[0.0], [1.0], [1.0]]])
    by_draws = scores.scores(task, Answer(values, draws))
    by_shares = scores.scores(task, Answer(values, None, {0: np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])}))
    assert by_draws == by_shares
    assert by_draws["accuracy"] == pytest.approx(2 / 3)
    assert by_draws["log class"] == pytest.approx((2 * math.log(0.995) + math.log(0.5)) / 3)


def test_scores_without_draws_are_left_out():
    assert set(scores.scores(classes([0.0]), Answer(np.zeros((1, 1))))) == {"accuracy"}
    assert set(scores.scores(numbers([0.0], [-1.0, 1.0]), Answer(np.zeros((1, 1)), seconds=2.0))) == {"rmse", "crps", "seconds"}


def test_a_missing_estimate_is_an_error():
    with pytest.raises(ValueError, match="missing"):
        scores.scores(numbers([0.0], [-1.0, 1.0]), Answer(np.full((1, 1), np.nan)))


# Rivals


@pytest.fixture(scope="module")
def task(made) -> Task:
    """400 rows of the mixed table."""
    return task_of(replace(made, values=made.values[:400]), "mcar", 0)


@pytest.mark.parametrize("method", rivals.RIVALS)
def test_a_rival_fills_every_hole_and_keeps_what_is_known(task, method, monkeypatch):
    monkeypatch.setattr(rivals, "TREES", 5)
    monkeypatch.setattr(rivals, "ITERATIVE_DRAWS", 3)
    answer = rivals.RIVALS[method](task, 0)
    known = ~np.isnan(task.rows)
    assert np.isfinite(answer.values).all()
    np.testing.assert_allclose(answer.values[known], task.rows[known])
    for place in np.flatnonzero(task.table.counts).tolist():
        assert set(answer.values[:, place]) <= set(range(task.table.counts[place]))
    assert {"rmse", "accuracy"} <= set(scores.scores(task, answer))


def test_rivals_are_better_than_the_mean_where_columns_depend_on_each_other(task, monkeypatch):
    monkeypatch.setattr(rivals, "TREES", 20)
    monkeypatch.setattr(rivals, "ITERATIVE_DRAWS", 3)
    found = {method: scores.scores(task, run(task, 0)) for method, run in rivals.RIVALS.items()}
    for method in ("iterative", "missforest"):
        assert found[method]["rmse"] < found["mean"]["rmse"] - 0.05
        assert found[method]["accuracy"] > found["mean"]["accuracy"] + 0.03


def test_neighbours_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(60, 4))
    values[rng.random(values.shape) < 0.2] = np.nan
    table = replace(small(np.nan_to_num(values).T.tolist(), (0, 0, 0, 0)), values=values)
    task = task_of(table, "mcar", 0)
    expected = KNNImputer(n_neighbors=rivals.NEIGHBOURS).fit(rivals.encoded(task, task.train)).transform(rivals.encoded(task, task.rows))
    np.testing.assert_allclose(rivals.encoded(task, rivals.nearest(task, 0).values), expected)


def test_indicators_are_decoded_to_what_was_encoded(made):
    task = task_of(replace(made, values=np.nan_to_num(made.values)), "mcar", 0)
    np.testing.assert_allclose(rivals.decoded(task, rivals.encoded(task, task.truth)), task.truth)


def test_forests_stop_once_the_table_changes_more_than_before(task, monkeypatch):
    rounds: list[int] = []
    changes = iter([np.array([0.5, 0.5]), np.array([0.2, 0.3]), np.array([0.1, 0.4]), np.array([0.3, 0.5])])
    monkeypatch.setattr(rivals, "_regrow", lambda _task, now, place, _seed: now[1].__setitem__((slice(None), place), len(rounds)) or {})
    monkeypatch.setattr(rivals, "_change", lambda *_: (rounds.append(1), next(changes))[1])
    found = rivals.miss_forest(task, 0).values
    # The fourth round changed both kinds more than the third one, whose values are the answer.
    assert len(rounds) == 4
    assert set(found.flatten()) == {2.0}


# Environments


def test_a_rival_without_its_environment_says_so(task, tmp_path):
    with pytest.raises(UnavailableError, match="no environment"):
        Environments(tmp_path).run("mofa", task, 0)


def fake(folder: Path, code: str) -> Environments:
    """An environment whose Python runs this code instead of a runner."""
    python = folder / "mofa" / "bin" / "python"
    python.parent.mkdir(parents=True)
    script = folder / "answer.py"
    script.write_text(f"import sys; sys.path.insert(0, {str(RUNNERS)!r})\nimport numpy as np\nfrom exchange import serve\n{code}\n")
    python.write_text(f'#!/bin/sh\nshift\nexec "{sys.executable}" "{script}" "$@"\n')
    python.chmod(0o755)
    return Environments(folder, limit=60)


def test_a_runner_answers_by_files(task, tmp_path):
    code = """
def answer(q):
    draws = np.ones((q.draws, *q.rows.shape))
    return {"values": np.zeros_like(q.rows), "draws": draws, "probabilities_1": np.full((9, 2), q.groups.max())}

serve(answer)
"""
    found = fake(tmp_path, code).run("mofa", task, 0)
    known = ~np.isnan(task.rows)
    np.testing.assert_array_equal(found.values, np.where(known, task.rows, 0))
    assert found.draws is not None
    np.testing.assert_array_equal(found.draws, np.broadcast_to(np.where(known, task.rows, 1), (100, *task.rows.shape)))
    np.testing.assert_array_equal(found.probabilities[1], np.full((9, 2), task.table.memberships.max()))
    assert found.seconds >= 0


def test_a_runner_that_fails_says_why(task, tmp_path):
    with pytest.raises(UnavailableError, match="failed: ValueError: no such luck"):
        fake(tmp_path, "raise ValueError('no such luck')").run("mofa", task, 0)


def test_a_runner_that_takes_too_long_is_stopped(task, tmp_path):
    with pytest.raises(UnavailableError, match="stopped after 1 seconds"):
        replace(fake(tmp_path, "import time; time.sleep(30)"), limit=1.0).run("mofa", task, 0)


def test_modalities_are_views_of_a_rival_in_its_environment(tmp_path, monkeypatch):
    code = """
def answer(q):
    assert (q.groups.tolist(), q.counts.tolist()) == ([0, 0, 1], [0, 0, 3])
    assert np.isnan(q.rows[0]).tolist() == [True, True, False]
    values = np.tile([1.0, 2.0, 0.0], (len(q.rows), 1))
    return {"values": values, "draws": np.tile(values, (q.draws, 1, 1)), "probabilities_2": np.full((len(q.rows), 3), 1 / 3)}

serve(answer)
"""
    monkeypatch.setattr(imputers, "default_folder", lambda: fake(tmp_path, code).folder)
    rows = Batch.complete({"x": torch.randn(4, 2), "label": torch.tensor([0, 1, 2, 0])})
    hidden = Batch(rows.values, {"x": torch.tensor([False, True, True, True]), "label": torch.tensor([True, False, True, True])})
    found = imputers.mofa(imputers.Task("tcga", rows, rows, hidden), 0)["MOFA+"]
    assert found.point["x"].tolist() == [[1.0, 2.0]] * 4
    assert found.draws["x"].shape == (imputers.ITERATIVE_DRAWS, 4, 2)
    assert found.probability.shape == (4, 3)


# Report


def figures(**values: list[tuple[float, float]]) -> Figures:
    """RMSE and accuracy on pbc of each method, by seed."""
    runs = {
        key_of("pbc", "mcar", method, seed): {"rmse": rmse, "accuracy": accuracy, "seconds": 1.0}
        for method, found in values.items()
        for seed, (rmse, accuracy) in enumerate(found)
    }
    return Figures(runs, 2)


def test_the_verdict_counts_tables_within_the_spread_of_the_best_rival():
    rivals_of = {"mean": [(1.0, 0.5)] * 2, "knn": [(0.8, 0.6)] * 2, "missforest": [(0.7, 0.6)] * 2, "miceforest": [(0.9, 0.7)] * 2}
    (line,) = report.verdicts(figures(**rivals_of, nbridge=[(0.69, 0.65), (0.73, 0.64)]), "mcar")
    assert "RMSE on 1 of 1 tables, accuracy on 0 of 1 tables, both on 0 of 1" in line
    assert line.endswith("worse than the mean or mode: never")
    (line,) = report.verdicts(figures(**rivals_of, imputer=[(1.2, 0.8), (1.3, 0.8)]), "mcar")
    assert "RMSE on 0 of 1 tables, accuracy on 1 of 1 tables" in line
    assert line.endswith("worse than the mean or mode: RMSE of pbc")


def test_the_best_rival_is_among_those_with_figures_of_every_seed():
    rivals_of = {"mean": [(1.0, 0.5)] * 2, "knn": [(0.8, 0.6)] * 2, "missforest": [(0.5, 0.9)]}
    (line,) = report.verdicts(figures(**rivals_of, nbridge=[(0.7, 0.7), (0.7, 0.7)]), "mcar")
    assert "RMSE on 1 of 1 tables, accuracy on 1 of 1 tables, both on 1 of 1" in line


def test_the_section_has_a_column_for_each_method_and_its_changes():
    runs = dict(figures(mean=[(1.0, 0.5)], nbridge=[(0.5, 0.5)]).runs)
    runs[key_of("pbc", "mcar", "nbridge latent_dim=8", 0)] = {"rmse": 0.4, "seconds": 1.0}
    runs[key_of("pbc", "mcar", "hyperimpute", 0)] = {"failed": "stopped"}
    text = report.section(Figures(runs, 2))
    assert "| | | mean, mode | nbridge (init) | nbridge (init), latent_dim=8 |" in text
    assert "| pbc | RMSE | 1.000 | 0.500 | 0.400 |" in text
    assert "| pbc | accuracy | 0.500 | 0.500 | – |" in text
    assert "- HyperImpute on pbc, 1 runs: stopped" in text


# From end to end


@pytest.fixture(scope="module")
def short() -> list[str]:
    return ["--seeds", "1", "--tables", "wine", "--missing", "mcar", "--tiny"]


def test_a_tiny_run_is_kept_and_not_repeated(tmp_path, short, monkeypatch, capsys):
    result = tmp_path / "tables.json"
    options = [*short, "--result", str(result), "--environments", str(tmp_path)]
    assert tables.main([*options, "--methods", "mean,knn,mofa"]) == 0
    kept = json.loads(result.read_text())
    # A method that is not installed here is tried again next time.
    assert list(kept) == ["wine mcar mean 0", "wine mcar knn 0"]
    assert "no environment" in capsys.readouterr().out
    monkeypatch.setattr(tables, "measure", lambda *_: pytest.fail("measured again"))
    assert tables.main([*options, "--methods", "mean,knn"]) == 0
    assert json.loads(result.read_text()) == kept


def test_a_tiny_run_of_ours(tmp_path, short):
    result = tmp_path / "tables.json"
    changes = ["--set", "training.updates=2"]
    assert tables.main([*short, "--result", str(result), "--methods", "nbridge,spec", *changes]) == 0
    ((key, found),) = json.loads(result.read_text()).items()
    assert key == "wine mcar nbridge training.updates=2 0"
    assert {"rmse", "accuracy", "crps", "log", "log class", "in 90 %", "seconds"} == set(found)
    assert all(math.isfinite(value) for value in found.values())


def test_the_imputer_without_groups_answers(made, monkeypatch):
    monkeypatch.setattr(nbridge, "NBridgeImputer", partial(nbridge.NBridgeImputer, epochs=2))
    task = task_of(replace(made, values=made.values[:60]), "mcar", 0)
    answer = ours.imputer(task, 0)
    known = ~np.isnan(task.rows)
    np.testing.assert_allclose(answer.values[known], task.rows[known])
    assert {"rmse", "accuracy", "crps", "log class"} <= set(scores.scores(task, answer))


def test_tiny_figures_are_kept_apart():
    with pytest.raises(SystemExit):
        tables.main(["--tiny"])


def test_the_speed_task_prints_its_times(capsys, monkeypatch):
    monkeypatch.setattr(speed.nbridge, "train", lambda spec, device: _Run())
    assert tables.main(["--speed", "--tiny"]) == 0
    assert "rows per second" in capsys.readouterr().out


def test_the_made_table_has_the_stated_columns_and_holes():
    table = speed.made(2000)
    assert table.values.shape == (2000, 60)
    assert sorted(table.counts.tolist()) == [0] * 30 + [2] * 10 + [4] * 10 + [5] * 10
    assert np.isnan(table.values).mean() == pytest.approx(0.2, abs=0.01)


class _Run:
    """A run whose model does nothing."""

    def __init__(self) -> None:
        self.model = self

    def impute(self, rows: pa.Table) -> pa.Table:
        return rows


def test_runners_need_no_module_of_the_repository():
    for path in RUNNERS.glob("*.py"):
        assert not re.search(r"^(from|import) (benchmarks|nbridge)", path.read_text(), re.MULTILINE), path.name
