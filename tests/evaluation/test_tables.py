"""Tables of evaluations and comparisons: every figure is there, and a narrow terminal cuts none of it."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from nbridge.cli.tables import print_comparison, print_evaluation
from nbridge.evaluation.results import Evaluation, Measurement, Settings
from nbridge.runs.comparison_table import Comparison, ModelResults, SeedValues

NAMES = ("fac", "fou", "kar", "mor", "pix", "zer", "label")
SETTINGS = Settings(samples=5000)


def measured(metric: str, target: tuple[str, ...], given: tuple[str, ...], rows: int = 1000, **series: dict[str, float]) -> Measurement:
    figures = {"log-likelihood": -52170.04, "standard error": 0.02951, "error over rows": 12.5, "effective sample size": 3.2}
    return Measurement(metric, target, given, rows, figures, series)


def printed(evaluation: Evaluation, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, markup=False, emoji=False, highlight=False)
    print_evaluation(evaluation, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def evaluation(*measurements: Measurement, **skipped: str) -> Evaluation:
    return Evaluation(SETTINGS, NAMES, "label", 10, 1000, 5000, {}, measurements, skipped)


def rows(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│")]


def test_sets_of_many_modalities_fit_into_80_columns():
    curve = dict.fromkeys(["1", "10", "100", "1000", "5000"], -52170.04)
    text = printed(evaluation(*(measured("likelihood", target, NAMES, K=curve) for target in (("fac",), NAMES[:-1], NAMES, NAMES[:2]))))
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    figures = ["-52,170.0", "0.0295", "12.50", "3.200"]
    whole = [row for row in rows(text) if row[1]]
    assert [row[2:] for row in whole] == [figures] * 4 + [["-52,170.0"] * 5] * 4
    assert [row[0] for row in rows(text)[:4]] == ["fac", "all but label", "all", "fac,fou"]
    assert "likelihood, 1,000 rows" in text
    assert re.search(r"┃ +1 ┃ +10 ┃ +100 ┃ +1,000 ┃ +5,000 ┃", text)
    assert text.startswith("the first 1,000 of 5,000 test rows; K = 5,000 importance samples, 200 draws, 10")


def test_numbers_of_rows_have_a_column_where_they_differ():
    text = printed(evaluation(measured("predictive", ("fac",), ("fou",)), measured("predictive", ("fou",), (), rows=7)))
    assert [row[:3] for row in rows(text)] == [["fac", "fou", "1,000"], ["fou", "nothing", "7"]]
    assert re.search(r"^predictive *$", text, re.MULTILINE)


def test_figures_that_one_measurement_lacks_leave_its_cell_empty():
    one = replace(measured("predictive", ("fac",), ("fou",)), figures={"log-likelihood": -1.0, "RMSE": float("nan")})
    other = replace(measured("predictive", ("label",), ("fou",)), figures={"log-likelihood": -2.0, "accuracy": 0.5})
    assert rows(printed(evaluation(one, other))) == [["fac", "fou", "-1.000", "-", ""], ["label", "fou", "-2.000", "", "0.5000"]]


def test_long_series_stand_below_each_other():
    errors = {str(index): index / 40 for index in range(40)}
    text = printed(evaluation(measured("attributes", ("label",), ("fac",), error=errors)))
    assert rows(text)[1:] == [[name, f"{error:.4f}" if error < 1 else f"{error:.3f}"] for name, error in errors.items()]
    assert "label given fac" in text


def test_what_was_left_out_is_told_once_for_each_reason():
    apart = {f"m{index}": "no rows" for index in range(7)}
    text = printed(evaluation(measured("likelihood", ("fac",), ("fac",)), attributes="no attributes", **apart))
    assert text.splitlines()[-2:] == ["left out: attributes; no attributes", "left out: m0, m1, m2, m3, 3 more; no rows"]


@pytest.mark.parametrize("models", [1, 2, 4, 7])
@pytest.mark.parametrize("width", [80, 120])
def test_a_comparison_shows_every_model_whole(models: int, width: int):
    keys = [("log p(fac) by q(z|fac)", "log-likelihood"), ("log p(fac) by q(z|fac)", "standard error")]
    keys += [("predictive of fac given fou", "log-likelihood"), ("predictive of fac given fou", "RMSE")]
    results = tuple(
        ModelResults(
            f"model {index}", 1000 * index, SeedValues((2.0,)), {key: SeedValues((-100.0 - index, -102.0 - index)) for key in keys}
        )
        for index in range(models)
    )
    console = Console(file=io.StringIO(), width=width, markup=False, emoji=False, highlight=False)
    print_comparison(Comparison(results, 2, SETTINGS, 5, 9, {"labels": "no classes"}), console)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    assert re.findall(r"model \d", text) == [f"model {index}" for index in range(models)]
    joined = "".join(cell for row in rows(text) for cell in row)
    for index in range(models):
        # Its log-likelihood, its predictive one and its RMSE; the standard error is in the files.
        assert joined.count(f"{-101 - index}.00") == 3
    assert joined.count("± 1.41") == 3 * models
    assert "standard error" not in joined
    assert text.rstrip().endswith("left out: labels; no classes")
    assert text.count("Figures: mean ± standard deviation over 2 seeds; the first 5 of 9 test rows;") == 1
