"""The kill campaign: its moments, its comparison of folders, and a tiny campaign from end to end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from processes import Started

from benchmarks import kills


def test_kills_are_shared_out_completely():
    for number in (1, 7, 12, 100):
        assert sum(kills.shared_out(number, kills.CASES)) == number
    assert min(kills.shared_out(100, kills.CASES)) >= 6
    assert sum(case.share for case in kills.CASES) == pytest.approx(1)


def test_folders_are_equal_but_for_times(tmp_path: Path):
    for name, seconds in (("one", 1.5), ("other", 2.5)):
        (tmp_path / name / "run").mkdir(parents=True)
        (tmp_path / name / "run" / "metrics.jsonl").write_text(json.dumps({"loss": 1.0, "seconds": seconds}) + "\n")
        (tmp_path / name / "run" / "report.html").write_text(f"<td>0.5</td><td>{seconds} s</td>")
        (tmp_path / name / "run" / "model").write_bytes(b"same")
    one, other = tmp_path / "one", tmp_path / "other"
    assert kills.differences(one, other) == []
    (one / "run" / "model").write_bytes(b"sama")
    (one / "run" / ".model.0123.tmp").touch()
    (other / "run" / "config.json").write_text("{}")
    (one / "run" / "metrics.jsonl").write_text(json.dumps({"loss": 1.1, "seconds": 1}) + "\n")
    (one / "run" / "report.html").write_text("<td>0.6</td><td>1.5 s</td>")
    assert kills.differences(one, other) == [
        "run/.model.0123.tmp is left", "run/config.json is missing", "run/metrics.jsonl differs", "run/model differs",
        "run/report.html differs",
    ]  # fmt: skip


def campaign() -> None:
    """A kill in a process that has one thread, as forks need."""
    kills.EPOCHS = 2
    kills.main(["--kills", "1", "--only", "train, stage bridges", "--out", "kills.json"])


def test_a_tiny_campaign_finds_no_difference(tmp_path: Path):
    code, output, errors = Started(campaign, "kills", folder=tmp_path).ended()
    assert (code, errors) == (0, "")
    found = json.loads((tmp_path / "kills.json").read_text())["cases"]
    assert found.keys() == {"train, stage bridges"}
    assert found["train, stage bridges"]["kills"] == 1
    assert found["train, stage bridges"]["differences"] == []
    assert output.splitlines()[-1].startswith("| **all** | 1 |")
