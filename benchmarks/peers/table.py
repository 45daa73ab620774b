"""The section of docs/benchmarks/speed.md on this benchmark, from its results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PAIRS = (
    ("joint model: JMVAE / stage `joint`", "jmvae", "joint"),
    ("the same, multivae without its trainer", "jmvae, bare loop", "joint"),
    ("JMVAE / JMVAE", "jmvae", "jmvae"),
    ("TELBO, first stage / stage `joint`", "telbo, first stage", "joint"),
    ("TELBO, second stage / stage `subsets`", "telbo, second stage", "subsets"),
    ("TELBO, second stage / stage `bridges`", "telbo, second stage", "bridges"),
    ("the same / `objective: paper`", "telbo, second stage", "bridges, paper's objective"),
    ("MVAE / MVAE", "mvae", "mvae"),
)
"""The comparisons: row of the table, multivae's stage, nbridge's stage."""
FIVE = (("stage `bridges`", "bridges"), ("`objective: paper`", "bridges, paper's objective"))


def section(results: Mapping[str, Any]) -> str:
    return "\n\n".join([_heading(results), _speed(results), _five(results), _likelihood(results), _start(results)])


def _heading(results: Mapping[str, Any]) -> str:
    repeats, threads = results["repeats"], results["threads"]
    return (
        f"`python -m benchmarks.peers` ({'; '.join(results['versions'])}; {results['machine']}; {threads} thread{'s' * (threads > 1)}; "
        f"medians of {repeats}). MNIST with labels, batches of 128, latent 128, Adam; steps a second inside each library's own trainer."
    )


def _speed(results: Mapping[str, Any]) -> str:
    fast = results["fast"]
    heads = ["widths", "multivae / nbridge", "multivae", "nbridge, float32", f"nbridge, {fast}", "ratio", f"ratio, {fast}"]
    lines = [f"| {' | '.join(heads)} | million multiply-adds a step |", "|---" * (len(heads) + 1) + "|"]
    for widths, found in results["speed"].items():
        for title, theirs, ours in PAIRS:
            peer, plain, quick = found["multivae"][theirs], found["nbridge float32"][ours], found[f"nbridge {fast}"][ours]
            cells = [
                widths,
                title,
                *(f"{one['steps_per_second']:.1f}" for one in (peer, plain, quick)),
                *(f"{one['steps_per_second'] / peer['steps_per_second']:.2f}" for one in (plain, quick)),
                " / ".join(f"{one['multiply_adds'] / 1e6:,.0f}" for one in (peer, plain)),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", *(f"Parameters, {widths}: {_parameters(found)}." for widths, found in results["speed"].items())])


def _parameters(found: Mapping[str, Any]) -> str:
    theirs = {stage.partition(",")[0]: one["parameters"] for stage, one in found["multivae"].items()}
    named = {"bridges": "bridged", "subsets": "telbo", "jmvae": "jmvae", "mvae": "mvae"}
    ours = {name: found["nbridge float32"][stage]["parameters"] for stage, name in named.items()}
    return "; ".join(
        f"{library} {', '.join(f'{name} {count:,.0f}' for name, count in counts.items())}"
        for library, counts in (("multivae", theirs), ("nbridge", ours))
    )


def _five(results: Mapping[str, Any]) -> str:
    texts = []
    for title, found in results["five"].items():
        base = found["subsets"]["steps_per_second"]
        cells = [
            f"{name} {found[stage]['steps_per_second']:.1f} ({found[stage]['steps_per_second'] / base:.1f} times)" for name, stage in FIVE
        ]
        texts.append(f"{title}: TELBO's stage `subsets` {base:.2f} steps a second, {', '.join(cells)}")
    return f"Five modalities of 160 inputs each, our own TELBO beside bridges: {'; '.join(texts)}."


def _likelihood(results: Mapping[str, Any]) -> str:
    found = dict(results["likelihood"])
    peer, rows = found.pop("multivae jmvae"), results["rows"]
    epochs = len(next(iter(found.values()))["seconds"])
    lines = [
        f"| log p(image, label), {rows['test']:,} test rows, K = 100 | after {epochs} epochs of {rows['likelihood']:,} rows | seconds "
        "| passes multivae after |",
        "|---|---|---|---|",
        f"| multivae jmvae | {peer['log_likelihood']:.2f} | {peer['seconds']:.1f} | |",
    ]
    for name, one in found.items():
        passes = f"epoch {one['passes_in_epoch']}, {one['passes_after_seconds']:.1f} s" if "passes_in_epoch" in one else "not within these"
        lines.append(f"| {name} | {one['log_likelihood'][-1]:.2f} | {one['seconds'][-1]:.1f} | {passes} |")
    return "\n".join(lines)


def _start(results: Mapping[str, Any]) -> str:
    start = results["start"]
    imports = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in start["imports"].items())
    models = "; ".join(f"{name} {one['first_step']:.1f} s, {one['peak_mebibytes']:,.0f} MiB" for name, one in start["models"].items())
    return f"A process that imports what training takes: {imports}. From its start to the first step, and its peak memory: {models}."
