"""A bounded share of the fuzzers' cases, always the same ones; and that the fuzzers notice what they look for."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from random import Random
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nbridge
from nbridge.errors import SpecError

from . import campaign
from .campaign import KINDS, problem_of, run, share
from .mutations import as_json, changed, damaged

CASES = {"spec": 150, "npz": 160, "csv": 160, "parquet": 120, "h5mu": 0, "model": 50, "checkpoint": 16, "request": 200}
"""The cases of each kind; files of HDF5 have tests of their own."""


@pytest.mark.parametrize("kind", [kind for kind in KINDS if CASES[kind]])
def test_what_is_damaged_is_refused_in_a_line_or_gives_what_was_observed(kind: str, tmp_path: Path):
    tally = run(kind, range(CASES[kind]), 0, tmp_path)
    assert not tally.failures, campaign.failures({kind: tally})
    assert tally.counts["accepted"] + tally.counts["refused"] == CASES[kind]
    # Cases that are all alike would find nothing.
    assert min(tally.counts["accepted"], tally.counts["refused"]) > 0


FATES = {
    0: lambda: None,
    1: lambda: _fail(nbridge.DataError("x: row 3 is wrong")),
    2: lambda: _fail(ZeroDivisionError("hidden")),
    3: lambda: _fail(nbridge.DataError("two\nlines")),
    4: lambda: _fail(SpecError(["one", "two"])),
    5: lambda: os.kill(os.getpid(), signal.SIGUSR1),
    6: lambda: _fail(AssertionError("an observed value has changed")),
    7: lambda: _fail(SystemExit(0)),
    8: lambda: bytearray(2**36),
    9: lambda: os._exit(3),
}


def _fail(error: BaseException) -> None:
    raise error


@pytest.fixture
def fates(monkeypatch: pytest.MonkeyPatch) -> None:
    def case(rng: Random, folder: Path) -> None:
        (folder / "input").write_text(str(seen := rng.random()))
        FATES[numbers[seen]]()

    numbers = {Random(f"0 fates {number}").random(): number for number in FATES}
    module = SimpleNamespace(__name__="fuzz.fates", prepare=lambda _: None, case=case)
    monkeypatch.setattr(campaign, "module_of", lambda _: module)


def test_each_way_to_fail_is_counted_and_its_input_is_saved(fates: None, tmp_path: Path):
    tally = run("fates", list(FATES), 0, tmp_path / "work", tmp_path / "failures")
    assert tally.counts == {"accepted": 1, "refused": 2, "failed": 7}
    kinds = {outcome.number: place.partition(" in ")[0].partition(":")[0] for place, outcome in tally.failures.items()}
    assert kinds == {
        2: "ZeroDivisionError",
        3: "a message of several lines, or with unprintable characters",
        5: "killed by SIGUSR1",
        6: "AssertionError",
        7: "SystemExit",
        8: "MemoryError",
        9: "the process left with 3",
    }
    saved = {folder.name.rpartition("-")[2]: folder for folder in (tmp_path / "failures").iterdir()}
    assert set(saved) == {str(number) for number in kinds}
    assert float((saved["5"] / "input").read_text()) == Random("0 fates 5").random()
    assert "hidden" in (saved["2"] / "traceback.txt").read_text()


def test_a_case_without_end_is_one_that_is_too_slow(fates: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(campaign, "SECONDS", 0.2)
    monkeypatch.setitem(FATES, 1, signal.pause)
    # The alarm cannot interrupt what ignores it.
    monkeypatch.setitem(FATES, 2, lambda: (signal.signal(signal.SIGALRM, signal.SIG_IGN), [signal.pause() for _ in range(9)]))
    tally = run("fates", [0, 1, 2, 0], 0, tmp_path)
    assert tally.counts == {"accepted": 2, "failed": 2}
    assert sorted(tally.failures)[1].startswith("no answer within")
    assert sorted(tally.failures)[0].startswith("TooSlowError")


def test_a_message_is_one_line_and_short():
    assert problem_of(nbridge.DataError("rows.csv: row 3 is wrong")) == ""
    assert problem_of(SpecError(["one", "two"])) == ""
    for text in ("", "a\nb", "a" * 5000):
        assert problem_of(nbridge.DataError(text)) != ""
    assert problem_of(SpecError(["one", "a\nb"])) != ""


@given(seed=st.integers(0, 2**32), content=st.binary(max_size=300))
def test_damage_is_the_same_from_the_same_seed_and_leaves_the_original_alone(seed: int, content: bytes):
    tree = {"a": [1, {"b": "text"}], "c": None}
    assert damaged(Random(seed), content) == damaged(Random(seed), content)
    assert as_json(changed(Random(seed), tree)) == as_json(changed(Random(seed), tree))
    assert tree == {"a": [1, {"b": "text"}], "c": None}


def test_cases_are_shared_among_kinds():
    assert sum(share(100_000, list(KINDS)).values()) == pytest.approx(100_000, abs=len(KINDS))
    assert share(10, ["spec"]) == {"spec": 10}
