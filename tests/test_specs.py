"""Every shipped spec is a test case: it reads, resolves to a fixed point, counts its parameters, and trains two steps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import nbridge
from nbridge.counting import count_parameters
from nbridge.read import parse_spec, read_spec, write_spec

SPECS = sorted((Path(__file__).parent.parent / "modality_specs").glob("*.yaml"))
TWO_STEPS = {
    # name: batch size and further changes, so that an epoch has two steps
    "digits": (600, ()),
    "mfeat": (700, ()),
    "mnist_label": (128, ("data.rows=280",)),
    "mnist_paper": (128, ("data.rows=280",)),
    "mnist_fashion_label": (128, ("data.rows=280",)),
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
def test_a_shipped_spec_trains_two_steps_and_imputes(path: Path, request: pytest.FixtureRequest):
    if path.stem != "digits":
        request.getfixturevalue("real_data")
    batch_size, changes = TWO_STEPS[path.stem]
    changes = (*changes, f"training.batch_size={batch_size}", "training.stages.joint.epochs=1", "training.stages.bridges.epochs=1")
    run = nbridge.train(path, overrides=changes)
    assert len(run.splits.train) // batch_size == 2
    rows = run.splits.validation.slice(0, 4)
    for hidden in run.model.names:
        done = nbridge.impute(run.model, rows.hide(hidden), samples=2)
        assert torch.isfinite(done.values[hidden].double()).all()
        assert done.values[hidden].shape == (2, *rows.values[hidden].shape)


def test_the_paper_spec_says_what_the_paper_says():
    spec = read_spec(SPECS[0].parent / "mnist_paper.yaml")
    assert (spec.latent_dim, spec.training.batch_size, spec.training.learning_rate) == (128, 128, 1e-4)
    assert {spec.training.stage(name).epochs for name in ("joint", "bridges")} == {500}
    assert (spec.bridges.objective, spec.bridges.combine) == ("paper", "mean")
    assert {name: modality.likelihood.type for name, modality in spec.modalities.items()} == {"image": "bernoulli", "label": "categorical"}
    bridged = count_parameters(spec).models[0].formula
    assert abs(bridged - 36_697_290) < 0.01 * 36_697_290
