"""Mutation testing of the mathematics: whether the tests notice small faults in networks, distributions, models and their evaluation.

    python -m benchmarks.mutation [--modules nbridge/nn/bridges.py ...] [--sample 200] [--seed 0] [--processes 1] [--tests FILE ...]
                                  [--hand-made] [--again] [--traced FILE]

draws mutants of the modules below at random (`benchmarks/mutation/mutants.py`), runs the tests that execute the changed line against each
(`benchmarks/mutation/campaign.py`), and writes benchmarks/results/mutation.json and a table in benchmarks/README.md. A survivor keeps the
explanation that the file has for it: a person adds it there, or adds the missing test. With --hand-made, it runs the mutants of
`benchmarks/mutation/hand_made.py` instead, and lists all tests that fail for each. With --again, it runs the survivors of the last sample
only. Which tests execute which lines is measured first, or read from the file of --traced if it exists: remove it once code or tests have
changed.

Tools such as mutmut and cosmic-ray start the tests, and import torch, once for each mutant, or replace functions by wrappers; here the
signatures of constructors are the schema of specs, and each mutant costs a fork.
"""

from __future__ import annotations

import argparse
import ast
import json
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from benchmarks.mutation.campaign import Campaign, Outcome, Task, Traced
from benchmarks.mutation.hand_made import HAND_MADE, HandMade
from benchmarks.mutation.mutants import Mutant, mutants, mutated
from benchmarks.readme import replace_section

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "mutation.json"
MODULES = (
    *(f"nbridge/nn/{name}.py" for name in ("networks", "distributions", "bridges", "film", "flow_bridge", "likelihoods", "fusion")),
    *(
        f"nbridge/models/{name}.py"
        for name in (
            "base", "bivcca", "bridged", "conformal", "experts", "flow_bridged", "jmvae", "joint", "mixture_prior", "mvae", "reductions",
            "retrofit", "subsets", "telbo", "vae",
        )
    ),
    "nbridge/evaluation/importance.py",
    "nbridge/evaluation/weights.py",
    "nbridge/inference/calibration.py",
)  # fmt: skip
TESTS = (
    "tests/nn", "tests/models", "tests/data/test_numeric_precision.py", "tests/evaluation/test_importance.py",
    "tests/inference/test_calibration_of_serving.py", "tests/inference/test_conformal.py", "tests/inference/test_exponents.py",
    "tests/inference/test_impute.py", "tests/inference/test_product_prior.py", "tests/test_testing.py",
    "nbridge/nn", "nbridge/models", "nbridge/evaluation/importance.py", "nbridge/inference/calibration.py",
)  # fmt: skip

Run = Callable[[Sequence[Task]], Iterator[tuple[int, Outcome]]]


def chosen(modules: Sequence[str], sample: int, seed: int) -> list[Mutant]:
    """Mutants of the modules, drawn without replacement, in their order."""
    known = [mutant for module in modules for mutant in mutants(module, (ROOT / module).read_text())]
    drawn = random.Random(seed).sample(range(len(known)), min(sample, len(known)))
    return [known[index] for index in sorted(drawn)]


def task_of(mutant: Mutant) -> Task:
    tree = mutated((ROOT / mutant.module).read_text(), mutant.number)
    return Task(mutant.module, _lines(ROOT / mutant.module, mutant.line), tree)


def task_of_text(mutant: HandMade) -> Task:
    source = (ROOT / mutant.module).read_text()
    assert source.count(mutant.before) == 1, f"{mutant.module} has {source.count(mutant.before)} times {mutant.before!r}"
    line = source[: source.index(mutant.before)].count("\n") + 1
    return Task(mutant.module, _lines(ROOT / mutant.module, line), ast.parse(source.replace(mutant.before, mutant.after)), every=True)


def _lines(path: Path, line: int) -> frozenset[int]:
    """The lines of the innermost statement that contains a line, without its body; a tracer sees only some of them."""
    spans = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.stmt) and not isinstance(node, ast.FunctionDef | ast.ClassDef):
            body = getattr(node, "body", None)
            spans.append((node.lineno, body[0].lineno - 1 if isinstance(body, list) else node.end_lineno or node.lineno))
    start, end = min((span for span in spans if span[0] <= line <= span[1]), key=lambda span: span[1] - span[0], default=(line, line))
    return frozenset(range(start, max(start, end) + 1))


class Work:
    """What to do once the tests are traced.

    Arguments:
        drawn: The mutants to run; those made by hand if there are none.
        path: The file of results.
    """

    def __init__(self, drawn: Sequence[Mutant], path: Path, settings: dict[str, Any], *, again: bool = False) -> None:
        self.drawn, self.path, self.settings, self.again = drawn, path, settings, again

    def __call__(self, traced: Traced, run: Run) -> None:
        print(f"{len(traced.seconds)} tests pass, in {sum(traced.seconds.values()):.0f} seconds", flush=True)
        results = json.loads(self.path.read_text()) if self.path.is_file() else {}
        if not self.drawn:
            results["hand_made"] = self._made_by_hand(run)
        else:
            known = {_key(survivor): survivor for survivor in results.get("survivors", [])}
            total, killed, survivors = self._outcomes(run, known)
            if self.again:
                for module in total:
                    results["modules"][module]["killed"] += killed[module]
            else:
                results |= self.settings
                results["modules"] = {name: {"mutants": total[name], "killed": killed[name]} for name in MODULES if total[name]}
            results["survivors"] = survivors
        self.path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")

    def _outcomes(self, run: Run, known: dict[str, dict[str, Any]]) -> tuple[Counter[str], Counter[str], list[dict[str, Any]]]:
        """The numbers of mutants and of killed ones by module, and the survivors with the explanations that are known."""
        total, killed, survivors = Counter[str](), Counter[str](), {}
        for done, (number, outcome) in enumerate(run([task_of(mutant) for mutant in self.drawn]), start=1):
            mutant = self.drawn[number]
            if not outcome.skipped:
                total[mutant.module] += 1
                killed[mutant.module] += outcome.killed
                if not outcome.killed:
                    survivors[number] = _survivor(mutant, outcome, known)
                    print(
                        f"{mutant.module}:{mutant.line}: {mutant.before!r} -> {mutant.after!r} survives {outcome.tests} tests", flush=True
                    )
            if done % 20 == 0:
                print(f"{done} of {len(self.drawn)}: {killed.total()} of {total.total()} killed", flush=True)
        print(f"{killed.total()} of {total.total()} killed")
        return total, killed, [survivors[number] for number in sorted(survivors)]

    @staticmethod
    def _made_by_hand(run: Run) -> list[dict[str, Any]]:
        found = {}
        for number, outcome in run([task_of_text(mutant) for mutant in HAND_MADE]):
            found[number] = {**asdict(HAND_MADE[number]), "killed": outcome.killed, "by": list(outcome.failed)}
            print(f"{HAND_MADE[number].mistake}: {len(outcome.failed)} tests fail{outcome.cause and ', ' + outcome.cause}", flush=True)
        return [found[number] for number in sorted(found)]


def _survivor(mutant: Mutant, outcome: Outcome, known: dict[str, dict[str, Any]]) -> dict[str, Any]:
    described = asdict(mutant)
    return {**described, "tests": outcome.tests, "explanation": known.get(_key(described), {}).get("explanation", "")}


def survivors_of(path: Path) -> list[Mutant]:
    """The survivors of a file of results, as mutants of the present code."""
    found = []
    for survivor in json.loads(path.read_text())["survivors"]:
        known = mutants(survivor["module"], (ROOT / survivor["module"]).read_text())
        # By its number as long as the module is the same.
        found += [mutant for mutant in known[survivor["number"] :] + known if _key(asdict(mutant)) == _key(survivor)][:1]
    return found


def _key(survivor: dict[str, Any]) -> str:
    return json.dumps([survivor[name] for name in ("module", "function", "before", "after")])


def _row(name: str, total: int, killed: int, same: int) -> str:
    return f"| {name} | {total} | {killed} | {same} | {total - killed - same} |"


def table(results: dict[str, Any]) -> str:
    """The figures in Markdown."""
    lines = ["| module | mutants | killed | survivors that cannot be killed | others |", "|---|---|---|---|---|"]
    equal = Counter(survivor["module"] for survivor in results["survivors"] if survivor["explanation"].startswith("Equivalent"))
    for module, each in results["modules"].items():
        lines.append(_row(module, each["mutants"], each["killed"], equal[module]))
    total, killed = (sum(each[name] for each in results["modules"].values()) for name in ("mutants", "killed"))
    same = equal.total()
    lines.append(_row("**all**", total, killed, same))
    lines += ["", f"Killed: {killed / total:.1%} of all mutants, {killed / max(1, total - same):.1%} of those that change a result."]
    if results.get("hand_made"):
        made = results["hand_made"]
        lines += ["", f"Made by hand: {sum(each['killed'] for each in made)} of {len(made)} killed.", "", "| mistake | tests that fail |"]
        lines += ["|---|---|", *(f"| {each['mistake']} | {len(each['by'])} |" for each in made)]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mutation")
    parser.add_argument("--modules", nargs="+", default=MODULES)
    parser.add_argument("--tests", nargs="+", default=TESTS)
    parser.add_argument("--sample", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--hand-made", action="store_true")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--traced", type=Path)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    if options.again:
        drawn = survivors_of(options.out)
    else:
        drawn = [] if options.hand_made else chosen(options.modules, options.sample, options.seed)
    work = Work(drawn, options.out, {"sample": options.sample, "seed": options.seed}, again=options.again)
    campaign = Campaign(ROOT, MODULES, work, options.processes, options.traced)
    words = ["-q", "-p", "no:cacheprovider", "-n", "0", "--capture=sys", f"--rootdir={ROOT}", *(str(ROOT / name) for name in options.tests)]
    if (status := pytest.main(words, plugins=[campaign])) not in {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}:
        return int(status)
    if options.out == RESULTS:
        replace_section("mutation", table(json.loads(RESULTS.read_text())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
