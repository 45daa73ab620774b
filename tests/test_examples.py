"""The examples, README's among them, run as they are and do what they say."""

from __future__ import annotations

import importlib.util
import re
import sys
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch
from PIL import Image

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
    assert {path.stem for path in (ROOT / "examples").glob("*.py")} == {
        "captions",
        "cite_seq",
        "covariates",
        "custom_likelihood",
        "custom_modality",
        "image_attributes",
        "omics",
        "pooling",
        "sensors",
        "serve",
        "webdataset",
        "webdataset_source",
    }


def test_proteins_of_simulated_cells_are_imputed_better_than_by_ridge_regression(capsys: pytest.CaptureFixture[str]):
    example = load_example("cite_seq")
    depths = example.simulate(0)["rna"].sum(1)
    assert np.quantile(depths, 0.98) > 10 * np.quantile(depths, 0.02)
    example.main(seeds=(1,), epochs=(70, 30), cells=2000)
    found = re.search(r"mean of 1: RMSE of protein from RNA ([\d.]+), PCA and ridge ([\d.]+)\n", capsys.readouterr().out)
    assert found is not None
    assert float(found[1]) < float(found[2]) < 0.7


def test_the_batch_of_simulated_cells_is_not_in_their_codes(capsys: pytest.CaptureFixture[str]):
    load_example("covariates").main(seeds=1, epochs=(25, 15), cells=2000)
    lines = capsys.readouterr().out.splitlines()
    found = [re.search(r"the batch of ([\d.]+)% of cells .* error of its mean ([\d.]+), RMSE ([\d.]+)", line) for line in lines]
    plain, told = ([float(number) for number in one.groups()] for one in found if one is not None)
    assert told[0] < 45
    assert plain[0] > 90
    assert told[2] < 0.5 * plain[2]


def test_the_custom_modality_is_short_conforms_and_imputes_angles(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(ROOT / "examples")
    assert len((ROOT / "examples" / "custom_modality.py").read_text().splitlines()) < 60
    example = load_example("custom_modality")
    check_encoder(example.CircleEncoder((2,), 5), (2,))
    check_likelihood(example.Direction((2,)))
    example.main(epochs=4)
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
    assert loaded.network.encoders["angle"].network[1].negative_slope == 0.2
    expected = run.model.impute({"speed": rows["speed"]}, samples=2)["angle"]
    assert np.array_equal(loaded.impute({"speed": rows["speed"]}, samples=2)["angle"], expected)

    path.write_text(path.read_text().replace("slope", "slop"))
    message = r"modalities.angle.encoder.slop: unknown key 'slop'. Did you mean 'slope'?"
    with pytest.raises(nbridge.SpecError, match=re.escape(message)):
        nbridge.read_spec(path)


def test_the_custom_likelihood_conforms_and_stands_jerks_better_than_a_normal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, real_data: Path
):
    monkeypatch.syspath_prepend(ROOT / "examples")
    example = load_example("custom_likelihood")
    check_likelihood(example.StudentT((2, 3)))
    raw, jerk = torch.zeros(1, 1), torch.tensor([[8.0]])
    scipy_log_density = scipy.stats.t(df=3).logpdf(8.0)
    assert example.StudentT((1,)).log_prob(raw, jerk).item() == pytest.approx(scipy_log_density, abs=1e-4)
    example.main(epochs=1, windows=500)
    assert len(re.findall(r"log p\(phone \| watch\) -\d+\.\d nats per window\n", capsys.readouterr().out)) == 2


def test_omics_imputes_protein_better_than_the_mean_patient(capsys: pytest.CaptureFixture[str], real_data: Path):
    load_example("omics").main(epochs=(15, 8))
    out = capsys.readouterr().out
    found = re.search(r"protein of (\d+) held-out patients: RMSE ([\d.]+), of the mean ([\d.]+)\n", out)
    assert found is not None
    assert float(found[2]) < float(found[3])
    assert re.search(r"protein never measured: 70 patients, 20 draws each; most certain: \S+, \S+, \S+\n", out)


def test_sensors_tell_activities_from_the_watch_alone(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, real_data: Path):
    example = load_example("sensors")
    read = example.read_npz

    def read_few(path: str) -> dict[str, np.ndarray]:
        """All windows of six people to learn from, and every fifth of the six others, of whom nothing but shares is printed."""
        recorded = read(path)
        kept = (recorded["subject"] <= 6) | (np.arange(len(recorded["subject"])) % 5 == 0)
        return {name: recorded[name][kept] for name in ("subject", "label", *example.WATCH, *example.PHONE)}

    monkeypatch.setattr(example, "read_npz", read_few)
    example.main(epochs=4, people=12)
    out = capsys.readouterr().out
    commonest, both, watch, phone = (int(share) for share in re.findall(r"(\d+)%", out)[:4])
    assert min(both, watch, phone) > commonest
    assert len(re.findall(r"phone_\w+ imputed from the watch: 90 % intervals contain \d+% of the values\n", out)) == 2


def test_images_with_attributes_draw_faces_of_each_description(capsys: pytest.CaptureFixture[str], real_data: Path, tmp_path: Path):
    example = load_example("image_attributes")
    example.main(str(tmp_path / "faces.png"), rows=160, epochs=1)
    with Image.open(tmp_path / "faces.png") as faces:
        assert faces.size == (8 * 64, len(example.DESCRIPTIONS) * 64)
    assert re.findall(r"(\w+) predicted from the face", capsys.readouterr().out) == list(example.NAMES)


def test_captions_are_written_for_faces_and_faces_drawn_for_captions(tmp_path: Path, real_data: None, capsys: pytest.CaptureFixture[str]):
    example = load_example("captions")
    assert example.sentence(np.array([0, 0, 1, 0, 1, 1, 0])) == "A smiling woman with blond hair and eyeglasses."
    assert example.sentence(np.array([1, 0, 0, 0, 0, 0, 0])) == "A man."
    example.main(str(tmp_path / "faces.png"), rows=200, updates=30)
    with Image.open(tmp_path / "faces.png") as faces:
        assert faces.size == (8 * example.SIDE, len(example.CAPTIONS) * example.SIDE)
    printed = capsys.readouterr().out
    assert len(re.findall(r"\(true: A (?:smiling )?(?:man|woman)[^)]*\.\)", printed)) == 5
    assert "captions exactly right from the face" in printed


def run_blocks(path: Path) -> dict[str, Any]:
    """The names that are there after the Python of a document has run from top to bottom."""
    names: dict[str, Any] = {}
    for code in re.findall(r"```python\n(.*?)```", path.read_text(), flags=re.DOTALL):
        exec(compile(code, path.name, "exec"), names)
    return names


@pytest.fixture
def trained_briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Documents train with fewer updates than they say: enough for what they show, and what default budgets give is tested elsewhere."""
    train = nbridge.train

    def train_briefly(spec: dict[str, Any], rows: Any) -> nbridge.Run:
        return train({**spec, "training": {"updates": 60, "learning_rate": 5e-3}}, rows)

    monkeypatch.setattr(nbridge, "train", train_briefly)
    monkeypatch.setattr(nbridge, "NBridgeImputer", partial(nbridge.NBridgeImputer, epochs=20))


@pytest.mark.usefixtures("trained_briefly")
def test_the_example_of_readme_runs_and_imputes_most_labels(capsys: pytest.CaptureFixture[str]):
    names = run_blocks(ROOT / "README.md")
    share = float(re.search(r"labels imputed correctly: ([\d.]+)", capsys.readouterr().out)[1])
    # Two modalities that tell the classes apart: 15 % of mistakes would be a broken model.
    assert share > 0.85
    assert names["draws"]["signal"].shape == (20, 600, 8)


@pytest.mark.usefixtures("trained_briefly")
def test_the_examples_of_data_complete_a_frame_and_a_table():
    names = run_blocks(ROOT / "docs" / "howto" / "arrays.md")
    label, frame, whole, filled = names["label"], names["frame"], names["whole"], names["filled"]
    assert whole.dtypes.equals(frame.dtypes)
    assert whole.index.equals(frame.index)
    assert whole.where(~filled).equals(frame)
    assert (whole["stage"] == pd.Series(label, frame.index).map({0: "I", 1: "II", 2: "III"}))[400:].mean() > 0.85
    assert (names["completed"][400:, 3] == label[400:]).mean() > 0.85
    assert names["twenty"].shape == (20, 600, 4)
    assert (names["lower"] <= names["upper"])[:150, :3].all()


def test_a_format_of_its_own_is_drafted_trained_and_imputed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(ROOT / "examples")
    load_example("webdataset").main(updates=40)
    counts = r"imputed {'top': 0, 'label': 597, 'bottom': 300}"
    found = re.search(rf"{counts}; (\d+)% of the imputed labels are right\n$", capsys.readouterr().out)
    assert found is not None
    # By chance it would be one in ten.
    assert int(found[1]) > 50


def test_pooled_coefficients_are_closer_to_those_of_complete_data_than_complete_rows_give(capsys: pytest.CaptureFixture[str]):
    found = load_example("pooling").main(updates=200)
    assert "fraction missing" in capsys.readouterr().out
    apart = {name: abs(coefficients[0] - found["whole"][0]) for name, coefficients in found.items()}
    assert apart["pooled"] < apart["complete rows"]
