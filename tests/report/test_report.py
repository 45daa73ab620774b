"""The report of a run: that it shows what the run holds, to the figure, and holds itself all that it shows."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import accessibility
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.decomposition import PCA
from toys import CLASSES, Toy

import nbridge
from nbridge.cli import main as command_line
from nbridge.common.atomic_files import write_json
from nbridge.common.messages import number
from nbridge.data.batch import Batch
from nbridge.data.split import Splits
from nbridge.evaluation.calibration import reliability
from nbridge.evaluation.results import Settings
from nbridge.evaluation.verdict import BaselineComparison, Verdict, digits
from nbridge.report import about, images, labels, page, values
from nbridge.report.axes import Axis
from nbridge.report.page import SECTIONS, write_report
from nbridge.report.run_data import ModelAndRows
from nbridge.report.tree import element, sortable, to_html
from nbridge.runs.run import Run
from nbridge.training.run_folder import METRICS, MODEL, REPORT, VERDICT
from nbridge.visual import png as pictures
from nbridge.visual.pca import LatentPCA

HOSTILE = "<script>alert(1)</script> & \"x' </style>"
PART = "features: 4, encoder: {type: mlp, hidden: [4]}"
SPEC = f"""
# </code></pre><img src=x onerror=alert(2)> http://example.com/
name: {json.dumps(HOSTILE)}
latent_dim: 2
data: {{source: npz, path: data.npz}}
modalities:
  x: {{shape: 3, {PART}, likelihood: normal}}
  counts: {{shape: 2, {PART}, likelihood: poisson}}
  one: {{shape: 1, {PART}, likelihood: laplace}}
  flags: {{shape: 3, {PART}, likelihood: {{type: bernoulli, attributes: true}}}}
  image: {{shape: [1, 2, 4], {PART}, likelihood: bernoulli}}
  colour: {{shape: [3, 2, 2], {PART}, likelihood: normal}}
  label: {{shape: 3, {PART}, likelihood: categorical}}
fusion: {{hidden: [4]}}
bridges: {{hidden: [4]}}
training: {{batch_size: 32, stages: {{joint: {{epochs: 3}}, bridges: {{epochs: 2}}}}}}
"""
NAMES = ("x", "counts", "one", "flags", "image", "colour", "label")
ROWS = 300
VOID = {"meta", "link", "img", "input"}


def data() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    arrays = {
        "x": rng.normal(size=(ROWS, 3)),
        "counts": rng.poisson(3, size=(ROWS, 2)).astype(float),
        "one": rng.normal(50, 10, size=(ROWS, 1)),
        "flags": (rng.random((ROWS, 3)) < 0.3).astype(float),
        "image": rng.random((ROWS, 2, 4)),
        "colour": rng.normal(size=(ROWS, 3, 2, 2)),
        "label": rng.integers(0, 3, ROWS).astype(float),
    }
    for name in ("x", "image", "label"):
        arrays[name][rng.random(ROWS) < 0.3] = np.nan
    arrays["counts"][rng.random((ROWS, 2)) < 0.2] = np.nan
    return arrays


@dataclass
class Node:
    tag: str
    attributes: dict[str, str]
    inside: list[Node | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(part if isinstance(part, str) else part.text for part in self.inside)

    def all(self, *tags: str) -> list[Node]:
        found = [self] if self.tag in tags else []
        return found + [node for part in self.inside if isinstance(part, Node) for node in part.all(*tags)]

    def one(self, tag: str) -> Node:
        (found,) = self.all(tag)
        return found


class Reader(HTMLParser):
    """A page as a tree, by the standard library's parser; tags that do not match fail."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.stack = [Node("", {})]
        self.feed(text)
        self.close()
        assert len(self.stack) == 1, f"{self.stack[-1].tag} is never closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        node = Node(tag, {name: value or "" for name, value in attrs})
        self.stack[-1].inside.append(node)
        if tag not in VOID:
            self.stack.append(node)

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop().tag == tag

    def handle_data(self, data: str) -> None:
        self.stack[-1].inside.append(data)


def read(text: str) -> Node:
    return Reader(text).stack[0]


def sections(document: Node) -> dict[str, Node]:
    return {node.attributes["id"]: node for node in document.all("section")}


def cells(node: Node) -> list[list[str]]:
    return [[cell.text for cell in row.all("th", "td")] for row in node.all("tr")]


def tables(node: Node) -> dict[str, list[list[str]]]:
    return {one.one("caption").text: cells(one)[1:] for one in node.all("table")}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run whose name, comments and rows are as unkind as they may be."""
    folder = tmp_path_factory.mktemp("report")
    np.savez(folder / "data.npz", **data())
    (folder / "tiny.yaml").write_text(SPEC)
    return nbridge.train(folder / "tiny.yaml", out=folder / "run", overrides=[f"data.path={folder}/data.npz"])


@pytest.fixture(scope="module")
def text(run: Run) -> str:
    return write_report(run).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def document(text: str) -> Node:
    return read(text)


@pytest.fixture
def folder(run: Run, tmp_path: Path) -> Path:
    """A copy of the run that a test may spoil."""
    return shutil.copytree(str(run.folder), tmp_path / "run")


Call = Callable[..., tuple[object, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    monkeypatch.setattr(sys, "path", [*sys.path])

    def call(*arguments: object) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["nbridge", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            command_line.main()
        return left.value.code, *capsys.readouterr()

    return call


# The page


def test_every_section_is_shown_or_left_out_with_a_reason(document: Node):
    shown = sections(document)
    missing = {node.attributes["id"]: node.text for node in shown["left-out"].all("b")}
    assert [one.id for one in SECTIONS if one.id not in missing] == [name for name in shown if name != "left-out"]
    assert missing == {"columns": "Columns", "texts": "Texts", "evaluation": "Evaluation"}
    assert [line.text for line in shown["left-out"].all("li")] == [
        "Columns: no mixed modality with two observed columns in a row",
        "Texts: no modality of texts with other modalities to impute it from",
        "Evaluation: not evaluated yet; run nbridge evaluate run",
    ]
    for one in SECTIONS:
        if one.id in shown:
            assert shown[one.id].inside[0].text == one.heading
            assert len(shown[one.id].inside) > 1
    assert [link.attributes["href"] for link in document.one("nav").all("a")] == [f"#{name}" for name in shown]
    assert [node.tag for node in document.all("h1")] == ["h1"]


def test_a_name_or_a_comment_stays_text_whatever_it_says(text: str, document: Node, run: Run):
    assert document.one("h1").text == HOSTILE
    assert document.one("head").one("title").text == f"{HOSTILE}: report of a run"
    assert document.one("pre").text == (run.folder / "spec.yaml").read_text() == SPEC
    assert not document.all("script")
    assert not re.search(r"<script|<img src=x", text)
    assert not [name for node in document.all("img", "svg", "body", "a") for name in node.attributes if name.startswith("on")]


TEXT = st.text("ab<>&\"'=/;#!-] \n\té☃")


@given(content=TEXT, attribute=TEXT)
def test_what_is_put_into_a_page_is_what_a_reader_gets(content: str, attribute: str):
    found = read(to_html(element("p", content, element("b", content), content, title=attribute))).one("p")
    assert found.attributes == {"title": attribute}
    assert found.text == 3 * content


def test_a_page_refers_to_nothing_outside_itself(text: str, document: Node):
    everything = document.all(*{match[1].lower() for match in re.finditer(r"<([a-zA-Z0-9]+)", text)})
    addresses = [
        node.attributes[name] for node in everything for name in ("src", "href", "srcset", "data", "action") if name in node.attributes
    ]
    assert {address[:5] for address in addresses if address[0] != "#"} == {"data:"}
    assert not re.search(r"url\(|@import|https?:", document.one("style").text)
    assert not re.search(r"https?:", text.replace("http://example.com/", ""))
    (policy,) = [node for node in document.all("meta") if "http-equiv" in node.attributes]
    assert policy.attributes["content"] == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert len(text.encode()) < 300_000


def test_pictures_and_charts_are_told_in_words_as_well(document: Node):
    assert len(document.all("img")) == 2 * 9
    assert all(node.attributes["alt"] for node in document.all("img"))
    for chart in document.all("svg"):
        assert chart.attributes.get("aria-hidden") == "true" or chart.one("title").text
    assert all(node.one("caption").text for node in document.all("table"))
    assert all("scope" in node.attributes for node in document.all("th"))


def test_the_same_run_gives_the_same_bytes_from_memory_and_from_its_folder(run: Run, text: str, folder: Path):
    torch.randn(7)
    assert write_report(folder).read_text(encoding="utf-8") == text
    assert write_report(run).read_text(encoding="utf-8") == text
    assert write_report(folder, rows=9, seed=1).read_text(encoding="utf-8") != text


# What it shows


def test_stages_are_told_as_their_metrics_say(document: Node, run: Run):
    records = [json.loads(line) for line in (run.folder / METRICS).read_text().splitlines()]
    expected = []
    for stage in ("joint", "bridges"):
        epochs = [record for record in records if record["stage"] == stage]
        best = [record for record in epochs if record["best"]][-1]
        seconds = about.duration(sum(record["seconds"] for record in epochs))
        figures = (str(epochs[-1]["update"]), str(best["update"]), f"{best['loss']:,.2f}", f"{best['validation_loss']:,.2f}", seconds)
        expected.append([stage, *figures])
    section = sections(document)["curves"]
    assert next(iter(tables(section).values())) == expected
    charts = [node.text for node in section.all("figcaption")]
    assert charts == ["loss", *records[0]["terms"], "loss", *records[-1]["terms"]]
    last = records[-1]
    assert (
        f"training from {records[3]['loss']:.3g} to {last['loss']:.3g}; validation from" in section.all("svg")[-len(last["terms"]) - 1].text
    )


def test_rows_patterns_and_parameters_are_those_of_the_run(document: Node, run: Run):
    shown = sections(document)
    assert "210 train, 30 validation, 60 test" in shown["trained"].text
    patterns = next(iter(tables(shown["patterns"]).values()))
    expected = list(run.model.patterns.rows.items())
    assert [row[0] for row in patterns] == [f"{number:,}" for _, number in expected[:12]]
    assert [[cell.endswith("present") for cell in row[2:]] for row in patterns] == [
        [bit == "1" for bit in pattern] for pattern, _ in expected[:12]
    ]
    rest = [number for _, number in expected[12:]]
    assert f"and {len(rest)} rarer patterns with {sum(rest)} rows in all" in shown["patterns"].text
    parts = tables(shown["parameters"])["Parts of the bridged model"]
    own = sum(parameter.numel() for parameter in run.model.network.parameters())
    assert sum(int(row[2].replace(",", "")) for row in parts) == own
    assert [row[:2] for row in parts] == [["encoders", "14"], ["fusion", "1"], ["bridges", "42"], ["decoders", "7"]]


def test_the_real_images_of_a_page_are_those_of_the_rows(document: Node, run: Run):
    strips = [row for row in sections(document)["images"].all("tr") if row.all("img")]
    assert [row.one("th").text for row in strips[:9]] == [
        "real", "reconstructed", "from all others", "from x", "from counts", "from one", "from flags", "from colour", "a draw"
    ]  # fmt: skip
    picture = Image.open(io.BytesIO(base64.b64decode(strips[0].one("img").attributes["src"].partition("base64,")[2])))
    rows = images.chosen(run.model.network, run.splits.test, "image", 10)
    drawn, expected = np.asarray(picture)[:, :, 0], (rows.values["image"][:, 0] * 255).round().byte().numpy()
    assert picture.size == (10 * 5 - 1, 2)
    assert all(np.array_equal(drawn[:, 5 * place : 5 * place + 4], expected[place]) for place in range(10))


def test_rows_to_show_take_turns_between_classes(run: Run):
    rows = images.chosen(run.model.network, run.splits.test, "image", 6)
    assert rows.values["label"].tolist() == [0, 0, 1, 1, 2, 2]
    assert rows.present["image"].all()
    assert rows.present["label"].all()


def test_a_place_without_a_tile_stays_clear_and_large_tiles_shrink():
    tile = np.full((20, 40, 3), 200, np.uint8)
    address = pictures.image_strip([tile, None, tile], side=10)
    whole = np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition("base64,")[2]))))
    assert whole.shape == (5, 32, 4)
    assert whole[0, :, 3].tolist() == [*[255] * 10, *[0] * 12, *[255] * 10]
    assert set(whole[:, :10, :3].reshape(-1).tolist()) == {200}


def test_pictures_leave_room_on_the_page_whatever_they_show():
    shape = (3, 218, 178)
    many = SimpleNamespace(names=range(20), likelihoods={name: SimpleNamespace(shape=shape) for name in range(20)})
    columns, lines = images._columns(many, range(images.TARGETS)), images.TARGETS * (4 + images.SOURCES)
    noise = np.random.default_rng(0).integers(0, 256, (218, 178, 3), np.uint8)
    assert columns >= images.FEWEST
    assert lines * len(pictures.image_strip([noise] * columns, images.SIDE)) < 2_600_000


def known(rows: Batch) -> ModelAndRows:
    """Rows whose z is what they have in ``a``."""
    return ModelAndRows(Toy(lambda batch, samples: batch.values["a"].expand(samples, -1, -1)), rows, rows, rows, "test", 0)


def test_a_confusion_matrix_is_that_of_the_rows():
    true = torch.arange(40) % CLASSES
    true = torch.cat([true, torch.zeros(20, dtype=torch.long)])
    seen = torch.where(true == 1, 2, true)
    rows = Batch.complete({"a": torch.eye(CLASSES)[seen], "b": torch.randn(60, CLASSES), "label": true})
    everything, from_a, from_b = labels.predicted(known(rows), "label")
    assert (everything.given, from_a.given, from_b.given) == ("all others", "a", "b")
    assert from_a.counts.tolist() == [[30, 0, 0, 0], [0, 0, 10, 0], [0, 0, 10, 0], [0, 0, 0, 10]]
    assert (from_a.accuracy, from_a.common) == (50 / 60, 30 / 60)
    shown = read(to_html(labels.matrix(from_a, ["<b>", "1", "2", "3"])))
    assert cells(shown)[1:] == [
        ["<b>", "100", "0", "0", "0", "30"],
        ["1", "0", "0", "100", "0", "10"],
        ["2", "0", "0", "100", "0", "10"],
        ["3", "0", "0", "0", "100", "10"],
    ]


def test_many_classes_are_told_by_their_most_frequent_mistakes():
    counts = torch.diag(torch.full((30,), 5))
    counts[3, 4], counts[7, 1] = 2, 9
    one = labels.ClassPredictions("label", "x", counts, ())
    shown = tables(read(to_html(labels.matrix(one, [f"c{number}" for number in range(30)]))))
    assert list(shown.values()) == [[["c7", "c1", "9"], ["c3", "c4", "2"]]]


def test_variance_explained_and_coverage_are_those_of_a_model_that_is_known():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(1500, CLASSES, generator=generator)
    b = z + 0.5 * torch.randn(1500, CLASSES, generator=generator)
    rows = Batch.complete({"a": z, "b": b, "label": torch.zeros(1500, dtype=torch.long)})
    found = values.measured(known(rows), "b")
    assert (found.rows, found.cells, found.own_units) == (1500, 6000, False)
    # 1.25 is the variance, .25 that of the noise; the mean of m draws adds .25 / m.
    assert found.explained == pytest.approx(1 - 0.25 * (1 + 1 / values.DRAWS) / 1.25, abs=0.01)
    assert all(share == pytest.approx(level, abs=0.02) for level, share in found.covered.items())
    assert found.true.std().item() == pytest.approx(1, abs=1e-3)


def test_only_observed_cells_count_and_a_wide_modality_takes_fewer(monkeypatch: pytest.MonkeyPatch):
    rows = Batch.complete({"a": torch.randn(200, CLASSES), "b": torch.randn(200, CLASSES), "label": torch.zeros(200, dtype=torch.long)})
    some = Batch(rows.values, {**rows.present, "b": torch.arange(200) < 80}, {"b": torch.arange(4).expand(200, 4) < 3})
    found = values.measured(known(some), "b")
    assert (found.rows, found.cells, len(found.true)) == (80, 240, 240)
    monkeypatch.setattr(values, "CELLS", 50)
    monkeypatch.setattr(values, "NUMBERS", 40 * values.DRAWS * CLASSES)
    found = values.measured(known(some), "b")
    assert (found.rows, found.cells, len(found.true)) == (40, 120, 50)


def test_modalities_of_one_element_keep_their_units(document: Node):
    charts = {node.text.split()[0]: node for node in sections(document)["values"].all("figure") if "R²" in node.text}
    assert set(charts) == {"x", "counts", "one"}
    assert "true, standard deviations" in charts["x"].text
    assert "true, standard deviations" not in charts["one"].text


@given(st.lists(st.floats(0, 1, exclude_min=True), min_size=1, max_size=200))
def test_joined_bins_hold_enough_and_the_same_predictions(confidence: list[float]):
    right = torch.arange(len(confidence)) % 3 == 0
    bins = reliability(torch.tensor(confidence, dtype=torch.float64), right, 10)
    joined = values.pooled(bins, 20)
    assert sum(one.count for one in joined) == len(confidence)
    assert min(one.count for one in joined) >= min(20, len(confidence))
    assert sum(one.count * one.accuracy for one in joined) == pytest.approx(right.sum().item())
    assert sum(one.count * one.confidence for one in joined) == pytest.approx(sum(confidence))


def test_the_map_is_that_of_principal_components_and_the_same_for_rows_in_another_order():
    means = torch.randn(60, 5, generator=torch.Generator().manual_seed(0)) * torch.tensor([3.0, 1, 2, 0.1, 0.5])
    pca = LatentPCA.fit(means)
    points = pca.transform(means)
    oracle = PCA(2).fit(means.double().numpy())
    assert np.allclose(np.abs(oracle.transform(means.double().numpy())), points.abs().numpy(), atol=1e-5)
    assert pca.shares == pytest.approx(oracle.explained_variance_ratio_, abs=1e-6)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(LatentPCA.fit(means[order]).transform(means[order]), points[order])
    assert torch.allclose(pca.transform(pca.inverse_transform(points)), points)
    assert torch.allclose(
        pca.inverse_transform(points), torch.from_numpy(oracle.inverse_transform(oracle.transform(means.double().numpy())))
    )


@given(low=st.floats(-1e6, 1e6), size=st.floats(1e-3, 1e6))
def test_numbers_along_an_axis_are_few_even_and_inside(low: float, size: float):
    ticks = Axis(low, low + size, "").ticks()
    assert 2 <= len(ticks) <= 8
    steps = np.diff(ticks)
    assert np.allclose(steps, steps[0], rtol=1e-6)
    assert min(ticks) >= low - 1e-6 * size
    assert max(ticks) <= low + size * (1 + 1e-6)


def test_what_was_evaluated_is_shown_to_the_figure(run: Run, folder: Path):
    settings = Settings(metrics=("predictive", "imputation"), given=(("x",),), draws=39, rows=40)
    done = run.model.evaluate(run.splits, settings)
    write_json(folder / "evaluation.json", done.as_dict())
    section = sections(read(write_report(folder).read_text(encoding="utf-8")))["evaluation"]
    assert [node.text for node in section.all("h3")] == ["predictive", "imputation"]
    rows = [row for shown in section.all("table") for row in cells(shown)[1:]]
    assert [row[0] for row in rows] == [one.target[0] for one in done.measurements]
    assert [row[3] for row in rows] == [number(next(iter(one.figures.values()))) for one in done.measurements]
    assert cells(section.all("table")[1])[0][-3:] == ["coverage 50%", "coverage 90%", "coverage 95%"]


def test_classes_are_called_as_in_the_table_that_they_come_from(tmp_path: Path):
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("x", "kind"), *((row / 7, ("low", "high", HOSTILE)[row % 3]) for row in range(60))])
    spec = {
        "latent_dim": 2,
        "data": {
            "source": "table",
            "path": str(tmp_path / "rows.csv"),
            "columns": {"level": "x"},
            "classes": {"kind": ["low", "high", HOSTILE]},
        },
        "modalities": {
            "level": {"shape": 1, "encoder": "mlp", "likelihood": "normal", "features": 4},
            "kind": {"shape": 3, "encoder": "mlp", "likelihood": "categorical", "features": 4},
        },
        "training": {"stages": {"joint": {"epochs": 1}, "bridges": {"epochs": 1}}},
    }
    run = nbridge.train(spec, out=tmp_path / "run")
    section = sections(read(write_report(run).read_text(encoding="utf-8")))["labels"]
    (matrix,) = [node for node in section.all("table") if node.attributes.get("class") == "matrix"]
    assert [row[0] for row in cells(matrix)[1:]] == ["low", "high", HOSTILE[:24] + "..."]


# What is not there


def test_an_unfinished_run_is_shown_as_far_as_it_is(folder: Path):
    shutil.rmtree(folder / MODEL)
    with (folder / METRICS).open("a") as file:
        file.write('{"stage": "bridges", "epo')
    shown = sections(read(write_report(folder).read_text(encoding="utf-8")))
    assert list(shown) == ["curves", "trained", "parameters", "environment", "spec", "left-out"]
    assert "30 updates in" in shown["trained"].text
    assert "not finished" in shown["trained"].text
    reasons = [line.text for line in shown["left-out"].all("li")]
    assert reasons == [
        "Verdict, Warnings, Skill by number given, Images, Columns, Values, Classes, Texts, Latent map: "
        f"{folder}: training has not finished; "
        f"continue with: nbridge resume {folder}",
        "Evaluation: not evaluated yet; run nbridge evaluate run",
        "Patterns of presence: they are saved when training ends",
    ]


def test_a_run_that_has_just_begun_has_no_curves(folder: Path):
    shutil.rmtree(folder / MODEL)
    (folder / METRICS).unlink()
    missing = sections(read(write_report(folder).read_text(encoding="utf-8")))["left-out"]
    assert "Loss curves: no metrics are recorded yet" in [line.text for line in missing.all("li")]


def test_rows_from_python_are_shown_where_they_are(tmp_path: Path):
    spec = {
        "latent_dim": 1,
        "modalities": {"x": {"shape": 3, "encoder": "mlp", "likelihood": "normal", "features": 4}},
        "training": {"stages": {"joint": {"epochs": 1}, "bridges": {"epochs": 1}}},
        "model": "vae",
        "data": {"source": "memory", "test": 0, "validation": 0},
    }
    run = nbridge.train(spec, {"x": np.random.default_rng(0).normal(size=(40, 3))}, out=tmp_path / "run")
    missing = sections(read(write_report(tmp_path / "run").read_text(encoding="utf-8")))["left-out"].text
    assert "Latent map: the rows of this run came from Python; use nbridge.report.page.write_report(run) there" in missing
    missing = sections(read(write_report(run).read_text(encoding="utf-8")))["left-out"].text
    assert "Latent map: no test rows and no validation rows, and training rows would flatter the model" in missing


def test_what_cannot_be_reported_is_one_line(call: Call, tmp_path: Path, folder: Path):
    assert call("report", tmp_path / "none") == (
        2, "", f"{tmp_path}/none: no run folder here (spec.resolved.yaml is missing); start one with: nbridge train SPEC "
        f"--out {tmp_path}/none\n"
    )  # fmt: skip
    assert call("report", folder, "--rows", 0)[0] == 2
    with pytest.raises(nbridge.DataError, match="rows is 0, expected 1 or more"):
        write_report(folder, rows=0)
    (folder / REPORT).unlink()
    (folder / REPORT).mkdir()
    code, shown, said = call("report", folder, "--rows", 5)
    assert (code, shown) == (2, "")
    assert re.fullmatch(rf"{re.escape(str(folder / REPORT))}: cannot be written \(.*\)\n", said)


# The command line


def test_training_ends_with_a_report_that_the_command_writes_again(folder: Path, call: Call):
    arguments = ("train", folder / "spec.resolved.yaml", "--out", folder.parent / "new", "--set", "training.stages.joint.epochs=1")
    code, shown, _ = call(*arguments)
    assert code == 0
    assert f"report: {folder.parent}/new/report.html\n" in shown
    first = (folder.parent / "new" / REPORT).read_bytes()
    assert call("report", folder.parent / "new") == (0, f"{folder.parent}/new/report.html: written\n", "")
    assert (folder.parent / "new" / REPORT).read_bytes() == first


def test_a_report_that_fails_costs_a_training_one_line(folder: Path, call: Call, monkeypatch: pytest.MonkeyPatch):
    def fail(*arguments: object, **options: object) -> str:
        raise MemoryError("no room\nat all")

    monkeypatch.setattr(page, "page", fail)
    new = folder.parent / "new"
    quick = ("--set", "training.stages.joint.epochs=1", "--set", "training.stages.bridges.epochs=1")
    code, shown, said = call("train", folder / "spec.resolved.yaml", "--out", new, *quick)
    assert code == 0
    warning = f"warning: the report was not written (no room?at all); try again with: nbridge report {new}"
    assert [line for line in (shown + said).splitlines() if line.startswith(("report", "warning: the report"))] == [warning]
    assert nbridge.load(new).names == NAMES
    assert not (new / REPORT).exists()
    code, shown, _ = call("train", folder / "spec.resolved.yaml", "--out", new, "--overwrite", "--no-report", *quick)
    assert code == 0
    assert "report:" not in shown
    assert not (new / REPORT).exists()


# A browser

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--enable-logging=stderr", "--dump-dom",
)  # fmt: skip
MEASURE = """<!doctype html><title></title><iframe width=400 height=800></iframe><script>
const frame = document.querySelector("iframe");
frame.onload = () => {
  const page = frame.contentDocument.documentElement;
  document.title = `${page.clientWidth > 300} ${page.scrollWidth - page.clientWidth}`;
  console.error("heard");
};
frame.srcdoc = PAGE;
</script>"""


def browsed(chromium: str, path: Path, profile: Path) -> tuple[Node, list[str]]:
    """A page as a browser has it once it is loaded, and what its console says."""
    command = [chromium, *FLAGS, f"--user-data-dir={profile}", path.as_uri()]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    return read(done.stdout), [line for line in done.stderr.splitlines() if ":CONSOLE" in line]


@pytest.mark.slow
def test_a_browser_shows_every_section_without_complaint_and_without_scrolling_sideways(text: str, run: Run, tmp_path: Path):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium on PATH")
    document, console = browsed(chromium, run.folder / REPORT, tmp_path / "one")
    assert console == []
    assert list(sections(document)) == list(sections(read(text)))
    assert len(document.all("svg")) == len(read(text).all("svg"))
    # The console is heard: an error on a page around this one arrives.
    (tmp_path / "around.html").write_text(MEASURE.replace("PAGE", json.dumps(text).replace("</", "<\\/")), encoding="utf-8")
    document, console = browsed(chromium, tmp_path / "around.html", tmp_path / "two")
    assert [line for line in console if "heard" in line]
    assert document.one("title").text == "true 0"


# The verdict


def test_the_verdict_comes_first_and_is_red_where_the_model_is_worse(document: Node, run: Run):
    verdict = run.verdict
    assert verdict.of("worse") or verdict.of("as good")
    assert next(iter(sections(document))) == "verdict"
    assert document.one("nav").all("a")[0].text == "Verdict"
    section = sections(document)["verdict"]
    headline = next(node for node in section.all("p") if "headline" in node.attributes.get("class", ""))
    assert headline.text.lower() == f"{verdict.headline.lower()}."
    rows = tables(section)["Each modality imputed from all others"]
    assert [row[:2] for row in rows] == [[one.target, one.description] for one in verdict.modalities]
    assert [row[5] for row in rows] == [digits(one.model) for one in verdict.modalities]
    assert section.all("p")[-1].text == verdict.note


def test_a_verdict_that_a_run_keeps_is_shown_without_its_rows(folder: Path):
    kept = Verdict(
        "test",
        (
            BaselineComparison("x", "", "rmse", 60, 0.9, 0.4, 1.0, 0.1, "worse", "ridge", 210, (2, 2)),
            BaselineComparison(HOSTILE, "", "accuracy", 3, reason="3 test rows, 20 needed"),
        ),
        (BaselineComparison("x", "age", "rmse", 60, 0.9, 0.4, 1.0, 0.1, "worse", "ridge", 210),),
        (f"x: {HOSTILE}",),
    )
    write_json(folder / VERDICT, kept.as_dict())
    (folder.parent / "nowhere").mkdir()
    spec = (folder / "spec.resolved.yaml").read_text()
    (folder / "spec.resolved.yaml").write_text(re.sub(r"path: .*data\.npz", f"path: {folder.parent}/nowhere/data.npz", spec))
    text = write_report(folder).read_text(encoding="utf-8")
    section = sections(read(text))["verdict"]
    red = [node.text for node in section.all("p", "span") if "worse" in node.attributes.get("class", "").split()]
    assert red == [
        f"Worse than a baseline: x; not tested (3 test rows, 20 needed): {HOSTILE}.",
        "worse than the baseline",
        "0.900",
        "0.900",
    ]
    assert section.one("li").text == f"x: {HOSTILE}"
    assert tables(section)["1 columns, furthest behind first: 1 worse than the baseline"][0][:2] == ["age", "x"]
    assert not read(text).all("script")
    assert re.search(r"\.worse \{ color: var\(--bad\)", text)


def test_without_rows_the_verdict_says_that_nothing_was_tested(folder: Path, run: Run):
    bare = Run(run.model, run.spec, Splits(run.splits.train, None, None), folder)
    shown = sections(read(write_report(bare).read_text(encoding="utf-8")))
    assert next(iter(shown)) == "verdict"
    assert shown["verdict"].one("p").text.startswith("Not tested: no test rows and no validation rows; ")


def test_a_sortable_table_has_the_places_of_its_rows_in_every_order():
    shown = read(
        to_html(sortable("t", ("name", "score"), [("b", "1"), ("A", "-"), ("c", "3")], [("b", 1.0), ("A", float("nan")), ("c", 3.0)]))
    )
    orders = [node.attributes["style"] for node in shown.one("tbody").all("tr")]
    assert orders == ["--o1:0;--o2:1;--o3:1", "--o1:1;--o2:0;--o3:2", "--o1:2;--o2:2;--o3:0"]
    assert [node.text for node in shown.all("label")] == ["given order", "name", "score"]
    assert len({node.attributes["name"] for node in shown.all("input")}) == 1


def test_runs_stand_side_by_side_on_one_page_beside_the_first(folder: Path, call: Call):
    other = shutil.copytree(folder, folder.parent / "other")
    assert call("report", folder, other) == (0, f"{folder.parent}/reports.html: written\n", "")
    shown = read((folder.parent / "reports.html").read_text(encoding="utf-8"))
    assert [node.text for node in shown.all("h3")] == ["run", "other"]
    assert not shown.all("script")
    assert call("report", folder, folder) == (2, "", f"{folder}: given twice; name each run once\n")


@pytest.mark.slow
def test_a_report_has_no_serious_violation_of_accessibility(text: str, run: Run, tmp_path: Path):
    with accessibility.browser(tmp_path / "profile") as opened:
        assert accessibility.violations(opened, (run.folder / REPORT).as_uri()) == []
