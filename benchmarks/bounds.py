"""Peak memory of commands on inputs that would need more than any machine has.

    python -m benchmarks.bounds

runs each command in a process of its own, asserts its exit code, and writes benchmarks/results/bounds.json and a table in
docs/explanation/reliability.md. Memory is the peak of the process; `import torch` is what each of them needs in any case.
"""

from __future__ import annotations

import csv
import json
import socket
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

import anndata
import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import parquet

import nbridge
from benchmarks.readme import replace_section

RESULTS = Path(__file__).resolve().parent / "results" / "bounds.json"
ROWS = 20_000
IDS = ["x" * 30_000 if row == 7 else f"r{row}" for row in range(ROWS)]
X = np.random.default_rng(0).normal(size=ROWS).astype(np.float32)
PART = {"encoder": "mlp", "likelihood": "normal"}
SPEC = {"modalities": {"x": {"shape": 4, **PART}, "y": {"shape": 4, **PART}}}
UPLOADS = 50


@dataclass(frozen=True)
class Measured:
    """A command, and what it took.

    Arguments:
        case: What is large about its input.
        megabytes: Peak memory of its process, in MB.
        seconds: Its time.
        status: Its exit code; None for a server, which goes on.
        line: The last line of its errors.
    """

    case: str
    megabytes: float
    seconds: float
    status: int | None
    line: str


def measured(case: str, status: int, *command: object) -> Measured:
    """Runs a command of nbridge, and asserts its exit code."""
    return _run(case, status, ["-m", "nbridge", *map(str, command)])


# Linux counts the peak memory of a process from its fork on: the process that measures must be small.
LAUNCHER = """
import json, os, subprocess, sys
process = subprocess.Popen([sys.executable, *sys.argv[1:]], stdout=subprocess.DEVNULL)
_, ended, usage = os.wait4(process.pid, 0)
print(json.dumps([os.waitstatus_to_exitcode(ended), usage.ru_maxrss]))
"""


def _run(case: str, status: int, arguments: Sequence[str]) -> Measured:
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", LAUNCHER, *arguments], capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - started
    code, kilobytes = json.loads(done.stdout)
    lines = done.stderr.splitlines()
    assert code == status, (case, code, lines[-3:])
    line = lines[-1] if lines else ""
    for argument in arguments:
        line = line.replace(f"{Path(argument).parent}/", "") if Path(argument).is_absolute() else line
    return Measured(case, kilobytes / 1000, seconds, status, line)


def long_identifier(folder: Path) -> list[Measured]:
    """One identifier of 30 kB among 20,000 rows, in each kind of file that has identifiers."""
    with (folder / "ids.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("id", "x"), *zip(IDS, X.tolist(), strict=True)])
    parquet.write_table(pa.table({"id": IDS, "x": X}), folder / "ids.parquet")
    anndata.AnnData(X=X[:, None], obs=pd.DataFrame(index=pd.Index(IDS)), var=pd.DataFrame(index=pd.Index(["x"]))).write_h5ad(
        folder / "ids.h5ad"
    )
    sources = {
        "csv": {"source": "table", "id": "id", "columns": {"x": ["x"]}},
        "parquet": {"source": "parquet", "id": "id", "columns": {"x": ["x"]}},
        "h5ad": {"source": "h5mu", "keys": {"x": "X"}},
    }
    found = []
    for kind, source in sources.items():
        spec = folder / f"ids_{kind}.yaml"
        spec.write_text(json.dumps({"modalities": {"x": {"shape": 1, **PART}}, "data": {**source, "path": f"{folder}/ids.{kind}"}}))
        found.append(measured(f"one identifier of 30 kB in 20,000 rows, {kind}", 0, "validate", spec, "--data"))
    return found


def sizes_in_specs(folder: Path) -> list[Measured]:
    """Numbers in a spec that no memory holds, very many mistakes, and very deep brackets."""
    many = {**SPEC, "modalities": {f"m{number}": {"shape": -1, **PART} for number in range(10_000)}}
    texts = {"latent_dim 1e9": {**SPEC, "latent_dim": 10**9}, "10,000 mistakes in a spec": many}
    found = []
    for case, spec in texts.items():
        (folder / "spec.yaml").write_text(json.dumps(spec, indent=1))
        found.append(measured(case, 2, "validate", folder / "spec.yaml"))
    (folder / "spec.yaml").write_text("[" * 10**6)
    return [*found, measured("a YAML file of 1,000,000 brackets", 2, "validate", folder / "spec.yaml")]


def model_in(folder: Path) -> Path:
    """An untrained model with rows for it."""
    nbridge.Model.from_spec(nbridge.Spec.model_validate(SPEC)).save(folder / "model")
    np.savez(folder / "rows.npz", x=np.ones((3, 4), np.float32))
    return folder / "model"


def numbers_of_draws(folder: Path) -> list[Measured]:
    """Numbers of draws, given to commands, that no memory holds."""
    model = model_in(folder)
    impute = ("impute", model, folder / "rows.npz", "--out", folder / "out.npz")
    return [
        measured("generate --num 1e9", 2, "generate", model, "--num", 10**9, "--out", folder / "out.npz"),
        measured("impute --samples 1e9", 2, *impute, "--samples", 10**9),
    ]


def hostile_files(folder: Path) -> list[Measured]:
    """Headers of files that promise more than they hold, and JSON of a model that is very deep."""
    model = model_in(folder)
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({10**20}, 4), }}".encode()
    with zipfile.ZipFile(folder / "lies.npz", "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(80))
    (folder / "images").mkdir()
    (folder / "images" / "large.png").write_bytes(_png(13_000, 13_000))
    found = [
        measured("an npz header of 1e20 rows", 2, "impute", model, folder / "lies.npz", "--out", folder / "out.npz"),
        measured("an image of 169 megapixels", 2, "init", folder / "images", "--out", folder / "images.yaml"),
    ]
    (model / "config.json").write_text("[" * 10**6)
    return [
        *found,
        measured("a model with JSON of 1,000,000 brackets", 2, "impute", model, folder / "rows.npz", "--out", folder / "out.npz"),
    ]


def _png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(10))) + chunk(b"IEND", b"")


def stuck_uploads(folder: Path) -> list[Measured]:
    """Uploads to the explorer of 16 MB each that stop half-way."""
    command = [sys.executable, "-m", "nbridge", "explore", str(model_in(folder)), "--port", "0", "--no-browser"]
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process, ExitStack() as stack:
        assert process.stdout is not None
        address = next(word for line in process.stdout for word in line.split() if word.startswith("http"))
        port = urlsplit(address).port
        for _ in range(UPLOADS):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            head = f"POST /api/upload HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-length: {16 * 2**20}\r\n\r\n"
            client.sendall(head.encode() + bytes(8 * 2**20))
        time.sleep(2)
        status = dict(line.split(":", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines())
        seconds = time.perf_counter() - started
        process.terminate()
    return [Measured(f"{UPLOADS} uploads to the explorer that stop half-way", int(status["VmHWM"].split()[0]) / 1000, seconds, None, "")]


CASES: tuple[Callable[[Path], list[Measured]], ...] = (long_identifier, sizes_in_specs, numbers_of_draws, hostile_files, stuck_uploads)


def main() -> None:
    found = [_run("import torch", 0, ["-c", "import torch"])]
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            found += case(Path(folder))
    RESULTS.write_text(json.dumps([asdict(one) for one in found], indent=1) + "\n")
    ends = {0: "served", 2: "one line, exit 2", None: "further requests are answered"}
    rows = [f"| {one.case} | {one.megabytes:,.0f} | {ends[one.status]} |" for one in found]
    replace_section("bounds", "\n".join(["| input | peak memory, MB | end |", "|---|---:|---|", *rows]))
    print("\n".join(f"{one.megabytes:7.0f} MB {one.seconds:5.1f} s  {one.case}: {one.line[:100]}" for one in found))


if __name__ == "__main__":
    main()
