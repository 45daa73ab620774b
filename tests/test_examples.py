"""The examples, README's among them, run as they are and do what they say."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest

import nbridge
from nbridge.testing import check_encoder, check_likelihood

ROOT = Path(__file__).parent.parent


def load_example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_example_is_known_here():
    assert {path.stem for path in (ROOT / "examples").glob("*.py")} == {"custom_modality"}


def test_the_custom_modality_is_short_conforms_and_imputes_angles(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(ROOT / "examples")
    assert len((ROOT / "examples" / "custom_modality.py").read_text().splitlines()) < 60
    example = load_example("custom_modality")
    check_encoder(example.CircleEncoder((2,), 5), (2,))
    check_likelihood(example.Direction((2,)))
    example.main(epochs=8)
    found = re.fullmatch(r"error of the imputed angle: median ([\d.]+), 90th percentile ([\d.]+) degrees\n", capsys.readouterr().out)
    assert found is not None
    # A guess that knows nothing is off by 90 degrees in the median, and by 162 in nine of ten.
    assert float(found[1]) < 40
    assert float(found[2]) < 100


def test_the_custom_modality_is_named_in_a_spec_without_forking(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.syspath_prepend(ROOT / "examples")
    monkeypatch.delitem(sys.modules, "custom_modality", raising=False)
    path = tmp_path / "wind.yaml"
    path.write_text(
        """
modalities:
  angle: {shape: 1, encoder: {type: "custom_modality:CircleEncoder", slope: 0.2}, likelihood: "custom_modality:Direction"}
  speed: {shape: 2, encoder: mlp, likelihood: normal}
training: {stages: {joint: {epochs: 1}, bridges: {epochs: 1}}}
"""
    )
    generator = np.random.default_rng(0)
    rows = {"angle": generator.uniform(-3, 3, (60, 1)), "speed": generator.normal(size=(60, 2))}
    run = nbridge.train(path, rows, out=tmp_path / "run")
    loaded = nbridge.load(tmp_path / "run")
    assert type(loaded.likelihoods["angle"]).__name__ == "Direction"
    assert loaded.encoders["angle"].network[1].negative_slope == 0.2
    expected = nbridge.impute_arrays(run.model, {"speed": rows["speed"]}, samples=2)["angle"]
    assert np.array_equal(nbridge.impute_arrays(loaded, {"speed": rows["speed"]}, samples=2)["angle"], expected)

    path.write_text(path.read_text().replace("slope", "slop"))
    message = r"modalities.angle.encoder.slop: unknown key 'slop'. Did you mean 'slope'?"
    with pytest.raises(nbridge.SpecError, match=re.escape(message)):
        nbridge.read_spec(path)


@pytest.mark.slow
def test_the_examples_of_readme_run_and_impute_most_labels(capsys: pytest.CaptureFixture[str]):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    names: dict[str, Any] = {}
    for code in blocks:
        exec(compile(code, "README.md", "exec"), names)
    assert len(blocks) == 3
    share = float(re.search(r"labels imputed correctly: ([\d.]+)", capsys.readouterr().out)[1])
    # Two modalities that tell the classes apart: 15 % of mistakes would be a broken model.
    assert share > 0.85
    assert (names["completed"][400:, 3] == names["label"][400:]).mean() > 0.85
    frame, whole, filled = names["frame"], names["whole"], names["filled"]
    assert whole.dtypes.equals(frame.dtypes)
    assert whole.index.equals(frame.index)
    assert whole.where(~filled).equals(frame)
    assert (whole["stage"] == pd.Series(names["label"], frame.index).map({0: "I", 1: "II", 2: "III"}))[400:].mean() > 0.85
    assert names["twenty"].shape == (20, 600, 4)
    assert (names["lower"] <= names["upper"])[:150, :3].all()
