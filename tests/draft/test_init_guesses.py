"""What `nbridge init` takes columns and arrays for: classes, counts, numbers, codes, dates, images; and how it groups them."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from commands import Call, in_this_process
from drafts import kinds, members
from hypothesis import given, settings
from hypothesis import strategies as st

import nbridge
from nbridge.data.dates import holds_dates, is_date
from nbridge.data.tables.cells import MOST_CLASSES, ordered_classes
from nbridge.data.tables.profiles import Profile
from nbridge.draft.checks import check_data
from nbridge.draft.column_kinds import ColumnKind, Tally, kind_of_numbers, kind_of_text, repeats
from nbridge.draft.columns import kind_of
from nbridge.draft.draft import Draft, init
from nbridge.draft.grouping import MOST_MODALITIES
from nbridge.draft.name_groups import group_by_prefix
from nbridge.spec.reader import parse_spec
from nbridge.training.build import build_data, build_model, source_of

ROWS = 2000
Make = Callable[[np.random.Generator], Any]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NBRIDGE_DATA", raising=False)
    return tmp_path


@pytest.fixture
def call(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs a command in this process."""
    return in_this_process(monkeypatch, capsys, columns=120)


def table(path: Path, columns: Mapping[str, Sequence[object]]) -> str:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *zip(*columns.values(), strict=True)])
    return path.name


def reals(rows: int = ROWS) -> list[str]:
    return [f"{x:.4f}" for x in np.random.default_rng(9).normal(size=rows)]


def comments(found: Draft) -> str:
    """All comments as one line of text."""
    return " ".join(line.strip().removeprefix("# ") for line in found.text.splitlines() if line.strip().startswith("#"))


def found_in(name: str, values: Sequence[object]) -> ColumnKind:
    """What a column is taken for by itself."""
    texts = [str(value) for value in values]
    ordered = ordered_classes(texts)
    place = {text: number for number, text in enumerate(ordered)}
    return kind_of(Profile(name, ordered, np.array([place[text] for text in texts])))


def guessed(name: str, values: Sequence[object]) -> tuple[str, int, str]:
    """The likelihood and the number of classes of a column that stands beside one of reals of another name, and all comments."""
    found = init([table(Path("rows.csv"), {"zz": reals(len(values)), name: values})])
    kind = kinds(found.spec).get(name)
    if kind is None:
        return "left out", 0, comments(found)
    classes = (found.spec.data.source.kwargs["classes"] or {}).get(name, ())
    return kind if isinstance(kind, str) else kind["type"], len(classes), comments(found)


WHOLE: list[tuple[str, Make, str, str]] = [
    # Name, values, kind, and the doubt or the reason.
    ("species", lambda rng: rng.integers(0, 100, ROWS), "classes", ""),
    ("y", lambda _: np.arange(ROWS) % 100, "classes", "could also be numbers"),
    ("y", lambda _: np.arange(ROWS) % 100 + 1, "classes", "could also be numbers"),
    ("y", lambda rng: rng.choice(30, ROWS, p=rng.dirichlet(np.ones(30) * 5)), "classes", "could also be"),
    ("tumor_grade", lambda rng: rng.choice([10, 20, 35, 50], ROWS), "classes", ""),
    ("CellType", lambda rng: rng.choice(np.arange(300, 340), ROWS), "classes", "could also be numbers"),
    ("cluster_id", lambda rng: rng.integers(0, 40, ROWS), "classes", ""),
    ("store_id", lambda rng: rng.choice(np.arange(500, 590), ROWS), "classes", ""),
    ("rating", lambda rng: rng.choice(5, ROWS, p=[0.05, 0.1, 0.2, 0.4, 0.25]) + 1, "classes", "could also be numbers"),
    ("month", lambda rng: rng.integers(1, 13, ROWS), "classes", "could also be numbers"),
    ("answer", lambda rng: rng.integers(-2, 3, ROWS), "classes", "could also be numbers"),
    ("year", lambda rng: rng.integers(2007, 2010, ROWS), "classes", "could also be numbers"),
    ("zip", lambda rng: rng.choice(np.arange(10115, 10115 + 99 * 7, 7), ROWS), "classes", ""),
    ("x", lambda rng: np.minimum(rng.poisson(1.0, ROWS), 6), "classes", "could also be counts: small numbers prevail"),
    ("visits", lambda rng: np.minimum(rng.poisson(3, ROWS), 12), "counts", "could also be classes"),
    ("n_children", lambda rng: rng.poisson(1.0, ROWS), "counts", "could also be classes"),
    ("read_count", lambda rng: rng.poisson(40, ROWS) + 7, "counts", ""),
    ("x", lambda rng: rng.negative_binomial(1, 0.02, ROWS), "counts", ""),
    ("x", lambda rng: rng.poisson(3, ROWS), "counts", "could also be classes"),
    ("age", lambda rng: rng.integers(18, 90, ROWS), "numbers", "could also be classes: 72 values, 28 rows each on average"),
    ("age_years", lambda rng: rng.integers(0, 90, ROWS), "numbers", "could also be classes"),
    ("y", lambda rng: rng.integers(18, 90, ROWS), "numbers", "could also be classes"),
    ("year", lambda rng: rng.integers(1950, 2021, ROWS), "numbers", "could also be classes"),
    ("body_mass_index", lambda rng: rng.normal(25, 4, ROWS).round().astype(int), "numbers", "could also be classes"),
    ("score", lambda rng: np.clip(rng.normal(60, 15, ROWS).round(), 0, 100).astype(int), "numbers", "could also be classes"),
    ("channel", lambda rng: rng.permutation(np.resize(np.arange(256), ROWS)), "numbers", "could also be classes"),
    ("adc", lambda rng: rng.integers(1000, 4096, ROWS), "numbers", ""),
    ("amount", lambda rng: 5 * rng.integers(0, 200, ROWS), "numbers", ""),
    ("x", lambda rng: 5 * rng.integers(0, 200, ROWS), "numbers", ""),
    ("patient_id", lambda rng: rng.integers(1, 400, ROWS), "left out", "identifiers that repeat"),
    ("zipcode", lambda rng: rng.integers(10000, 99999, ROWS), "left out", "codes by the name"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "make", "kind", "doubt"), WHOLE, ids=[f"{place}-{case[0]}" for place, case in enumerate(WHOLE)])
def test_whole_numbers_are_classes_where_they_repeat_unless_name_or_shape_says_otherwise(name: str, make: Make, kind: str, doubt: str):
    found = found_in(name, make(np.random.default_rng(0)).tolist())
    assert found.kind == kind
    assert doubt in found.reason
    assert bool(doubt) == (bool(found.doubt) or kind == "left out")


@pytest.mark.parametrize("doubtful", [True, False])
def test_columns_that_are_together_name_those_in_doubt(here: Path, doubtful: bool):
    rng = np.random.default_rng(0)
    ages = (rng.integers(18, 60, ROWS) if doubtful else rng.integers(0, 10**6, ROWS)).tolist()
    found = init([table(here / "rows.csv", {"m_x": reals(), "m_y": reals()[::-1], "m_age": ages})])
    words = "names begin with m; 3 columns of numbers" + ("; m_age could also be classes" if doubtful else "")
    assert words in comments(found)
    assert ("could also" in found.text) == doubtful


def test_a_hundred_species_are_classes_from_a_csv_and_from_an_archive(here: Path):
    rng = np.random.default_rng(0)
    species, leaf = np.arange(1600) % 100, rng.normal(size=(1600, 4))
    of_csv = init([table(here / "leaves.csv", {"species": species.tolist(), **{f"leaf_{i}": leaf[:, i].tolist() for i in range(4)}})])
    np.savez(here / "leaves.npz", species=species, leaf=leaf)
    for found in (of_csv, init(["leaves.npz"])):
        kinds = {name: (one.shape, one.likelihood.type) for name, one in found.spec.modalities.items()}
        assert kinds == {"species": ((100,), "categorical"), "leaf": ((4,), "normal")}


@pytest.mark.parametrize(
    ("values", "likelihood", "classes"),
    [([0, 0.5, 1], "ordinal", ("0", "0.5", "1")), ([0, 0.5, 1, 1.5, 2, 2.5, 3], "normal", ())],
)
def test_few_numbers_are_classes_even_if_they_are_not_whole(here: Path, values: list[float], likelihood: str, classes: tuple[str, ...]):
    cells = (values * ROWS)[:ROWS]
    assert guessed("edema", cells)[0] == likelihood
    assert (init(["rows.csv"]).spec.data.source.kwargs["classes"] or {}).get("edema", ()) == classes
    # A dose has an order and distances, whatever its values are.
    assert guessed("dose", cells)[0] == "normal"


def test_a_stray_value_among_whole_numbers_makes_no_class_of_its_own():
    found = found_in("credit", [*([1, 2, 3, 4] * 500)[:-1], 2.116])
    assert (found.kind, found.doubt) == ("numbers", "could also be classes: whole numbers from 1 to 4 in all rows but 1")


def test_numbers_that_are_spelt_in_two_ways_are_one_class(here: Path):
    likelihood, size, _ = guessed("stage", ["1", "1.0", "2", "3"] * 100)
    assert (likelihood, size) == ("ordinal", 3)
    assert check_data(init(["rows.csv"]).spec).errors == ()


@pytest.mark.parametrize("kinds", [11, 51, 200, MOST_CLASSES])
@pytest.mark.parametrize("rows_a_class", [2, 3, 8])
def test_text_that_repeats_is_classes_up_to_a_thousand_of_them(kinds: int, rows_a_class: int):
    found = found_in("town", [f"town {place}" for place in range(kinds)] * rows_a_class)
    assert (found.kind, found.why) == ("classes", f"text of {kinds:,} different values")
    assert bool(found.doubt) == (rows_a_class < 5)


def test_a_thousand_classes_of_text_hold_with_their_data(here: Path):
    texts = [f"town {place}" for place in range(MOST_CLASSES)] * 2
    assert guessed("town", texts)[:2] == ("categorical", MOST_CLASSES)
    spec = init(["rows.csv"]).spec
    rows = source_of(spec).load({"rows": (1 + MOST_CLASSES,)}).batch.representative().values["rows"]
    assert [spec.data.source.kwargs["classes"]["town"][code] for code in rows[:, 1:].argmax(1).tolist()] == texts


def test_text_that_does_not_repeat_or_has_too_many_values_is_left_out():
    for texts, why in (
        ([f"{place} words" for place in range(300)], "looks like identifiers"),
        ([f"{place % 200} words" for place in range(300)], "text of 200 different values in 300 rows, too few rows a value for classes"),
        ([*["none"] * 700, *(f"{place} words" for place in range(300))], "too few rows a value for classes"),
        ([f"{place} words" for place in range(1001)] * 3, "text of 1,001 different values in 3,003 rows, too many for classes"),
    ):
        found = found_in("note", texts)
        assert found.kind == "left out"
        assert why in found.why


NOTES = [
    f"mild pain of the {side} {joint}, day {day} of the stay"
    for day in range(10)
    for side in ("left", "right")
    for joint in ("knee", "hip")
]
CODES = {
    "codes": [f"AB {place} CD-X/F" for place in range(40)],
    "names": [f"Ada King{'abcdefghij'[place % 10]} {'xyzw'[place // 10]}." for place in range(40)],
    "hashes": [f"{place * 2654435761 % 2**32:08x}-ab-cd-ef" for place in range(40)],
    "one word": [f"town{place}" for place in range(40)],
}


@pytest.mark.parametrize("name", ["notes", "sample"])
@pytest.mark.parametrize("first", [True, False])
def test_notes_that_all_differ_are_text_and_not_identifiers(here: Path, name: str, first: bool):
    numbers = {"x": reals(40), "y": reals(40)}
    found = init([table(here / "rows.csv", {name: NOTES, **numbers} if first else {**numbers, name: NOTES})])
    assert found.spec.data.source.kwargs["id"] != name
    assert found.remarks == (
        f"left out: {name}: text of 40 different values in 40 rows, too few rows a value for classes; "
        "to learn it as text, add a modality with encoder: text and likelihood: text",
    )


@pytest.mark.parametrize("texts", CODES.values(), ids=CODES)
def test_codes_and_names_that_all_differ_are_identifiers(here: Path, texts: list[str]):
    found = init([table(here / "rows.csv", {"who": texts, "x": reals(40)})])
    assert found.spec.data.source.kwargs["id"] == "who"


@given(st.lists(st.integers(1, 9), min_size=1, max_size=50))
@settings(deadline=None)
def test_values_repeat_where_half_of_them_do_and_rows_are_twice_as_many(rows: list[int]):
    expected = sum(rows) / len(rows) >= 2 and sum(count > 1 for count in rows) >= len(rows) / 2
    assert repeats(np.array(rows)) == expected
    if len(rows) > 2:
        assert (kind_of_text("x", np.array(rows)).kind == "classes") == expected


@given(st.integers(11, 60), st.integers(0, 2**32 - 1), st.sampled_from(["x", "label", "age", "visits"]), st.integers(0, 1))
@settings(deadline=None, max_examples=60)
def test_the_guess_depends_on_the_tally_alone(kinds: int, seed: int, name: str, low: int):
    rng = np.random.default_rng(seed)
    values = low + rng.integers(0, kinds, 40 * kinds).astype(float)
    tally = Tally.of(values)
    found = kind_of_numbers(name, tally)
    assert found == kind_of_numbers(name, Tally.of(rng.permutation(values)))
    # Equally frequent values without a gap have no mode, as counts and measurements have.
    assert found.kind == {"x": "classes", "label": "classes", "age": "numbers", "visits": "counts"}[name]


@pytest.mark.parametrize("codes", [("007", "010", "100"), ("01", "02"), tuple(f"{place:04}" for place in range(60))])
def test_codes_with_leading_zeros_are_classes_and_come_back_to_the_letter(here: Path, codes: tuple[str, ...]):
    likelihood, size, _ = guessed("x", list(codes) * 20)
    assert (likelihood, size) == ("bernoulli" if len(codes) == 2 else "categorical", len(codes))
    found = init(["rows.csv"])
    assert found.spec.data.source.kwargs["classes"] == {"x": codes}
    assert check_data(found.spec).errors == ()


def test_codes_with_leading_zeros_that_do_not_repeat_are_no_numbers():
    codes = [f"{code:06}" for code in np.random.default_rng(0).integers(0, 10**6, ROWS)]
    found = found_in("x", codes)
    assert (found.kind, found.why) == ("left out", f"codes of {len(set(codes)):,} different values in 2,000 rows, too many for classes")


DATES = {
    "iso": "%Y-%m-%d", "with time": "%Y-%m-%d %H:%M:%S", "with zone": "%Y-%m-%dT%H:%M:%S+01:00", "slashes": "%Y/%m/%d",
    "day first": "%d/%m/%Y", "month first": "%m/%d/%Y", "short year": "%m/%d/%y", "points": "%d.%m.%Y", "words": "%d %b %Y",
    "month in words": "%B %d, %Y", "dashes": "%d-%b-%Y", "compact": "%Y%m%d", "month": "%Y-%m", "am": "%m/%d/%Y %I:%M %p",
}  # fmt: skip


@pytest.mark.parametrize("form", DATES.values(), ids=DATES)
@pytest.mark.parametrize("days", [2, 5, 300], ids=["two", "few", "many"])
def test_dates_are_neither_classes_nor_identifiers_nor_numbers(here: Path, form: str, days: int):
    first = np.datetime64("2019-03-27T08:15:00")
    spelt = [(first + np.timedelta64(37 * (row % days), "D")).astype(object).strftime(form) for row in range(300)]
    # The first column, which would be identifiers if its texts differ.
    found = init([table(here / "rows.csv", {"when": spelt, "x": reals(300)})])
    assert list(found.spec.modalities) == ["x"]
    assert found.spec.data.source.kwargs["id"] == "id"
    assert len(found.remarks) == 1
    assert found.remarks[0].startswith("left out: when: holds dates, such as '")
    assert found.remarks[0].endswith("', which are no numbers; count days since one of them")


def test_words_among_numbers_that_are_too_frequent_to_be_placeholders_are_named():
    found = found_in("dose", [f"{row / 7:.2f}" if row % 3 else ("-", "?")[row % 2] for row in range(300)])
    assert found.kind == "left out"
    assert found.why.endswith('; all but "-", "?" are numbers: if these mark absent cells, data.missing: ["-", "?"]')


def test_numbers_with_several_spellings_could_be_codes():
    assert found_in("release", [f"1.{row % 12}" for row in range(300)]).doubt.endswith("'1.1' and '1.10' are the same number")
    assert "codes" not in found_in("x", ["1", "1.0", "0", "-0.0", "0.0", "2.5", "1.5e1", "15"] * 40).doubt


def test_placeholders_among_dates_and_times_of_day_are_recognised():
    days = [f"2021-{row % 12 + 1:02}-{row % 28 + 1:02}" for row in range(290)]
    assert "holds dates, such as '2021-01-01'" in found_in("seen", [*["unknown"] * 10, *days]).why
    assert "holds times of day" in found_in("slot", [f"{row % 24:02}:{row % 60:02}" for row in range(300)]).why
    assert found_in("slot", ["08:00", "12:30", "20:15"] * 100).kind == "classes"
    for spelt in (
        "Mon, {} Jan 2024 08:00:00 GMT",
        "Mon Jan {} 08:00:00 2024",
        "2024-01-{:02} 08:00:00 Europe/Berlin",
        "2024-01-{:02} 08:00 CET",
    ):
        days = [spelt.format(row % 28 + 1) for row in range(300)]
        assert found_in("seen", days).why.startswith(f"holds dates, such as '{min(days)}'")
    for spelt in ("PT{}H30M", "{} days 01:00:00", "{}:15:00", "{}h 30m"):
        lengths = [spelt.format(30 + row % 60) for row in range(300)]
        why = f"holds durations, such as '{min(lengths)}', which are no numbers; write all in one unit, such as minutes"
        assert found_in("stay", lengths).why == why
    assert found_in("version", ["1.2.10", "1.3.1", "2.0.4"] * 100).kind == "classes"
    assert found_in("serial", list(range(20201300, 20201600)) * 2).kind == "numbers"


@given(st.dates(date(1000, 1, 1), date(2999, 12, 31)), st.sampled_from(["{2:04}-{1:02}-{0:02}", "{0:02}.{1:02}.{2:04}", "{1}/{0}/{2:04}"]))
@settings(deadline=None)
def test_every_day_is_a_date_and_a_wrong_month_is_none(day: date, form: str):
    spelt = form.format(day.day, day.month, day.year)
    assert is_date(spelt)
    assert not is_date(f"{spelt}x")
    assert not holds_dates([f"{day.year:04}-{day.month + 12:02}-{day.day:02}"])


@pytest.mark.parametrize(
    ("names", "groups"),
    [
        (["gene_a.b", "gene_c"], {"gene": ["gene_a.b", "gene_c"]}),
        (["bill_length", "bill_depth", "mass"], {"bill": ["bill_length", "bill_depth"], "": ["mass"]}),
        (["a.x", "a-y", "a z", "a:w", "a/v", "b"], {"a": ["a.x", "a-y", "a z", "a:w", "a/v"], "": ["b"]}),
        (["lab_blood_na", "lab_urine_k", "age"], {"lab": ["lab_blood_na", "lab_urine_k"], "": ["age"]}),
        (["x1", "x2", "y10", "z"], {"x": ["x1", "x2"], "": ["y10", "z"]}),
        (["p_a_1", "p_a_2", "p_b_1", "p_b_2", "p_c"], {"p_a": ["p_a_1", "p_a_2"], "p_b": ["p_b_1", "p_b_2"], "": ["p_c"]}),
        (["gene.a_1", "gene.b_1", "gene.c_1"], {"gene": ["gene.a_1", "gene.b_1", "gene.c_1"]}),
        ([f"q{i}_{x}" for i in range(9) for x in "ab"], {"q": [f"q{i}_{x}" for i in range(9) for x in "ab"]}),
        ([f"{x}_{i}" for x in "abcdefghi" for i in (1, 2)], {"": [f"{x}_{i}" for x in "abcdefghi" for i in (1, 2)]}),
    ],
)  # fmt: skip
def test_names_are_grouped_by_the_first_prefix_that_they_share(names: list[str], groups: dict[str, list[str]]):
    assert group_by_prefix(names, MOST_MODALITIES) == groups


@given(st.lists(st.text("ab_.1", min_size=1, max_size=6), max_size=30, unique=True), st.integers(2, 9))
@settings(deadline=None)
def test_groups_part_all_names(names: list[str], most: int):
    groups = group_by_prefix(names, most)
    assert sorted(itertools.chain(*groups.values())) == sorted(names)
    assert len([name for name in groups if name]) < most
    assert all(len(group) > 1 for name, group in groups.items() if name)


def test_prefixes_make_modalities_and_questionnaires_stay_apart(here: Path):
    rng = np.random.default_rng(0)
    cells: dict[str, Sequence[object]] = {
        "gene_a.b": reals(300),
        "gene_c": reals(300)[::-1],
        "bill length": reals(300),
        "bill depth": reals(300),
    }
    found = init([table(here / "rows.csv", cells)])
    assert members(found.spec) == {"gene": ("gene_a.b", "gene_c"), "bill": ("bill length", "bill depth")}
    # Beside columns without a prefix, two columns that share one are none of their own.
    found = init([table(here / "rows.csv", {**cells, "age": reals(300)})])
    assert members(found.spec) == {"rows": (*cells, "age")}
    answers = {f"{scale}{item}": rng.integers(1, 7, 300).tolist() for scale in "ACENO" for item in range(1, 6)}
    found = init([table(here / "bfi.csv", {**answers, "age": rng.integers(18, 80, 300).tolist()})])
    assert members(found.spec) == {"age": ("age",), **{scale: tuple(f"{scale}{item}" for item in range(1, 6)) for scale in "ACENO"}}
    assert found.spec.modalities["A"].shape == (30,)
    assert {kinds(found.spec)[item] for item in answers} == {"ordinal"}


def test_counts_of_different_ranges_under_one_name_are_counts(here: Path):
    rng = np.random.default_rng(0)
    rows = {f"rna_{place}": rng.poisson(0.4 + place / 2, 300).tolist() for place in range(4)}
    found = init([table(here / "rows.csv", {**rows, "x": reals(300)})])
    assert found.spec.modalities["rna"].likelihood.type == "negative_binomial"
    assert found.spec.data.source.kwargs["columns"]["rna"] == tuple(rows)


def test_empty_cells_are_counted(here: Path, call: Call):
    x = reals(200)
    cells = {"lab_a": [*[""] * 3, *x[3:]], "lab_b": x, "sex": [*["NA"] * 7, *["f", "m"] * 100][:200], "note": ["a", ""] * 100, "whole": x}
    table(here / "rows.csv", cells)
    found = init(["rows.csv"])
    assert found.empty == {"lab_a": 3, "sex": 7, "note": 100}
    assert "4 columns: 3 of numbers, 1 of two values; empty cells of 200 rows: sex 7, lab_a 3" in comments(found)
    code, out, _ = call("init", "rows.csv")
    assert code == 0
    assert "empty, of 200 rows: note 100, sex 7, lab_a 3" in out.splitlines()
    table(here / "full.csv", {"x": x})
    assert "empty: none" in call("init", "full.csv")[1].splitlines()
    np.savez(
        here / "rows.npz",
        a=np.where(np.arange(200)[:, None] < 9, np.nan, 1.5) * np.arange(200.0)[:, None],
        b=np.array(x, float),
        b__present=np.arange(200) > 4,
    )
    found = init(["rows.npz"])
    assert found.empty == {"a": 9, "b": 5}
    assert "numbers, standardised; empty in 9 of 200 rows" in comments(found)


IMAGES = [
    ((28, 28), "float", (1, 28, 28), "conv", "bernoulli"),
    ((1, 14, 14), "float", (1, 14, 14), "conv", "bernoulli"),
    ((3, 32, 24), "bytes", (3, 32, 24), "conv", "discretized_logistic"),
    ((8, 8), "bytes", (1, 8, 8), "conv", "discretized_logistic"),
    ((5, 16, 16), "normal", (5, 16, 16), "conv", "normal"),
    ((1, 8, 8, 8), "normal", (1, 8, 8, 8), "conv", "normal"),
    ((7, 28), "normal", (1, 7, 28), "mlp", "normal"),
    ((12, 500), "normal", (1, 12, 500), "mlp", "normal"),
    ((3, 64), "normal", (1, 3, 64), "mlp", "normal"),
    ((16, 16, 3), "bytes", (16, 16, 3), "mlp", "discretized_logistic"),
    ((784,), "float", (784,), "mlp", "normal"),
]  # fmt: skip


@pytest.mark.parametrize(("sides", "kind", "shape", "encoder", "likelihood"), IMAGES, ids=[str(case[0]) for case in IMAGES])
def test_arrays_of_images_have_conv_encoders(
    here: Path, sides: tuple[int, ...], kind: str, shape: tuple[int, ...], encoder: str, likelihood: str
):
    rng = np.random.default_rng(0)
    draw: dict[str, Callable[[tuple[int, ...]], np.ndarray]] = {
        "float": lambda size: rng.random(size).astype(np.float32),
        "bytes": lambda size: rng.integers(0, 256, size).astype(np.uint8),
        "normal": lambda size: rng.normal(size=size).astype(np.float32),
    }
    np.savez(here / "rows.npz", scan=draw[kind]((40, *sides)), label=np.arange(40) % 4)
    found = init(["rows.npz"])
    scan = found.spec.modalities["scan"]
    assert (scan.shape, scan.encoder.type, scan.likelihood.type) == (shape, encoder, likelihood)
    assert found.spec.modalities["label"].encoder.type == "mlp"
    assert ("channels last" in comments(found)) == (sides == (16, 16, 3))
    assert "weight:" not in found.text
    assert check_data(found.spec).errors == ()


def test_single_numbers_of_an_archive_are_taken_for_what_those_of_a_table_are(here: Path):
    rng = np.random.default_rng(0)
    rows = 1000
    np.savez(
        here / "rows.npz",
        grade=rng.integers(1, 6, rows), age=rng.integers(18, 90, rows), n_visits=rng.poisson(3, rows) + 1, same=np.ones(rows),
        subject=np.arange(rows) // 20,
        row=np.arange(rows), flag=np.arange(rows) % 2 == 0, two=np.arange(rows) % 2 + 1, site=np.array(["b", "a", "", "c"] * 250),
        day=np.array([f"2020-01-{day % 28 + 1:02}" for day in range(rows)]), code=rng.choice([900, 950, 990], rows),
    )  # fmt: skip
    found = init(["rows.npz"])
    assert {name: (one.shape[0], one.likelihood.type) for name, one in found.spec.modalities.items()} == {
        "grade": (6, "categorical"), "age": (1, "normal"), "n_visits": (1, "negative_binomial"), "flag": (1, "bernoulli"),
        "two": (3, "categorical"), "site": (3, "categorical"), "code": (1, "normal"),
    }  # fmt: skip
    assert found.spec.data.source.kwargs["classes"] == {"site": ["a", "b", "c"]}
    assert found.empty == {"site": 250}
    assert found.remarks == (
        "left out: same: holds 1 alone",
        "left out: row: looks like identifiers: whole numbers in a row that differ in all rows",
        "left out: day: dates, which are no numbers; count days since one of them",
        "data.group: subject: 1,000 rows of 50 subjects; rows of one are kept in one part",
    )
    assert "could also be classes: 3 values; write their indices, from 0" in comments(found)
    assert check_data(found.spec).errors == ()


def test_texts_of_obs_are_classes_by_the_rules_of_tables():
    anndata, pd = pytest.importorskip("anndata"), pytest.importorskip("pandas")
    cells = np.arange(240)
    obs = pd.DataFrame({
        "cell_type": [f"type {cell % 60}" for cell in cells], "donor": [f"d{cell % 20}" for cell in cells],
        "seen": [f"2020-01-{cell % 28 + 1:02}" for cell in cells], "note": [f"note {cell}" for cell in cells], "sex": ["f", "m"] * 120,
    }, index=[f"c{cell}" for cell in cells])  # fmt: skip
    found = nbridge.init(anndata.AnnData(np.random.default_rng(0).normal(size=(240, 3)), obs=obs))
    assert {name: one.shape[0] for name, one in found.spec.modalities.items()} == {"X": 3, "cell_type": 60, "sex": 2}
    assert found.remarks == (
        "data.group: donor: 240 rows of 20 donors; rows of one are kept in one part",
        "left out: obs/seen: dates, which are no numbers",
        "left out: obs/note: text of 240 different values in 240 rows, too few rows a value for classes",
    )


COLUMNS: list[Callable[[np.random.Generator, int], list[Any]]] = [
    lambda rng, rows: rng.normal(size=rows).round(3).tolist(),
    lambda rng, rows: rng.integers(0, int(rng.integers(2, 40)), rows).tolist(),
    lambda rng, rows: rng.poisson(5, rows).tolist(),
    lambda rng, rows: rng.choice(["low", "high", "mid"], rows).tolist(),
    lambda rng, rows: [f"{code:03}" for code in rng.integers(0, 9, rows)],
    lambda rng, rows: [f"2020-01-{day:02}" for day in rng.integers(1, 29, rows)],
    lambda rng, rows: rng.choice([0, 0.5, 1], rows).tolist(),
    lambda rng, rows: [f"word {place}" for place in range(rows)],
    lambda rng, rows: [7] * rows,
]  # fmt: skip


@given(
    st.dictionaries(st.sampled_from(["age", "n_x", "type", "a_1", "a_2", "a.b", "zip", "g"]), st.integers(0, len(COLUMNS) - 1), max_size=8),
    st.integers(30, 90), st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.2]),
)  # fmt: skip
@settings(deadline=None, max_examples=20)
def test_what_is_written_always_holds_with_its_data(kinds: dict[str, int], rows: int, seed: int, share: float):
    rng = np.random.default_rng(seed)
    frame = {name: COLUMNS[kind](rng, rows) for name, kind in {**kinds, "zz": 0}.items()}
    frame = {
        name: [None if hidden else cell for cell, hidden in zip(cells, rng.random(rows) < share, strict=True)]
        for name, cells in frame.items()
    }
    found = nbridge.init(pa.table(frame))
    assert parse_spec(found.text) == found.spec
    assert found.empty == {name: cells.count(None) for name, cells in frame.items() if None in cells}
    taken = [column for columns in members(found.spec).values() for column in columns]
    assert len(taken) == len(set(taken))
    assert not {name for name, kind in kinds.items() if kind in (5, 8)} & set(taken)


INCOMPLETE = ("trt", "ascites", "hepato", "spiders", "chol", "copper", "alk.phos", "ast", "trig")
"""What was measured in the trial of pbc alone."""
REAL: dict[str, tuple[dict[str, int], dict[str, Any]]] = {
    # Modalities with their numbers of columns, and the kinds of some columns.
    "pbc": (
        {"pbc": 10, "pbc_incomplete": 9},
        {
            "status": "categorical", "stage": "ordinal", "edema": "ordinal", "sex": "bernoulli", "bili": "lognormal", "age": "normal",
            "copper": {"type": "lognormal", "whole": True}, "platelet": {"type": "normal", "whole": True, "low": 0.0}, "trt": "bernoulli",
        },
    ),
    "bfi": (
        {"A": 5, "C": 5, "E": 5, "N": 5, "O": 5, "bfi": 3},
        {"A1": "ordinal", "O5": "ordinal", "education": "ordinal", "gender": "bernoulli"},
    ),
    "hdma": ({"hdma": 13}, {"lvr": "normal", "deny": "bernoulli", "comdominiom": "bernoulli"}),
    "penguins": (
        {"penguins": 8},
        {
            "species": "categorical", "island": "categorical", "sex": "bernoulli", "bill_depth_mm": "normal", "year": "ordinal",
            "body_mass_g": {"type": "normal", "whole": True, "low": 0.0},
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REAL)
def test_real_tables_are_described_as_their_sources_describe_them(real_data: Path, name: str):
    found = init([str(real_data / "tables" / f"{name}.csv")])
    columns, some = REAL[name]
    assert {modality: len(own) for modality, own in members(found.spec).items()} == columns
    assert kinds(found.spec) | some == kinds(found.spec)
    if name == "pbc":
        assert members(found.spec)["pbc_incomplete"] == INCOMPLETE
    assert check_data(found.spec).errors == ()


# Groups and parts of the split beside guesses


def visits(count: int = 40, each: int = 3) -> dict[str, np.ndarray]:
    """Rows of patients with classes by repetition and an empty cell, and all rows of a patient in one part."""
    rng, owner = np.random.default_rng(0), np.repeat(np.arange(count), each)
    rows = len(owner)
    arm = np.array(["a", "b", "c"])[rng.integers(0, 3, rows)]
    arm[0] = ""
    return {
        "patient": np.array([f"p{one:02}" for one in owner]),
        "split": np.where(owner < count - 8, "train", np.where(owner < count - 4, "val", "test")),
        "arm": arm,
        "dose": rng.normal(size=rows),
        "pulse": rng.normal(size=rows),
    }


def saved(here: Path, columns: Mapping[str, np.ndarray], ending: str) -> str:
    path = here / f"visits.{ending}"
    if ending == "npz":
        np.savez(path, **dict(columns))
    else:
        lines = [",".join(columns), *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True))]
        path.write_text("\n".join(lines) + "\n")
    return path.name


@pytest.mark.parametrize("ending", ["csv", "npz"])
@pytest.mark.parametrize(
    ("owner", "who"),
    [("patient", "patients"), ("subject", "subjects"), ("user_id", "users"), ("study_donor", "donors"), ("customer", "customers")],
)
def test_an_owner_that_repeats_groups_rows_and_is_neither_a_modality_nor_left_out(here: Path, owner: str, who: str, ending: str):
    columns = visits()
    columns = {owner: columns["patient"], **{name: columns[name] for name in ("arm", "dose", "pulse")}}
    found = init([saved(here, columns, ending)])
    assert (found.spec.data.group, found.spec.data.split) == (owner, None)
    assert set(found.spec.data.source.kwargs["classes"]) == {"arm"}
    assert found.empty == {"arm": 1}
    assert f"# 120 rows of 40 {who}; they stay in one part" in found.text
    assert not any(line.startswith("left out") for line in found.remarks)
    parts = build_data(found.spec, build_model(found.spec))
    sizes = [len(part) for part in (parts.train, parts.validation, parts.test) if part is not None]
    assert sum(sizes) == 120
    assert len(sizes) == 3
    assert all(size % 3 == 0 for size in sizes)


@pytest.mark.parametrize("ending", ["csv", "npz"])
@pytest.mark.parametrize("name", ["split", "fold"])
def test_a_column_of_parts_splits_rows_and_is_no_class(here: Path, name: str, ending: str):
    columns = visits()
    columns = {"subject": columns["patient"], name: columns["split"], "arm": columns["arm"], "dose": columns["dose"]}
    found = init([saved(here, columns, ending)])
    assert (found.spec.data.group, found.spec.data.split) == ("subject", name)
    assert [*itertools.chain(*members(found.spec).values())] == ["arm", "dose"]
    assert set(found.spec.data.source.kwargs["classes"]) == {"arm"}
    assert "# assigns rows to parts: train 96, validation 12, test 12;" in found.text
    parts = build_data(found.spec, build_model(found.spec))
    assert [len(part) for part in (parts.train, parts.validation, parts.test) if part is not None] == [96, 12, 12]


@pytest.mark.parametrize("ending", ["csv", "npz"])
def test_owners_and_parts_that_are_not_proposed_are_no_modality_either(here: Path, ending: str):
    columns = visits(10, 12)
    # The rows of each of ten patients, few enough for classes, are in several parts.
    parts = np.array(["train", "train", "test"] * 40)
    found = init([saved(here, {**columns, "split": parts, "fold": parts}, ending)])
    assert (found.spec.data.group, found.spec.data.split) == (None, "split")
    assert {"patient", "split", "fold"}.isdisjoint(found.spec.modalities)
    assert set(found.spec.data.source.kwargs["classes"]) == {"arm"}
    assert "left out: fold: assigns rows to parts as well, and data.split names one column" in found.remarks
    assert any(line.startswith("patient: rows of one of its 10 values are in several parts") for line in found.remarks)
    alone = {name: array for name, array in columns.items() if name != "split"}
    # An empty cell is no group.
    alone["patient"] = np.array(["", *visits()["patient"][1:]])
    found = init([saved(here, alone, ending)])
    assert found.spec.data.group is None
    assert "patient" not in found.spec.modalities
    assert found.remarks == ("left out: patient: identifiers that repeat: 40 different values in 119 rows",)
