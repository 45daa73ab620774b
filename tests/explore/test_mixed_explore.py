"""The page of mixed tables: columns by name and kind, single cells given while others are unknown, and classes that sum to 1."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import accessibility
import numpy as np
import pandas as pd
import pytest
import torch
from starlette.testclient import TestClient

import nbridge
from nbridge.data.batch import Batch
from nbridge.explore.app import make_app
from nbridge.explore.connections import Server
from nbridge.explore.limits import Limits
from nbridge.explore.responses import draws_of
from nbridge.explore.server import bind
from nbridge.explore.session import Session, session_of
from nbridge.inference.impute import impute, serving

HOST = "http://127.0.0.1:8642"
COLUMNS: dict[str, Any] = {
    "age": {"type": "normal", "whole": True}, "sex": "bernoulli", "stage": {"type": "categorical", "classes": 3}, "visits": "poisson",
    "bili": "lognormal", "smoker": {"type": "ordinal", "classes": 2},
}  # fmt: skip
SPANS = {"age": (0, 1), "sex": (1, 2), "stage": (2, 5), "visits": (5, 6), "bili": (6, 7), "smoker": (7, 8)}
NAMES = list(COLUMNS)
STAGES = ["<I>", "II", "III"]


def frame(rows: int = 80) -> pd.DataFrame:
    draw = np.random.default_rng(0)
    z = draw.normal(size=rows)
    return pd.DataFrame({
        "age": (50 + 10 * z).round(), "sex": np.where(z > 0, "m", "f"), "stage": np.array(STAGES)[np.digitize(z, (-0.5, 0.5))],
        "visits": draw.poisson(np.exp(1 + z)), "bili": np.exp(z).round(4), "smoker": np.where(draw.random(rows) < 0.5, "no", "yes"),
    }).mask(pd.DataFrame(draw.random((rows, 6)) < 0.1, columns=pd.Index(NAMES)))  # fmt: skip


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """A model of one mixed modality, a little trained."""
    folder = tmp_path_factory.mktemp("explored")
    frame().to_csv(folder / "rows.csv", index=False)
    spec = {
        "latent_dim": 2, "data": {"source": "table", "path": str(folder / "rows.csv")},
        "modalities": {"t": {"columns": COLUMNS, "encoder": {"type": "table", "hidden": [8]}}},
        "training": {"stages": {"joint": {"updates": 60}, "bridges": {"epochs": 1}}},
    }  # fmt: skip
    return session_of(nbridge.train(spec))


@pytest.fixture(scope="module")
def ask(session: Session) -> Callable[..., Any]:
    client = TestClient(make_app(session), base_url=HOST)

    def asked(path: str, body: Any = None, status: int = 200) -> Any:
        headers = {"origin": HOST}
        answer = client.get(path, headers=headers) if body is None else client.post(path, json=body, headers=headers)
        assert answer.status_code == status, answer.text
        return answer.json()

    return asked


def control(ask: Callable[..., Any]) -> dict[str, Any]:
    (found,) = ask("/api/spec")["modalities"]
    return found


def test_controls_are_columns_by_name_and_kind_in_their_own_units(ask: Callable[..., Any]):
    found = control(ask)
    assert (found["kind"], found["size"], found["names"]) == ("columns", 6, NAMES)
    columns = dict(zip(NAMES, found["columns"], strict=True))
    classes = {"sex": ["f", "m"], "stage": STAGES, "smoker": ["no", "yes"]}
    assert {name: column["classes"] for name, column in columns.items()} == {name: classes.get(name, []) for name in NAMES}
    rows = frame()
    for name in ("age", "visits", "bili"):
        assert columns[name]["low"] >= rows[name].min() - 1e-4
        assert columns[name]["high"] <= rows[name].max() + 1e-4
        assert columns[name]["low"] <= columns[name]["start"] <= columns[name]["high"]
        assert columns[name]["whole"] is (name != "bili")
    assert columns["age"]["start"] == round(columns["age"]["start"])
    assert columns["stage"]["kind"] == "categorical, 3 classes"
    assert sorted(found["varied"]) == list(range(6))


def test_a_row_is_a_value_for_each_column_and_sent_back_is_the_same_row(ask: Callable[..., Any], session: Session):
    assert session.rows is not None
    for number in range(len(session.rows)):
        values = ask(f"/api/row/{number}")["values"]["t"]["values"]
        row = session.model.prepare(session.row(number))
        for value, (start, stop) in zip(values, SPANS.values(), strict=True):
            seen = "t" not in row.cells or bool(row.cells["t"][0, start])
            assert (value is not None) is seen
            if seen:
                own = row.values["t"][0, start:stop]
                assert value == (own.argmax() if stop - start > 1 else own[0])
        if any(value is None for value in values):
            expected = ask("/api/impute", {"given": {"t": {"row": number}}, "seed": 3})
            assert ask("/api/impute", {"given": {"t": {"values": values}}, "seed": 3}) == expected


def test_cells_are_imputed_from_those_that_are_given_as_by_the_library(ask: Callable[..., Any], session: Session):
    given = [60, 1, None, None, 1.5, None]
    found = ask("/api/impute", {"given": {"t": {"values": given}}, "show": {"t": [2, 3, 5]}, "seed": 7})["modalities"]["t"]
    assert found["elements"] == [2, 3, 5]
    x = torch.tensor([[60.0, 1, 1, 0, 0, 0, 1.5, 0]])
    cells = torch.tensor([[True, True, False, False, False, False, True, False]])
    batch = Batch({"t": x}, {"t": torch.tensor([True])}, {"t": cells})
    draws = impute(session.model, batch, samples=draws_of(session.model), noise=True, seed=7).values["t"][:, 0]
    stage, visits, smoker = found["columns"]
    assert stage["draws"] == draws[:8, 2:5].argmax(1).tolist()
    assert visits["draws"] == draws[:8, 5].tolist()
    assert smoker["draws"] == draws[:8, 7].tolist()
    assert np.isclose(visits["mean"], draws[:, 5].double().mean().item(), rtol=1e-4)
    assert visits["lower"] <= visits["mean"] <= visits["upper"]
    with serving(session.model, 7):
        z = session.model.posterior(batch, draws_of(session.model)).sample()
        expected = session.model.likelihoods["t"].expectation(session.model.decoder("t").served(z, session.model.given("t", batch)))
    assert np.allclose(stage["probabilities"], expected.mean(0)[0, 2:5], atol=1e-4)


@pytest.mark.parametrize("path", ["/api/impute", "/api/prior", "/api/decode"])
def test_classes_sum_to_1_and_whole_numbers_are_whole(ask: Callable[..., Any], path: str):
    body = {"/api/impute": {"given": {"t": {"values": [50, *[None] * 5]}}}, "/api/prior": {}, "/api/decode": {"point": [0.3, -0.4]}}[path]
    columns = dict(zip(NAMES, ask(path, body)["modalities"]["t"]["columns"], strict=True))
    for name, classes in (("sex", 2), ("stage", 3), ("smoker", 2)):
        assert len(columns[name]["probabilities"]) == classes
        assert abs(sum(columns[name]["probabilities"]) - 1) < 1e-4
        assert all(place in range(classes) for place in columns[name]["draws"])
    for name in ("age", "visits"):
        assert all(one == round(one) for one in (*columns[name]["draws"], columns[name]["lower"], columns[name]["upper"]))
    assert all(one > 0 for one in columns["bili"]["draws"])


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ([50, 1], "t: got 2 values, expected 6, one for each column"),
        ([None] * 6, "t: no value is given; leave the modality out"),
        ([None, None, 3, None, None, None], "t: stage: no class 3, expected 0 to 2"),
        ([None, None, 0.5, None, None, None], "t: stage: no class 0.5, expected 0 to 2"),
        ([None, 2, None, None, None, None], "t: value 2 is outside the support of sex (bernoulli), "),
        ([None, None, None, 1.5, None, None], "t: value 1.5 is outside the support of visits (poisson), "),
        ([None, None, None, None, -1, None], "t: value -1 is outside the support of bili (lognormal), "),
        ([1e300, None, None, None, None, None], "t: value 1e+300 is outside the support of age (normal), "),
    ],
)
def test_values_that_a_column_does_not_take_are_refused_in_one_line_with_its_name(ask: Callable[..., Any], values: list[Any], line: str):
    error = ask("/api/impute", {"given": {"t": {"values": values}}}, 422)["error"]
    assert error.startswith(line)
    assert "\n" not in error


def test_columns_that_do_not_exist_are_refused(ask: Callable[..., Any]):
    assert ask("/api/prior", {"show": {"t": [6]}}, 422)["error"] == "show.t: no column 6, expected 0 to 5"


# A browser


@pytest.fixture
def browser(session: Session, tmp_path: Path) -> Iterator[Any]:
    with bind(0) as listening:
        listening.listen()
        server = Server(make_app(session), Limits())
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            with accessibility.browser(tmp_path / "profile") as opened:
                opened.get(f"http://127.0.0.1:{listening.getsockname()[1]}/")
                yield opened
                assert opened.get_log("browser") == []
        finally:
            server.should_exit = True
            thread.join()


@pytest.mark.slow
def test_in_a_browser_a_column_is_unticked_and_imputed_from_all_others(browser: Any):
    from selenium.webdriver.support.ui import Select, WebDriverWait

    def until(condition: Callable[[], Any]) -> Any:
        return WebDriverWait(browser, 20, poll_frequency=0.03).until(lambda _: condition())

    def one(selector: str) -> Any:
        return browser.find_element("css selector", selector)

    def texts(selector: str) -> list[str]:
        # At once, since the page replaces them with each answer.
        return browser.execute_script("return [...document.querySelectorAll(arguments[0])].map((one) => one.textContent)", selector)

    def status() -> str:
        return texts("#status")[0]

    assert until(lambda: one("#subtitle").text).startswith("A bridged model of one modality")
    until(lambda: "test split" in one("#of").text and status())
    # Whatever this row lacks, everything else is unknown but the age.
    for name in NAMES[1:]:
        box = one(f'[aria-label="t {name} given"]')
        if box.is_selected():
            box.click()
    until(lambda: all(f"{name}: " in status() for name in ("sex", "stage", "smoker")) and "the rest of t from t" in status())
    shares = [int(text.rstrip("%")) for text in texts(".options .share")]
    assert len(shares) == 7
    assert abs(sum(shares) - 300) <= 4
    names = [text.removesuffix(" ◆") for text in texts(".options .name")]
    assert names[:5] == ["f", "m", *STAGES]
    (visits,) = texts('.known:has([aria-label="t visits given"]) + .track + .number')
    assert visits.split(" ± ")[0].isdecimal()
    one('[aria-label="t stage given"]').click()
    Select(until(lambda: one('select[aria-label="t stage"]'))).select_by_visible_text("III")
    until(lambda: "stage: " not in status() and "sex: m" in status())
    for name in ("sex", "visits", "bili", "smoker"):
        one(f'[aria-label="t {name} given"]').click()
    until(lambda: status() == "Everything is given. Untick a column to see it imputed.")
