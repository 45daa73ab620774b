"""Training with two processes compared with one: steps per second, and final losses.

    python benchmarks/processes.py [--sizes 128,256,512,1024] [--repeats 5] [--epochs 2]

writes benchmarks/results/processes.json and a table in benchmarks/README.md. Protocol: stage joint of MNIST
image and label (`modality_specs/mnist_label.yaml` with an MLP of widths 512, 512 and its mirror for the image); the same global batch, so
that two processes take half of it each; one thread a process; exchanges through shared memory. Each measurement is a run of its own by
`nbridge train`, alone or under torchrun, the two in alternation; steps a second are those of its last epoch, validation included, as
`metrics.jsonl` has them. Run it where nothing else runs: on two cores two processes leave none to others.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from readme import replace_section

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "processes.json"
SPEC = ROOT / "modality_specs" / "mnist_label.yaml"
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node")


def measure(processes: int, size: int, epochs: int) -> dict[str, float]:
    """One run: steps a second, training and validation loss of its last epoch."""
    launcher = (*TORCHRUN, str(processes)) if processes > 1 else ()
    settings = {
        "model": "joint",
        "modalities.image.encoder": "{type: mlp, hidden: [512, 512]}",
        "training.batch_size": size,
        "training.stages": f"{{joint: {{epochs: {epochs}}}}}",
    }
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, *launcher, "-m", "nbridge", "train", str(SPEC), "--out", f"{folder}/run", "--device", "cpu"]
        command += [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(done.stderr)
        last = json.loads(Path(folder, "run", "metrics.jsonl").read_text().splitlines()[-1])
        rows = json.loads(Path(folder, "run", "env.json").read_text())["rows"]["train"]
    return {"steps_per_second": rows // size / last["seconds"], "loss": last["loss"], "validation_loss": last["validation_loss"]}


def compare(size: int, repeats: int, epochs: int) -> dict:
    measured: dict[int, list[dict[str, float]]] = {1: [], 2: []}
    for _ in range(repeats):
        for processes, found in measured.items():
            found.append(measure(processes, size, epochs))
    speeds = {processes: [each["steps_per_second"] for each in found] for processes, found in measured.items()}
    ratios = [two / one for one, two in zip(speeds[1], speeds[2], strict=True)]
    return {
        **{
            f"processes_{processes}": {
                "steps_per_second": median(speeds[processes]),
                "each": speeds[processes],
                # Equal in every repeat, because training depends only on the seed and the number of processes.
                "loss": found[-1]["loss"],
                "validation_loss": found[-1]["validation_loss"],
            }
            for processes, found in measured.items()
        },
        "ratio": median(speeds[2]) / median(speeds[1]),
        "ratios": ratios,
    }


def table(results: dict) -> str:
    lines = [
        "| rows in a batch | one process, steps / s | two processes, steps / s | ratio (range) | validation loss of one / two, nats |",
        "|---|---|---|---|---|",
    ]
    for size, found in results["sizes"].items():
        one, two, ratios = found["processes_1"], found["processes_2"], found["ratios"]
        ratio = f"{found['ratio']:.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        losses = f"{one['validation_loss']:.2f} / {two['validation_loss']:.2f}"
        lines.append(f"| {size} | {one['steps_per_second']:.1f} | {two['steps_per_second']:.1f} | {ratio} | {losses} |")
    note = (
        f"Stage joint of MNIST image and label, image networks of widths 512, 512; the same batch shared out; one thread a process on "
        f"{results['cores']} cores; medians of {results['repeats']}, in alternation; losses after {results['epochs']} epochs."
    )
    return "\n".join([*lines, "", note])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="128,256,512,1024")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=2)
    options = parser.parse_args()
    results = {
        "repeats": options.repeats,
        "epochs": options.epochs,
        "cores": os.cpu_count(),
        "sizes": {size: compare(int(size), options.repeats, options.epochs) for size in options.sizes.split(",")},
    }
    print(json.dumps(results, indent=1))
    print(table(results))
    RESULT.write_text(json.dumps(results, indent=1) + "\n")
    replace_section("processes", table(results))


if __name__ == "__main__":
    main()
