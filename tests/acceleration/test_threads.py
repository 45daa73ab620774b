"""The number of threads: by the cores that are free, and never against what the user set."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nbridge.acceleration import threads
from nbridge.acceleration.threads import busy_cores, free_cores, set_thread_count


@pytest.fixture(autouse=True)
def no_torch(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(threads, "SAMPLE_SECONDS", 0.001)


@pytest.mark.parametrize(("cores", "busy", "expected"), [(8, 0.0, 8), (8, 0.4, 8), (8, 2.6, 5), (2, 1.0, 1), (2, 5.0, 1), (1, 1.0, 1)])
def test_there_are_as_many_threads_as_cores_are_free_and_at_least_one(monkeypatch, cores, busy, expected):
    monkeypatch.setattr("joblib.cpu_count", lambda only_physical_cores: cores)
    monkeypatch.setattr(threads, "busy_cores", lambda: busy)
    assert free_cores() == expected
    environment: dict[str, str] = {}
    set_thread_count(environment)
    assert environment == {"OMP_NUM_THREADS": str(expected)}


def test_what_the_user_set_is_kept(monkeypatch):
    monkeypatch.setattr(threads, "free_cores", lambda: 3)
    for given, expected in (("7", "7"), ("", "3")):
        environment = {"OMP_NUM_THREADS": given, "OMP_WAIT_POLICY": "ACTIVE"}
        set_thread_count(environment)
        assert environment == {"OMP_NUM_THREADS": expected, "OMP_WAIT_POLICY": "ACTIVE"}


def test_nothing_is_set_once_torch_is_loaded(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", object())
    environment: dict[str, str] = {}
    set_thread_count(environment)
    assert environment == {}


def test_busy_cores_are_counted_from_the_account_of_the_system(monkeypatch, tmp_path):
    # Of the ticks of core 0, 50 of 100 went to work (user, nice, system, interrupts, stolen); core 1 idled; core 2 is not ours.
    accounts = [
        "cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 100 0 0 100 0 0 0 0 0 0\ncpu1 7 0 0 100 0 0 0 0 0 0\ncpu2 0 0 0 0 0 0 0 0 0 0\nintr 1 2\n",
        "cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 120 5 5 140 10 5 5 10 0 0\ncpu1 7 0 0 190 10 0 0 0 0 0\ncpu2 900 0 0 0 0 0 0 0 0 0\nintr 1 2\n",
    ]
    file = tmp_path / "stat"
    file.write_text(accounts[0])
    monkeypatch.setattr(threads, "_STATISTICS", file)
    monkeypatch.setattr(threads, "SAMPLE_SECONDS", 1.0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    monkeypatch.setattr(os, "sysconf", lambda name: 100)
    monkeypatch.setattr(threads.time, "sleep", lambda seconds: file.write_text(accounts[1]))
    assert busy_cores() == pytest.approx(0.5)


@pytest.mark.parametrize("content", [None, "cpu0 x y\n", ""])
def test_a_system_that_does_not_say_counts_as_idle(monkeypatch, tmp_path, content):
    file = tmp_path / "stat"
    if content is not None:
        file.write_text(content)
    monkeypatch.setattr(threads, "_STATISTICS", file)
    assert busy_cores() == 0.0


def test_the_account_is_zero_where_nothing_runs_and_one_core_where_something_does(monkeypatch):
    if not Path("/proc/stat").is_file():
        pytest.skip("this system keeps no such account")
    monkeypatch.setattr(threads, "SAMPLE_SECONDS", 0.4)
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        try:
            loaded = busy_cores()
        finally:
            busy.kill()
    # Other work may run beside, but not less than this.
    assert loaded > 0.5


def test_the_command_line_settles_threads_for_verbs_that_compute_alone():
    code = "import sys, os; from nbridge.cli.main import main\ntry: main()\nexcept SystemExit: pass\nprint('OMP_NUM_THREADS' in os.environ)"
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))}
    printed = {}
    for verb in (["embed", "no_such_run", "rows.npz", "--out", "x.npz"], ["schema", "--help"], ["validate", "no_such_file"]):
        done = subprocess.run([sys.executable, "-c", code, *verb], capture_output=True, text=True, check=True, env=outside)
        printed[verb[0]] = done.stdout.splitlines()[-1]
    assert printed == {"embed": "True", "schema": "False", "validate": "False"}
