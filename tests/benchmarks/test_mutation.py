"""Mutation testing: what mutants there are, that they replace code where it is in use, and what the tests of a small module say."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import time
import types
from dataclasses import asdict
from pathlib import Path

import pytest
from processes import Started

from benchmarks.mutation import __main__ as mutation
from benchmarks.mutation import campaign as campaigns
from benchmarks.mutation.campaign import Campaign, Outcome, Task, Traced, replace_code
from benchmarks.mutation.hand_made import HAND_MADE
from benchmarks.mutation.mutants import mutants, mutated

MODULE = '''
def half(x):
    """The half."""
    if x < 0:
        raise ValueError(f"{x} is below {0 + 0}")
    return x / 2 + unused(x)


def unused(x):
    return 0 * x
'''
TESTS = """
from small import half


def test_half():
    assert half(6) == 3


def test_half_of_zero():
    assert half(0) == 0
"""


def test_mutants_are_single_faults_and_leave_texts_alone():
    found = {(mutant.function, mutant.before, mutant.after) for mutant in mutants("small.py", MODULE)}
    assert found == {
        ("half", "if x < 0:", "if not x < 0:"), ("half", "x < 0", "x <= 0"), ("half", "x < 0", "x > 0"), ("half", "0", "1"),
        ("half", "x / 2 + unused(x)", "x / 2 - unused(x)"), ("half", "x / 2 + unused(x)", "x / 2"), ("half", "x / 2", "x * 2"),
        ("half", "x / 2", "x"), ("half", "2", "3"), ("unused", "0 * x", "0 / x"), ("unused", "0 * x", "0"), ("unused", "0", "1"),
    }  # fmt: skip
    for number, mutant in enumerate(mutants("small.py", MODULE)):
        assert ast.unparse(mutated(MODULE, number)) != ast.unparse(ast.parse(MODULE)), mutant


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("x.detach()", "x"), ("torch.where(a, b, c)", "torch.where(a, c, b)"), ("f(a, b)", "f(b, a)"), ("x.sum(0)", "x.mean(0)"),
        ("-x", "x"), ("a and b", "a or b"), ("a if b else c", "a if not b else c"), ("[a for a in b if a]", "[a for a in b]"),
    ],
)  # fmt: skip
def test_an_expression_has_a_mutant(before: str, after: str):
    source = f"def one():\n    return {before}\n"
    assert ast.unparse(ast.parse(f"def one():\n    return {after}\n")) in {
        ast.unparse(mutated(source, number)) for number in range(len(mutants("one.py", source)))
    }


def test_code_is_replaced_in_functions_that_others_hold():
    module = types.ModuleType("held")
    exec(compile(MODULE, "held.py", "exec"), module.__dict__)
    held = module.half
    assert replace_code("held.py", ast.parse(MODULE.replace("x / 2", "x / 3")))
    assert held(6) == 2
    assert not replace_code("held.py", ast.parse(MODULE.replace("x / 2", "x / 3")))


CHANGES = {"x / 2": "x / 3", "0 * x": "1 * x", "+ unused": "- unused", "def": "def"}


def campaign() -> None:
    """A campaign over the module in this folder, in a process of its own, whose outcomes are written."""

    def work(traced: Traced, run: mutation.Run) -> None:
        lines = [frozenset({MODULE[: MODULE.index(old)].count("\n") + 1}) for old in CHANGES]
        lines[-1] = lines[0]
        trees = [ast.parse(MODULE.replace(old, new)) for old, new in CHANGES.items()]
        outcomes = dict(run([Task("small.py", *both, every=True) for both in zip(lines, trees, strict=True)]))
        Path("outcomes.json").write_text(json.dumps([asdict(outcomes[number]) for number in range(len(CHANGES))]))

    sys.path.insert(0, str(Path.cwd()))
    pytest.main(
        ["-q", "-n", "0", "-p", "no:cacheprovider", "--capture=sys", "--rootdir=.", "-c", os.devnull, "test_small.py"],
        plugins=[Campaign(Path.cwd(), ["small.py"], work)],
    )


def test_the_tests_that_execute_a_line_are_run_against_its_mutants(tmp_path: Path):
    (tmp_path / "small.py").write_text(MODULE)
    (tmp_path / "test_small.py").write_text(TESTS)
    assert Started(campaign, "campaign", folder=tmp_path).ended()[0] == 0
    outcomes = [Outcome(**{**each, "failed": tuple(each["failed"])}) for each in json.loads((tmp_path / "outcomes.json").read_text())]
    found = dict(zip(CHANGES, outcomes, strict=True))
    one = ("test_small.py::test_half",)
    assert found["x / 2"] == Outcome(one, tests=2)
    assert found["0 * x"] == Outcome(one, tests=2)
    assert found["+ unused"] == Outcome(tests=2)
    assert [outcome.killed for outcome in outcomes] == [True, True, False, False]
    assert found["def"].skipped


def test_tests_that_do_not_end_are_stopped(tmp_path: Path):
    endless = subprocess.Popen(["sleep", "60"], start_new_session=True)
    running = {endless.pid: campaigns.Running(7, 2, time.monotonic() + 60, tmp_path / "7")}
    assert list(campaigns.ended(running)) == []
    running = {endless.pid: campaigns.Running(7, 2, time.monotonic(), tmp_path / "7")}
    assert list(campaigns.ended(running)) == [(7, Outcome(cause="the tests did not end", tests=2))]
    assert running == {}
    endless.wait()


def test_mutants_made_by_hand_still_fit_the_code():
    for mutant in HAND_MADE:
        task = mutation.task_of_text(mutant)
        assert ast.unparse(task.tree) != ast.unparse(ast.parse((mutation.ROOT / mutant.module).read_text()))


def test_the_table_counts_what_is_killed_and_what_cannot_be():
    survivors = [{"module": "b.py", "explanation": "Equivalent: no difference."}, {"module": "b.py", "explanation": "No test."}]
    modules = {"a.py": {"mutants": 10, "killed": 10}, "b.py": {"mutants": 10, "killed": 8}}
    made = [{"mistake": "the sign", "killed": True, "by": ["one", "other"]}]
    lines = mutation.table({"modules": modules, "survivors": survivors, "hand_made": made}).splitlines()
    assert lines[2:5] == ["| a.py | 10 | 10 | 0 | 0 |", "| b.py | 10 | 8 | 1 | 1 |", "| **all** | 20 | 18 | 1 | 1 |"]
    assert "Killed: 90.0% of all mutants, 94.7% of those that change a result." in lines
    assert lines[-1] == "| the sign | 2 |"


def test_the_sample_depends_on_the_seed_alone():
    modules = ["nbridge/nn/bridges.py", "nbridge/nn/fusion.py"]
    assert mutation.chosen(modules, 5, 1) == mutation.chosen(modules, 5, 1) != mutation.chosen(modules, 5, 2)
