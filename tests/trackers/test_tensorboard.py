"""Metrics in TensorBoard's files: the same as in the run's own, once each, however the run was stopped."""

from __future__ import annotations

import json
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import nbridge
from nbridge.cli.main import app
from nbridge.trackers import TensorBoard, tracker
from nbridge.training.callbacks import Callback
from nbridge.training.records import EpochRecord
from nbridge.training.run_folder import METRICS

SPEC = """
latent_dim: 3
data: {source: npz, path: rows.npz}
modalities:
  x: {shape: 3, features: 4, encoder: {type: mlp, hidden: []}, likelihood: normal}
  kind: {shape: 2, features: 4, encoder: {type: mlp, hidden: []}, likelihood: categorical}
training: {checkpoint_seconds: 0, schedule: cosine, stages: {joint: {epochs: 3}, bridges: {epochs: 4}}}
"""
Series = dict[str, list[tuple[int, float]]]


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "rows.npz", x=rng.normal(size=(60, 3)), kind=np.arange(60) % 2)
    (tmp_path / "tiny.yaml").write_text(SPEC)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "tiny.yaml"


def events(folder: Path) -> Series:
    """Every scalar in a folder of events, in the order in which it was written; no file is passed over."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    found: Series = defaultdict(list)
    for path in sorted((folder / "tensorboard").iterdir()):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                if value.tensor.float_val:
                    found[value.tag].append((event.step, value.tensor.float_val[0]))
    return dict(found)


def metrics(folder: Path) -> Series:
    """The same of the run's own metrics."""
    found: Series = defaultdict(list)
    for record in map(json.loads, (folder / METRICS).read_text().splitlines()):
        figures = {"loss/train": record["loss"], "loss/validation": record["validation_loss"], "learning_rate": record["learning_rate"]}
        figures |= {f"{name}/train": value for name, value in record["terms"].items()}
        figures |= {f"{name}/validation": value for name, value in record["validation_terms"].items()}
        for name, value in figures.items():
            found[f"{record['stage']}/{name}"].append((record["update"], value))
    return dict(found)


def check(folder: Path) -> None:
    written, kept = events(folder), metrics(folder)
    written = {tag: series for tag, series in written.items() if not tag.startswith("final/")}
    assert written.keys() == kept.keys()
    for tag, series in kept.items():
        assert [step for step, _ in written[tag]] == [update for update, _ in series]
        # TensorBoard's numbers are float32.
        np.testing.assert_allclose([x for _, x in written[tag]], [x for _, x in series], rtol=1e-6)


def call(*arguments: str) -> Any:
    return CliRunner().invoke(app, [*arguments, "--no-report"])


class Stopped(Callback):
    """Stops a training, as Ctrl-C does, at an epoch of a stage."""

    def __init__(self, stage: str, epoch: int) -> None:
        self.at = (stage, epoch)

    def on_validation(self, record: EpochRecord) -> None:
        if (record.stage, record.epoch) == self.at:
            raise KeyboardInterrupt


def test_every_figure_of_the_metrics_is_in_the_events_and_so_are_the_final_ones(spec: Path):
    done = call("train", "tiny.yaml", "--log", "tensorboard", "--json")
    assert done.exit_code == 0, done.exception
    folder = Path("runs/tiny")
    check(folder)
    assert {"joint/x/train", "joint/kl/validation", "bridges/distill/train", "bridges/learning_rate"} <= events(folder).keys()
    told = json.loads(done.stdout)["predictions"]
    final = {tag: series for tag, series in events(folder).items() if tag.startswith("final/")}
    assert final.keys() == {"final/x/log_likelihood", "final/x/rmse", "final/kind/log_likelihood", "final/kind/accuracy"}
    for one in told:
        assert final[f"final/{one['target']}/log_likelihood"] == [(0, pytest.approx(one["log_likelihood"], rel=1e-6))]


@pytest.mark.parametrize(("stage", "epoch"), [("joint", 2), ("bridges", 3)])
def test_a_run_that_goes_on_has_no_step_twice_and_none_missing(spec: Path, stage: str, epoch: int):
    with pytest.raises(KeyboardInterrupt):
        nbridge.train(spec, out="run", callbacks=[TensorBoard("run"), Stopped(stage, epoch)])
    # A kill later than the last checkpoint: lines that resume takes back, and their events.
    with Path("run", METRICS).open("a") as file:
        file.write(json.dumps({**json.loads(Path("run", METRICS).read_text().splitlines()[-1]), "epoch": 99, "update": 99}) + "\n")
    assert call("resume", "run", "--log", "tensorboard").exit_code == 0
    check(Path("run"))
    assert [step for step, _ in events(Path("run"))["bridges/loss/train"]] == [1, 2, 3, 4]


def test_a_run_without_events_gets_them_afterwards_and_what_else_lies_there_stays(spec: Path):
    nbridge.train(spec, out="run")
    Path("run/tensorboard").mkdir()
    Path("run/tensorboard/notes.txt").write_text("mine")
    for _ in range(2):
        assert call("resume", "run", "--log", "tensorboard").exit_code == 0
    Path("run/tensorboard/notes.txt").rename("notes.txt")
    check(Path("run"))
    assert len(events(Path("run"))["final/x/rmse"]) == 1


def test_without_the_option_nothing_is_written(spec: Path):
    assert call("train", "tiny.yaml", "--out", "run").exit_code == 0
    assert not Path("run/tensorboard").exists()


def test_unknown_loggers_and_a_missing_extra_are_told_before_anything_is_written(spec: Path, monkeypatch: pytest.MonkeyPatch):
    for verb in (("train", "tiny.yaml"), ("resume", "runs/tiny")):
        told = call(*verb, "--log", "tensorbord").exception
        assert str(told) == "--log tensorbord: unknown logger 'tensorbord'. Did you mean 'tensorboard'? Known: tensorboard, mlflow, wandb"
    monkeypatch.setattr(tracker, "find_spec", lambda name: None if name == "tensorboard" else find_spec(name))
    told = call("train", "tiny.yaml", "--log", "tensorboard").exception
    assert str(told) == '--log tensorboard needs tensorboard, which is not installed: pip install "nbridge[tracking]"'
    assert not Path("runs").exists()
