"""Every shipped spec is a test case: it reads, resolves to a fixed point, counts its parameters, and trains two steps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import nbridge
from nbridge.evaluation.parameter_counts import count_parameters
from nbridge.spec.reader import parse_spec, read_spec, write_spec

SPECS = sorted((Path(__file__).parents[2] / "modality_specs").glob("*.yaml"))
TWO_STEPS = {
    # name: batch size and further changes, so that an epoch has two steps
    "celeba_paper_cpu": (8, ("data.rows=26",)),
    "celeba_paper": (8, ("data.rows=26", "data.path=celeba10k")),
    "digits": (600, ()),
    "emoji": (90, ("data.rows=300",)),
    "mfeat": (700, ()),
    "mnist_label": (11, ("data.rows=26",)),
    "mnist_text": (11, ("data.rows=26",)),
    "mnist_paper": (11, ("data.rows=26",)),
    "mnist_paper_cpu": (11, ("data.rows=26",)),
    "mnist_fashion_paper": (11, ("data.rows=26",)),
    "mnist_fashion_paper_cpu": (11, ("data.rows=26",)),
    "polymnist": (11, ("data.rows=26", "data.test_rows=4")),
    "tcga": (60, ()),
}


def test_every_spec_is_known_here():
    assert {path.stem for path in SPECS} == set(TWO_STEPS)


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_a_shipped_spec_names_itself_its_schema_and_what_it_shows(path: Path):
    first, second, *_ = path.read_text().splitlines()
    assert first == "# yaml-language-server: $schema=../nbridge.schema.json"
    assert second.startswith("# ")
    assert read_spec(path).name == path.stem


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_a_shipped_spec_resolves_to_a_fixed_point(path: Path):
    spec = read_spec(path)
    assert parse_spec(write_spec(spec)) == spec
    assert write_spec(parse_spec(write_spec(spec))) == write_spec(spec)


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_a_shipped_spec_counts_its_parameters_by_formula_and_by_tensors(path: Path):
    for model in count_parameters(read_spec(path)).models:
        assert model.formula == model.counted, model.name


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_a_shipped_spec_trains_two_steps_and_imputes(
    path: Path, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("pooch.os_cache", lambda _: tmp_path)
    if path.stem != "digits":
        request.getfixturevalue("real_data")
    batch_size, changes = TWO_STEPS[path.stem]
    changes = (*changes, f"training.batch_size={batch_size}", "training.stages.joint.epochs=1", "training.stages.bridges.epochs=1")
    run = nbridge.train(path, overrides=changes)
    assert len(run.splits.train) // batch_size == 2
    rows = run.splits.validation.slice(0, 4)
    for hidden in run.model.names:
        done = run.model.impute(rows.hide(hidden), samples=2)
        assert torch.isfinite(done.values[hidden].double()).all()
        assert done.values[hidden].shape == (2, *rows.values[hidden].shape)


@pytest.mark.parametrize("name", ["mnist_paper", "mnist_fashion_paper"])
def test_the_paper_specs_say_what_the_paper_says(name: str):
    spec = read_spec(SPECS[0].parent / f"{name}.yaml")
    assert (spec.latent_dim, spec.training.batch_size, spec.training.learning_rate) == (128, 128, 1e-4)
    assert {stage.epochs for stage in spec.training.stages.values()} == {500}
    assert (spec.bridges.objective, spec.bridges.combine) == ("paper", "mean")


PAPER_COUNTS = {
    # name: parameters of bridged, of the retrofits and of MVAE, and what bridges save, by table 4 of the paper
    "mnist_paper": (36_697_290, 60_794_122, 31_484_362, 0.39),
    "mnist_fashion_paper": (72_141_450, 226_958_346, 61_550_346, 0.68),
}


@pytest.mark.parametrize("name", PAPER_COUNTS)
@pytest.mark.parametrize("scale", ["", "_cpu"])
def test_the_paper_specs_save_what_the_paper_saves(name: str, scale: str):
    *counts, saved = PAPER_COUNTS[name]
    table = count_parameters(read_spec(SPECS[0].parent / f"{name}{scale}.yaml"))
    assert table.reduction >= saved
    if not scale:
        assert [model.formula for model in table.models] == pytest.approx(counts, rel=0.12)
