"""Damaged npz files: bytes of the archive, and bytes and headers of its members behind a right checksum."""

from __future__ import annotations

import functools
import io
import zipfile
from pathlib import Path
from random import Random

import numpy as np

import nbridge
from nbridge.spec.spec import Spec

from .mutations import NUMBERS, damaged
from .rows import ROWS, model_of, same, small, use

SHAPES = {
    "x": {"shape": 3, "likelihood": "normal"},
    "kind": {"shape": 3, "likelihood": "categorical"},
    "n": {"shape": 2, "likelihood": "poisson"},
}
TYPES = ("<f4", ">f4", "<f8", "|b1", "<i8", "<u2", "|O", "<U3", "|S3", "<c8", "<M8[D]", "|V4", "<f2", "[('a', '<f4')]", "nothing")


def arrays() -> dict[str, np.ndarray]:
    """Rows with missing cells and rows."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, 3))
    x[::5] = np.nan
    x[1, 2] = np.nan
    kind = rng.integers(0, 3, ROWS).astype(np.float32)
    kind[3::7] = np.nan
    counts = rng.poisson(2, (ROWS, 2))
    return {"x": x, "kind": kind, "n": counts, "n__present": rng.random(ROWS) < 0.8, "id": np.array([f"p{row}" for row in range(ROWS)])}


@functools.cache
def members(compressed: bool) -> tuple[dict[str, bytes], bytes]:
    """The members of the archive, and the archive."""
    buffer, found = io.BytesIO(), {}
    (np.savez_compressed if compressed else np.savez)(buffer, **arrays())
    with zipfile.ZipFile(buffer) as archive:
        found = {name: archive.read(name) for name in archive.namelist()}
    return found, buffer.getvalue()


def spec(path: Path) -> Spec:
    """A spec of the rows in a file."""
    return small(SHAPES, {"source": "npz", "path": str(path), "id": "id"})


@functools.cache
def model(folder: Path) -> nbridge.Model:
    """A model of the undamaged rows."""
    np.savez(folder / "base.npz", **arrays())
    return model_of(spec(folder / "base.npz"))


def prepare(folder: Path) -> None:
    """Makes the model."""
    model(folder)


def case(rng: Random, folder: Path) -> None:
    """Uses a damaged archive."""
    path = folder / "rows.npz"
    parts, whole = members(compressed=rng.random() < 0.3)
    path.write_bytes(damaged(rng, whole) if rng.random() < 0.4 else archive_of(changed_members(rng, parts)))
    use(rng, path, spec, model(folder.parent), unchanged)


def changed_members(rng: Random, parts: dict[str, bytes]) -> list[tuple[str, bytes]]:
    """Members of which one is damaged, missing, doubled or called otherwise."""
    found = list(parts.items())
    place = rng.randrange(len(found))
    name, content = found[place]
    match rng.randrange(8):
        case 0:
            del found[place]
        case 1:
            found.append((rng.choice((name, "../out.npy", "y.npy", "x__present.npy", "x__imputed.npy", "x", "x.txt", "a" * 300)), content))
        case 2:
            found[place] = (name, found[rng.randrange(len(found))][1])
        case 3 | 4:
            found[place] = (name, with_header(rng, content))
        case 5:
            values = damaged(rng, content[128:])
            found[place] = (name, content[:128] + (values + bytes(len(content)))[: len(content) - 128])
        case _:
            found[place] = (name, damaged(rng, content))
    return found


def with_header(rng: Random, content: bytes) -> bytes:
    """A member with another header, of the right length."""
    number = rng.choice(NUMBERS)
    shape = rng.choice((f"({ROWS},)", f"({ROWS}, 3)", f"({number},)", f"({ROWS}, {number})", f"({number}, 0)", "()", "(2, 12, 3)", "[24]"))
    order = rng.choice(("False", "False", "True", "0"))
    kind = rng.choice(TYPES)
    kind = kind if kind.startswith("[") else repr(kind)
    header = f"{{'descr': {kind}, 'fortran_order': {order}, 'shape': {shape}, }}".encode()
    return content[:8] + len(header).to_bytes(2, "little") + header + content[128:]


def archive_of(parts: list[tuple[str, bytes]]) -> bytes:
    """An archive with right checksums."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in parts:
            archive.writestr(name, content)
    return buffer.getvalue()


def unchanged(before: Path, after: Path) -> None:
    """Observed values are those of the file."""
    with np.load(before, allow_pickle=False) as old, np.load(after, allow_pickle=False) as new:
        for name in old.files:
            if name in SHAPES:
                values, completed, present = old[name], new[name], presence(old, name)
                same(values[present], completed[present])
            elif not name.endswith(("__imputed", "__present")):
                assert old[name].tobytes() == new[name].tobytes(), "another array has changed"


def presence(arrays: np.lib.npyio.NpzFile, name: str) -> np.ndarray:
    """The rows that have a modality."""
    flag = f"{name}__present"
    return arrays[flag].astype(bool) if flag in arrays.files else np.ones(len(arrays[name]), dtype=bool)
