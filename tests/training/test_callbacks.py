"""Callbacks: when they are called, how they stop training, and what their mistakes cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nbridge
from nbridge.common.warnings import Finding
from nbridge.errors import NBridgeWarning
from nbridge.training.callbacks import Callback, Callbacks, StageBegun, StageEnded, StopTraining
from nbridge.training.records import EpochRecord
from nbridge.training.state import read_records

PART = {"features": 4, "encoder": {"type": "mlp", "hidden": []}}
SPEC: dict[str, Any] = {
    "latent_dim": 3,
    "modalities": {
        "x": {"shape": 3, "likelihood": "normal", **PART}, "kind": {"shape": 2, "likelihood": "categorical", **PART},
    },
    "training": {
        "checkpoint_seconds": 1e6, "batch_size": 20, "schedule": "constant", "stages": {"joint": {"epochs": 4}, "bridges": {"epochs": 3}},
    },
}  # fmt: skip


def rows() -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(0).normal(size=(80, 3)), "kind": np.arange(80) % 2}


class Told(Callback):
    """Everything that was called, in order."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def on_stage(self, begun: StageBegun) -> None:
        self.calls.append(("stage", begun.stage, begun.done))

    def on_update(self, stage: str, update: int) -> None:
        self.calls.append(("update", stage, update))

    def on_validation(self, record: EpochRecord) -> None:
        self.calls.append(("validation", record.stage, record.update))

    def on_stage_end(self, ended: StageEnded) -> None:
        self.calls.append(("end", ended.stage, ended.done))

    def on_end(self, run: Any) -> None:
        self.calls.append(("run", run.model.names))


def test_callbacks_are_called_in_the_order_of_training():
    told = Told()
    run = nbridge.train(SPEC, rows(), callbacks=[told])
    steps = len(run.splits.train) // 20
    expected: list[tuple[Any, ...]] = []
    for stage, epochs in (("joint", 4), ("bridges", 3)):
        expected.append(("stage", stage, 0))
        for epoch in range(epochs):
            expected += [("update", stage, update + 1) for update in range(epoch * steps, (epoch + 1) * steps)]
            expected.append(("validation", stage, (epoch + 1) * steps))
        expected.append(("end", stage, epochs * steps))
    assert told.calls == [*expected, ("run", ("x", "kind"))]


def test_callbacks_change_nothing_of_what_is_learnt():
    with_them, without = nbridge.train(SPEC, rows(), callbacks=[Told(), Callback()]), nbridge.train(SPEC, rows())
    for one, other in zip(with_them.model.network.parameters(), without.model.network.parameters(), strict=True):
        assert one.equal(other)


@pytest.mark.parametrize("where", ["on_update", "on_validation"])
def test_a_callback_ends_a_stage_and_the_next_one_begins(where: str, tmp_path: Path):
    class Enough(Callback):
        pass

    def stop(self: Callback, *arguments: Any) -> None:
        stage = arguments[0] if where == "on_update" else arguments[0].stage
        if stage == "joint":
            raise StopTraining

    setattr(Enough, where, stop)
    last = Told()
    run = nbridge.train(SPEC, rows(), out=tmp_path / "run", callbacks=[Enough(), last])
    steps = len(run.splits.train) // 20
    assert [call for call in last.calls if call[0] == "end"] == [("end", "joint", steps), ("end", "bridges", 3 * steps)]
    # Those that come after it are called all the same.
    assert ("validation", "joint", steps) in last.calls
    assert [record.stage for record in read_records(tmp_path / "run")] == ["joint"] + 3 * ["bridges"]


def test_a_mistake_in_a_callback_loses_no_round_and_the_run_goes_on(tmp_path: Path):
    class Wrong(Callback):
        def on_validation(self, record: EpochRecord) -> None:
            if record.epoch == 2:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        nbridge.train(SPEC, rows(), out=tmp_path / "run", callbacks=[Wrong()])
    told = Told()
    run = nbridge.resume(tmp_path / "run", rows(), callbacks=[told])
    assert told.calls[0] == ("stage", "joint", 2 * (len(run.splits.train) // 20))
    whole = nbridge.train(SPEC, rows(), out=tmp_path / "whole")
    for one, other in zip(run.model.network.parameters(), whole.model.network.parameters(), strict=True):
        assert one.equal(other)


def test_a_finished_run_ends_again_for_callbacks(tmp_path: Path):
    nbridge.train(SPEC, rows(), out=tmp_path / "run")
    told = Told()
    nbridge.resume(tmp_path / "run", rows(), callbacks=[told])
    assert told.calls == [("run", ("x", "kind"))]


def test_warnings_go_to_callbacks_that_take_them_and_are_issued_otherwise():
    class Warned(Callback):
        def __init__(self) -> None:
            self.found: list[Finding] = []

        def on_warning(self, finding: Finding) -> None:
            self.found.append(finding)

    constant = rows() | {"kind": np.zeros(80)}
    warned = Warned()
    nbridge.train(SPEC, constant, callbacks=[Callback(), warned])
    assert warned.found
    with pytest.warns(NBridgeWarning):
        nbridge.train(SPEC, constant, callbacks=[Callback()])


def test_what_is_overridden_is_seen_through_lists():
    assert not Callbacks(Callback(), Callbacks()).overrides("on_update")
    assert Callbacks(Callback(), Callbacks(Told())).overrides("on_update")
