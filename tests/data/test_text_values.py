"""Texts in files and in memory: read as token numbers, trained on, imputed, and written as texts again."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch

import nbridge
from nbridge.data.text_values import TextForm
from nbridge.errors import DataError

NAMES = ("one", "two", "three", "four")
ROWS = 80
FEW = {"batch_size": 32, "stages": {"joint": {"updates": 6}, "bridges": {"updates": 4}}}
TEXT: dict[str, Any] = {"shape": 9, "encoder": {"type": "text", "width": 8, "layers": 1}, "features": 8}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NBRIDGE_DATA", raising=False)
    return tmp_path


def spec(data: object = "memory", **options: Any) -> dict[str, Any]:
    likelihood = {"type": "text", "width": 16, **options}
    number = {"shape": 2, "encoder": {"type": "mlp", "hidden": [8]}, "likelihood": "normal", "features": 8}
    return {"latent_dim": 4, "data": data, "modalities": {"x": number, "caption": {**TEXT, "likelihood": likelihood}}, "training": FEW}


def table() -> pd.DataFrame:
    """Rows with a text, some of them with blanks around it, a comma or a quote in it, or none."""
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, len(NAMES), ROWS)
    texts: list[str | None] = [f"{' ' * (row % 3)}{NAMES[kind]}" for row, kind in enumerate(kinds)]
    texts[3], texts[5], texts[7] = None, 'a, "b"', " \u00e9t\u00e9 "
    return pd.DataFrame({"a": kinds + rng.normal(size=ROWS), "b": rng.normal(size=ROWS), "caption": texts})


COLUMNS = {"columns": {"x": ["a", "b"], "caption": "caption"}}


def check_written(given: list[str | None], done: list[str | None], known: set[str]) -> None:
    """Observed texts are unchanged, and imputed ones are texts of the vocabulary."""
    assert len(done) == len(given)
    for before, after in zip(given, done, strict=True):
        assert isinstance(after, str)
        assert after
        if before is not None:
            assert after == before
        assert set(after) <= known


def known_of(model: nbridge.Model) -> set[str]:
    assert model.spec is not None
    return {*model.spec.modalities["caption"].likelihood.kwargs["vocabulary"], "\ufffd"}


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_texts_of_a_table_come_back_as_texts(ending: str):
    frame = table()
    write = pd.DataFrame.to_csv if ending == ".csv" else pd.DataFrame.to_parquet
    write(frame, f"rows{ending}", index=False)
    run = nbridge.train(spec({"source": "table", "path": f"rows{ending}", **COLUMNS}), out="run")
    model = nbridge.load("run/model")
    done = model.impute(f"rows{ending}", "out" + ending)
    assert done.imputed == {"x": 0, "caption": 1}
    read = pd.read_csv if ending == ".csv" else pd.read_parquet
    out = read("out" + ending, **({"keep_default_na": False} if ending == ".csv" else {}))
    check_written([None if one is None else one for one in frame["caption"]], out["caption"].tolist(), known_of(model))
    assert out["caption__imputed"].astype(bool).tolist() == [row == 3 for row in range(ROWS)]
    assert run.splits.train.present["caption"].sum() < len(run.splits.train) or run.splits.test is not None
    frame.drop(columns="caption").pipe(write, f"bare{ending}", index=False)
    model.impute(f"bare{ending}", f"drawn{ending}", samples=2)
    drawn = read(f"drawn{ending}")
    assert len(drawn) == 2 * ROWS
    assert drawn["caption"].map(lambda text: isinstance(text, str)).all()
    # What was written is read again.
    model.impute("out" + ending, "again" + ending)
    assert read("again" + ending)["caption"].tolist() == out["caption"].tolist()


@pytest.mark.parametrize("kind", ["pandas", "polars", "category"])
def test_texts_of_a_data_frame_come_back_as_texts(kind: str):
    frame: Any = table()
    if kind == "category":
        frame["caption"] = frame["caption"].astype("category")
    frame = pl.from_pandas(frame) if kind == "polars" else frame
    model = nbridge.train(spec({"source": "frame", **COLUMNS}), frame).model
    done, flags = model.impute(frame, mask=True)
    assert type(done) is type(frame)
    given = [None if pd.isna(text) else text for text in list(frame["caption"])]
    check_written(given, list(done["caption"]), known_of(model))
    assert list(flags["caption"]) == [row == 3 for row in range(ROWS)]
    rest = frame.drop("caption") if kind == "polars" else frame.drop(columns="caption")
    check_written([None] * ROWS, list(model.impute(rest)["caption"]), known_of(model))
    assert len(model.impute(rest, samples=3)) == 3 * ROWS
    model.impute(rest, intervals=(0.9,), draws=19)


def test_texts_of_a_dataset_come_back_as_texts():
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_pandas(table(), preserve_index=False)
    model = nbridge.train(spec({"source": "frame", **COLUMNS}), rows).model
    done = model.impute(rows)
    assert isinstance(done, datasets.Dataset)
    check_written(rows["caption"], done["caption"], known_of(model))


@pytest.mark.parametrize("kind", ["list", "object", "U", "S"])
def test_texts_of_arrays_come_back_as_texts(kind: str):
    frame = table()
    frame.loc[7, "caption"] = "one"
    texts: Any = frame["caption"].tolist()
    if kind in "US":
        texts = np.array([text or "" for text in texts], dtype=kind)
    elif kind == "object":
        texts = np.array(texts, dtype=object)
    data = {"x": frame[["a", "b"]].to_numpy(), "caption": texts}
    run = nbridge.train(spec(), data, out="run")
    model = nbridge.load("run/model")
    done = model.impute(data)
    assert done["caption"].dtype.kind == {"list": "O", "object": "O"}.get(kind, kind)
    given = frame["caption"].tolist()
    check_written(given, [text.decode() if kind == "S" else text for text in done["caption"].tolist()], known_of(model))
    assert done["caption__imputed"].tolist() == [row == 3 for row in range(ROWS)]
    drawn = model.impute({"x": data["x"]}, samples=3)["caption"]
    assert drawn.shape == (3, ROWS)
    assert drawn.dtype.kind == "U"
    z = model.embed(data).mean
    assert z.shape == (ROWS, 4)
    assert torch.equal(z, run.model.embed(data).mean)
    assert isinstance(model.texts("caption", model.generate(2)["caption"])[0], str)


@pytest.mark.parametrize("packed", [True, False])
def test_texts_of_array_files_come_back_as_texts(packed: bool):
    frame = table()
    texts = np.array([text or "" for text in frame["caption"]])
    np.savez("rows.npz", x=frame[["a", "b"]].to_numpy(), caption=texts)
    model = nbridge.train(spec({"source": "npz", "path": "rows.npz"})).model
    if packed:
        model.impute("rows.npz", "out.npz", intervals=(0.5,), draws=19)
        found = dict(np.load("out.npz"))
    else:
        folder = Path("rows")
        folder.mkdir()
        for name, array in np.load("rows.npz").items():
            np.save(folder / f"{name}.npy", array)
        model.impute("rows", "out")
        found = {name: np.load(f"out/{name}.npy") for name in ("caption", "caption__imputed")}
    assert found["caption"].dtype.kind == "U"
    check_written([text or None for text in texts.tolist()], found["caption"].tolist(), known_of(model))
    assert found["caption__imputed"].tolist() == [row == 3 for row in range(ROWS)]


def test_words_and_bytes_are_tokens_as_well():
    frame = table()
    for tokens in ("words", "bytes"):
        model = nbridge.train(spec({"source": "frame", **COLUMNS}, tokens=tokens, longer="cut"), frame).model
        done = list(model.impute(frame)["caption"])
        assert all(isinstance(text, str) for text in done)
        assert [text for row, text in enumerate(done) if row != 3] == [text for row, text in enumerate(frame["caption"]) if row != 3]


def test_a_resumed_run_is_bit_identical():
    frame = table()
    data = {"x": frame[["a", "b"]].to_numpy(), "caption": frame["caption"].tolist()}
    half, whole = spec(), spec()
    half["training"] = {**FEW, "schedule": "constant", "stages": {"joint": {"epochs": 2}, "bridges": {"epochs": 2}}}
    whole["training"] = {**half["training"], "stages": {"joint": {"epochs": 2}, "bridges": {"epochs": 4}}}
    nbridge.train(half, data, out="half")
    resumed = nbridge.resume("half", data, overrides=["training.stages.bridges.epochs=4"])
    straight = nbridge.train(whole, data)
    for one, other in zip(resumed.model.network.state_dict().values(), straight.model.network.state_dict().values(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ZZ??", "rows.csv: .*column 'caption'.*row 2 .*\"ZZ\\?\\?\", in which no character is in the vocabulary"),
        ("one" * 40_000, "rows.csv: .*column 'caption'.*row 2 .*text of 120,000 characters, expected at most 8.*longer: cut"),
    ],
)
def test_a_text_that_a_model_cannot_read_is_one_line(text: str, message: str):
    frame = table()
    frame.to_csv("train.csv", index=False)
    model = nbridge.train(spec({"source": "table", "path": "train.csv", **COLUMNS})).model
    frame.loc[2, "caption"] = text
    frame.to_csv("rows.csv", index=False)
    with pytest.raises(DataError, match=message) as found:
        model.impute("rows.csv", "out.csv")
    assert "\n" not in str(found.value)
    assert len(str(found.value)) < 400
    assert not Path("out.csv").exists()
    with pytest.raises(DataError, match=message.replace("rows.csv", "data frame")):
        model.impute(frame)
    with pytest.raises(DataError, match="row 2"):
        nbridge.train(spec(), {"x": frame[["a", "b"]].to_numpy(), "caption": table()["caption"].tolist()}).model.impute(
            {"caption": frame["caption"].tolist()}
        )


def test_a_text_too_long_for_the_shape_names_the_longest_one_when_training():
    frame = table()
    frame.loc[[20, 30], "caption"] = ["one two three", "one two three four"]
    frame.to_csv("train.csv", index=False)
    given = {"source": "table", "path": "train.csv", **COLUMNS}
    with pytest.raises(DataError, match=r"train\.csv: column 'caption': row 30 .*18 characters, expected at most 8.*train with shape: 19"):
        nbridge.train(spec(given))
    model = nbridge.train(spec(given, longer="cut")).model
    assert list(model.impute(frame)["caption"])[30] == "one two three four"


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ([None] * ROWS, "no text in any row"),
        (list(range(ROWS)), "column 'caption'.*is of type int64, expected texts"),
    ],
)
def test_a_column_without_texts_is_one_line(column: list[Any], message: str):
    frame = table().assign(caption=column)
    with pytest.raises(DataError, match=message) as found:
        nbridge.train(spec({"source": "frame", **COLUMNS}), frame)
    assert "\n" not in str(found.value)


def test_several_columns_are_not_one_text():
    given = {"source": "frame", "columns": {"x": ["a", "b"], "caption": ["caption", "more"]}}
    with pytest.raises(DataError, match="modality 'caption': 2 columns, but its likelihood is text"):
        nbridge.train(spec(given), table().assign(more="a"))


def test_sources_without_texts_say_so():
    given = spec({"source": "digits"})
    del given["modalities"]["x"]
    given["modalities"]["label"] = {"shape": 10, "encoder": "embedding", "likelihood": "categorical"}
    with pytest.raises(DataError, match="modality 'caption': the data source Digits reads no texts; use source: table"):
        nbridge.train(given)


@pytest.mark.parametrize(
    ("source", "path", "kind"), [("parquet", "rows.parquet", "Parquet"), ("npy", "rows", "NPYFolder"), ("h5mu", "rows.h5mu", "H5MU")]
)
def test_formats_without_texts_say_what_to_use(source: str, path: str, kind: str):
    expected = f"{path}: modality 'caption': the data source {kind} reads no texts; use source: table (csv, Parquet, folders of .txt)"
    with pytest.raises(DataError, match=re.escape(expected)):
        nbridge.train(spec({"source": source, "path": path}))


def test_token_numbers_need_a_listed_vocabulary():
    frame, numbers = table(), np.array([[3, 4, 1, 0, 0, 0, 0, 0, 0], [4, 1, 0, 0, 0, 0, 0, 0, 0]] * (ROWS // 2))
    data = {"x": frame[["a", "b"]].to_numpy(), "caption": numbers}
    with pytest.raises(DataError, match=r"list the tokens in likelihood\.vocabulary"):
        nbridge.train(spec(), data)
    model = nbridge.train(spec(vocabulary=["a", "b"]), data).model
    done = model.impute(data)
    assert np.array_equal(done["caption"], numbers)


def test_forms_read_equal_texts_once_and_write_what_they_read():
    form = TextForm(nbridge.common.vocabulary.TokenList("characters", "ab "), 5)
    numbers = form.numbers(["ab", "", "a b", "ab"], str)
    assert np.isnan(numbers[1]).all()
    assert form.texts(numbers).tolist() == ["ab", "", "a b", "ab"]
    assert form.texts(np.stack([numbers, numbers])).shape == (2, 4)
