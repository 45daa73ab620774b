"""MLflow and Weights & Biases against local stores: each round once, the verdict and pictures, and what happens without a server."""

from __future__ import annotations

import ast
import json
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import nbridge.trackers
from nbridge.cli.main import app
from nbridge.errors import NBridgeWarning, RunError
from nbridge.trackers import TRACKERS, MLflow, TensorBoard, WandB
from nbridge.trackers.results import results_of
from nbridge.training.callbacks import Callback
from nbridge.training.records import EpochRecord
from nbridge.training.state import read_records
from nbridge.training.tracked import STATE, read_tracked

SPEC = """
latent_dim: 3
data: {source: npz, path: rows.npz, validation: 0.2, test: 0.2}
modalities:
  picture: {shape: [1, 4, 4], features: 4, encoder: {type: mlp, hidden: []}, likelihood: bernoulli}
  kind: {shape: 2, features: 4, encoder: {type: mlp, hidden: []}, likelihood: categorical}
training: {checkpoint_seconds: 0, schedule: cosine, stages: {joint: {epochs: 3}, bridges: {epochs: 2}}}
"""
third_party = pytest.mark.filterwarnings("default")


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "rows.npz", picture=rng.integers(0, 2, (200, 1, 4, 4)), kind=np.arange(200) % 2)
    (tmp_path / "tiny.yaml").write_text(SPEC)
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    return tmp_path / "tiny.yaml"


class Stopped(Callback):
    def on_validation(self, record: EpochRecord) -> None:
        if (record.stage, record.epoch) == ("joint", 2):
            raise KeyboardInterrupt


@third_party
def test_mlflow_has_each_round_once_the_verdict_and_pictures_though_the_run_was_stopped(spec: Path):
    pytest.importorskip("sqlalchemy")
    with pytest.raises(KeyboardInterrupt):
        nbridge.train(spec, out="run", callbacks=[tracker := MLflow("run"), Stopped()])
    tracker.close()
    done = CliRunner().invoke(app, ["resume", "run", "--log", "mlflow", "--no-report"])
    assert done.exit_code == 0, done.exception

    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{Path('run/mlflow.db').resolve()}")
    (experiment,) = [one for one in client.search_experiments() if one.name == "nbridge"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "run"
    assert run.info.status == "FINISHED"
    for stage in ("joint", "bridges"):
        kept = [(record.update, record.loss) for record in read_records(Path("run")) if record.stage == stage]
        history = client.get_metric_history(run.info.run_id, f"{stage}/loss/train")
        assert [(one.step, one.value) for one in history] == [(update, pytest.approx(loss)) for update, loss in kept]
    assert run.data.metrics["final/kind/accuracy"] <= 1
    assert run.data.tags["verdict"] == nbridge.runs.run.open_run("run").verdict.headline
    assert {one.path for one in client.list_artifacts(run.info.run_id)} == {"pictures", "verdict.md"}
    pictures = {one.path for one in client.list_artifacts(run.info.run_id, "pictures")}
    assert pictures == {"pictures/picture.png", "pictures/verdict.png"}
    assert read_tracked(Path("run"), "mlflow").id == run.info.run_id


@third_party
def test_wandb_writes_its_files_offline_and_goes_on_under_the_same_id(spec: Path, monkeypatch: pytest.MonkeyPatch):
    wandb = pytest.importorskip("wandb")
    logged: list[dict[str, Any]] = []
    original = wandb.sdk.wandb_run.Run.log
    monkeypatch.setattr(wandb.sdk.wandb_run.Run, "log", lambda self, data, *more: (logged.append(data), original(self, data, *more))[1])
    with pytest.raises(KeyboardInterrupt):
        nbridge.train(spec, out="run", callbacks=[tracker := WandB("run"), Stopped()])
    tracker.close()
    nbridge.resume("run", callbacks=[again := WandB("run")])
    again.close()
    files = sorted(Path("run/wandb").glob("offline-run-*"))
    identifier = read_tracked(Path("run"), "wandb").id
    assert len(files) == 2
    assert all(f"-{identifier}" in path.name and [*path.glob("*.wandb")] for path in files)
    for stage in ("joint", "bridges"):
        updates = [data[f"{stage}/update"] for data in logged if f"{stage}/update" in data]
        assert updates == [record.update for record in read_records(Path("run")) if record.stage == stage]
    assert {"final/picture", "final/verdict"} <= {name for data in logged for name in data}


def test_a_server_that_does_not_answer_is_one_line_before_anything_is_written(spec: Path, monkeypatch: pytest.MonkeyPatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{port}")
    done = CliRunner().invoke(app, ["train", "tiny.yaml", "--log", "tensorboard,mlflow"])
    assert isinstance(done.exception, RunError)
    assert str(done.exception) == (
        f"--log mlflow: no server at http://127.0.0.1:{port} (Connection refused); start it, or unset MLFLOW_TRACKING_URI to write into "
        "the run folder"
    )
    assert not Path("runs").exists()


def test_without_a_login_wandb_is_one_line(spec: Path, monkeypatch: pytest.MonkeyPatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setattr(type(wandb.api), "api_key", property(lambda _: None))
    done = CliRunner().invoke(app, ["train", "tiny.yaml", "--log", "wandb"])
    assert str(done.exception) == ("--log wandb: not logged in; run `wandb login`, or set WANDB_MODE=offline to write into the run folder")
    assert not Path("runs").exists()


def test_a_tracker_that_fails_is_one_warning_and_training_goes_on(spec: Path):
    class Gone(TensorBoard):
        name = "gone"

        def write(self, stage: str, update: int, scalars: Any) -> None:
            if update > 2:
                raise ConnectionError("connection\nlost")
            super().write(stage, update, scalars)

    with pytest.warns(NBridgeWarning, match=r"^gone: connection lost; nothing more is written there, and training goes on$") as warned:
        run = nbridge.train(spec, out="run", callbacks=[tracker := Gone("run")])
    tracker.close()
    assert len([one for one in warned if "gone" in str(one.message)]) == 1
    assert len([*read_records(Path("run"))]) == 5
    assert run.model.names == ("picture", "kind")


def test_packages_of_trackers_are_imported_where_they_are_used():
    for path in Path(nbridge.trackers.__file__).parent.glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        imported = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        names = {node.module if isinstance(node, ast.ImportFrom) else node.names[0].name for node in imported}
        assert not {str(name).partition(".")[0] for name in names} & {"mlflow", "wandb", "tensorboard", "torch", "matplotlib", "PIL"}


def test_a_damaged_file_of_trackers_is_one_line(spec: Path):
    nbridge.train(spec, out="run")
    for content in ("{", "[]", json.dumps({"mlflow": {"id": 3}})):
        Path("run", STATE).write_text(content)
        with pytest.raises(RunError, match=r"trackers\.json: damaged \(.*\); remove it, and trackers begin new runs"):
            nbridge.resume("run", callbacks=[MLflow("run")])


def test_results_are_those_of_the_run(spec: Path):
    run = nbridge.train(spec)
    found = results_of(run)
    assert set(found.figures) == {"picture/log_likelihood", "picture/rmse", "kind/log_likelihood", "kind/accuracy"}
    assert found.headline in found.verdict
    assert all(picture.startswith(b"\x89PNG") for picture in found.pictures.values())
    assert set(TRACKERS) == {"tensorboard", "mlflow", "wandb"}
