"""Each doubt about a guess stands beside it, and what is no plain number is left out with the reason."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from drafts import kinds

from nbridge.draft.draft import Draft, init
from nbridge.errors import DataError

ROWS = 120
Cells = Callable[[int], object]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def drafts(cell: Cells, name: str = "dose", delimiter: str = ";") -> list[Draft]:
    """Drafts of a csv file and of a data frame with a column of these cells beside a column of numbers."""
    x = np.random.default_rng(0).normal(size=ROWS).round(3)
    rows = pd.DataFrame({"x": x, name: list(map(cell, range(ROWS)))})
    rows.to_csv("rows.csv", index=False, sep=delimiter)
    return [init("rows.csv"), init(rows)]


def words(found: Draft) -> str:
    return " ".join(" ".join(line.strip(" #") for line in found.text.splitlines()).split())


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("cell", "first", "what"),
    [
        ("{},5", "0,5", "numbers with commas"),
        ("1.00{},5", "1.000,5", "numbers with commas"),
        ("{} %", "0 %", "numbers with percent signs"),
        ("€{}.20", "€0.20", "amounts with a currency"),
        ("{}.20 EUR", "0.20 EUR", "amounts with a currency"),
        ("$1,{}00", "$1,000", "amounts with a currency"),
        ("{} kg", "0 kg", "numbers with a unit"),
        ("{}mm", "0mm", "numbers with a unit"),
        ("{} mg/dl", "0 mg/dl", "numbers with a unit"),
        ("<{}", "<0", "numbers with signs such as <"),
        ("1 00{}", "1 000", "numbers with separated thousands"),
    ],
)
def test_numbers_that_are_not_written_plainly_are_named(cell: str, first: str, what: str):
    reason = f"text such as {first!r}, {what}; write them with a decimal point and nothing else"
    # A handful of different values could be classes, and the doubt is stated; many are left out.
    for found in drafts(lambda row: cell.format(row % 5)):
        assert kinds(found.spec)["dose"] == "categorical"
        assert f"could also be numbers: {reason}" in words(found)
    if "00{}" not in cell:
        for found in drafts(lambda row: cell.format(row % 40)):
            assert list(found.spec.modalities) == ["x"]
            assert f"left out: dose: {reason}" in found.remarks


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("cell", "doubt"),
    [
        (lambda row: f"00{row % 90}.25", "could also be codes: '000.25' has leading zeros"),
        (lambda row: f"{1 + row % 9}E{1 + row % 5}", "could also be codes: '1E1'"),
        (lambda row: ("yes", "no", "Yes")[row % 3], "'Yes' and 'yes' differ only in case"),
    ],
)
def test_doubts_stand_beside_the_guess(cell: Cells, doubt: str):
    for found in drafts(cell, "code"):
        assert "code" in kinds(found.spec)
        assert doubt.partition(":")[0] in words(found)


@pytest.mark.usefixtures("here")
def test_codes_with_leading_zeros_are_classes_or_identifiers_and_never_numbers():
    for found in drafts(lambda row: f"{row % 12:02d}", "ward"):
        assert kinds(found.spec)["ward"] == "categorical"
        assert list(found.spec.data.source.kwargs["classes"]["ward"][:2]) == ["00", "01"]
    for found in drafts(lambda row: f"{row * 7 % 1000:04d}", "ward"):
        assert list(found.spec.modalities) == ["x"]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("form", ["%Y-%m-%d", "%d.%m.%Y", "%m/%d/%Y", "%d %b %Y", "%Y%m%d", "%Y-%m-%dT%H:%M:%SZ"])
def test_dates_that_differ_in_all_rows_are_called_dates_and_not_identifiers(form: str):
    day = datetime.datetime(2020, 1, 1)
    found, _ = drafts(lambda row: (day + datetime.timedelta(days=row)).strftime(form), "when")
    (remark,) = found.remarks
    assert remark.startswith("left out: when: holds dates")
    assert found.spec.data.source.kwargs["id"] == "id"


def test_columns_between_pipes_are_read_and_written_so(here: Path):
    found, frame = drafts(lambda row: "ab c"[row % 4 : row % 4 + 1], "k", "|")
    assert found.spec.modalities == {"rows": frame.spec.modalities["table"]}
    rng = np.random.default_rng(0)
    (here / "odd.csv").write_text("x^y\n" + "".join(f"{row}^{other:.3f}\n" for row, other in enumerate(rng.normal(size=50))))
    with pytest.raises(DataError, match=r"column 'x\^y', the identifier, is the only one; expected commas, semicolons, tabs or \| between"):
        init("odd.csv")
