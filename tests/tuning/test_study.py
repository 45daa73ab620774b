"""A study: shared by processes, continued after a kill, refused for another spec, and its best spec trains."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import after_training
import numpy as np
import optuna
import pytest
from optuna.trial import TrialState
from processes import start

import nbridge
from nbridge.cli import tuning as command
from nbridge.errors import NBridgeError, RunError
from nbridge.training.records import EpochRecord
from nbridge.tuning import search, study
from nbridge.tuning.objective import Difference
from nbridge.tuning.pruning import PruningCallback, pruner_of

SPEC = """# Sizes of a first look.
data: {source: npz, path: rows.npz}
latent_dim: 2  # small
modalities:
  x: {shape: 2, features: 4, encoder: {type: mlp, hidden: [4]}, likelihood: normal}
  y: {shape: 2, features: 4, encoder: {type: mlp, hidden: [4]}, likelihood: normal}
fusion: {hidden: [4]}
bridges: {hidden: [4]}
training: {batch_size: 32, calibrate: false, stages: {joint: {updates: 50}, bridges: {updates: 50}}}
tune:
  training.learning_rate: [1e-4, 0.05]
  modalities.x.encoder.hidden: [[4], [8]]
"""


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).normal(size=(120, 2))
    np.savez("rows.npz", x=x, y=x[:, ::-1] + 0.1)
    Path("a.yaml").write_text(SPEC)
    return Path("a.yaml")


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """The changes of each trial; the figure of a row is the learning rate, and nothing is trained."""
    asked: list[dict[str, object]] = []

    class Quick:
        fingerprint = "rows"

        def __init__(self, document: dict, data: object, device: str) -> None:
            pass

        def __call__(self, changes: dict[str, float], reporter: object) -> list[float]:
            asked.append(changes)
            rate = changes.get("training.learning_rate", 1e-3)
            return [rate, rate + 1e-6]

    monkeypatch.setattr(search, "Objective", Quick)
    return asked


def test_the_spec_as_it_stands_is_first_and_a_second_call_adds_only_what_is_missing(spec: Path, figures: list):
    first = search.tune(spec, out="s", trials=4)
    assert figures[0] == {}
    assert first.trials[0].is_default
    again = search.tune(spec, out="s", trials=4)
    assert again.trials == first.trials
    assert len(figures) == 4
    more = search.tune(spec, out="s", trials=9)
    assert more.trials[:4] == first.trials
    whole = search.tune(spec, out="whole", trials=9)
    assert [one.values for one in whole.trials] == [one.values for one in more.trials]
    assert [one.values for one in search.tune(spec, out="other", trials=9, seed=1).trials] != [one.values for one in more.trials]


def test_best_yaml_is_the_spec_with_other_values_and_its_comments(spec: Path, figures: list):
    found = search.tune(spec, out="s", trials=5)
    assert found.winner is found.best
    assert not found.default_stands
    text = Path("s/best.yaml").read_text()
    assert "# Sizes of a first look." in text
    assert "latent_dim: 2  # small" in text
    read = nbridge.read_spec("s/best.yaml")
    assert read.training.learning_rate == found.changes["training.learning_rate"]
    assert read.training.learning_rate == pytest.approx(max(one.value or 0 for one in found.trials), abs=1e-6)
    assert json.loads(Path("s/tune.json").read_text())["best"] == found.winner.number
    assert Path("s/tune.md").read_text().count("\n| ") == 6
    assert Path("s/tune.png").read_bytes().startswith(b"\x89PNG")


def test_the_default_stands_where_the_gain_is_within_two_standard_errors(spec: Path, figures: list, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(search.Objective, "__call__", lambda self, changes, reporter: [0.0, 10.0 if changes else 9.0, 0.0])
    found = search.tune(spec, out="s", trials=3)
    assert found.winner is not found.default
    assert found.default_stands
    assert found.text().startswith("The default stands: trial 1 is 0.333 nats better, with a standard error of 0.333")
    assert nbridge.read_spec("s/best.yaml").as_dict() == nbridge.read_spec(spec).as_dict()


def test_a_difference_is_clear_beyond_two_standard_errors():
    assert Difference.of([1.0, 2.0, 3.0], [0.0, 1.0, 2.1]).is_clear
    assert not Difference.of([1.0, 2.0, 3.0], [0.0, 1.0, 6.0]).is_clear
    assert not Difference.of([1.0], [0.0]).is_clear
    assert not Difference.of([1.0, 1.0], [1.0, 1.0]).is_clear


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_a_trial_that_is_worse_than_the_others_is_stopped_by_its_reports(pruner: str):
    def record(hidden: float | None) -> EpochRecord:
        return EpochRecord("bridges", 1, 1, 0.0, {}, None, {}, 0.1, True, 0.1, hidden=hidden)

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    one = optuna.create_study(direction="maximize", pruner=pruner_of(pruner), study_name="a")  # pyright: ignore[reportArgumentType]
    stopped = []
    for value in (5.0, 6.0, 7.0, 8.0, 9.0, *([0.0] * 6)):
        trial = one.ask()
        reporter = PruningCallback(trial)
        try:
            for _ in range(50):
                reporter.on_validation(record(None))
                reporter.on_validation(record(value))
            one.tell(trial, value)
        except optuna.TrialPruned:
            stopped.append(value)
            one.tell(trial, state=TrialState.PRUNED)
    assert stopped
    assert set(stopped) <= {0.0, 5.0, 6.0}
    default = PruningCallback(one.ask(), prunes=False)
    for _ in range(50):
        default.on_validation(record(-1.0))


def test_a_study_of_another_spec_or_other_rows_is_refused_and_a_damaged_one_too(spec: Path, figures: list, monkeypatch: pytest.MonkeyPatch):
    search.tune(spec, out="s", trials=1)
    Path("b.yaml").write_text(SPEC.replace("latent_dim: 2", "latent_dim: 3"))
    with pytest.raises(RunError, match=r"^s: this is a study of another spec; choose another folder with --out$"):
        search.tune("b.yaml", out="s")
    Path("c.yaml").write_text(SPEC.replace("[8]", "[9]"))
    with pytest.raises(RunError, match="study of another search space;"):
        search.tune("c.yaml", out="s")
    monkeypatch.setattr(search.Objective, "fingerprint", "others")
    with pytest.raises(RunError, match="study of other rows;"):
        search.tune(spec, out="s")
    journal = Path("s", study.JOURNAL)
    journal.write_text("nothing\n" + journal.read_text())
    with pytest.raises(RunError, match=rf"^{journal}: damaged, so the study cannot go on \(\w+\); remove the file, or choose") as caught:
        search.tune(spec, out="s")
    assert "\n" not in str(caught.value)


def test_a_line_that_a_killed_process_left_half_written_is_removed(spec: Path, figures: list):
    search.tune(spec, out="s", trials=2)
    with Path("s", study.JOURNAL).open("a") as file:
        file.write('{"op_code":4,"wor')
    assert len(search.tune(spec, out="s", trials=3).trials) == 3


def test_a_trial_that_fails_is_refused_with_its_reason_and_an_interrupted_one_is_tried_again(
    spec: Path, figures: list, monkeypatch: pytest.MonkeyPatch
):
    def once(error: BaseException) -> None:
        def act(self: object, changes: dict, reporter: object) -> list[float]:
            if changes:
                raise error
            return [1.0, 2.0]

        monkeypatch.setattr(search.Objective, "__call__", act)

    once(NBridgeError("the loss is nan\nand more"))
    found = search.tune(spec, out="s", trials=2)
    assert [one.state for one in found.trials] == ["done", "refused"]
    assert found.trials[1].reason == "the loss is nan"
    once(KeyboardInterrupt())
    stopped = search.tune(spec, out="s", trials=3)
    assert stopped.stopped == 130
    assert [one.state for one in stopped.trials] == ["done", "refused", "failed"]
    assert Path("s/best.yaml").is_file()
    monkeypatch.setattr(search.Objective, "__call__", lambda self, changes, reporter: [1.0, 2.0])
    again = search.tune(spec, out="s", trials=3)
    assert again.trials[3].values == stopped.trials[2].values
    assert [one.state for one in again.trials] == ["done", "refused", "failed", "done"]


def test_a_search_of_a_few_points_ends_when_all_were_tried(spec: Path, figures: list):
    Path("few.yaml").write_text(SPEC.replace("  training.learning_rate: [1e-4, 0.05]\n", ""))
    assert len({json.dumps(one.values) for one in search.tune("few.yaml", out="s", minutes=5).trials}) == 2
    assert len(figures) == 2


def test_processes_join_a_study_and_a_killed_trial_is_tried_again(spec: Path):
    words = ("tune", "a.yaml", "--out", "s", "--trials")
    little = {after_training.VARIABLE: "1", "OMP_NUM_THREADS": "1"}
    killed = start(*words, "9", environment=little)
    deadline = time.monotonic() + 60
    while not Path("s/locks/1.lock").exists():
        assert time.monotonic() < deadline
        assert killed.lives()
        time.sleep(0.01)
    killed.send(signal.SIGKILL)
    killed.ended()
    two = [start(*words, "3", "--json", environment=little) for _ in range(2)]
    for code, out, err in (one.ended() for one in two):
        assert code == 0, err
        json.loads(out)
    found = search.tune(spec, out="s", trials=3)
    states = [one.state for one in found.trials]
    assert states.count("failed") <= 1
    assert len(states) - states.count("failed") == 3
    lost = [one for one in found.trials if one.state == "failed"]
    assert all(any(one.values == other.values and other.state != "failed" for other in found.trials) for one in lost)
    run = nbridge.train("s/best.yaml", overrides=["training.stages.joint.updates=2", "training.stages.bridges.updates=2"])
    assert run.model.names == ("x", "y")


def test_without_optuna_one_line_says_how_to_install_it(spec: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(study, "find_spec", lambda name: None)
    with pytest.raises(RunError, match=r'^nbridge tune needs optuna, which is not installed: pip install "nbridge\[tune\]"$'):
        command.tune(str(spec))


def test_options_of_the_command_are_checked(spec: Path):
    with pytest.raises(RunError, match=r"^--pruner best: expected median, hyperband, none$"):
        command.tune(str(spec), pruner="best")
    with pytest.raises(RunError, match=r"^--minutes 0: expected a number above 0$"):
        command.tune(str(spec), minutes=0.0)
