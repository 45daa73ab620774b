"""Imputation of a file of a million rows: peak resident memory and rows per second, for each kind of file.

    python benchmarks/streaming.py [--rows 1000000]

writes benchmarks/results/streaming.json and a table in benchmarks/README.md. Protocol: one thread; vectors of 32
and 16 numbers and a label; each is absent from a third of the rows (never all three), and single cells are absent from a twentieth of the
first vectors; the default parts with latent 16, trained for an epoch a stage on 4,000 rows, since the weights make no difference to what
is measured. `nbridge impute` runs as a process of its own: memory is its peak (VmHWM), time that of the whole process. Beside it, as
the model's own speed: `nbridge.Model.impute` of rows in memory.
"""

from __future__ import annotations

import argparse
import atexit
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from readme import replace_section

import nbridge
from nbridge.data.numpy.archive import write_npz

RESULT = Path(__file__).resolve().parent / "results" / "streaming.json"
KINDS = {"npz": "rows.npz", "npy": "rows", "parquet": "rows.parquet"}
TITLES = {"npz": "`.npz` archive", "npy": "folder of `.npy` files", "parquet": "`.parquet` file"}
SPEC = {
    "latent_dim": 16,
    "modalities": {
        "signal": {"shape": 32, "encoder": "mlp", "likelihood": "normal"},
        "profile": {"shape": 16, "encoder": "mlp", "likelihood": "normal"},
        "label": {"shape": 10, "encoder": "mlp", "likelihood": "categorical", "weight": 10},
    },
    "training": {"batch_size": 256, "stages": {"joint": {"epochs": 1}, "bridges": {"epochs": 1}}},
}
BARE_ROWS = 50_000


def draw(rows: int, *, holes: bool = True) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 10, rows)
    centres = rng.normal(size=(10, 48)).astype(np.float32)
    both = centres[label] + 0.5 * rng.normal(size=(rows, 48)).astype(np.float32)
    arrays = {"signal": both[:, :32].copy(), "profile": both[:, 32:].copy(), "label": label.astype(np.float32)}
    if holes:
        absent = rng.random((3, rows)) < 1 / 3
        absent[2] &= ~absent[:2].all(0)
        for mask, array in zip(absent, arrays.values(), strict=True):
            array[mask] = np.nan
        cells = rng.random((rows, 32)) < 0.2
        arrays["signal"][cells & (rng.random(rows) < 0.05)[:, None]] = np.nan
    return {"id": np.arange(rows), **arrays}


def write(folder: Path, kind: str, rows: int) -> Path:
    arrays, path = draw(rows), folder / KINDS[kind]
    if kind == "npz":
        write_npz(path, arrays)
    elif kind == "npy":
        path.mkdir()
        for name, array in arrays.items():
            np.save(path / f"{name}.npy", array)
    else:
        import pyarrow as pa
        from pyarrow import parquet

        lists = {name: pa.FixedSizeListArray.from_arrays(x.reshape(-1), x.shape[1]) if x.ndim > 1 else x for name, x in arrays.items()}
        parquet.write_table(pa.table(lists), path)
    return path


def measure(run: Path, kind: str, rows: int) -> dict[str, float]:
    """Seconds and mebibytes of one process."""
    with tempfile.TemporaryDirectory(dir=run.parent) as folder:
        path = write(Path(folder), kind, rows)
        out = path.with_name(path.name.replace("rows", "out"))
        command = [sys.executable, __file__, "--child", "impute", str(run), str(path), "--out", str(out)]
        started = time.perf_counter()
        done = subprocess.run(command, capture_output=True, check=True, text=True)
        seconds = time.perf_counter() - started
    return {"seconds": seconds, "rows_per_second": rows / seconds, "peak_mib": float(done.stderr)}


def child(arguments: list[str]) -> None:
    """Runs the command and prints its peak memory at exit."""
    from nbridge.cli.main import main as command_line

    # Not getrusage, whose peak is inherited from the parent process.
    lines = Path("/proc/self/status").read_text
    atexit.register(lambda: sys.stderr.write(str(next(int(x.split()[1]) for x in lines().splitlines() if x.startswith("VmHWM")) / 1024)))
    torch.set_num_threads(1)
    sys.argv = ["nbridge", *arguments]
    command_line()


def bare(model: nbridge.MultimodalVAE) -> float:
    """Rows per second of rows in memory."""
    from nbridge.data.arrays import to_batch

    arrays = draw(BARE_ROWS)
    batch = to_batch(arrays, {name: likelihood.shape for name, likelihood in model.likelihoods.items()}, ignore_extra=True)
    nbridge.Model(model).impute(batch.slice(0, 1000))
    started = time.perf_counter()
    nbridge.Model(model).impute(batch)
    return BARE_ROWS / (time.perf_counter() - started)


def table(results: dict) -> str:
    few, many = results["few_rows"], results["rows"]
    lines = [
        "**Files of any size** (`benchmarks/streaming.py`, one thread; vectors of 32 and 16 numbers and a label, each absent from a third "
        f"of the rows): `nbridge impute` of {many:,} rows. The model's own speed, on rows in memory, is "
        f"{results['bare_rows_per_second']:,.0f} rows per second.",
        "",
        f"| kind | peak memory, {few:,} rows | peak memory, {many:,} rows | rows per second, start and checks included |",
        "|---|---|---|---|",
    ]
    for kind, title in TITLES.items():
        first, last = results["files"][kind][str(few)], results["files"][kind][str(many)]
        lines.append(f"| {title} | {first['peak_mib']:.0f} MiB | {last['peak_mib']:.0f} MiB | {last['rows_per_second']:,.0f} |")
    return "\n".join(lines)


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    sizes = (options.rows // 10, options.rows)
    folder = Path(tempfile.mkdtemp())
    try:
        rows = {name: array for name, array in draw(4000, holes=False).items() if name != "id"}
        model = nbridge.train(SPEC, rows, out=folder / "run").model
        results = {
            "rows": options.rows,
            "few_rows": options.rows // 10,
            "threads": torch.get_num_threads(),
            "bare_rows_per_second": bare(model.network),
            "files": {kind: {str(size): measure(folder / "run", kind, size) for size in sizes} for kind in KINDS},
        }
    finally:
        shutil.rmtree(folder)
    print(json.dumps(results, indent=1))
    print(table(results))
    RESULT.write_text(json.dumps(results, indent=1) + "\n")
    replace_section("streaming", table(results))


if __name__ == "__main__":
    main()
