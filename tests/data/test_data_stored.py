"""Rows on disk: they are the rows in memory, every one once an epoch, read from few places, in bounded memory."""

from __future__ import annotations

import itertools
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from processes import Script, Started
from torch import Tensor

import nbridge
from nbridge.cli import main as command_line
from nbridge.data.arrays import to_batch
from nbridge.data.batch import Batch
from nbridge.data.numpy.npy import NPYFolder, NPYStore
from nbridge.data.source import DataSource
from nbridge.data.split import Dataset, split
from nbridge.data.streaming import store
from nbridge.data.streaming import stored_rows as stored
from nbridge.data.streaming.stored_rows import StoredRows
from nbridge.data.tables.parquet import Parquet
from nbridge.errors import DataError
from nbridge.training.callbacks import Callback
from nbridge.training.records import EpochRecord
from nbridge.training.run_folder import METRICS, fingerprint
from nbridge.training.trainer import fit

NAN = float("nan")
ROWS = 300
SHAPES = {"x": (3,), "b": (1, 2, 2), "y": (4,)}
SPEC: dict[str, Any] = {
    "latent_dim": 3,
    "modalities": {
        "x": {"shape": 3, "features": 6, "encoder": {"type": "mlp", "hidden": [6]}, "likelihood": "normal"},
        "b": {"shape": [1, 2, 2], "features": 6, "encoder": {"type": "mlp", "hidden": [6]}, "likelihood": "bernoulli"},
        "y": {"shape": 4, "features": 6, "encoder": "embedding", "likelihood": "categorical"},
    },
    "fusion": {"hidden": [6]},
    "bridges": {"hidden": [6], "objective": {"elbo": 1, "distill": 1, "cross": 1}},
    "training": {"batch_size": 16, "checkpoint_seconds": 0, "stages": {"joint": {"epochs": 3}, "bridges": {"epochs": 2}}},
}


def arrays(rows: int = ROWS) -> dict[str, np.ndarray]:
    """Rows with whole modalities and single cells absent."""
    generator = np.random.default_rng(0)
    y = generator.integers(0, 4, rows)
    x = generator.normal(size=(rows, 3)) + y[:, None]
    x[::7] = NAN
    x[1::11, 1] = NAN
    b = (generator.random((rows, 4)) < 0.5).astype(np.uint8)
    return {"x": x, "b": b, "b__present": np.arange(rows) % 5 != 0, "y": np.where(np.arange(rows) % 9 == 0, NAN, y), "id": np.arange(rows)}


def write_npy(folder: Path, given: dict[str, np.ndarray]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, array in given.items():
        np.save(folder / f"{name}.npy", array)
    return folder


def write_parquet(path: Path, given: dict[str, np.ndarray], group: int = 23) -> Path:
    """x as three columns, b as lists with nulls, y as a number with nulls."""
    columns: dict[str, Any] = {f"x_{i}": pa.array(given["x"][:, i], from_pandas=i == 0) for i in range(3)}
    lists = [row.tolist() if here else None for row, here in zip(given["b"], given["b__present"], strict=True)]
    columns["b"] = pa.array(lists, pa.list_(pa.uint8(), 4))
    columns["y"] = pa.array(given["y"], from_pandas=True).cast(pa.int8())
    pq.write_table(pa.table({**columns, "id": given["id"]}), path, row_group_size=group)
    return path


def npy_source(folder: Path) -> DataSource:
    return NPYFolder(path=str(write_npy(folder / "rows", arrays())))


def parquet_source(folder: Path) -> DataSource:
    """Two files, so that blocks cross none."""
    given = arrays()
    (folder / "table").mkdir(exist_ok=True)
    for number, part in enumerate((slice(0, 111), slice(111, None))):
        write_parquet(folder / "table" / f"{number}.parquet", {name: array[part] for name, array in given.items()})
    return Parquet(path=str(folder / "table"), columns={"x": "x_*"})


SOURCES = {"npy": npy_source, "parquet": parquet_source}
KINDS = pytest.mark.parametrize("kind", SOURCES)


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of 93 rows, blocks of 10 (where a format may choose) and pieces of 7."""
    size = store.bytes_of(SHAPES)
    monkeypatch.setattr(store, "WINDOW", 93 * size)
    monkeypatch.setattr(store, "BLOCK", 10 * size)
    monkeypatch.setattr(store, "PIECE", 7 * size)


def opened(source: DataSource) -> StoredRows:
    rows = source.load(SHAPES).batch
    assert isinstance(rows, StoredRows)
    return rows


def in_memory() -> Batch:
    given = arrays()
    del given["id"]
    return to_batch(given, SHAPES)


def assert_same(one: Batch, other: Batch) -> None:
    for part, twin in ((one.values, other.values), (one.present, other.present), (one.cells, other.cells)):
        assert part.keys() == twin.keys()
        for name, tensor in part.items():
            assert tensor.dtype == twin[name].dtype, name
            assert torch.equal(tensor, twin[name]), name


def test_the_toy_rows_have_all_that_may_be_absent():
    batch = in_memory()
    assert batch.cells.keys() == {"x"}
    assert all(0 < mask.sum() < ROWS for mask in batch.present.values())


@KINDS
def test_rows_on_disk_are_the_rows_in_memory(kind: str, tmp_path: Path):
    dataset, whole = SOURCES[kind](tmp_path).load(SHAPES), in_memory()
    rows = dataset.batch
    assert isinstance(rows, StoredRows)
    assert dataset.ids is not None
    assert dataset.ids.tolist() == list(range(ROWS))
    assert (len(rows), rows.names) == (ROWS, ("x", "b", "y"))
    assert_same(rows.sample(), whole)
    assert_same(rows.slice(5, 207), whole.slice(5, 207))
    assert_same(rows.slice(290, 1000), whole.slice(290, 1000))
    assert_same(rows.slice(500, 1000), whole.slice(500, 1000))
    mixed = torch.tensor([299, 4, 4, 0, 120, 3])
    assert_same(rows.index(mixed), whole.index(mixed))
    mask = whole.present["x"] & ~whole.present["y"]
    assert_same(rows.index(mask), whole.index(mask))
    assert_same(rows.select("y", "b").index(mixed), whole.select("y", "b").index(mixed))
    assert_same(rows.through(lambda batch: batch.hide("y")).through(lambda batch: batch.only("y")).index(mixed), whole.only().index(mixed))
    for name, mask in rows.presence().present.items():
        assert torch.equal(mask, whole.present[name])


@KINDS
def test_a_subset_of_a_subset_is_the_same_rows_and_reads_nothing(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rows, whole = opened(SOURCES[kind](tmp_path)), in_memory()
    picked = torch.arange(ROWS).flip(0)[::3]
    mask = whole.present["b"][picked]
    with monkeypatch.context() as patch:
        patch.setattr(type(rows.store), "read", lambda *_: pytest.fail("something was read"))
        subset = rows.subset(picked).subset(mask)
        subset.presence(), subset.order(4), subset.digest(), subset.select("x")
    assert_same(subset.sample(), whole.index(picked).index(mask))


@KINDS
def test_every_row_comes_once_an_epoch_and_no_step_straddles_two_windows(kind: str, tmp_path: Path):
    rows = opened(SOURCES[kind](tmp_path)).subset(torch.arange(ROWS)[torch.arange(ROWS) % 10 != 3])
    first, second = (rows.order(20, torch.Generator().manual_seed(seed)) for seed in (0, 1))
    assert first.sort().values.tolist() == second.sort().values.tolist() == list(range(len(rows)))
    assert not torch.equal(first, second)
    assert torch.equal(first, rows.order(20, torch.Generator().manual_seed(0)))
    windows = [set(_blocks(rows, window)) for window in first.split(80)]
    # A block of the middle of a window is in no other: only those at its two ends are cut.
    shared = [one & other for one, other in itertools.pairwise(windows)]
    assert all(len(common) <= 1 for common in shared)
    assert sum(map(len, windows)) <= len(set().union(*windows)) + len(windows) - 1


def _blocks(rows: StoredRows, order: Tensor) -> list[int]:
    return (np.searchsorted(rows.store.starts, rows.positions[order].numpy(), side="right") - 1).tolist()


def test_a_window_holds_blocks_from_all_over_the_file_in_a_thorough_mix(tmp_path: Path):
    rows = opened(npy_source(tmp_path))
    order = rows.order(1, torch.Generator().manual_seed(3))
    windows = order.split(93)
    assert [len(set(_blocks(rows, window))) for window in windows] <= [11, 11, 11, 11]
    assert all(window.max() - window.min() > ROWS / 2 for window in windows[:3])
    inside = _blocks(rows, windows[0])
    assert sum(one != other for one, other in itertools.pairwise(inside)) > 60


def test_rows_that_fit_into_one_window_come_in_the_order_of_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rows = opened(npy_source(tmp_path))
    monkeypatch.setattr(store, "WINDOW", 2**26)
    for size in (16, 500):
        torch.manual_seed(4)
        expected, state = in_memory().order(size), torch.get_rng_state()
        torch.manual_seed(4)
        assert torch.equal(rows.order(size), expected)
        assert torch.equal(torch.get_rng_state(), state)


@KINDS
def test_batches_of_an_epoch_are_the_rows_asked_for_and_each_row_is_read_once(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rows, whole = opened(SOURCES[kind](tmp_path)), in_memory()
    read: list[np.ndarray] = []
    column = type(rows.store).column

    def counting(self: store.Store, name: str, positions: np.ndarray) -> Any:
        read.extend([positions] if name == "x" else [])
        return column(self, name, positions)

    monkeypatch.setattr(type(rows.store), "column", counting)
    parts = rows.order(16).split(16)
    for part, batch in zip(parts, rows.batches(parts), strict=True):
        assert_same(batch, whole.index(part))
    assert sorted(np.concatenate(read).tolist()) == list(range(ROWS))


def test_a_window_is_read_ahead_but_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rows = opened(npy_source(tmp_path))
    parts = torch.arange(ROWS).split(31)
    reads: list[int] = []
    original = StoredRows._read

    def counting(self: StoredRows, wanted: Tensor) -> Batch:
        reads.append(len(wanted))
        return original(self, wanted)

    monkeypatch.setattr(StoredRows, "_read", counting)
    batches = rows.batches(parts)
    assert reads == []
    next(batches)
    batches.close()  # waits for what is being read
    assert reads == [93, 93]


def test_what_goes_wrong_while_reading_ahead_is_told_by_the_batch_that_needs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rows, read, seen = opened(npy_source(tmp_path)), NPYStore.read, []

    def failing(self: NPYStore, name: str, start: int, stop: int) -> np.ndarray:
        if stop == ROWS:
            raise DataError("the last rows are gone")
        return read(self, name, start, stop)

    monkeypatch.setattr(NPYStore, "read", failing)
    with pytest.raises(DataError, match=r"^the last rows are gone$"):
        seen.extend(map(len, rows.batches(torch.arange(ROWS).split(31))))
    assert seen == [31] * 9


def test_a_file_that_changes_after_it_was_opened_is_told(tmp_path: Path):
    given = {**arrays(), "b": arrays()["b"].astype(float)}
    holes = np.where(np.arange(4) == 2, NAN, given["b"])
    rows = opened(NPYFolder(path=str(write_npy(tmp_path / "rows", given))))
    for name, array in (("x", np.ones((ROWS, 3))), ("b", holes)):
        write_npy(tmp_path / "rows", {**given, name: array})
        with pytest.raises(DataError, match=f"^{re.escape(str(tmp_path / 'rows'))}: modality '{name}' has changed since it was opened$"):
            rows.slice(0, 10)
    write_npy(tmp_path / "rows", {**given, "b": arrays()["b"]})
    with pytest.raises(DataError, match=f"^{re.escape(str(tmp_path / 'rows' / 'b.npy'))}: has changed since it was opened$"):
        rows.slice(0, 10)
    write_npy(tmp_path / "rows", given)
    assert len(rows.slice(0, 10)) == 10


def test_more_than_fits_in_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rows = opened(npy_source(tmp_path))
    monkeypatch.setattr(stored, "LIMIT", 100 * store.bytes_of(SHAPES))
    message = "300 rows on disk of 44 bytes each are too many to hold in memory at once; take 100 at most"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        rows.sample()
    assert len(rows.sample(100)) == 100


def test_a_sample_is_drawn_at_random_always_the_same_one_and_begins_with_smaller_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rows = opened(npy_source(tmp_path))
    assert_same(rows.sample(50), rows.sample(50))
    assert_same(rows.sample(50).slice(0, 20), rows.sample(20))
    assert_same(rows.sample(ROWS), in_memory())
    monkeypatch.setattr(stored, "STATISTICS_ROWS", 40)
    assert_same(rows.representative(), rows.sample(40))
    monkeypatch.setattr(store, "WINDOW", 2 * store.bytes_of(SHAPES))
    assert len(rows.representative()) == 16


@KINDS
def test_a_split_of_rows_on_disk_has_the_rows_of_the_split_in_memory_in_the_order_of_the_file(kind: str, tmp_path: Path):
    ids, groups = np.arange(ROWS) * 2, np.arange(ROWS) // 3
    rows, whole = opened(SOURCES[kind](tmp_path)), in_memory()
    parts = [split(Dataset(batch, ids, groups=groups), validation=0.2, test=0.3, seed=5) for batch in (rows, whole)]
    for name in ("train", "validation", "test"):
        (found, found_ids), (expected, expected_ids) = ((getattr(part, name), getattr(part, f"{name}_ids")) for part in parts)
        assert isinstance(found, StoredRows)
        assert found_ids.tolist() == sorted(expected_ids.tolist())
        assert_same(found.sample(), expected.index(torch.from_numpy(expected_ids).argsort()))


@given(st.lists(st.integers(0, 40), min_size=0, max_size=60), st.integers(1, 9), st.integers(1, 9))
def test_any_rows_in_any_order_are_read_whatever_blocks_and_pieces_are(wanted: list[int], block: int, piece: int):
    values = np.arange(82, dtype=np.float32).reshape(41, 2)

    class Array(store.Store):
        def read(self, name: str, start: int, stop: int) -> np.ndarray:
            assert name == "x"
            assert start // block == (stop - 1) // block
            return values[start:stop]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "PIECE", 8 * piece)
        rows = stored.open_rows(Array("array", {"x": (2,)}, [min(block, 41 - start) for start in range(0, 41, block)]))
    index = torch.tensor(wanted, dtype=torch.long)
    assert torch.equal(rows.index(index).values["x"], torch.from_numpy(values)[index])


# Training


class Records(Callback):
    def __init__(self) -> None:
        self.epochs: list[dict[str, object]] = []

    def on_validation(self, record: EpochRecord) -> None:
        self.epochs.append({**record.as_dict(), "seconds": 0})


def trained(train: Any, validation: Any, spec: nbridge.Spec) -> tuple[list[dict[str, object]], dict[str, Tensor]]:
    torch.manual_seed(0)
    model, records = nbridge.build_model(spec), Records()
    fit(model, train, validation, spec.training, callbacks=[records])
    return records.epochs, model.state_dict()


@KINDS
@pytest.mark.parametrize("budget", [{"epochs": 2}, {"updates": 9}], ids=["epochs", "updates"])
@pytest.mark.parametrize("model", ["bridged", "mvae"])
def test_training_from_disk_is_training_in_memory_on_the_same_rows_in_the_same_order(
    kind: str, model: str, budget: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    settings = {**SPEC["training"], "stages": {"joint": budget, **({"bridges": budget} if model == "bridged" else {})}}
    spec = nbridge.Spec.model_validate({**SPEC, "model": model, "training": settings})
    rows, whole = opened(SOURCES[kind](tmp_path)), in_memory()
    train, held_out = torch.arange(ROWS)[:250], torch.arange(ROWS)[250:]
    # The same order for both; that of rows on disk differs where they fill several windows, as here.
    in_windows = StoredRows.order
    subsets = {len(subset): subset for subset in _stage_rows(spec, rows.subset(train))}
    monkeypatch.setattr(Batch, "order", lambda batch, size, generator=None: in_windows(subsets[len(batch)], size, generator))
    from_disk = trained(rows.subset(train), rows.subset(held_out), spec)
    from_memory = trained(whole.index(train), whole.index(held_out), spec)
    assert from_disk[0] == from_memory[0]
    assert ("hidden" in from_disk[0][-1]) == ("updates" in budget)
    assert all(torch.equal(tensor, from_memory[1][name]) for name, tensor in from_disk[1].items())


def test_batches_that_happen_to_be_whole_train_as_in_memory_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(store, "WINDOW", 2**26)
    generator, spec = np.random.default_rng(1), nbridge.Spec.model_validate(SPEC)
    given = {"x": generator.normal(size=(ROWS, 3)), "b": generator.random((ROWS, 4)), "y": generator.integers(0, 4, ROWS).astype(float)}
    given["b"][7, 1] = given["y"][9] = NAN
    rows = opened(NPYFolder(path=str(write_npy(tmp_path / "rows", given))))
    assert trained(rows, None, spec)[0] == trained(to_batch(given, SHAPES), None, spec)[0]


def _stage_rows(spec: nbridge.Spec, rows: StoredRows) -> list[StoredRows]:
    model = nbridge.build_model(spec)
    prepared = rows.through(model.prepare)
    return [prepared.subset(stage.rows(prepared.presence())) for stage in model.stages()]


def test_features_on_the_fly_serve_rows_on_disk_as_well(tmp_path: Path):
    spec = nbridge.Spec.model_validate({**SPEC, "training": {**SPEC["training"], "cache_features": False}})
    rows = opened(npy_source(tmp_path))
    lively, cached = (trained(rows, None, one)[0][-1]["loss"] for one in (spec, nbridge.Spec.model_validate(SPEC)))
    assert lively == pytest.approx(cached, rel=1e-3)


def test_statistics_come_from_the_sample_of_rows_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stored, "STATISTICS_ROWS", 30)
    rows, spec = opened(npy_source(tmp_path)), nbridge.Spec.model_validate(SPEC)
    _, tensors = trained(rows, None, spec)
    model = nbridge.build_model(spec)
    model.fit_statistics(rows.sample(30))
    kept = model.likelihoods["x"].state_dict()
    expected = {name: tensor for name, tensor in model.likelihoods["x"].named_buffers() if name in kept}
    assert expected
    assert all(torch.equal(tensor, tensors[f"decoders.x.likelihood.{name}"]) for name, tensor in expected.items())


def test_the_fingerprint_tells_other_contents_and_other_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def of(change: Callable[[dict[str, np.ndarray]], None], seed: int = 0) -> str:
        given = arrays()
        change(given)
        rows = opened(NPYFolder(path=str(write_npy(tmp_path / "rows", given))))
        return fingerprint(split(Dataset(rows), validation=0.2, test=0.2, seed=seed))

    def other_value(given: dict[str, np.ndarray]) -> None:
        given["x"][211, 2] += 1

    def other_cell(given: dict[str, np.ndarray]) -> None:
        given["x"][2, 2] = NAN

    def other_presence(given: dict[str, np.ndarray]) -> None:
        given["b__present"][7] = False

    def nothing(_: dict[str, np.ndarray]) -> None: ...

    prints = [of(nothing), of(other_value), of(other_cell), of(other_presence), of(nothing, seed=1)]
    assert len(set(prints)) == 5
    monkeypatch.setattr(store, "PIECE", 3 * store.PIECE)
    assert of(nothing) == prints[0]


# Runs


def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[object, str, str]:
    """Runs a command in this process: the exit status, and what it prints."""
    monkeypatch.setattr(sys, "argv", ["nbridge", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        command_line.main()
    return left.value.code, *capsys.readouterr()


def write_spec(folder: Path, data: dict[str, object]) -> Path:
    path = folder / "spec.yaml"
    path.write_text(json.dumps({**SPEC, "data": data}))
    return path


def epochs(folder: Path) -> list[dict[str, object]]:
    return [{**json.loads(line), "seconds": 0} for line in (folder / METRICS).read_text().splitlines()]


class Stop(Callback):
    """Interrupts training after so many epochs."""

    def __init__(self, after: int) -> None:
        self.after = after

    def on_validation(self, record: EpochRecord) -> None:
        self.after -= 1
        if not self.after:
            raise KeyboardInterrupt


def test_a_folder_trains_goes_on_bit_identically_and_is_evaluated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    write_npy(tmp_path / "rows", arrays())
    spec, whole, cut = write_spec(tmp_path, {"source": "npy", "path": str(tmp_path / "rows")}), tmp_path / "whole", tmp_path / "cut"
    code, shown, _ = call(monkeypatch, capsys, "train", spec, "--out", whole)
    assert (code, "rows not used in training" in shown) == (0, True)
    for after in (2, 2):  # in stage joint, and in stage bridges
        with pytest.raises(KeyboardInterrupt):
            nbridge.resume(cut, callbacks=[Stop(after)]) if cut.exists() else nbridge.train(spec, out=cut, callbacks=[Stop(after)])
    assert call(monkeypatch, capsys, "resume", cut)[0] == 0
    assert epochs(cut) == epochs(whole)
    first, second = (nbridge.load(folder).network.state_dict() for folder in (whole, cut))
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    few = ("--samples", "10", "--draws", "5", "--generated", "2")
    assert call(monkeypatch, capsys, "evaluate", whole, "--rows", "30", *few)[0] == 0
    assert json.loads((whole / "evaluation.json").read_text())["rows"] == 30
    monkeypatch.setattr(stored, "LIMIT", 59 * store.bytes_of(SHAPES))
    code, _, said = call(monkeypatch, capsys, "evaluate", whole, "--rows", "0", *few)
    message = "60 rows on disk of 44 bytes each are too many to hold in memory at once; take 59 at most"
    assert (code, said) == (2, f"{whole}: {message}\n")
    monkeypatch.undo()
    changed = arrays()
    changed["x"][2] += 1
    write_npy(tmp_path / "rows", changed)
    code, _, said = call(monkeypatch, capsys, "resume", whole)
    assert (code, said) == (2, f"{whole}: the rows have changed since this run began; train a new run in another folder\n")


def test_a_parquet_file_trains_and_a_wrong_row_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    path = write_parquet(tmp_path / "rows.parquet", arrays())
    spec = write_spec(tmp_path, {"source": "parquet", "path": str(path), "columns": {"x": ["x_0", "x_1", "x_2"]}})
    code, shown, _ = call(monkeypatch, capsys, "train", spec, "--out", tmp_path / "run")
    assert (code, "rows not used in training" in shown) == (0, True)
    given = arrays()
    given["y"][201] = 4
    write_parquet(path, given)
    code, _, said = call(monkeypatch, capsys, "train", spec, "--out", tmp_path / "other")
    assert (code, said) == (2, f"{path}: modality 'y': row 201 holds 4.0, expected a class index from 0 to 3\n")
    assert not (tmp_path / "other").exists()


@KINDS
def test_values_outside_the_support_are_named_by_their_file_and_row(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    given = arrays()
    given["b"][256, 3] = 7
    monkeypatch.setitem(globals(), "arrays", lambda: given)
    source = SOURCES[kind](tmp_path)
    data = {"source": kind, "path": source.path, **({"columns": {"x": "x_*"}} if kind == "parquet" else {})}
    with pytest.raises(DataError) as caught:
        nbridge.train({**SPEC, "data": data})
    place = (tmp_path / "rows", 256) if kind == "npy" else (tmp_path / "table" / "1.parquet", 256 - 111)
    assert str(caught.value) == (
        f"{place[0]}: modality 'b', row {place[1]}: value 7 is outside the support of Bernoulli, numbers from 0 to 1. "
        "Rescale the values or choose another likelihood."
    )


def test_a_modality_that_a_model_leaves_out_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_npy(tmp_path / "rows", arrays())
    spec = {**SPEC, "model": {"type": "vae", "modality": "b"}, "data": {"source": "npy", "path": str(tmp_path / "rows")}}
    done = nbridge.train({**spec, "training": {"stages": {"joint": {"epochs": 1}}}})
    assert done.splits.train.names == ("b",)
    assert isinstance(done.splits.train, StoredRows)
    assert done.splits.train.sample(3).names == ("b",)


# Memory


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["npy", "parquet"])
def test_reading_a_file_takes_far_less_memory_than_it_has(kind: str, tmp_path: Path):
    width, part = 256, 5_000
    values = np.random.default_rng(0).random((part, width), np.float32)

    def written(path: Path, rows: int) -> Path:
        path.mkdir()
        if kind == "npy":
            array = np.lib.format.open_memmap(path / "x.npy", "w+", np.float32, (rows, width))
            for start in range(0, rows, part):
                array[start : start + part] = values
            array.flush()
            return path
        schema = pa.schema([("x", pa.list_(pa.float32(), width))])
        with pq.ParquetWriter(path / "rows.parquet", schema, compression=None, use_dictionary=False) as writer:
            lists = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), width)
            for _ in range(0, rows, part):
                writer.write_table(pa.table({"x": lists}), row_group_size=2_500)
        return path / "rows.parquet"

    code = f"""
import sys
from pathlib import Path
import torch
from nbridge.data.{"numpy.npy" if kind == "npy" else "tables.parquet"} import {"NPYFolder" if kind == "npy" else "Parquet"} as Source
from nbridge.data.streaming import store

torch.set_num_threads(1)
store.WINDOW //= 4
for path in sys.argv[1:]:
    rows = Source(path=path).load({{"x": ({width},)}}).batch
    seen = sum(len(batch) for batch in rows.batches(rows.order(128).split(128)))
    highest = next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(seen, highest)
"""
    # What reading takes whatever is read is seen from few rows.
    files = [written(tmp_path / "few", few := part), written(tmp_path / "many", many := 40 * part)]
    exit_code, output, errors = Started(Script(code), "script", *files).ended()
    assert exit_code == 0, errors
    seen, highest = zip(*(map(int, line.split()) for line in output.splitlines()), strict=True)
    assert seen == (few, many)
    assert (highest[1] - highest[0]) / 1024 < 125, "mebibytes, of 191 more"
