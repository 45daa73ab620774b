"""The suite: every system on every task, with equal updates and no task-specific options.

    python -m benchmarks.suite [--tasks digits,mfeat] [--systems default,jmvae] [--seeds 3] [--budget 1500] [--table]

A system is a name, or an ablation that is given here: ``--systems "default,own:bridges.encoders=own,model.coupling=1"``. Each run is kept
in benchmarks/results/suite.json when it ends, and is not repeated; several processes can write to one file. With
``--table`` nothing is run: the tables of all saved runs are printed, and with ``--readme`` also written to benchmarks/README.md.

multivae's systems on PolyMNIST, jnf, mmvaeplus and mmvaeplus_authors, take ``--multivae PYTHON``, the python of an environment with
``pip install torch==2.13.0 torchvision==0.28.0 multivae==1.0.3 einops`` (`benchmarks.suite.rivals`).

Protocol: a spec says names, shapes and likelihoods (`benchmarks.suite.tasks`), all else is the library's default. A model of two stages
takes ``--budget`` updates in each, one of a single stage twice as many. Rows are split by the seed; test rows choose nothing. Figures:
`benchmarks.suite.measure`; the free baseline: `benchmarks.suite.baseline`; judges: `benchmarks.suite.judges`.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import nbridge
from benchmarks.readme import replace_section
from benchmarks.suite.baseline import baseline
from benchmarks.suite.figures import figures_of
from benchmarks.suite.judges import panel_of
from benchmarks.suite.measure import reconstructions, serve, units_of
from benchmarks.suite.results import RESULT, Results, key_of
from benchmarks.suite.rivals import run_rival, serves
from benchmarks.suite.systems import BUILT_IN, RIVALS, System, parse_systems, spec_of
from benchmarks.suite.table import tables
from benchmarks.suite.tasks import TASKS, Task, split_of
from nbridge.data.batch import Batch
from nbridge.errors import NBridgeError

BUDGET = 1_500


def run(task: Task, system: System, seed: int, budget: int) -> dict[str, Any]:
    """Trains a system on a task and evaluates it; times are CPU seconds, which other work on the machine does not affect."""
    spec = spec_of(task, system, seed, budget)
    splits = split_of(task, seed)
    assert isinstance(splits.train, Batch)
    assert isinstance(splits.test, Batch)
    started = time.process_time()
    model = nbridge.train(spec, device="cpu").model
    trained = time.process_time()
    panel = panel_of(task, seed)
    judged = time.process_time()
    test = splits.test.select(*task.modalities)
    found = figures_of(task, serve(model.network, task, test, units_of(task, splits.train)), splits.test, panel)
    if panel is not None:
        again = reconstructions(model.network, task, test)
        verdicts = panel.verdicts(again.drawn, again.rows, splits.test)
        found["ceilings"] = {"real": panel.real(splits.test), "reconstructions": verdicts}
    times = {"train_seconds": round(trained - started, 1), "measure_seconds": round(time.process_time() - judged, 1)}
    parameters = sum(p.numel() for p in model.network.parameters())
    return {"overrides": list(system.overrides), **times, "parameters": parameters, **found}


def run_rival_of(task: Task, system: System, seed: int, budget: int, python: str | None) -> dict[str, Any]:
    """The scores of a system of multivae."""
    if python is None:
        raise NBridgeError(f"{system.name} takes --multivae PYTHON, an environment that has multivae")
    if not serves(task) or (panel := panel_of(task, seed)) is None:
        raise NBridgeError(f"{system.name} is for PolyMNIST alone")
    return run_rival(task, system.name, spec_of(task, System("default"), seed, budget), panel, python, budget)


def run_baseline(task: Task, seed: int) -> dict[str, Any]:
    """The scores of the baseline."""
    splits = split_of(task, seed)
    assert isinstance(splits.test, Batch)
    started = time.process_time()
    found = figures_of(task, baseline(task, seed), splits.test)
    return {"train_seconds": round(time.process_time() - started, 1), **found}


def fill(results: Results, tasks: list[Task], systems: list[System], seeds: list[int], budget: int, python: str | None = None) -> None:
    """Runs everything not saved yet, by seed; a failed run is printed, and repeated next time."""
    for seed in seeds:
        for task in tasks:
            if key_of(task.name, "baseline", seed, 0) not in results:
                results.put(key_of(task.name, "baseline", seed, 0), run_baseline(task, seed))
            for system in systems:
                key = key_of(task.name, system.key, seed, budget)
                if key in results:
                    continue
                try:
                    rival = system.name in RIVALS
                    found = run_rival_of(task, system, seed, budget, python) if rival else run(task, system, seed, budget)
                except NBridgeError as error:
                    print(f"{key}: failed: {error}", flush=True)
                    continue
                results.put(key, found)
                print(f"{key}: trained in {found['train_seconds']} s, measured in {found.get('measure_seconds', 0)} s", flush=True)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default=",".join(TASKS), help="names, with commas between")
    parser.add_argument("--systems", help="names, or ablations name:key=value,...; the library's own when left out")
    parser.add_argument("--seeds", default="3", help="how many (3), or which ones (0,2; of a single one 2,)")
    parser.add_argument("--budget", type=int, default=BUDGET, help="updates of each of two stages")
    parser.add_argument("--multivae", metavar="PYTHON", help="python of an environment with multivae, for its systems on PolyMNIST")
    parser.add_argument("--out", type=Path, default=RESULT, help="the file of results")
    parser.add_argument("--table", action="store_true", help="print the tables of what is kept, and run nothing")
    parser.add_argument("--readme", action="store_true", help="put the tables into benchmarks/README.md as well")
    parser.add_argument("--targets", action="store_true", help="columns for each modality, in the place of each kind")
    options = parser.parse_args(arguments)
    try:
        tasks, systems = [_task(name) for name in options.tasks.split(",")], parse_systems(options.systems or ",".join(BUILT_IN))
    except NBridgeError as error:
        print(error, file=sys.stderr)
        return 2
    seeds = [int(seed) for seed in options.seeds.split(",") if seed] if "," in options.seeds else list(range(int(options.seeds)))
    results = Results(options.out)
    if not options.table:
        fill(results, tasks, systems, seeds, options.budget, options.multivae)
    shown = None if options.systems is None else systems
    text = tables(results.read(), tasks, shown, options.budget, targets=options.targets)
    print(text)
    if options.readme:
        replace_section("suite", text)
    return 0


def _task(name: str) -> Task:
    if name.strip() not in TASKS:
        raise NBridgeError(f"--tasks: '{name}' is none of {', '.join(TASKS)}")
    return TASKS[name.strip()]


if __name__ == "__main__":
    sys.exit(main())
