"""Covariates, rows from a file, code, two settings side by side, and downloads: as the API answers, and in a browser."""

from __future__ import annotations

import contextlib
import csv
import io
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import accessibility
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from starlette.testclient import TestClient

import nbridge
from nbridge.explore.app import STATIC, make_app
from nbridge.explore.connections import Server
from nbridge.explore.guard import HEADERS
from nbridge.explore.limits import Limits
from nbridge.explore.server import bind
from nbridge.explore.session import Session, open_session
from nbridge.explore.tables import ROWS

HOST = "http://127.0.0.1:8642"
TABLE: dict[str, Any] = {
    "age": "normal", "sex": "bernoulli", "stage": {"type": "categorical", "classes": 3}, "visits": "negative_binomial",
}  # fmt: skip


def frame(rows: int = 90) -> pd.DataFrame:
    draw = np.random.default_rng(0)
    z, centre = draw.normal(size=rows), draw.integers(0, 3, rows)
    return pd.DataFrame({
        "age": (50 + 10 * z).round(2), "sex": np.where(z > 0, "male", "female"),
        "stage": np.array(["I", "II", "III"])[np.digitize(z, (-0.5, 0.5))],
        "visits": draw.poisson(np.exp(2 + 1.3 * z)), "note": np.where(z > 0, "old", "young"), "centre": np.array(["A", "B", "C"])[centre],
    })  # fmt: skip


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """A small model of a table and a text, with a covariate."""
    folder = tmp_path_factory.mktemp("shared")
    frame().to_csv(folder / "rows.csv", index=False)
    spec = {
        "latent_dim": 2, "covariates": {"centre": "categorical"},
        "data": {"source": "table", "path": str(folder / "rows.csv"), "columns": {"note": ["note"]}},
        "modalities": {
            "t": {"columns": TABLE, "encoder": {"type": "table", "hidden": [8]}},
            "note": {"shape": 6, "encoder": "text", "likelihood": "text"},
        },
        "training": {"stages": {"joint": {"updates": 15}, "bridges": {"updates": 5}}},
    }  # fmt: skip
    nbridge.train(spec, out=folder / "run")
    return open_session(folder / "run")


@pytest.fixture(scope="module")
def client(session: Session) -> TestClient:
    return TestClient(make_app(session), base_url=HOST)


def ask(client: TestClient, path: str, **question: Any) -> dict[str, Any]:
    answer = client.post(f"/api/{path}", json=question)
    assert answer.status_code == 200, answer.text
    return answer.json()


def executed(code: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(code, found)
    return found


@pytest.mark.parametrize("given", [{"note": {"row": 1}}, {"t": {"values": [60, None, None, None]}}, {}])
def test_the_code_of_an_answer_runs_and_gives_its_figures(client: TestClient, given: dict[str, Any]):
    asked = {"seed": 4, "covariates": {"centre": "B"}, "fixed": {"centre": "C"}}
    shown = ask(client, "impute", given=given, **asked) if given else ask(client, "prior", **asked)
    draws = executed(ask(client, "python", given=given, **asked)["python"])["draws"]
    columns = dict(zip(shown["modalities"]["t"]["elements"], shown["modalities"]["t"]["columns"], strict=True))
    assert np.isclose(columns[3]["mean"], draws["t"][:, 5].double().mean().item(), rtol=1e-5)
    assert np.allclose(columns[3]["draws"], draws["t"][:8, 5], rtol=1e-5)
    assert columns[1]["draws"] == draws["t"][:8, 1].tolist()
    assert columns[2]["draws"] == draws["t"][:8, 2:5].argmax(1).tolist()


def test_covariates_are_described_shown_with_a_row_and_used(client: TestClient):
    (found,) = client.get("/api/spec").json()["covariates"]
    assert (found["name"], found["classes"]) == ("centre", ["A", "B", "C"])
    own = client.get("/api/row/0").json()["covariates"]["centre"]
    given: dict[str, Any] = {"note": {"row": 0}}
    plain = ask(client, "impute", given=given)
    assert plain == ask(client, "impute", given=given, covariates={"centre": own})
    assert plain == ask(client, "impute", given=given, fixed={"centre": own})
    other = next(name for name in found["classes"] if name != own)
    as_if = ask(client, "impute", given=given, fixed={"centre": other})
    assert as_if["map"] == plain["map"]  # encoders have the row's own value
    assert as_if["modalities"] != plain["modalities"]
    for levels, line in (({"centre": "D"}, "covariate 'centre': 'D' is a level"), ({"site": "A"}, "no covariate 'site' in this model")):
        answer = client.post("/api/impute", json={"given": given, "fixed": levels})
        assert answer.status_code == 422
        assert answer.json()["error"].startswith(line)


def test_rows_of_a_file_are_the_rows_of_the_run_where_they_are_the_same(client: TestClient):
    whole = frame().head(4)
    whole.loc[1, ["age", "note"]] = np.nan
    answer = client.post("/api/rows", content=whole.to_csv(index=False))
    rows = answer.json()["rows"]
    assert len(rows) == 4
    assert rows[1]["values"]["note"] is None
    assert rows[1]["values"]["t"]["values"][0] is None
    assert np.isclose(rows[0]["values"]["t"]["values"][0], whole["age"][0])
    assert [row["covariates"]["centre"] for row in rows] == whole["centre"].tolist()
    assert rows[0]["values"]["note"] == {"text": whole["note"][0]}


FILES = {
    "wrong columns": (b"height,weight\n1,2\n", "colum"),
    "too many rows": (b"age\n" + b"1\n" * (ROWS + 1), f"the file has {ROWS + 1} rows; at most {ROWS} can be explored"),
    "no csv": (b"\x89PNG\r\n\x1a\n\xff\xfe", "the file is not csv"),
    "zero bytes": (b"age\n\0\n", "the file is not csv"),
    "no rows": (b"age,sex\n", "the file has no rows"),
    "wrong types": (frame().head(2).assign(age="old").to_csv(index=False).encode(), "age"),
}


@pytest.mark.parametrize("mistake", FILES)
def test_a_file_that_has_no_rows_of_the_model_is_refused_in_one_line(client: TestClient, mistake: str):
    content, line = FILES[mistake]
    answer = client.post("/api/rows", content=content)
    assert answer.status_code == 422, answer.text
    assert line in answer.json()["error"]
    assert "\n" not in answer.json()["error"]
    assert "/tmp" not in answer.json()["error"]
    assert all(answer.headers[name] == value for name, value in HEADERS.items())


def test_new_paths_are_guarded_and_bodies_are_limited(client: TestClient):
    for path in ("/api/rows", "/api/python"):
        assert client.post(path, content=b"x", headers={"origin": "http://example.com"}).status_code == 403
    assert client.post("/api/rows", content=b"x" * (2 * 2**20 + 1)).status_code == 413


def test_the_page_is_small():
    assert sum(file.stat().st_size for file in STATIC.iterdir()) < 60 * 1024


# A browser


class Page:
    """The page in a browser, with its server."""

    def __init__(self, browser: Any, address: str, server: Server, folder: Path) -> None:
        self.browser, self.address, self.server, self.folder = browser, address, server, folder

    def until(self, condition: Callable[[], Any]) -> Any:
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.browser, 10, poll_frequency=0.03).until(lambda _: condition())

    def text(self, selector: str) -> str:
        return self.browser.execute_script("return document.querySelector(arguments[0])?.textContent ?? ''", selector)

    def click(self, selector: str) -> None:
        self.browser.execute_script("document.querySelector(arguments[0]).click()", selector)

    def choose(self, selector: str, value: str) -> None:
        code = "const s = document.querySelector(arguments[0]); s.value = arguments[1]; s.dispatchEvent(new Event('change'))"
        self.browser.execute_script(code, selector, value)

    def saved(self, name: str, selector: str) -> bytes:
        path = self.folder / name
        path.unlink(missing_ok=True)
        self.click(selector)
        self.until(path.exists)
        return path.read_bytes()

    def upload(self, content: str) -> None:
        path = self.folder / "mine.csv"
        path.write_text(content, encoding="utf-8")
        self.browser.find_element("css selector", "#rows-file").send_keys(str(path))

    def open(self) -> None:
        self.browser.get(self.address)
        self.until(lambda: "from t" in self.text("#status"))


@pytest.fixture(scope="module")
def page(session: Session, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    folder = tmp_path_factory.mktemp("downloads")
    with bind(0) as listening, accessibility.browser(tmp_path_factory.mktemp("profile")) as browser:
        listening.listen()
        server = Server(make_app(session), Limits())
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(folder)})
        try:
            yield Page(browser, f"http://127.0.0.1:{listening.getsockname()[1]}/", server, folder)
        finally:
            server.should_exit = True
            thread.join()


@pytest.mark.slow
def test_in_a_browser_settings_are_compared_saved_and_rows_uploaded_until_the_server_stops(page: Page):
    page.open()
    # A text is imputed, and a class has a bar that sums to 1.
    assert page.until(lambda: page.text('[data-modality="note"] li'))
    page.click('[aria-label="t sex given"]')
    page.until(lambda: "sex: " in page.text("#status"))
    widths = page.browser.execute_script("return [...document.querySelector('.stack').children].map((one) => parseFloat(one.style.width))")
    assert np.isclose(sum(widths), 100, atol=0.01)
    # Two settings.
    page.click("#keep")
    page.choose('[aria-label="impute as if centre"]', "B")
    page.until(lambda: "as if centre = B" in page.text("#compared h3:nth-of-type(2)"))
    assert "as if" not in page.text("#compared h3")
    # The slider of a count is logarithmic, an interval is explained.
    assert page.text('.slide:has([aria-label="t visits"]) .ends span:nth-of-type(2)') == "log"
    page.click('[aria-label="t visits given"]')
    tip = page.until(lambda: page.browser.execute_script("return document.querySelector('.card [data-tip]')?.dataset.tip"))
    assert "90 % of the draws are between" in tip
    assert "principal component 1" in page.text("#map svg .axis")
    # Downloads are what is shown.
    page.until(lambda: "the rest of t" in page.text("#status") and "visits" in page.text("#compared"))
    lines = list(csv.DictReader(io.StringIO(page.saved("nbridge.csv", "#save-csv").decode())))
    shares = [float(line["probability"]) for line in lines if line["element"] == "sex"]
    assert np.isclose(sum(shares), 1, atol=1e-4)
    draws = executed(page.saved("nbridge_draws.py", "#save-python").decode())["draws"]
    (visits,) = [line for line in lines if line["element"] == "visits"]
    assert np.isclose(float(visits["mean"]), draws["t"][:, 5].double().mean().item(), rtol=1e-5)
    assert Image.open(io.BytesIO(page.saved("nbridge.png", "#save-png"))).width == 900
    # A text is given.
    page.click('[data-modality="t"] .switch input')
    page.click('[data-modality="note"] .switch input')
    field = page.browser.find_element("css selector", '[data-modality="note"] input[type=text]')
    field.clear()
    field.send_keys("old")
    page.until(lambda: "from note" in page.text("#status"))
    # Rows of a file, and one that is none.
    page.upload(frame().head(3).to_csv(index=False))
    page.until(lambda: page.text("#of") == "of 3, mine.csv")
    page.upload("height\n1\n")
    page.until(lambda: page.text("#error").startswith("mine.csv: "))
    page.server.should_exit = True
    page.until(lambda: page.server.started and not page.server.servers[0].is_serving())
    page.click("#again")
    page.until(lambda: "no response from the server; is nbridge explore still running?" in page.text("#error"))
