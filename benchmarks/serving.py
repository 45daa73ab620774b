"""Cost of imputing incomplete rows, compared with the same rows complete.

    python -m benchmarks.serving [--rows 10000] [--repeats 5] [--specs digits,mfeat]

writes benchmarks/results/serving.json and a table in benchmarks/README.md. Models of shipped specs, and `polymnist` with a flow (these two
decode images for many minutes), with initial weights (time does not depend on them); values drawn from their likelihoods; each modality of
a mixed row is there with probability one half, one of them always. Three batches of the same rows are timed in turn, on one thread:

- `posterior`: q(z given what is present) alone, 1,024 rows at a time as `nbridge.Model.impute` takes them;
- `impute`: all of `nbridge.Model.impute`, the point estimate of everything absent from 64 draws of z. Of rows in which nothing is absent it
  decodes nothing, so the fair comparison with mixed rows is `posterior and decoding`: the posterior of the complete rows, and the
  same estimate of every modality. Mixed rows need it only for what they lack. The time of `impute` on complete rows is also given.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

import torch

import nbridge
from benchmarks.readme import replace_section
from nbridge.data.batch import Batch
from nbridge.inference.impute import POINT_DRAWS, rows_at_a_time, serving
from nbridge.models.base import MultimodalVAE

HERE = Path(__file__).resolve().parent
RESULT = HERE / "results" / "serving.json"
SPECS: Mapping[str, tuple[str, ...]] = {
    "digits": (),
    "mfeat": (),
    "polymnist": (),
    "polymnist, flow": ("bridges={type: flow}",),
}


def batches(model: MultimodalVAE, rows: int) -> tuple[Batch, Batch]:
    """Complete rows, and the same with each modality absent from half of them."""
    with torch.no_grad():
        values = {name: x.canonical(x(torch.randn(rows, *x.raw_shape)).sample()) for name, x in model.likelihoods.items()}
    complete = Batch.complete(values)
    present = torch.rand(len(model.names), rows) < 0.5
    present[torch.randint(len(model.names), (rows,)), torch.arange(rows)] = True
    return complete, Batch(values, dict(zip(complete.names, present, strict=True)))


def posterior(model: MultimodalVAE, batch: Batch) -> None:
    with serving(model, 0):
        for start in range(0, len(batch), 1024):
            model.posterior(batch.slice(start, start + 1024))


def decoded(model: MultimodalVAE, batch: Batch) -> None:
    """The posterior of complete rows, and an estimate of every modality."""
    size = rows_at_a_time(model)
    with serving(model, 0):
        for start in range(0, len(batch), size):
            z = model.posterior(batch.slice(start, start + size), POINT_DRAWS).sample()
            for name, likelihood in model.likelihoods.items():
                likelihood.point(likelihood.expectation(model.decoder(name)(z)).mean(0))


def measure(name: str, rows: int, repeats: int) -> dict[str, float]:
    """Seconds of each, medians in alternation."""
    spec = nbridge.read_spec(HERE.parent / "modality_specs" / f"{name.partition(',')[0]}.yaml", overrides=SPECS[name])
    torch.manual_seed(0)
    model = nbridge.build_model(spec).eval()
    complete, mixed = batches(model, rows)
    work: dict[str, Callable[[], object]] = {
        "posterior, complete": lambda: posterior(model, complete),
        "posterior, mixed": lambda: posterior(model, mixed),
        "posterior and decoding, complete": lambda: decoded(model, complete),
        "impute, mixed": lambda: nbridge.Model(model).impute(mixed),
        "impute, complete": lambda: nbridge.Model(model).impute(complete),
    }
    seconds: dict[str, list[float]] = {what: [] for what in work}
    # The first turn is a warm-up.
    for turn in range(repeats + 1):
        for what, run in work.items():
            started = time.perf_counter()
            run()
            if turn:
                seconds[what].append(time.perf_counter() - started)
    return {what: median(values) for what, values in seconds.items()}


def table(results: dict) -> str:
    lines = [
        f"{results['rows']:,} rows, 1 thread, medians of {results['repeats']}, seconds:",
        "",
        "| spec | posterior: complete | mixed | ratio | posterior and decoding, complete | `impute`, mixed | ratio | `impute`, complete |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, t in results["specs"].items():
        whole, mixed, both = t["posterior, complete"], t["posterior, mixed"], t["posterior and decoding, complete"]
        ends = f"{both:.2f} | {t['impute, mixed']:.2f} | {t['impute, mixed'] / both:.2f} | {t['impute, complete']:.2f}"
        lines.append(f"| {name} | {whole:.3f} | {mixed:.3f} | {mixed / whole:.2f} | {ends} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--specs", default="digits,mfeat,polymnist", help="which to measure, polymnist also with a flow")
    options = parser.parse_args()
    torch.set_num_threads(1)
    specs = {}
    for name in (name for name in SPECS if name.partition(",")[0] in options.specs.split(",")):
        specs[name] = measure(name, options.rows, options.repeats)
        print(name, {what: round(seconds, 3) for what, seconds in specs[name].items()}, flush=True)
    results = {"rows": options.rows, "repeats": options.repeats, "specs": specs}
    RESULT.write_text(json.dumps(results, indent=1) + "\n")
    replace_section("serving", table(results))
    print(table(results))


if __name__ == "__main__":
    main()
