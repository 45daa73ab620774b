"""Metrics, pictures and the verdict in Weights & Biases."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING
from uuid import uuid4

from nbridge.data.images.decode import decoded
from nbridge.errors import RunError
from nbridge.trackers.results import Results
from nbridge.trackers.tracker import Tracker

if TYPE_CHECKING:
    from wandb.sdk.wandb_run import Run

OFFLINE = "offline"


class WandB(Tracker):
    """Writes to Weights & Biases; with ``WANDB_MODE=offline``, to ``wandb/`` in the run folder, for ``wandb sync``.

    Metrics are named as the tags of `TensorBoard`, over ``STAGE/update``; the verdict is in the summary. The project is that of the
    environment variable ``WANDB_PROJECT``, nbridge by default.

    Arguments:
        folder: The run folder; without one, resumed runs begin anew.
    """

    name = package = extra = "wandb"

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        super().__init__(folder)
        self._run: Run | None = None

    @classmethod
    def check(cls) -> None:
        super().check()
        if os.environ.get("WANDB_MODE") in (OFFLINE, "disabled") or os.environ.get("WANDB_API_KEY"):
            return
        import wandb

        if not wandb.api.api_key:
            raise RunError("--log wandb: not logged in; run `wandb login`, or set WANDB_MODE=offline to write into the run folder")

    def open(self, identifier: str | None) -> str:
        import wandb

        identifier = identifier or uuid4().hex[:8]
        folder = None if self.folder is None else self.folder.resolve()
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "nbridge"), id=identifier, resume="allow", dir=folder,
            name=None if folder is None else folder.name, settings=wandb.Settings(console="off", silent=True, save_code=False),
        )  # fmt: skip
        return identifier

    def write(self, stage: str, update: int, scalars: Mapping[str, float]) -> None:
        self._api.define_metric(f"{stage}/*", step_metric=f"{stage}/update")
        self._api.log({f"{stage}/update": update, **{f"{stage}/{name}": value for name, value in scalars.items()}})

    def write_results(self, results: Results) -> None:
        import wandb

        self._api.config.update(dict(results.parameters), allow_val_change=True)
        pictures = {f"final/{name}": wandb.Image(decoded(picture)) for name, picture in results.pictures.items()}
        if pictures:
            self._api.log(pictures)
        self._api.summary.update({f"final/{name}": value for name, value in results.figures.items()} | {"verdict": results.headline})

    def finish(self) -> None:
        self._api.finish()
        self._run = None

    @property
    def _api(self) -> Run:
        assert self._run is not None, "a tracker is opened before it writes"
        return self._run
