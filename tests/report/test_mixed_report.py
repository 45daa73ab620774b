"""The report of mixed tables: columns by name and kind, classes by name, and a single table has one worth reading."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import nbridge
from nbridge.report.page import write_report

FACTS: dict[str, Any] = {"sex": "bernoulli", "stage": {"type": "categorical", "classes": 3}, "edema": {"type": "ordinal", "classes": 3}}
SIZES: dict[str, Any] = {
    "age": {"type": "normal", "whole": True}, "bili": "lognormal", "visits": {"type": "poisson", "zero_inflated": True},
    "falls": "negative_binomial",
}  # fmt: skip
STAGES = ["<I>", "II", "III & more"]


def frame(rows: int = 120) -> pd.DataFrame:
    draw = np.random.default_rng(0)
    z = draw.normal(size=rows)
    level = np.digitize(z, (-0.5, 0.5))
    whole = pd.DataFrame({
        "sex": np.where(z > 0, "m", "f"), "stage": np.array(STAGES)[level], "edema": np.array([0, 0.5, 1])[level],
        "age": (50 + 10 * z).round(), "bili": np.exp(z), "visits": draw.poisson(np.exp(z)), "falls": draw.poisson(np.exp(1 + z)),
    })  # fmt: skip
    return whole.mask(pd.DataFrame(draw.random(whole.shape) < 0.1, columns=whole.columns))


def page_of(folder: Path, modalities: dict[str, dict[str, Any]]) -> str:
    frame().to_csv(folder / "rows.csv", index=False)
    spec = {
        "latent_dim": 2, "data": {"source": "table", "path": str(folder / "rows.csv")},
        "modalities": {name: {"columns": columns, "encoder": {"type": "table", "hidden": [8]}} for name, columns in modalities.items()},
        "training": {"stages": {"joint": {"epochs": 2}, "bridges": {"epochs": 1}}},
    }  # fmt: skip
    run = nbridge.train(spec, out=folder / "run")
    return write_report(run).read_text()


def section(page: str, name: str) -> str:
    return re.search(rf'<section id="{name}">.*?</section>', page, re.DOTALL)[0]  # type: ignore[index]


def test_a_single_table_has_a_verdict_and_a_section_of_its_columns(tmp_path: Path):
    page = page_of(tmp_path, {"t": {**FACTS, **SIZES}})
    assert "model of one modality: t" in page
    assert "mixed, 7 columns" in section(page, "trained")
    assert "single cells of t" in section(page, "verdict")
    columns = section(page, "columns")
    kinds = {
        "age": "normal, whole", "bili": "lognormal", "visits": "poisson, zero-inflated", "falls": "negative binomial", "sex": "bernoulli",
        "stage": "categorical, 3 classes", "edema": "ordinal, 3 classes",
    }  # fmt: skip
    for name, kind in kinds.items():
        assert re.search(rf'scope="row"[^>]*>{name}</th><td[^>]*>{kind}</td>', columns)
    # Confusion matrices name classes, which stay text.
    for text in ("&lt;I&gt;", "III &amp; more", ">f<", ">m<", ">0.5<"):
        assert columns.count(text) >= 2
    assert len(re.findall('class="matrix"', columns)) == 3
    assert len(re.findall("imputed against true values", columns)) == 4
    # Percentages of a row of a matrix sum to 100, but for rounding.
    for row in re.findall(r'<tr><th scope="row">[^<]*</th>((?:<td[^>]*>\d+</td>)+)</tr>', columns):
        shares = [int(share) for share in re.findall(r">(\d+)<", row)][:-1]
        assert abs(sum(shares) - 100) <= len(shares) or not sum(shares)


@pytest.mark.parametrize(
    "modalities",
    [{"facts": FACTS, "sizes": SIZES}, {"one": {"age": "normal"}, "other": {"sex": "bernoulli"}}],
    ids=["two", "of one column"],
)
def test_any_mixed_spec_has_a_report_in_which_each_section_is_shown_or_left_out(tmp_path: Path, modalities: dict[str, dict[str, Any]]):
    page = page_of(tmp_path, modalities)
    several = all(len(columns) > 1 for columns in modalities.values())
    assert ('<section id="columns">' in page) is several
    if several:
        assert all(f"<h3>{name}</h3>" in section(page, "columns") for name in modalities)
    else:
        assert "no mixed modality with two observed columns in a row" in section(page, "left-out")
    assert all(f">{name}<" in section(page, "verdict") for name in modalities)
