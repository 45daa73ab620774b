"""Metrics, pictures and the verdict in MLflow."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from nbridge.common.messages import clip
from nbridge.errors import RunError
from nbridge.trackers.results import Results
from nbridge.trackers.tracker import Tracker

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

SERVER, EXPERIMENT = "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"
STORE, ARTIFACTS = "mlflow.db", "mlflow-artifacts"
"""The database and the folder of files in a run folder, where no server is named."""
SECONDS = 5.0
"""How long a server may take to answer the first call."""


class MLflow(Tracker):
    """Writes to the server that the environment variable ``MLFLOW_TRACKING_URI`` names, or to ``mlflow.db`` in the run folder.

    Metrics are named as the tags of `TensorBoard`; pictures and ``verdict.md`` are artifacts. The experiment is that of the environment
    variable ``MLFLOW_EXPERIMENT_NAME``, nbridge by default.

    Arguments:
        folder: The run folder; without one, resumed runs begin anew.
    """

    name = package = extra = "mlflow"

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        super().__init__(folder)
        self._client: MlflowClient | None = None
        self._run = ""

    @classmethod
    def check(cls) -> None:
        super().check()
        address = urlsplit(server := os.environ.get(SERVER, ""))
        if address.scheme in ("http", "https"):
            try:
                port = address.port or (443 if address.scheme == "https" else 80)
                socket.create_connection((address.hostname or "", port), SECONDS).close()
            except (OSError, ValueError) as error:
                reason = clip(getattr(error, "strerror", None) or error)
                advice = f"start it, or unset {SERVER} to write into the run folder"
                raise RunError(f"--log mlflow: no server at {_without_password(server)} ({reason}); {advice}") from error

    def open(self, identifier: str | None) -> str:
        from mlflow.tracking import MlflowClient

        local = None if self.folder is None or os.environ.get(SERVER) else self.folder.resolve()
        self._client = MlflowClient(tracking_uri=None if local is None else f"sqlite:///{local / STORE}")
        name = os.environ.get(EXPERIMENT, "nbridge")
        found = self._client.get_experiment_by_name(name)
        files = None if local is None else str(local / ARTIFACTS)
        experiment = self._client.create_experiment(name, artifact_location=files) if found is None else found.experiment_id
        if identifier is not None:
            self._run = identifier
            self._client.update_run(identifier, status="RUNNING")
        else:
            title = None if self.folder is None else self.folder.resolve().name
            self._run = self._client.create_run(experiment, run_name=title).info.run_id
        return self._run

    def write(self, stage: str, update: int, scalars: Mapping[str, float]) -> None:
        from mlflow.entities import Metric
        from mlflow.utils.time import get_current_time_millis

        now = get_current_time_millis()
        self._api.log_batch(self._run, [Metric(f"{stage}/{name}", value, now, update) for name, value in scalars.items()])

    def write_results(self, results: Results) -> None:
        for name, value in results.parameters.items():
            self._api.log_param(self._run, name, value)
        for name, value in results.figures.items():
            self._api.log_metric(self._run, f"final/{name}", value)
        self._api.set_tag(self._run, "verdict", results.headline)
        self._api.log_text(self._run, results.verdict, "verdict.md")
        with tempfile.TemporaryDirectory() as folder:
            for name, picture in results.pictures.items():
                path = Path(folder, f"{name}.png")
                path.write_bytes(picture)
                self._api.log_artifact(self._run, str(path), "pictures")

    def finish(self) -> None:
        self._api.set_terminated(self._run)

    @property
    def _api(self) -> MlflowClient:
        assert self._client is not None, "a tracker is opened before it writes"
        return self._client


def _without_password(address: str) -> str:
    parts = urlsplit(address)
    return address if "@" not in parts.netloc else address.replace(parts.netloc, parts.netloc.rpartition("@")[2], 1)
