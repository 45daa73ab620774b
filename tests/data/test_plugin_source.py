"""A format of somebody else's: a data source outside the package drafts, trains, imputes and embeds as built-in formats do."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Call, in_this_process

import nbridge
from nbridge.data.arrays import to_batch

EXAMPLES = Path(__file__).parents[2] / "examples"
FEW: dict[str, Any] = {"updates": 2, "batch_size": 16}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def plugin(here: Path) -> Any:
    import webdataset
    import webdataset_source

    webdataset.write_tar(here / "rows.tar", rows())
    return webdataset_source


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    return in_this_process(monkeypatch, capsys, 200)


def rows() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(60, 3)).astype(np.float32), generator.integers(0, 3, 60).astype(float)
    x[:20], y[50:] = np.nan, np.nan
    return {"x": x, "y": y}


def read(plugin: Any, path: Path | str) -> dict[str, np.ndarray]:
    with plugin.WebDataset(path=str(path)).opened() as samples:
        return {field: samples.array(field, 0) for field in samples.keys}


def test_the_plug_in_is_short():
    assert len((EXAMPLES / "webdataset_source.py").read_text().splitlines()) < 150


def test_it_is_drafted_trained_imputed_and_embedded(plugin: Any, here: Path):
    spec = nbridge.init("rows.tar", source="webdataset_source:WebDataset").spec
    assert {name: one.shape for name, one in spec.modalities.items()} == {"x": (3,), "y": (3,)}
    assert spec.data.source.type == "webdataset_source:WebDataset"
    model = nbridge.train({**spec.as_dict(), "training": FEW}, out=here / "run").model
    done = model.impute("rows.tar", out="done.tar", samples=None)
    found, expected = read(plugin, "done.tar"), model.impute(rows())
    assert done.imputed == {"x": 20, "y": 10}
    for name in ("x", "y", "x__imputed", "y__imputed"):
        assert np.array_equal(found[name], expected[name])
    loaded = nbridge.load(here / "run")
    batch = to_batch(rows(), {"x": (3,), "y": (3,)})
    assert np.array_equal(loaded.embed("rows.tar").mean, loaded.embed(batch).mean)
    assert loaded.impute("done.tar", out="again.tar").imputed == {"x": 0, "y": 0}


def test_by_the_command_line(plugin: Any, here: Path, call: Call):
    assert call("init", "rows.tar", "--source", "webdataset_source:WebDataset", "--out", "rows.yaml")[0] == 0
    assert call("validate", "rows.yaml", "--data")[0] == 0
    status, out, _ = call("train", "rows.yaml", "--out", "run", "--set", "training.updates=2", "--no-report")
    assert (status, "ROWS.tar --out COMPLETED.tar" in out) == (0, True)
    status, out, _ = call("impute", "run", "rows.tar", "--out", "done.tar")
    assert (status, out) == (0, "done.tar: 60 rows; imputed y 10, x 20\n")
    assert set(read(plugin, "done.tar")) == {"x", "y", "x__imputed", "y__imputed"}


def test_mistakes_are_one_line(plugin: Any, here: Path):
    spec = nbridge.init("rows.tar", source=plugin.WebDataset).spec
    model = nbridge.Model.from_spec(spec)
    Path("cut.tar").write_bytes(Path("rows.tar").read_bytes()[:700])
    Path("text.tar").write_text("no tar")
    cases = [
        (lambda: nbridge.init("none.tar", source=plugin.WebDataset), "none.tar: no such file in "),
        (lambda: nbridge.init("text.tar", source=plugin.WebDataset), "text.tar: not a tar, or truncated or damaged "),
        (lambda: nbridge.init("rows.tar"), f"{here / 'rows.tar'}: expected tables "),
        (lambda: model.impute("text.tar", out="done.tar"), "text.tar: not a tar, or truncated or damaged "),
        (lambda: model.impute("rows.tar", out="rows.tar"), "rows.tar: is the input file; choose another"),
        (lambda: model.impute("rows.tar"), "rows.tar: rows in files need out, the file to write"),
    ]
    for work, message in cases:
        with pytest.raises(nbridge.NBridgeError) as caught:
            work()
        assert str(caught.value).startswith(message)
        assert "\n" not in str(caught.value)
    assert not Path("done.tar").exists()
    assert "webdataset_source" in sys.modules
