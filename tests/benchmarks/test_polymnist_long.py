"""The long PolyMNIST run: nbridge's side, stopped by its minutes and called again until it is done; what a folder is for; the table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.polymnist import long
from nbridge.inference import exponents

SIZES = ("--rows", "40", "--test-rows", "10", "--updates", "2", "--judge-steps", "2")


@pytest.fixture
def sections(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """What would be written into pages; results and caches lie in a folder of the test."""
    written: dict[str, str] = {}
    monkeypatch.setattr(long, "RESULT", tmp_path / "polymnist_long.json")
    monkeypatch.setattr(long, "replace_section", written.__setitem__)
    monkeypatch.setattr("nbridge.data.benchmarks.polymnist.cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr("benchmarks.suite.judges.cache_folder", lambda: tmp_path / "cache")
    return written


def said(capsys: pytest.CaptureFixture[str], folder: Path, *words: str) -> list[str]:
    """The lines of one call."""
    long.main(["--out", str(folder), *SIZES, *words])
    return capsys.readouterr().out.splitlines()


def test_a_run_that_its_minutes_stop_goes_on_with_the_next_call_until_it_is_done(real_data, tmp_path, capsys, sections, monkeypatch):
    folder = tmp_path / "run"
    monkeypatch.setattr(long, "ROWS", 40)
    # What is fitted once training is over costs the same however few the rows: ten seconds of this test.
    monkeypatch.setattr(exponents, "NUMBERS", 2**16)
    first = said(capsys, folder, "--minutes", "0")
    assert [line.split(":")[0] for line in first] == ["  joint 1", "nbridge ends here; call again for nbridge"]
    second = said(capsys, folder)
    assert [line.split(":")[0] for line in second] == ["  joint 2", "  bridges 1", "  bridges 2", "nbridge ends here; call again for judge"]
    # Of judges one is made a call at least.
    assert said(capsys, folder, "--minutes", "0") == ["judge ends here; call again for judge"]
    assert not (folder / "judged.json").exists()
    assert said(capsys, folder) == ["judge ends here; call again for table"]
    assert said(capsys, folder)[-1] == "done"
    assert said(capsys, folder)[-1] == "done"
    kept = json.loads(long.RESULT.read_text())["0"]
    assert (kept["rows"], kept["systems"]["nbridge"]["updates"]) == (40, 4)
    assert sections == {"polymnist_long": long.table({"0": kept})}


def test_a_smaller_run_is_a_try_and_without_results_nothing_is_written(tmp_path, capsys, sections):
    assert said(capsys, tmp_path / "run", "--step", "table") == ["no results yet", "table ends here; call again for nbridge"]
    (tmp_path / "run" / "judged.json").write_text(json.dumps(judged()))
    assert said(capsys, tmp_path / "run", "--step", "table")[0].startswith("| complete rows | 1 given |")
    assert not long.RESULT.exists()
    assert not sections


def test_a_folder_is_for_one_run(tmp_path, capsys, sections):
    said(capsys, tmp_path / "run", "--step", "table")
    with pytest.raises(SystemExit, match=r"run began with Settings\(missing='0', rows=40"):
        said(capsys, tmp_path / "run", "--missing", "0.5")


def test_the_table_has_a_line_for_each_system_beside_the_published_figures():
    lines = long.table({"0.5": judged(), "0": judged()}).splitlines()
    assert lines[2] == "| nbridge, default | 0.100 | 0.200 | 0.300 | 0.400 | 0.010 | 0.020 | 0.030 | 0.500 | 0.250 | 1.0 | 2 |"
    assert lines[3] == "| published, to beat | 0.88 | 0.89 | 0.93 | 0.95 |" + "  |" * 7
    assert lines[5] == (
        "60,000 training and 10 test rows, seed 0, on one GPU. Classifiers read 0.970 of real views, and agree on all of a row in 0.900."
    )
    assert lines[7].startswith("| 50% of views missing in training | 1 given |")


def judged() -> dict[str, Any]:
    """The judges' file of a run of nbridge alone."""
    images = {str(number): {"coherence": number / 10, "variety": 0.25} for number in range(1, 6)}
    agreement = {str(number): {"agreement": number / 100} for number in range(1, 4)}
    one = {"updates": 446, "seconds": 120, "device": "one GPU", "kinds": {"images": images}, "agreement": agreement}
    return {"rows": 60_000, "test_rows": 10, "seed": 0, "real": {"judges": 0.97, "agreement": 0.9}, "systems": {"nbridge": one}}
