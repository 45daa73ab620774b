"""What the fuzzers found, each in its smallest form."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from starlette.testclient import TestClient

import nbridge
from nbridge.data.numpy.class_texts import texts_in
from nbridge.data.split_labels import array_labels
from nbridge.draft.checks import check_data
from nbridge.errors import CellError, LostProcessError
from nbridge.training.run_folder import METRICS

from . import checkpoint, csv, model, npz, parquet, request
from .rows import SMALL, check, model_of, small


def member(header: str, values: bytes = b"") -> bytes:
    """An npy file with any header."""
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + values


def archive(folder: Path, **members: bytes) -> Path:
    """An npz file of the fuzzer's rows, with other members in place of some."""
    found = {**npz.members(compressed=False)[0], **{f"{name}.npy": content for name, content in members.items()}}
    path = folder / "rows.npz"
    path.write_bytes(npz.archive_of(list(found.items())))
    return path


HEADERS = {
    "a bracket that is not closed": "{'descr': '<f8', 'fortran_order': False, 'shape': (24, 3), ",
    "more rows than a number can count": f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({10**30}, 3)}}",
}


@pytest.mark.parametrize("header", HEADERS)
def test_a_header_of_an_array_that_cannot_be_read_is_damage(tmp_path: Path, header: str):
    path = archive(tmp_path, x=member(HEADERS[header], bytes(24 * 3 * 8)))
    base = npz.model(tmp_path)
    for use in (lambda: nbridge.init(path), lambda: check(npz.spec(path)), lambda: base.impute(path, tmp_path / "out.npz")):
        with pytest.raises(nbridge.DataError, match=rf"array 'x' is damaged|'x' has {10**30}; expected one row for each") as caught:
            use()
        assert str(caught.value).isprintable()


def test_texts_that_unicode_does_not_have_are_damage(tmp_path: Path):
    header = "{'descr': '<U1', 'fortran_order': False, 'shape': (24,)}"
    path = archive(tmp_path, id=member(header, np.arange(0x110000 - 20, 0x110000 + 4, dtype=np.uint32).tobytes()))
    base = npz.model(tmp_path)
    for use in (lambda: check(npz.spec(path)), lambda: base.impute(path, tmp_path / "out.npz")):
        with pytest.raises(nbridge.DataError, match="holds values that are not text; is the file damaged"):
            use()
    wrong = np.array([0x110000], np.uint32).view("<U1")
    for use in (lambda: texts_in(wrong, "y"), lambda: array_labels("group", wrong), lambda: texts_in(wrong.astype(">U1"), "y")):
        with pytest.raises(nbridge.DataError, match="holds values that are not text"):
            use()


def test_bytes_of_a_file_are_not_part_of_a_message(tmp_path: Path):
    path = archive(tmp_path)
    content = bytearray(path.read_bytes())
    # The name in the header of the first member is no longer that of the directory.
    content[26:28] = (1000).to_bytes(2, "little")
    path.write_bytes(content)
    with pytest.raises(nbridge.DataError) as caught:
        nbridge.init(path)
    assert len(str(caught.value)) < 400
    assert str(caught.value).isprintable()


def test_an_unprintable_name_of_an_array_is_listed_in_a_line(tmp_path: Path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("\x01\x02.npy", npz.members(compressed=False)[0]["x.npy"])
    (tmp_path / "rows.npz").write_bytes(buffer.getvalue())
    with pytest.raises(nbridge.DataError, match=r"no array 'x'. Found: \?\?$"):
        check(npz.spec(tmp_path / "rows.npz"))


def test_an_unprintable_name_that_is_close_is_suggested_in_a_line(tmp_path: Path):
    path = tmp_path / "rows.csv"
    path.write_text(csv.text_of(csv.cells()).replace("stage", "st\x7fge"))
    with pytest.raises(nbridge.DataError, match=r"no column 'stage'\. Did you mean 'st\?ge'\? Found: .*st\?ge, note$"):
        check(csv.spec(path))


def test_a_message_is_printable_whatever_it_quotes():
    assert str(nbridge.DataError("a\x7f: \u2028\nb\t")) == "a?: ?\nb?"
    error = nbridge.SpecError(["a\x00", "b"])
    assert (error.problems, str(error)) == (["a?", "b"], "a?\nb")
    # Processes send errors to each other.
    for sent in (error, CellError("x: wrong", ("x", 1, 2), "wrong"), LostProcessError("lost", 129)):
        back = pickle.loads(pickle.dumps(sent))
        assert (type(back), str(back), vars(back)) == (type(sent), str(sent), vars(sent))


def test_a_version_that_is_no_number_is_damage(tmp_path: Path):
    target = Path(shutil.copytree(model.whole(tmp_path), tmp_path / "copy"))
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps({**config, "format_version": "\x00"}))
    with pytest.raises(nbridge.RunError, match=r"format version '\?', expected a whole number; is the file damaged\?$"):
        nbridge.load(target)


@pytest.mark.parametrize("values", [[None] * 3, [[0.0, 1.0], None, [1.0, 0.0]]])
def test_a_column_of_lists_is_no_column_of_classes(tmp_path: Path, values: list[Any]):
    rows = parquet.table().slice(0, 3)
    rows = rows.set_column(rows.column_names.index("sex"), "sex", pa.array(values, pa.list_(pa.float32())))
    path = tmp_path / "rows.parquet"
    path.write_bytes(parquet.written(rows))
    message = r"modality 'sex': column 'sex' holds lists, expected one of its classes in each row: female, male$"
    for options in ({}, {"samples": 2}, {"intervals": [0.9]}):
        with pytest.raises(nbridge.DataError, match=message):
            parquet.model(tmp_path).impute(path, tmp_path / "out.parquet", **options)


def test_one_identifier_for_all_rows_is_an_error_of_identifiers(tmp_path: Path):
    buffer = io.BytesIO()
    np.save(buffer, np.array("p0"))
    with pytest.raises(nbridge.DataError, match=r"ids: array of shape \(\), expected \(rows,\)$"):
        check(npz.spec(archive(tmp_path, id=buffer.getvalue())))


def test_a_dtype_that_does_not_exist_is_told_in_a_line(tmp_path: Path):
    target = Path(shutil.copytree(model.whole(tmp_path), tmp_path / "copy"))
    path = target / "model.safetensors"
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    for old, new in ((b'"dtype":"F32"', b'"dtype":"\x01\x0232"'), (b"torch.float32 of", b"torch.fl\\u0001 of")):
        header = content[8 : 8 + size].replace(old, new)
        path.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + size :])
        with pytest.raises(nbridge.RunError) as caught:
            nbridge.load(target)
        assert str(caught.value).isprintable()


def test_a_run_whose_metrics_are_not_text_is_resumed_to_the_same_weights(tmp_path: Path):
    run, weights = checkpoint.halted(tmp_path)
    target = Path(shutil.copytree(run, tmp_path / "copy"))
    (target / METRICS).write_bytes((target / METRICS).read_bytes().replace(b"stage", b"st\x85\xffge", 1))
    found = nbridge.resume(target, device="cpu").model.network.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in weights.items())


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_column_without_a_name_is_not_taken_for_identifiers_where_there_are_none(tmp_path: Path, ending: str):
    rng, path = np.random.default_rng(0), tmp_path / f"rows.{ending}"
    rows = pd.DataFrame({"id": list("abc") * 10, "": rng.normal(size=30).round(1), "x": rng.normal(size=30).round(1)})
    rows.to_csv(path, index=False) if ending == "csv" else rows.to_parquet(path, index=False)
    draft = nbridge.init(path)
    assert draft.spec.data.source.kwargs["id"] == ""
    found = check_data(draft.spec.model_validate({**draft.spec.as_dict(), **SMALL}))
    assert (found.errors, found.rows) == ((), 30)


EMPTY = (
    pa.float64(), pa.float32(), pa.int64(), pa.bool_(), pa.decimal128(9, 2), pa.null(), pa.string(), pa.dictionary(pa.int8(), pa.int64()),
    pa.dictionary(pa.int8(), pa.string()),
)  # fmt: skip


@pytest.mark.parametrize("kind", EMPTY, ids=str)
@pytest.mark.parametrize("draws", [None, 2])
def test_an_empty_column_of_any_type_is_filled_with_its_classes(kind: pa.DataType, draws: int | None, tmp_path: Path):
    rows, base = parquet.table(), parquet.model(tmp_path)
    rows = rows.set_column(rows.column_names.index("sex"), "sex", pa.nulls(rows.num_rows, kind))
    path, out = tmp_path / "rows.parquet", tmp_path / "out.parquet"
    path.write_bytes(parquet.written(rows, row_group_size=5))
    base.impute(path, out, samples=draws)
    expected = pq.read_table(out).column("sex").to_pylist()
    assert set(expected) <= {"male", "female"}
    found = [base.impute(frame, samples=draws)["sex"] for frame in (rows, rows.to_pandas(), pl.from_arrow(rows))]
    assert [list(map(str, one.to_pylist() if isinstance(one, pa.ChunkedArray) else one)) for one in found] == [expected] * 3
    base.impute(path, out, samples=draws, shard=(2, 2))
    assert pq.read_schema(out).field("sex").type in (pa.string(), pa.dictionary(pa.int8(), pa.string()))


def test_an_empty_column_of_numbers_is_filled_with_classes_that_are_numbers(tmp_path: Path):
    rows = pa.table({"x": [0.5, 1.5] * 10, "code": [10, 20] * 10})
    path = tmp_path / "rows.parquet"
    pq.write_table(rows, path)
    modalities = {"x": {"shape": 1, "likelihood": "normal"}, "code": {"shape": 2, "likelihood": "categorical"}}
    base = model_of(small(modalities, {"source": "table", "path": str(path), "columns": {"x": ["x"], "code": ["code"]}}))
    for kind in (pa.float64(), pa.int32(), pa.string()):
        done = base.impute(rows.set_column(1, "code", pa.nulls(20, kind))).column("code")
        assert done.type == kind
        assert set(done.to_pylist()) <= ({"10", "20"} if kind == pa.string() else {10, 20})


def test_texts_of_parquet_that_are_not_utf8_are_damage(tmp_path: Path):
    path = tmp_path / "rows.parquet"
    rows = parquet.table()
    broken = pa.StringArray.from_buffers(1, pa.py_buffer(np.array([0, 3], np.int32)), pa.py_buffer(b"a\xff\xfe"))
    texts = pa.chunked_array([broken, pa.array(["male"] * (rows.num_rows - 1))])
    path.write_bytes(parquet.written(rows.set_column(rows.column_names.index("sex"), "sex", texts)))
    base = parquet.model(tmp_path)
    for use in (lambda: nbridge.init(path), lambda: check(parquet.spec(path)), lambda: base.impute(path, tmp_path / "out.parquet")):
        with pytest.raises(nbridge.DataError, match=r"damaged.* \(.*UTF8"):
            use()


@pytest.mark.parametrize("wanted", ["a", "bytes=0-,0-,0-,0-", "bytes=9-1", "bytes=0-3"])
def test_a_range_of_bytes_is_answered_with_the_whole_file(wanted: str):
    client: TestClient = request.client()
    answer = client.get("/explore.js", headers={"range": wanted})
    assert (answer.status_code, answer.content) == (200, client.get("/explore.js").content)
    assert json.loads(client.get("/nothing", headers={"range": wanted}).text) == {"error": "GET /nothing: not found"}
