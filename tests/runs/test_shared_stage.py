"""Stage `joint` taken from another run: the same, bit for bit, as if it had been trained again, and taken nowhere else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nbridge
from nbridge.evaluation.results import Settings, read_evaluation
from nbridge.evaluation.suite import evaluate
from nbridge.runs.comparison import compare
from nbridge.runs.shared_stage import begin_after_joint
from nbridge.spec.reader import read_spec
from nbridge.training import run_folder
from nbridge.training.callbacks import Callback
from nbridge.training.records import EpochRecord
from nbridge.training.run_folder import machine
from nbridge.training.run_lock import run_lock

PART = "features: 4, encoder: {type: mlp, hidden: [4], dropout: 0.1}"
SPEC = f"""
latent_dim: 2
data: {{source: npz, path: DATA}}
model: {{type: bridged, coupling: 0, leave_one_out: 0, contrast: 0}}
modalities:
  x: {{shape: 3, {PART}, likelihood: normal, weight: 1}}
  image: {{shape: 4, {PART}, likelihood: bernoulli, weight: 1}}
  label: {{shape: 3, {PART}, likelihood: categorical, weight: 2}}
fusion: {{hidden: [4]}}
bridges: {{hidden: [4]}}
training: {{batch_size: 16, checkpoint_seconds: 0, stages: {{joint: {{epochs: 3}}, bridges: {{epochs: 2}}, subsets: {{epochs: 2}}}}}}
"""
MODELS = {
    "bridged": ["model={type: bridged, coupling: 0, leave_one_out: 0, contrast: 0}"],
    "joint": ["model=joint"],
    "bridged (paper)": ["model=bridged", "bridges.objective=paper"],
    "telbo": ["model=telbo"],
}
EPOCHS = {"bridged": 5, "joint": 0, "bridged (paper)": 2, "telbo": 2}
QUICK = Settings(metrics=("likelihood", "predictive"), samples=3, draws=5, generated=2, rows=10)


class Listener(Callback):
    """Hears of epochs, and interrupts after some of them."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.heard: list[str] = []
        self.stop_after = stop_after

    def on_validation(self, record: EpochRecord) -> None:
        self.heard.append(record.stage)
        if len(self.heard) == self.stop_after:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, draws = tmp_path_factory.mktemp("spec"), np.random.default_rng(0)
    label = np.arange(60) % 3
    x = draws.normal(size=(60, 3)) + label[:, None]
    x[:5] = np.nan
    np.savez(folder / "data.npz", x=x, image=draws.random((60, 4)), label=label)
    (folder / "tiny.yaml").write_text(SPEC.replace("DATA", str(folder / "data.npz")))
    return folder / "tiny.yaml"


@pytest.fixture(scope="module")
def other(spec: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of `bridged`, which tests leave as it is."""
    folder = tmp_path_factory.mktemp("other") / "run"
    nbridge.train(spec, out=folder, device="cpu")
    return folder


def run(spec: Path, out: Path, **options: Any) -> Any:
    return compare(spec, MODELS, out, seeds=1, settings=QUICK, device="cpu", **options)


def folders(out: Path) -> dict[str, Path]:
    return {name: out / name.replace(" (", "_").replace(")", "") / "seed-0" for name in MODELS}


def metrics(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def same_as_trained_alone(spec: Path, out: Path, alone: Path) -> None:
    for name, folder in folders(out).items():
        single = nbridge.train(read_spec(spec, MODELS[name]), out=alone / folder.parent.name, device="cpu")
        found = nbridge.load(folder).network.state_dict()
        assert found.keys() == single.model.network.state_dict().keys()
        assert all(torch.equal(tensor, found[key]) for key, tensor in single.model.network.state_dict().items()), name
        assert single.folder
        assert metrics(folder) == metrics(single.folder)
        written = read_evaluation(folder / "evaluation.json")
        assert written == evaluate(single.model.network, single.spec, single.splits, QUICK, lenient=True)
        for file in ("spec.yaml", "spec.resolved.yaml"):
            assert (folder / file).read_text() == (single.folder / file).read_text()
        assert run_folder.read_environment(folder) == run_folder.read_environment(single.folder)


def test_a_comparison_trains_one_joint_stage_and_equals_separate_trainings(spec: Path, tmp_path: Path):
    listener, lines = Listener(), []
    done = run(spec, tmp_path / "all", callbacks=[listener], announce=lines.append)
    assert listener.heard == ["joint"] * 3 + ["bridges"] * 4 + ["subsets"] * 2
    where = folders(tmp_path / "all")
    assert [line for line in lines if "training" in line] == [
        f"{folder}: training" + ("" if name == "bridged" else f", stage joint as in {where['bridged']}") for name, folder in where.items()
    ]
    same_as_trained_alone(spec, tmp_path / "all", tmp_path / "alone")
    # What a training takes counts for each of them.
    seconds = {one.name: one.seconds.mean for one in done.results}
    assert min(seconds["bridged"], seconds["telbo"]) > seconds["joint"] > 0


def test_what_is_interrupted_after_it_was_taken_goes_on_to_the_same(spec: Path, tmp_path: Path):
    heard: list[str] = []
    for _ in range(sum(EPOCHS.values())):
        listener = Listener(stop_after=1)
        with pytest.raises(KeyboardInterrupt):
            run(spec, tmp_path / "all", callbacks=[listener])
        heard += listener.heard
    run(spec, tmp_path / "all", callbacks=[Listener(stop_after=1)])
    assert heard == ["joint"] * 3 + ["bridges"] * 4 + ["subsets"] * 2
    same_as_trained_alone(spec, tmp_path / "all", tmp_path / "alone")


def taken(spec: Path, folder: Path, others: list[Path], *overrides: str) -> bool:
    found = begin_after_joint(folder, read_spec(spec, overrides), others, "cpu")
    assert found in (None, *others)
    assert folder.exists() == (found is not None)
    return found is not None


SAME = {
    "another objective": ["bridges.objective=paper"],
    "other bridges": ["bridges.hidden=[5]", "training.stages.bridges.epochs=9"],
    "another model": ["model=telbo"],
    "the plain model": ["model=joint"],
    "another prior": ["prior=mixture"],
    "how often to save": ["training.checkpoint_seconds=3", "training.cache_features=false", "name=another"],
    "what is set after training": ["training.calibrate=false"],
    "what the stage says itself": ["training.learning_rate=0.5", "training.stages.joint.learning_rate=0.001"],
}
OTHER = {
    "seed": ["training.seed=1"],
    "epochs": ["training.stages.joint.epochs=4"],
    "learning rate": ["training.learning_rate=0.01"],
    "its own learning rate": ["training.stages.joint.learning_rate=0.01"],
    "batch size": ["training.batch_size=8"],
    "precision": ["training.precision=bf16"],
    "validation rows": ["training.conformal=true"],
    "split": ["data.seed=1"],
    "weight": ["modalities.label.weight=3"],
    "encoder": ["modalities.x.encoder.hidden=[5]"],
    "fusion": ["fusion.hidden=[5]"],
    "latent dimensions": ["latent_dim=3"],
    "jmvae": ["model=jmvae"],
    "jmvae without its term": ["model={type: jmvae, alpha: 0}"],
    "telbo in one stage": ["model={type: telbo, one_stage: true}"],
    "mvae": ["model=mvae"],
    "bivcca": ["model=bivcca"],
    "vae": ["model=vae"],
    "coupling": ["model={type: bridged, coupling: 1, leave_one_out: 0, contrast: 0}"],
    "leaving one out": ["model={type: bridged, coupling: 0, leave_one_out: 1, contrast: 0}"],
    "a weight that follows from the data": ["modalities.x.weight=auto"],
    "a class of one's own": ["model=nbridge.models.joint:JointVAE"],
}


@pytest.mark.parametrize("overrides", SAME.values(), ids=SAME)
def test_what_other_stages_read_makes_no_difference(overrides: list[str], spec: Path, other: Path, tmp_path: Path):
    assert taken(spec, tmp_path / "run", [tmp_path / "missing", other], *overrides)


@pytest.mark.parametrize("overrides", OTHER.values(), ids=OTHER)
def test_whatever_the_stage_reads_makes_a_difference(overrides: list[str], spec: Path, other: Path, tmp_path: Path):
    assert not taken(spec, tmp_path / "run", [other], *overrides)


@pytest.mark.parametrize("key", ["nbridge", "torch", "python", "platform", "device", "threads"])
def test_another_machine_or_version_makes_a_difference(key: str, spec: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("nbridge.runs.shared_stage.machine", lambda device: {**machine(device), key: "another"})
    assert not taken(spec, tmp_path / "run", [other])


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


DAMAGE: dict[str, Callable[[Path], object]] = {
    "no model": lambda folder: shutil.rmtree(folder / "model"),
    "truncated": lambda folder: _truncate(folder / "model" / "model.safetensors"),
    "no environment": lambda folder: (folder / "env.json").unlink(),
    "another spec": lambda folder: (folder / "spec.resolved.yaml").write_text("modalities: 3"),
    "no metrics": lambda folder: (folder / "metrics.jsonl").unlink(),
    "damaged metrics": lambda folder: (folder / "metrics.jsonl").write_text("{"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_nothing_is_taken_from_what_is_unfinished_or_damaged(damage: Callable[[Path], object], spec: Path, other: Path, tmp_path: Path):
    damage(Path(shutil.copytree(other, tmp_path / "damaged")))
    assert not taken(spec, tmp_path / "run", [tmp_path / "damaged"])
    assert taken(spec, tmp_path / "run", [tmp_path / "damaged", other])
    assert nbridge.resume(tmp_path / "run").folder == tmp_path / "run"
    assert metrics(tmp_path / "run") == metrics(other)


def test_a_folder_that_another_process_holds_or_has_created_meanwhile_is_left_alone(spec: Path, other: Path, tmp_path: Path):
    folder, wanted = tmp_path / "run", read_spec(spec, MODELS["bridged"])
    with run_lock(folder), pytest.raises(nbridge.RunError, match="is writing this run"):
        begin_after_joint(folder, wanted, [other], "cpu")
    assert not folder.exists()
    assert begin_after_joint(folder, wanted, [other], "cpu") == other
    before = (folder / "checkpoints" / "last.safetensors").stat().st_ino
    with pytest.raises(nbridge.RunError, match="already contains a run"):
        begin_after_joint(folder, wanted, [other], "cpu")
    assert (folder / "checkpoints" / "last.safetensors").stat().st_ino == before
