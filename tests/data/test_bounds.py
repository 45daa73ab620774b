"""Sizes: what one long text costs, and what no memory holds is refused from its numbers."""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

import nbridge
from nbridge.common import memory
from nbridge.data.ids import check_ids, fixed_width
from nbridge.data.images.decode import UnreadableImageError, decoded
from nbridge.data.numpy.archive import read_npz
from nbridge.data.numpy.npz import NPZ
from nbridge.data.omics.source import H5MU
from nbridge.data.source import DataSource
from nbridge.data.tables.parquet import Parquet
from nbridge.data.tables.source import Table
from nbridge.errors import DataError

ROWS, LONG = 30, "x" * 30_000
IDS = [LONG if row == 7 else f"r{row}" for row in range(ROWS)]
X = np.arange(ROWS, dtype=np.float32)


def of_csv(folder: Path) -> DataSource:
    (folder / "a.csv").write_text("id,x\n" + "".join(f"{name},{x}\n" for name, x in zip(IDS, X, strict=True)))
    return Table(path=str(folder / "a.csv"))


def of_joined(folder: Path) -> DataSource:
    of_csv(folder)
    (folder / "b.csv").write_text("id,y\n" + "".join(f"{name},1\n" for name in IDS[:9]))
    return Table(path=[str(folder / "a.csv"), str(folder / "b.csv")], id="id")


def of_parquet(folder: Path) -> DataSource:
    parquet.write_table(pa.table({"id": IDS, "x": X}), folder / "a.parquet")
    return Parquet(path=str(folder / "a.parquet"))


def of_h5ad(folder: Path) -> DataSource:
    anndata.AnnData(X=X[:, None], obs=pd.DataFrame(index=IDS), var=pd.DataFrame(index=["x"])).write_h5ad(folder / "a.h5ad")
    return H5MU(path=str(folder / "a.h5ad"), keys={"x": "X"})


@pytest.mark.parametrize("source", [of_csv, of_joined, of_parquet, of_h5ad])
def test_one_long_identifier_makes_no_other_one_long(tmp_path: Path, source: Callable[[Path], DataSource]):
    found = source(tmp_path).load({"x": (1,)}).ids
    assert found is not None
    assert (found.tolist(), found.nbytes) == (IDS, 8 * ROWS)


def test_identifiers_are_as_wide_as_the_longest_only_in_numpy_files(monkeypatch: pytest.MonkeyPatch):
    ids = check_ids(IDS)
    assert fixed_width(ids).dtype == "<U30000"
    assert fixed_width(ids).tolist() == IDS
    assert fixed_width(check_ids([3, 1])).dtype == np.int64
    monkeypatch.setattr(memory, "free_bytes", lambda: 10**6)
    with pytest.raises(DataError, match=r"^identifiers, all as wide as the longest, would take 0\.0 GB, and 0\.0 GB are free$"):
        fixed_width(ids)


def test_a_duplicate_is_named_in_short():
    with pytest.raises(DataError, match=r"^ids: duplicate 'x{40}\.\.\.' in row 0 and row 1$"):
        check_ids([LONG, LONG])
    with pytest.raises(DataError, match=r"^ids: duplicate 3 in row 0 and row 1$"):
        check_ids([3, 3])


def test_one_long_class_makes_no_other_one_long():
    words = np.array([LONG if row == 7 else "ab"[row % 2] for row in range(400)], dtype=object)
    assert "y" in nbridge.init({"x": np.arange(400) / 7 % 1, "y": words}).text


def npy(shape: str, descr: str = "<f4") -> bytes:
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(80)


@pytest.mark.parametrize("shape", [f"({10**20}, 4)", f"(0, {10**20})", f"({10**11}, 4)", "(-5, 4)"])
def test_a_header_that_lies_is_damage(tmp_path: Path, shape: str):
    path, folder = tmp_path / "a.npz", tmp_path / "rows"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", npy(shape))
    folder.mkdir()
    (folder / "x.npy").write_bytes(npy(shape))
    model = nbridge.Model.from_spec(
        nbridge.Spec.model_validate({"modalities": {"x": {"shape": 4, "encoder": "mlp", "likelihood": "normal"}}})
    )
    reads: list[Callable[[], object]] = [
        lambda: read_npz(path), lambda: NPZ(path=str(path)).load({"x": (4,)}), lambda: model.impute(path, tmp_path / "out.npz"),
        lambda: model.impute(folder, tmp_path / "out"),
    ]  # fmt: skip
    for read in reads:
        with pytest.raises(DataError, match=r"x") as error:
            read()
        assert "\n" not in str(error.value)


def png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(10))) + chunk(b"IEND", b"")


def test_an_image_of_169_megapixels_is_refused_by_its_header():
    with pytest.raises(UnreadableImageError, match=re.escape("13,000 × 13,000 pixels, at most 89,478,485 are allowed")):
        decoded(png(13_000, 13_000))
    with pytest.raises(UnreadableImageError, match="too many pixels"):
        decoded(png(30_000, 30_000))


def test_columns_are_compared_once(tmp_path: Path):
    (tmp_path / "a.csv").write_text(",".join(f"c{place}" for place in range(20_000)) + f",{LONG},{LONG}\n")
    with pytest.raises(DataError, match=r"a\.csv: duplicate column 'x{40}\.\.\.' in the header$"):
        Table(path=str(tmp_path / "a.csv")).load({"x": (1,)})


SPEC = {"modalities": {name: {"shape": 4, "encoder": "mlp", "likelihood": "normal"} for name in "xy"}}


@pytest.mark.parametrize("option", ["num", "samples", "draws", "embed"])
def test_draws_that_no_memory_holds_are_refused_from_their_number(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, option: str):
    model = nbridge.Model.from_spec(nbridge.Spec.model_validate(SPEC))
    monkeypatch.setattr(memory, "free_bytes", lambda: 1e9)
    rows, path, many = {"x": np.ones((3, 4), np.float32)}, tmp_path / "rows.npz", 10**9
    np.savez(path, **rows)
    calls: dict[str, list[Callable[[], object]]] = {
        "num": [lambda: model.generate(many), lambda: model.generate(many, {"x": np.ones(4)})],
        "samples": [lambda: model.impute(rows, samples=many), lambda: model.impute(path, tmp_path / "out.npz", samples=many)],
        "draws": [lambda: model.impute(rows, intervals=[0.9], draws=many), lambda: model.summarise(rows, draws=many)],
        "embed": [lambda: model.embed(rows, samples=many)],
    }
    for call in calls[option]:
        named = "samples" if option == "embed" else option
        with pytest.raises(
            DataError, match=rf"{named} 1000000000: 1,000,000,000 draws of 40 numbers would take 160\.0 GB, and 1\.0 GB are free$"
        ):
            call()
    assert not (tmp_path / "out.npz").exists()
