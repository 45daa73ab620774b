"""The command line: what each command writes, and that a mistake costs one clear line, exit code 2 and nothing else."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from matplotlib.image import imread

import nbridge
from nbridge.cli import main as command_line
from nbridge.cli.tables import number
from nbridge.common import atomic_files as files
from nbridge.evaluation.results import METRICS, Settings, read_evaluation
from nbridge.runs import run
from nbridge.runs.comparison import TimeLimitReached
from nbridge.spec.registry import BUILT_IN
from nbridge.training import build
from nbridge.training.checkpoint import save_model

PART = "features: 4, encoder: {type: mlp, hidden: [4]}"
SPEC = f"""
name: tiny
latent_dim: 2
data: {{source: npz, path: data.npz, keys: {{label: labels}}}}
modalities:
  x: {{shape: 3, {PART}, likelihood: normal}}
  counts: {{shape: 2, {PART}, likelihood: poisson}}
  image: {{shape: [1, 2, 4], {PART}, likelihood: bernoulli}}
  colour: {{shape: [3, 2, 2], {PART}, likelihood: bernoulli}}
  label: {{shape: 3, {PART}, likelihood: categorical}}
fusion: {{hidden: [4]}}
bridges: {{hidden: [4]}}
training: {{batch_size: 16, stages: {{joint: {{epochs: 2}}, bridges: {{epochs: 2}}}}}}
"""
NAMES = ("x", "counts", "image", "colour", "label")
ROWS = 40
COMMANDS = (
    "init",
    "train",
    "resume",
    "tune",
    "impute",
    "generate",
    "embed",
    "evaluate",
    "report",
    "explore",
    "export",
    "push",
    "pull",
    "compare",
    "validate",
    "params",
    "doctor",
    "schema",
)


def data() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "x": rng.normal(size=(ROWS, 3)),
        "counts": rng.poisson(3, size=(ROWS, 2)).astype(np.uint8),
        "image": rng.random((ROWS, 2, 4)).astype(np.float32),
        "colour": rng.random((ROWS, 3, 2, 2)),
        "labels": (np.arange(ROWS) % 3).astype(np.int16),
        "id": np.array([f"row {number}" for number in range(ROWS)]),
        "temperature": np.array([36.6, 37.1]),
    }


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with rows, a spec and a trained run."""
    folder = tmp_path_factory.mktemp("world")
    np.savez(folder / "data.npz", **data())
    (folder / "tiny.yaml").write_text(SPEC)
    nbridge.train(nbridge.read_spec(folder / "tiny.yaml", [f"data.path={folder}/data.npz"]), out=folder / "run")
    return folder


@pytest.fixture
def here(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, as the current folder."""
    monkeypatch.chdir(shutil.copytree(world, tmp_path / "here"))
    monkeypatch.delenv("NBRIDGE_DATA", raising=False)
    return Path.cwd()


class Result(NamedTuple):
    code: object
    out: str
    err: str


Call = Callable[..., Result]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs a command in this process."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("COLUMNS", "80")

    def call(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["nbridge", *arguments])
        with pytest.raises(SystemExit) as left:
            command_line.main()
        return Result(left.value.code, *capsys.readouterr())

    return call


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rewrite(**changes: np.ndarray | None) -> None:
    arrays = {**data(), **changes}
    np.savez("data.npz", **{name: array for name, array in arrays.items() if array is not None})


def with_value(name: str, value: float, *rows: int) -> dict[str, np.ndarray]:
    array = data()[name].astype(np.float64)
    for row in rows:
        array[row].reshape(-1)[1:2] = value
        if array.ndim == 1:
            array[row] = value
    return {name: array}


# Help


def test_help_names_every_command_in_a_whole_sentence(call: Call):
    result = call("--help")
    assert result.code == 0
    assert re.findall(r"^  ([a-z]+)  +[A-Z].*\.$", result.out, re.MULTILINE) == list(COMMANDS)
    assert "Start with:  nbridge train modality_specs/digits.yaml --out runs/digits" in result.out
    assert result.out.rstrip().endswith("or with your own data:  nbridge init rows.csv")
    assert max(map(len, result.out.splitlines())) <= 80


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_ends_in_a_line_to_type(command: str, call: Call):
    result = call(command, "--help")
    assert result.code == 0
    assert result.out.strip().splitlines()[-1].startswith(f"  Example:  nbridge {command} ")
    assert max(map(len, result.out.splitlines())) <= 80


def test_the_version_is_told(call: Call):
    assert call("--version") == (0, f"nbridge {nbridge.__version__}\n", "")


USAGE = {
    "unknown command": (["trian"], "trian"),
    "unknown option": (["validate", "tiny.yaml", "--bogus"], "--bogus"),
    "argument missing": (["impute", "run"], "ROWS"),
    "output missing": (["embed", "run", "data.npz"], "--out"),
    "no draws": (["impute", "run", "data.npz", "--out", "o.npz", "--samples", "0"], "--samples"),
    "fewer than no draws": (["impute", "run", "data.npz", "--out", "o.npz", "--samples", "-1"], "--samples"),
    "draws in words": (["impute", "run", "data.npz", "--out", "o.npz", "--samples", "few"], "--samples"),
    "no rows": (["generate", "run", "--out", "o.npz", "--num", "0"], "--num"),
    "negative seed": (["generate", "run", "--out", "o.npz", "--seed", "-1"], "--seed"),
    "huge seed": (["impute", "run", "data.npz", "--out", "o.npz", "--seed", "9" * 30], "--seed"),
    "one argument too many": (["doctor", "schema", "more"], "more"),
}


@pytest.mark.parametrize("mistake", USAGE)
def test_wrong_usage_is_told_with_where_help_is(mistake: str, call: Call, here: Path):
    arguments, named = USAGE[mistake]
    before = contents(here)
    result = call(*arguments)
    assert result.code == 2
    assert result.out == ""
    assert result.err.startswith("Usage: nbridge")
    assert "--help" in result.err
    assert named in result.err.splitlines()[-1]
    assert contents(here) == before


# Specs

LIKELIHOODS = ", ".join(sorted(BUILT_IN["likelihoods"]))
KEYS = "spec_version, name, model, latent_dim, data, modalities, covariates, fusion, bridges, prior, training, tune"
ONE = "modalities: {x: {shape: 3, encoder: mlp, likelihood: normal}}\n"
OWN_CLASS = "For your own class write 'package.module:Class'."
BROKEN: dict[str, tuple[str | bytes, list[str]]] = {
    "unknown key": (ONE + "lattent_dim: 3", [f"2:1: lattent_dim: unknown key 'lattent_dim'. Did you mean 'latent_dim'? Known: {KEYS}"]),
    "wrong type": (ONE + "latent_dim: many", ['2:13: latent_dim: expected an integer, got "many"']),
    "duplicate key": (
        ONE + "latent_dim: 3\nlatent_dim: 4",
        ["3:1: latent_dim: duplicate key 'latent_dim'; the first is in line 2"],
    ),
    "tab": ("modalities:\n\tx: 1\n", ["2:1: tab in the indentation; use spaces"]),
    "empty": ("", ["1:1: empty spec; at least the key 'modalities' is required"]),
    "not YAML": ("a: [1, 2", ["1:9: not valid YAML: while parsing a flow sequence, expected ',' or ']', but got '<stream end>'"]),
    "no mapping": ("- a\n", ["1:1: a spec must be a mapping, this is a list"]),
    "not text": (b"\x89PNG", [" not UTF-8 text (byte 1 is 0x89)"]),
    "unknown likelihood": (
        "modalities: {x: {shape: 3, encoder: mlp, likelihood: gaussian}}",
        [f"1:54: modalities.x.likelihood: unknown likelihood 'gaussian'. Known: {LIKELIHOODS}. {OWN_CLASS}"],
    ),
    "shapes": (
        "modalities: {x: {shape: 0, encoder: mlp, likelihood: normal}, y: {shape: [-1, 2], encoder: mlp, likelihood: normal}}",
        ["1:25: modalities.x.shape: expected a number above 0, got 0", "1:75: modalities.y.shape.0: expected a number above 0, got -1"],
    ),
    "modality twice": (
        "modalities:\n  x: {shape: 3, encoder: mlp, likelihood: normal}\n  x: {shape: 3, encoder: mlp, likelihood: normal}\n",
        ["3:3: modalities.x: duplicate key 'x'; the first is in line 2"],
    ),
    "name": (
        "modalities: {keys: {shape: 3, encoder: mlp, likelihood: normal}}",
        [
            "1:14: modalities.keys: 'keys' is not a valid modality name: it is reserved for torch.nn.ModuleDict; "
            "use another, such as 'keys_1'"
        ],
    ),
    "shape not served": (
        "modalities: {x: {shape: [1, 4, 4], encoder: mlp, likelihood: categorical}}",
        ["1:62: modalities.x.likelihood: categorical supports shapes of one axis, the number of classes (2 or more); got [1, 4, 4]"],
    ),
    "several": (
        "modalities: {x: {shape: 3, likelihood: poison}}\ntrainng: 3\n",
        [
            "1:14: modalities.x: missing key 'encoder'",
            f"1:40: modalities.x.likelihood: unknown likelihood 'poison'. Did you mean 'poisson'? Known: {LIKELIHOODS}. {OWN_CLASS}",
            f"2:1: trainng: unknown key 'trainng'. Did you mean 'training'? Known: {KEYS}",
        ],
    ),
}


@pytest.mark.parametrize("command", ["validate", "params", "train", "compare"])
@pytest.mark.parametrize("mistake", BROKEN)
def test_every_mistake_in_a_spec_is_told_at_once_with_its_line(mistake: str, command: str, call: Call, here: Path):
    text, lines = BROKEN[mistake]
    Path("my.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    before = contents(here)
    assert call(command, "my.yaml") == (2, "", "".join(f"my.yaml:{line}\n" for line in lines))
    assert contents(here) == before


def test_a_spec_that_is_no_file_is_told(call: Call, here: Path):
    assert call("validate", "none.yaml") == (2, "", "none.yaml: no such file\n")
    assert call("validate", "run") == (2, "", "run: is a directory, expected a YAML file\n")


@pytest.mark.parametrize("command", ["validate", "params", "train", "compare"])
def test_what_a_constructor_refuses_is_told_with_the_spec(command: str, call: Call, here: Path):
    change = "modalities.image.likelihood={type: discretized_logistic, low: 3, high: 1}"
    result = call(command, "tiny.yaml", "--set", change)
    assert (result.code, result.out) == (2, "")
    assert re.fullmatch(r"tiny\.yaml: .*modalities\.image\.likelihood.*high \(1\.0\) must be above low \(3\.0\)\n", result.err)


CHANGES = {
    "latent_dim=0": "latent_dim: expected a number above 0, got 0",
    "latent_dim": "expected path.to.key=value, such as training.seed=1",
    "=3": "expected path.to.key=value, such as training.seed=1",
    "training.seed=[1": "not valid YAML: while parsing a flow sequence, expected ',' or ']', but got '<stream end>'",
    "latent=3": f"latent: unknown key 'latent'. Did you mean 'latent_dim'? Known: {KEYS}",
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_mistake_in_a_change_is_told_with_the_change(change: str, call: Call, here: Path):
    assert call("validate", "tiny.yaml", "--set", change) == (2, "", f"--set {change}: {CHANGES[change]}\n")


def test_a_valid_spec_is_told_with_its_size(call: Call, here: Path):
    count = sum(parameter.numel() for parameter in nbridge.load("run").network.parameters())
    assert call("validate", "tiny.yaml") == (0, f"tiny.yaml: valid. bridged, 5 modalities, 20 bridges, {count:,} parameters\n", "")


@pytest.mark.parametrize("command", ["validate", "train"])
@pytest.mark.parametrize(
    "change",
    ["latent_dim=1000000000000", "fusion.hidden=[1000000000000]", "modalities.x.shape=1000000000000", "bridges.hidden=[3000000, 3000000]"],
)
def test_a_model_that_no_memory_holds_is_refused_from_its_numbers(change: str, command: str, call: Call, here: Path):
    before = contents(here)
    result = call(command, "tiny.yaml", "--set", change)
    assert (result.code, result.out) == (2, "")
    wide = r"tiny\.yaml: [\d,]{14,} parameters would take [\d,.]+ GB, and this machine has [\d,.]+ GB; make the largest of .* smaller\n"
    assert re.fullmatch(wide, result.err)
    assert contents(here) == before


def test_training_needs_more_memory_than_weights(call: Call, here: Path, monkeypatch: pytest.MonkeyPatch):
    count = sum(parameter.numel() for parameter in nbridge.load("run").network.parameters())
    copies = 1 if torch.cuda.is_available() else 4
    monkeypatch.setattr(build, "free_bytes", lambda **_: 4 * count * copies)
    assert call("validate", "tiny.yaml").code == 0
    monkeypatch.setattr(build, "free_bytes", lambda **_: 4 * count * copies - 1)
    assert call("validate", "tiny.yaml").err.startswith(f"tiny.yaml: {count:,} parameters would take 0.0 GB")


MANY = 10**12
NUMBERS = {
    "generated rows": (["generate", "run", "--num", MANY, "--out", "out.npz"], "num"),
    "generated rows of a class": (["generate", "run", "--given", "label=1", "--num", MANY, "--out", "out.npz"], "num"),
    "imputed draws": (["impute", "run", "data.npz", "--samples", MANY, "--out", "out.npz"], "data.npz: samples"),
    "interval draws": (["impute", "run", "data.npz", "--intervals", "0.9", "--draws", MANY, "--out", "out.npz"], "data.npz: draws"),
    "importance samples": (["evaluate", "run", "--samples", MANY], "--samples"),
    "evaluated draws": (["evaluate", "run", "--draws", MANY], "--draws"),
    "judged draws": (["evaluate", "run", "--generated", MANY], "--generated"),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_that_no_memory_holds_is_refused(name: str, call: Call, here: Path):
    (command, *arguments), option = NUMBERS[name]
    before = contents(here)
    result = call(command, *map(str, arguments))
    assert (result.code, result.out) == (2, "")
    size = r"1,000,000,000,000 draws of 30 numbers would take [\d,.]+ GB, and [\d,.]+ GB are free"
    assert re.fullmatch(rf"{option} {MANY}: {size}\n", result.err)
    assert contents(here) == before


def test_figures_are_the_same_in_the_table_and_in_json(call: Call, here: Path):
    table, content = call("params", "tiny.yaml").out, json.loads(call("params", "tiny.yaml", "--json").out)
    for name, count in content["parts"].items():
        assert re.search(rf"│ {re.escape(name)} +│ +{count:,} │", table)
    assert [line["name"] for line in content["models"]] == ["bridged", "retrofit", "mvae"]
    assert sum(content["parts"].values()) == content["models"][0]["formula"]
    assert f"The bridged model has {abs(content['reduction']):.1%} " in table
    assert "\x1b" not in table


def test_the_schema_is_written_as_it_is_committed(call: Call, here: Path):
    committed = (Path(__file__).parents[2] / "nbridge.schema.json").read_text(encoding="utf-8")
    assert call("schema") == (0, committed, "")
    assert call("schema", "--out", "s.json") == (0, "s.json: written\n", "")
    assert Path("s.json").read_text(encoding="utf-8") == committed
    assert call("schema", "--out", "s.json") == (2, "", "--out s.json: exists already. Use --overwrite to replace it.\n")
    assert call("schema", "--out", "s.json", "--overwrite").code == 0


# Data

MISSING = "Found: x, image, colour, labels, id, temperature"
SUPPORT = "Rescale the values or choose another likelihood."
UNFIT: dict[str, tuple[Callable[[], None], str, bool]] = {
    "array missing": (lambda: rewrite(counts=None), f"no array 'counts'. {MISSING}", False),
    "wrong shape": (
        lambda: rewrite(x=data()["x"][:, :2]),
        f"modality 'x': array of shape ({ROWS}, 2), expected (rows, 3) or class indices (rows,)",
        True,
    ),
    "rows": (
        lambda: rewrite(x=data()["x"][:9], id=None),
        "modality 'counts': 40 rows, but 'x' has 9; expected one row for each, NaN where it is absent",
        True,
    ),
    "outside the support": (
        lambda: rewrite(**with_value("counts", -3, 7, 9)),
        f"modality 'counts', row 7: value -3 is outside the support of Poisson, whole numbers from 0 (2 such rows). {SUPPORT}",
        True,
    ),
    "no class": (
        lambda: rewrite(**with_value("labels", 3, 5)),
        "modality 'label': row 5 holds 3.0, expected a class index from 0 to 2",
        True,
    ),
    "never present": (
        lambda: rewrite(x=np.full((ROWS, 3), np.nan)),
        f"modality 'x': present in none of the {ROWS} rows, expected at least one",
        False,
    ),
    "ids": (
        lambda: rewrite(id=np.array([0, 1, 1, *range(3, ROWS)])),
        "ids: duplicate 1 in row 1 and row 2",
        True,
    ),
    "ids of other rows": (lambda: rewrite(id=np.arange(3)), f"ids: 3 for {ROWS} rows, expected one per row", True),
    "infinite": (
        lambda: rewrite(**with_value("x", np.inf, 8)),
        "modality 'x': inf in row 8, cell (1,): values must be finite (NaN marks absent values)",
        True,
    ),
    "text": (lambda: rewrite(x=np.array([["a"] * 3] * ROWS)), "modality 'x': array of dtype <U1, expected real numbers", True),
    "no archive": (lambda: Path("data.npz").write_text("hello") and None, "not an npz file; np.savez writes one", True),
    "truncated": (
        lambda: Path("data.npz").write_bytes(Path("data.npz").read_bytes()[:900]) and None,
        "truncated or damaged npz file",
        True,
    ),
}


@pytest.mark.parametrize("mistake", UNFIT)
def test_rows_that_do_not_fit_are_not_trained_on(mistake: str, call: Call, here: Path):
    spoil, message, _ = UNFIT[mistake]
    spoil()
    before = contents(here)
    result = call("train", "tiny.yaml", "--out", "new")
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert result.err.removeprefix(f"{here}/data.npz: ") == f"{message}\n"
    assert contents(here) == before


@pytest.mark.parametrize("command", ["impute", "embed"])
@pytest.mark.parametrize("mistake", [mistake for mistake, (_, _, served) in UNFIT.items() if served])
def test_rows_that_do_not_fit_are_not_served(mistake: str, command: str, call: Call, here: Path):
    spoil, message, _ = UNFIT[mistake]
    spoil()
    before = contents(here)
    result = call(command, "run", "data.npz", "--out", "out.npz")
    assert (result.code, result.out) == (2, "")
    assert result.err.removeprefix(f"{here}/") == f"data.npz: {message}\n"
    assert contents(here) == before


def test_rows_that_are_nowhere_are_told_with_the_place_to_put_them(call: Call, here: Path):
    message = f"none.npz: no such file in {here}; set NBRIDGE_DATA to the folder that holds your data, or write an absolute path\n"
    assert call("train", "tiny.yaml", "--set", "data.path=none.npz") == (2, "", message)
    assert call("impute", "run", "none.npz", "--out", "out.npz") == (2, "", message)


def test_a_file_of_other_things_is_no_file_of_rows(call: Call, here: Path):
    np.savez("data.npz", temperature=np.zeros(3))
    assert call("embed", "run", "data.npz", "--out", "out.npz").err == (
        "data.npz: no array for any modality (x, counts, image, colour, labels). Found: temperature\n"
    )
    rewrite(labels=None, label=data()["labels"])
    assert call("impute", "run", "data.npz", "--out", "out.npz").err == (
        "data.npz: array 'label': the spec expects modality 'label' in array 'labels'; rename it\n"
    )


# Output

OUTPUT = {
    "ending": (["impute", "run", "data.npz", "--out", "o.txt"], "--out o.txt: expected a file that ends in .npz"),
    "no ending": (["embed", "run", "data.npz", "--out", "run"], "--out run: expected a file that ends in .npz"),
    "ending of a picture": (["generate", "run", "--out", "o.jpg"], "--out o.jpg: expected a file that ends in .npz or .png"),
    "no folder": (["impute", "run", "data.npz", "--out", "no/o.npz"], "--out no/o.npz: folder no does not exist"),
    "a folder": (["generate", "run", "--out", "d.npz", "--overwrite"], "--out d.npz: a folder, expected a file"),
    "exists": (["generate", "run", "--out", "old.npz"], "--out old.npz: exists already. Use --overwrite to replace it."),
    "the input": (
        ["impute", "run", "data.npz", "--out", "data.npz", "--overwrite"],
        "--out data.npz: this is the input file; choose another path",
    ),
    "the input by another name": (
        ["embed", "run", "data.npz", "--out", "link.npz", "--overwrite"],
        "--out link.npz: this is the input file; choose another path",
    ),
    "no levels": (
        ["impute", "run", "data.npz", "--out", "o.npz", "--intervals", "high"],
        "--intervals high: expected probabilities between 0 and 1, such as 0.9 or 0.5,0.9",
    ),
    "a level in percent": (
        ["impute", "run", "data.npz", "--out", "o.npz", "--intervals", "90"],
        "--intervals: level 90, expected a probability between 0 and 1, such as 0.9; for 90 % write 0.9",
    ),
    "too few draws": (
        ["impute", "run", "data.npz", "--out", "o.npz", "--intervals", "0.9", "--draws", "10"],
        "--intervals: level 0.9 needs at least 19 draws, got 10",
    ),
    "intervals of draws": (
        ["impute", "run", "data.npz", "--out", "o.npz", "--intervals", "0.9", "--samples", "3"],
        "--intervals and samples cannot be combined; leave out one of them",
    ),
    "no run": (["generate", "none", "--out", "o.npz"], "none: no such run folder"),
    "no device": (
        ["train", "tiny.yaml", "--device", "nonsense"],
        "device 'nonsense' is not available, expected auto, cpu or cuda",
    ),
    "no device to go on": (
        ["resume", "run", "--device", "nonsense"],
        "device 'nonsense' is not available, expected auto, cpu or cuda",
    ),
    "nothing to go on with": (
        ["resume", "none"],
        "none: no run folder here (spec.resolved.yaml is missing); start one with: nbridge train SPEC --out none",
    ),
}


@pytest.mark.parametrize("mistake", OUTPUT)
def test_what_cannot_be_written_is_told_before_any_work(mistake: str, call: Call, here: Path):
    arguments, message = OUTPUT[mistake]
    Path("d.npz").mkdir()
    Path("old.npz").write_text("old")
    Path("link.npz").symlink_to("data.npz")
    before = contents(here)
    assert call(*arguments) == (2, "", f"{message}\n")
    assert contents(here) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["impute", "run", "data.npz", "--out", "o.npz"], "o.npz: cannot be written (No space left on device)"),
        (["generate", "run", "--out", "o.png"], "o.png: No space left on device"),
        (["schema", "--out", "o.json"], "o.json: No space left on device"),
    ],
)
def test_a_full_disk_costs_one_line(arguments: list[str], message: str, call: Call, here: Path, monkeypatch: pytest.MonkeyPatch):
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = contents(here)
    monkeypatch.setattr(files.os, "fsync", full)
    assert call(*arguments) == (2, "", f"{message}\n")
    assert contents(here) == before


def test_a_failure_of_ours_is_not_dressed_as_a_mistake(monkeypatch: pytest.MonkeyPatch, here: Path):
    def fail(*arguments: object, **options: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(run, "train", fail)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "argv", ["nbridge", "train", "tiny.yaml"])
    with pytest.raises(RuntimeError, match="broken"):
        command_line.main()


UNTESTED = (
    "note: not tested, fewer than 30 rows: whether it is at chance given the others (x, counts, image, colour, label: N rows); "
    "inactive latent units (N rows); values at the edge of a likelihood (x, counts, image, colour, label: N rows)\n"
)
"""What a run of the tiny spec leaves open, by its number of rows."""


# Training


def test_without_a_terminal_training_prints_plain_lines_once(call: Call, here: Path):
    result = call("train", "tiny.yaml", "--out", "new [bold] run")
    assert result.code == 0
    assert not {"\x1b", "\r"} & set(result.out + result.err)
    lines = result.err.splitlines()
    assert [line.split("  loss")[0] for line in lines] == [
        "stage joint: 28 rows, 2 epochs", "  joint 1/2", "  joint 2/2", lines[3],
        "stage bridges: 28 rows, 2 epochs", "  bridges 1/2", "  bridges 2/2", lines[7],
    ]  # fmt: skip
    assert re.fullmatch(r"stage joint: done, weights of epoch [12] kept", lines[3])
    assert re.fullmatch(r"stage bridges: done, weights of epoch [12] kept", lines[7])
    lines = result.out.splitlines()
    assert lines[0] == UNTESTED.replace("N", "8").strip()
    assert lines[2] == "Each modality imputed from all others, 8 rows not used in training"
    assert [line for line in lines if line.startswith("Verdict: ")] == [
        "Verdict: not tested (8 test rows, 20 needed): x, counts, image, colour, label"
    ]
    assert json.loads(Path("new [bold] run", "verdict.json").read_text())["split"] == "test"
    for name in NAMES:
        assert sum(line.startswith(f"│ {name} ") for line in lines) == 1
    assert lines[-4:] == [
        "model: new [bold] run/model",
        "report: new [bold] run/report.html",
        "next:  nbridge impute 'new [bold] run' ROWS.npz --out COMPLETED.npz",
        "       nbridge generate 'new [bold] run' --num 16 --out SAMPLES.npz",
    ]


def test_json_stands_alone_on_standard_output(call: Call, here: Path):
    result = call("train", "tiny.yaml", "--out", "new", "--json")
    assert result.code == 0
    content = json.loads(result.out)
    assert content["folder"] == "new"
    assert [line["target"] for line in content["predictions"]] == list(NAMES)
    assert [line["accuracy"] is None for line in content["predictions"]] == [True, True, True, True, False]
    assert "stage joint: 28 rows, 2 epochs\n" in result.err
    assert content["verdict"] == json.loads(Path("new", "verdict.json").read_text())
    again = call("resume", "new", "--json")
    assert json.loads(again.out) == content
    assert again.err == f"new: training is already finished\n{UNTESTED.replace('N', '8')}"


def test_a_run_that_was_killed_before_its_report_gets_it_by_resume(call: Call, here: Path):
    assert call("train", "tiny.yaml", "--out", "new").code == 0
    report = Path("new", "report.html")
    written, at = report.read_bytes(), report.stat().st_mtime_ns
    assert "report: " not in call("resume", "new").out
    assert report.stat().st_mtime_ns == at
    report.unlink()
    assert call("resume", "new", "--no-report").code == 0
    assert not report.exists()
    assert "report: new/report.html" in call("resume", "new").out
    assert report.read_bytes() == written


@pytest.mark.parametrize(("name", "folder"), [("../a b", "a_b"), ("/tmp/é", "tmp_é"), ("..", "tiny")])
def test_runs_are_kept_in_one_folder_whatever_the_spec_calls_itself(
    name: str, folder: str, call: Call, here: Path, monkeypatch: pytest.MonkeyPatch
):
    asked: list[str] = []

    def stop(*arguments: object, out: str, **options: object) -> None:
        asked.append(out)
        raise nbridge.RunError("stopped")

    monkeypatch.setattr(run, "train", stop)
    assert call("train", "tiny.yaml", "--set", f"name={name}") == (2, "", "stopped\n")
    assert asked == [f"runs/{folder}"]


def test_an_interruption_is_told_with_the_way_to_go_on(call: Call, here: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupt(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "train", interrupt)
    monkeypatch.setattr(run, "resume", interrupt)
    assert call("train", "tiny.yaml", "--out", "new") == (130, "", "interrupted\n")
    Path("my run").mkdir()
    Path("my run", "spec.resolved.yaml").touch()
    for arguments in (("train", "tiny.yaml", "--out", "my run"), ("resume", "my run")):
        assert call(*arguments) == (130, "", "interrupted; continue with: nbridge resume 'my run'\n")
    monkeypatch.setattr("nbridge.model.load_model", interrupt)
    assert call("generate", "run", "--out", "o.npz") == (130, "", "interrupted\n")


def test_paths_of_any_letters_serve(call: Call, here: Path):
    folder = Path("Größe 1 ☃")
    folder.mkdir()
    shutil.copy("tiny.yaml", folder / "spéc.yaml")
    shutil.copy("data.npz", folder / "daten ü.npz")
    assert call("train", f"{folder}/spéc.yaml", "--out", f"{folder}/run", "--set", f"data.path={folder}/daten ü.npz").code == 0
    assert call("impute", f"{folder}/run", f"{folder}/daten ü.npz", "--out", f"{folder}/out.npz").code == 0


# Serving


@pytest.mark.parametrize("draws", [(), ("--samples", "3"), ("--samples", "1", "--no-noise")])
def test_a_file_is_completed_in_its_own_keys_types_and_bits(draws: tuple[str, ...], call: Call, here: Path):
    given = data()
    given["x"][2] = np.nan
    given["x"][3, 1] = np.nan
    given["labels"][4] = -1
    present = np.arange(ROWS) != 4
    rewrite(x=given["x"], labels=given["labels"], labels__present=present, colour=None)
    result = call("impute", "run", "data.npz", "--out", "out.npz", *draws)
    assert (result.code, result.out) == (
        0, f"out.npz: {ROWS} rows; imputed x 2, counts 0, image 0, colour 40, label 1; passed through id, temperature\n",
    )  # fmt: skip
    assert result.err == ""
    done = dict(np.load("out.npz"))
    keys = ("x", "counts", "image", "colour", "labels")
    assert set(done) == {*keys, *(f"{key}__imputed" for key in keys), "id", "temperature"}
    assert np.array_equal(done["id"], given["id"])
    assert np.array_equal(done["temperature"], given["temperature"])
    leading = (int(draws[1]),) if draws else ()
    assert done["colour"].shape == (*leading, ROWS, 3, 2, 2)
    assert np.array_equal(done["x__imputed"], np.isnan(given["x"]))
    assert np.array_equal(done["labels__imputed"], ~present)
    assert done["colour__imputed"].all()
    for key in ("x", "counts", "image", "labels"):
        assert done[key].dtype == given[key].dtype
        assert done[key].shape == (*leading, *given[key].shape)
        for draw in done[key] if draws else [done[key]]:
            assert draw[~done[f"{key}__imputed"]].tobytes() == given[key][~done[f"{key}__imputed"]].tobytes()
    assert np.isfinite(done["x"]).all()
    assert np.isin(done["labels"], [0, 1, 2]).all()


def test_intervals_are_written_under_the_keys_of_the_file(call: Call, here: Path):
    given = data()
    given["x"][2] = np.nan
    rewrite(x=given["x"], labels=None)
    result = call("impute", "run", "data.npz", "--out", "out.npz", "--intervals", "0.5,0.9", "--draws", "39")
    assert result.code == 0
    done = dict(np.load("out.npz"))
    assert done["labels__probability"].shape == (ROWS, 3)
    assert done["x__lower"].shape == done["x__upper"].shape == (2, *given["x"].shape)
    expected = nbridge.load("run").impute({"x": given["x"]}, intervals=(0.5, 0.9), draws=39)
    assert np.array_equal(done["x__mean"][:2], expected["x__mean"][:2])
    assert done["x__sd"][2].min() > 0
    assert not done["x__sd"][[0, 1, *range(3, ROWS)]].any()


def test_codes_are_those_of_the_library(call: Call, here: Path):
    rewrite(counts=None)
    assert call("embed", "run", "data.npz", "--out", "codes.npz") == (0, f"codes.npz: {ROWS} rows, 2 dimensions\n", "")
    codes, rows = dict(np.load("codes.npz")), data()
    assert set(codes) == {"id", "mean", "stddev"}
    assert np.array_equal(codes["id"], rows["id"])
    batch = nbridge.Batch.complete(
        {name: torch.from_numpy(rows["labels" if name == "label" else name]).float() for name in NAMES if name != "counts"}
    )
    batch.values["image"] = batch.values["image"][:, None]
    q = nbridge.load("run").embed(batch)
    assert np.allclose(codes["mean"], q.mean.numpy(), atol=1e-6)
    assert np.allclose(codes["stddev"], q.stddev.numpy(), atol=1e-6)


def test_what_is_given_is_held_in_every_row(call: Call, here: Path):
    given = ("--given", "label=2", "--given", "x=[0.5, -1, 2]", "--num", "5")
    assert call("generate", "run", "--out", "out.npz", *given) == (0, "out.npz: 5 rows\n", "")
    done = dict(np.load("out.npz"))
    assert set(done) == {"x", "counts", "image", "colour", "labels"}
    assert np.array_equal(done["x"], np.tile(np.float32([0.5, -1, 2]), (5, 1)))
    assert np.array_equal(done["labels"], [2] * 5)
    assert len(np.unique(done["image"], axis=0)) == 5


def test_generated_rows_follow_the_seed_and_serve_as_rows(call: Call, here: Path):
    for out, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        call("generate", "run", "--out", f"{out}.npz", "--seed", seed, "--noise")
    assert Path("a.npz").read_bytes() == Path("b.npz").read_bytes() != Path("c.npz").read_bytes()
    result = call("impute", "run", "a.npz", "--out", "d.npz")
    assert result.out == "d.npz: 16 rows; imputed x 0, counts 0, image 0, colour 0, label 0\n"


GIVEN = {
    "label": "expected NAME=VALUE, such as label=3 or x=[0.1,0.2]",
    "label=": "expected NAME=VALUE, such as label=3 or x=[0.1,0.2]",
    "lable=1": "no modality 'lable'. Did you mean 'label'? Modalities: x, counts, image, colour, label",
    "label=7": "modality 'label': row 0 holds 7, expected a class index from 0 to 2",
    "label=1.5": "modality 'label': row 0 holds 1.5, expected a class index from 0 to 2",
    "label=cat": "modality 'label': array of dtype <U3, expected real numbers",
    "label=[0,.5,.5]": "modality 'label', row 0: expected a class index or a one-hot row, with a single 1 among 0s",
    "x=[1,2": "not valid YAML: while parsing a flow sequence, expected ',' or ']', but got '<stream end>'",
    "x=[1,2]": "modality 'x': array of shape (1, 2), expected (rows, 3) or class indices (rows,)",
    "x=[1,.nan,2]": "contains NaN; give a complete value, or leave the modality out",
    "x=[.nan,.nan,.nan]": "contains NaN; give a complete value, or leave the modality out",
    "x=[1,.inf,2]": "modality 'x': inf in row 0, cell (1,): values must be finite (NaN marks absent values)",
    "counts=[1,-4]": f"modality 'counts', row 0: value -4 is outside the support of Poisson, whole numbers from 0 (1 such row). {SUPPORT}",
}


@pytest.mark.parametrize("given", GIVEN)
def test_a_value_that_cannot_be_given_is_told(given: str, call: Call, here: Path):
    assert call("generate", "run", "--out", "o.npz", "--given", given) == (2, "", f"--given {given}: {GIVEN[given]}\n")
    assert not Path("o.npz").exists()


def test_a_modality_is_given_once(call: Call, here: Path):
    result = call("generate", "run", "--out", "o.npz", "--given", "label=1", "--given", "label=2")
    assert result == (2, "", "--given label=2: modality 'label' is given twice\n")


def test_rows_come_from_the_mixture_of_a_model_that_has_one_unless_told_otherwise(call: Call, here: Path):
    spec = nbridge.read_spec("tiny.yaml", ["prior=mixture", "training.stages.joint.epochs=1", "training.stages.bridges.epochs=1"])
    model = nbridge.train(spec, out="mixed").model
    for option, prior in (((), None), (("--prior", "mixture"), "mixture"), (("--prior", "normal"), "normal")):
        assert call("generate", "mixed", "--out", "o.npz", "--num", "5", "--overwrite", *option) == (0, "o.npz: 5 rows\n", "")
        assert np.array_equal(np.load("o.npz")["x"], model.generate(5, prior=prior)["x"].numpy())
    assert not torch.equal(model.generate(5)["x"], model.generate(5, prior="normal")["x"])


PRIORS = {
    ("--prior", "norml"): "unknown prior 'norml'. Did you mean 'normal'? Known: normal, mixture",
    ("--prior", "mixture"): "this model has no mixture prior; train it with prior: mixture",
    ("--prior", "normal", "--given", "label=1"): "prior cannot be combined with given values (label); leave one of them out",
}


@pytest.mark.parametrize("arguments", PRIORS)
def test_a_prior_that_is_not_to_be_had_is_told(arguments: tuple[str, ...], call: Call, here: Path):
    assert call("generate", "run", "--out", "o.npz", *arguments) == (2, "", f"--prior {arguments[1]}: {PRIORS[arguments]}\n")
    assert not Path("o.npz").exists()


def test_a_picture_shows_the_images_of_each_row_under_each_other(call: Call, here: Path):
    image, colour = "[[[1,0,1,0],[0,1,0,1]]]", "[[[1,0],[0,1]],[[0,1],[0,1]],[[0,0],[1,1]]]"
    result = call("generate", "run", "--num", "3", "--out", "o.png", "--given", f"image={image}", "--given", f"colour={colour}")
    assert result == (0, "o.png: 3 rows\n", "")
    tile = np.ones((6, 6, 3))  # a frame, two rows of the image, two of the coloured one beside white, a frame
    tile[1:3, 1:5] = np.float32([[1, 0, 1, 0], [0, 1, 0, 1]])[..., None]
    tile[3:5, 1:3] = [[[1, 0, 0], [0, 1, 0]], [[0, 0, 1], [1, 1, 1]]]
    expected = np.concatenate([np.concatenate([tile, tile], 1), np.concatenate([tile, np.ones_like(tile)], 1)])
    picture = imread("o.png")[..., :3]
    zoom = picture.shape[0] // 12
    assert picture.shape == (12 * zoom, 12 * zoom, 3)
    assert np.allclose(picture, expected.repeat(zoom, 0).repeat(zoom, 1), atol=1 / 255)


def test_a_model_without_images_has_no_picture(call: Call, here: Path):
    spec = nbridge.read_spec("tiny.yaml", ["modalities={x: {shape: 3, encoder: mlp, likelihood: normal}}", "data.keys={}"])
    save_model("plain", nbridge.build_model(spec), spec)
    message = "--out o.png: no modality is an image of shape [1 or 3, height, width] (x [3]); write to an npz file instead\n"
    assert call("generate", "plain", "--out", "o.png") == (2, "", message)


# Evaluation

EVALUATE = ("evaluate", "run", "--samples", "3", "--draws", "39", "--generated", "2")
COMPARE = ("compare", "tiny.yaml", "--models", "vae,mvae", "--out", "both", "--seeds", "1", "--metrics", "likelihood", "--samples", "3")


def _refuse(word: str) -> None:
    raise AssertionError(word)


def test_a_run_is_measured_in_tables_and_in_a_file_beside_it(call: Call, here: Path):
    result = call(*EVALUATE)
    assert (result.code, result.err) == (0, UNTESTED.replace("N", "8"))
    first, blank, *lines = result.out.splitlines()
    assert (first, blank) == ("Verdict: not tested (8 test rows, 20 needed): x, counts, image, colour, label", "")
    assert " ".join(line.strip() for line in lines[:2]) == (
        "all 8 test rows; K = 3 importance samples, 39 draws, 2 generated; seed 0; classifiers predict label"
    )
    assert max(map(len, lines)) <= 80
    assert lines[-1] == "run/evaluation.json: written"
    done = read_evaluation(Path("run", "evaluation.json"))
    assert done is not None
    assert done.settings == Settings(samples=3, draws=39, generated=2)
    titles = [line.strip() for line in lines if re.fullmatch(r"[a-z]+, 8 rows *", line)]
    metrics = list(dict.fromkeys(one.metric for one in done.measurements))
    assert titles == [f"{metric}, 8 rows" for metric in metrics]
    assert set(metrics) == {*METRICS} - {"attributes", "cells"}
    assert "left out: attributes; it needs a bernoulli modality with attributes: true and at least one other" in " ".join(
        result.out.split()
    )
    conditional = next(one for one in done.measurements if one.title == "conditional of counts,image,colour,label given x")
    cells = [cell.strip() for line in lines if line.startswith("│ all but x ") for cell in line.split("│")[1:-1]][:5]
    assert cells == ["all but x", "x", *(number(conditional.figures[name]) for name in list(conditional.figures))]
    assert "so neither a lower nor an upper bound" in " ".join(result.out.split())
    assert "standard error of the Monte-Carlo estimate" in " ".join(result.out.split())


def test_json_of_an_evaluation_stands_alone_and_is_the_file(call: Call, here: Path):
    result = call(
        *EVALUATE, "--metrics", "likelihood, predictive", "--given", "label", "--given", "", "--split", "train", "--rows", "5", "--json"
    )
    assert (result.code, result.err) == (0, UNTESTED.replace("N", "5"))
    content = json.loads(result.out, parse_constant=_refuse)
    assert content == json.loads(Path("run", "evaluation-train.json").read_text())
    assert not Path("run", "evaluation.json").exists()
    assert content["rows"] == 5
    assert content["verdict"]["reason"] == "training rows flatter the model; use test or validation rows"
    assert content["settings"]["given"] == [["label"], []]
    assert {tuple(one["given"]) for one in content["measurements"] if one["metric"] == "predictive"} == {("label",), ()}
    # Of a single row there is no spread over rows, and JSON has no word for NaN.
    single = call(*EVALUATE, "--metrics", "likelihood", "--rows", "1", "--json")
    assert [one["figures"]["error over rows"] for one in json.loads(single.out, parse_constant=_refuse)["measurements"]] == [None] * 11


def test_rows_unlike_those_of_training_are_told_on_standard_error(call: Call, here: Path):
    rewrite(x=None)
    assert call("impute", "run", "data.npz", "--out", "o.npz", "--overwrite").err == "", "bridges learn to do without x"
    rewrite(x=None, **{f"{name}__present": np.arange(ROWS) > 2 for name in ("counts", "image", "colour", "labels")})
    for folder in ("run", "run/model"):
        result = call("impute", folder, "data.npz", "--out", "o.npz", "--overwrite")
        assert result.code == 0
        assert result.err == (
            "warning: rows with nothing observed: 3 rows; no training row had this pattern (they are served from the prior)\n"
        )
    content = json.loads(Path("run", "model", "config.json").read_text())
    assert content["patterns"] == {"names": list(NAMES), "rows": {"11111": 28}, "others": 0, "other_rows": 0}
    del content["patterns"]
    Path("run", "model", "config.json").write_text(json.dumps(content))
    assert call("impute", "run", "data.npz", "--out", "o.npz", "--overwrite").err == ""
    Path("run", "model", "config.json").write_text(json.dumps({**content, "patterns": {"rows": 3}}))
    assert call("impute", "run", "data.npz", "--out", "p.npz") == (2, "", "run/model/config.json: truncated or damaged (KeyError)\n")


def test_what_training_never_had_is_told_when_it_begins_and_when_it_is_evaluated(call: Call, here: Path):
    rewrite(x__present=np.arange(ROWS) % 2 == 0, image__present=np.arange(ROWS) % 2 == 1)
    line = (
        "warning: no training row has both x and image, so x -> image and image -> x have no pairs to learn from; "
        "counts, colour, label, observed with each of them, serve instead"
    )
    trained = call("train", "tiny.yaml", "--out", "apart", "--set", "model=mvae", "--set", "training.stages.joint.epochs=1")
    assert (trained.code, trained.err.splitlines()[0]) == (0, line)
    result = call("evaluate", "apart", "--metrics", "predictive", "--draws", "3")
    assert (result.code, result.err.splitlines()[0], result.err.count("\n")) == (0, line, 2)
    written, untested = json.loads(Path("apart", "evaluation.json").read_text())["warnings"]
    assert (written["kind"], written["where"], f"warning: {written['text']}") == ("apart", "x,image", line)
    assert written["figures"] == {"pairs": [["x", "image"]], "instead": ["counts", "colour", "label"]}
    done = read_evaluation(Path("apart", "evaluation.json"))
    assert done is not None
    assert [one.as_dict() for one in done.warnings] == [written, untested]
    assert result.err.splitlines()[1] == f"note: {untested['text']}"


def test_a_model_at_chance_is_told_after_training_and_after_every_evaluation(call: Call, here: Path):
    rng = np.random.default_rng(0)
    arrays = {
        "x": rng.normal(size=(200, 3)),
        "counts": rng.poisson(3, size=(200, 2)),
        "image": rng.random((200, 2, 4)),
        "colour": rng.random((200, 3, 2, 2)),
        "labels": rng.integers(0, 3, 200),
    }
    np.savez("data.npz", **arrays)
    begin = "warning: modality 'label': imputation from the others is at chance, "
    trained = call("train", "tiny.yaml", "--out", "idle", "--quiet")
    lines = trained.out.splitlines()
    assert (trained.code, trained.err) == (0, "")
    assert sum(line.startswith(begin) for line in lines) == 1
    assert lines[-4] == "model: idle/model"
    told = json.loads(call("resume", "idle", "--json").out)["warnings"]
    assert [f"warning: {one['text']}" for one in told] == [line for line in lines if line.startswith("warning: ")]
    result = call("evaluate", "idle", "--metrics", "predictive", "--draws", "3", "--json")
    written = json.loads(Path("idle", "evaluation.json").read_text())["warnings"]
    assert json.loads(result.out)["warnings"] == written
    assert result.err.splitlines() == [f"warning: {one['text']}" for one in written]
    (chance,) = [one for one in written if (one["kind"], one["where"]) == ("chance", "label")]
    assert chance["figures"].keys() == {"gain", "standard error", "pairs", "share of pairs with a gain"}
    assert chance["figures"]["pairs"] == 20


def test_what_is_worth_a_warning_of_the_rows_of_a_comparison_is_told_once(call: Call, here: Path):
    rewrite(x__present=np.arange(ROWS) % 2 == 0, image__present=np.arange(ROWS) % 2 == 1)
    result = call("compare", "tiny.yaml", "--models", "mvae", "--out", "both", "--seeds", "2", "--metrics", "likelihood", "--samples", "3")
    assert result.code == 0
    assert result.err.count("warning: no training row has both x and image, ") == 1


def test_an_evaluation_of_an_older_version_has_no_warnings(call: Call, here: Path):
    call("evaluate", "run", "--metrics", "predictive", "--draws", "3")
    path = Path("run", "evaluation.json")
    content = json.loads(path.read_text())
    del content["warnings"]
    path.write_text(json.dumps(content))
    done = read_evaluation(path)
    assert done is not None
    assert done.warnings == ()


MODALITIES = "Modalities: x, counts, image, colour, label"
KNOWN = f"Known: {', '.join(METRICS)}"
NO_LABEL = (
    "--label 'image': Bernoulli values are neither classes nor attributes; "
    "use a modality with likelihood categorical, or bernoulli with attributes: true"
)
OPTIONS = {
    ("--samples", "0"): "--samples 0: expected 1 or more",
    ("--draws", "0"): "--draws 0: expected 1 or more",
    ("--generated", "0"): "--generated 0: expected 1 or more",
    ("--rows", "-5"): "--rows -5: expected 1 or more",
    ("--density-rows", "0"): "--density-rows 0: expected 1 or more",
    ("--given", "lable"): f"--given lable: no modality 'lable'. Did you mean 'label'? {MODALITIES}",
    ("--given", "x,colr"): f"--given x,colr: no modality 'colr'. Did you mean 'colour'? {MODALITIES}",
    ("--label", "lable"): f"--label lable: no modality 'lable'. Did you mean 'label'? {MODALITIES}",
    ("--label", "image"): NO_LABEL,
    ("--metrics", "likelyhood"): f"--metrics likelyhood: no such metric. Did you mean 'likelihood'? {KNOWN}",
    ("--metrics", ","): f"--metrics: expected one or more. {KNOWN}",
    ("--metrics", "attributes"): (
        "--metrics attributes: it needs a bernoulli modality with attributes: true and at least one other; "
        "modalities: x (Normal), counts (Poisson), image (Bernoulli), colour (Bernoulli), label (Categorical)"
    ),
    ("--split", "tests"): "--split tests: no such split. Did you mean 'test'? Known: test, validation, train",
    ("--device", "nonsense"): "device 'nonsense' is not available, expected auto, cpu or cuda",
}


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("command", ["evaluate", "compare"])
def test_an_option_that_cannot_serve_is_told_before_any_work(command: str, options: tuple[str, str], call: Call, here: Path):
    before = contents(here)
    start = ("evaluate", "run") if command == "evaluate" else ("compare", "tiny.yaml", "--models", "bridged")
    assert call(*start, *options) == (2, "", f"{OPTIONS[options]}\n")
    assert contents(here) == before


COMPARED = {
    ("--models", "vae,jmvaee"): (
        "--models jmvaee: unknown model 'jmvaee'. Did you mean 'jmvae'? Known: bivcca, bridged, jmvae, joint, mvae, telbo, vae. "
        "For your own class write 'package.module:Class'."
    ),
    ("--models", "vae,vae"): "--models vae: given twice",
    ("--models", ","): "--models: none given. Known: bivcca, bridged, jmvae, joint, mvae, telbo, vae",
    ("--seeds", "0"): "--seeds 0: expected 1 or more",
    ("--minutes", "0"): "--minutes 0: expected more than 0",
    ("--minutes", "-2.5"): "--minutes -2.5: expected more than 0",
    ("--set", "latent_dim=0"): "--set latent_dim=0: latent_dim: expected a number above 0, got 0",
}


@pytest.mark.parametrize("options", COMPARED)
def test_what_cannot_be_compared_is_told_before_any_work(options: tuple[str, str], call: Call, here: Path):
    before = contents(here)
    assert call("compare", "tiny.yaml", *options) == (2, "", f"{COMPARED[options]}\n")
    assert contents(here) == before


def test_rows_that_an_evaluation_lacks_are_told(call: Call, here: Path):
    quick = ["model=mvae", "training.stages.joint.epochs=1"]
    nbridge.train("tiny.yaml", out="untested", overrides=[*quick, "data.test=0"])
    assert call("evaluate", "untested") == (2, "", "--split test: no rows, data.test of the spec is 0; use validation or train\n")
    rewrite(x__present=np.arange(ROWS) % 2 == 0, image__present=np.arange(ROWS) % 2 == 1)
    nbridge.train("tiny.yaml", out="apart", overrides=quick)
    why = "none of the 8 test rows has image, x together; use other modalities, or more rows"
    assert call("evaluate", "apart", "--given", "image,x") == (2, "", f"--given image,x: {why}\n")
    spec = nbridge.read_spec("tiny.yaml", [*quick, "data=memory"])
    nbridge.train(spec, {**{name: data()[name] for name in NAMES if name != "label"}, "label": data()["labels"]}, out="python")
    assert call("evaluate", "python") == (
        2, "", "python: the rows of this run came from Python; pass them again, nbridge.runs.run.open_run('python', data)\n",
    )  # fmt: skip


def test_a_folder_that_cannot_be_evaluated_is_told(call: Call, here: Path):
    assert call("evaluate", "none") == (2, "", "none: no run folder here (spec.resolved.yaml is missing)\n")
    assert call("evaluate", "run/model") == (
        2, "", "run/model: no run folder here (spec.resolved.yaml is missing); this is a model folder, give the run folder run\n",
    )  # fmt: skip
    shutil.rmtree("run/model")
    assert call("evaluate", "run") == (2, "", "run: training has not finished; continue with: nbridge resume run\n")
    assert not Path("run", "evaluation.json").exists()


def test_models_are_compared_in_a_table_and_in_files(call: Call, here: Path):
    result = call(*COMPARE)
    assert result.code == 0
    assert [line for line in result.err.splitlines() if line.startswith("both")] == [
        "both/vae/seed-0: training", "both/vae/seed-0: evaluating", "both/mvae/seed-0: training", "both/mvae/seed-0: evaluating",
    ]  # fmt: skip
    lines = result.out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[-1] == "both/comparison.md, with standard errors, and both/comparison.json: written"
    content = json.loads(Path("both", "comparison.json").read_text(), parse_constant=_refuse)
    full = call(*COMPARE, "--full")
    (own,) = (line for line in content["models"][0]["figures"] if line["measurement"] == "log p(x) by q(z|x)" and "log-l" in line["figure"])
    assert re.search(rf"│ log p\(x\) by q\(z\|x\) +│ +{own['values'][0]:.3f} │", full.out)
    assert re.search(r"│ log p\(image\) by q\(z\|image\) +│ +- │ +-\d", full.out)
    assert max(map(len, full.out.splitlines())) <= 80
    # A figure that one model alone has makes it the best of nothing.
    assert f"log p(x) by q(z|x): log-likelihood: vae {own['values'][0]:.3f}" in result.out
    assert "│" not in result.out
    assert "*" not in next(line for line in lines if line.startswith("log p(image) by q(z|image)"))
    assert full.out.endswith(result.out)
    again = call(*COMPARE, "--json")
    assert (again.code, again.err) == (0, "")
    assert json.loads(again.out, parse_constant=_refuse) == content
    assert call(*COMPARE, "--set", "latent_dim=3").err == (
        "both/vae/seed-0: contains a run of another spec (latent_dim differs); choose another folder with --out, or remove this one\n"
    )


@pytest.mark.parametrize(
    ("stop", "message"),
    [
        (KeyboardInterrupt, "interrupted; run the same command to continue"),
        (partial(TimeLimitReached, "stopped after 1 minutes"), "stopped after 1 minutes"),
    ],
)
def test_an_interrupted_comparison_tells_that_the_same_command_goes_on(
    stop: Callable[[], BaseException], message: str, call: Call, here: Path, monkeypatch: pytest.MonkeyPatch
):
    def interrupt(*arguments: object, **options: object) -> None:
        raise stop()

    monkeypatch.setattr("nbridge.runs.comparison.compare", interrupt)
    assert call(*COMPARE) == (130, "", f"{message}\n")


# Processes


def test_help_schema_and_a_broken_spec_do_not_import_torch(tmp_path: Path):
    (tmp_path / "broken.yaml").write_text("modalities: {x: {shape: 0}}")
    program = f"""
import sys
from nbridge.cli.main import main
def call(*arguments):
    sys.argv = ["nbridge", *arguments]
    try:
        main()
    except SystemExit as left:
        assert "torch" not in sys.modules, arguments
        return left.code
assert [call("--help"), call("--version"), call("schema")] == [0, 0, 0]
assert [call(command, "--help") for command in {COMMANDS!r}] == [0] * {len(COMMANDS)}
assert [call(command, "broken.yaml") for command in ("validate", "params", "train", "compare")] == [2] * 4
"""
    result = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("modalities.x.shape: expected a number above 0, got 0") == 4


def test_a_reader_that_leaves_early_gets_no_traceback():
    command = [sys.executable, "-m", "nbridge", "schema"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""


def test_quiet_hides_progress_and_no_warning(call: Call, here: Path):
    rewrite(x__present=np.arange(ROWS) % 2 == 0, image__present=np.arange(ROWS) % 2 == 1)
    options = ("--set", "model=mvae", "--set", "training.stages.joint.epochs=1", "--no-report")
    loud, quiet = (call("train", "tiny.yaml", "--out", name, *options, *more) for name, more in (("a", ()), ("b", ("--quiet",))))
    assert quiet.err.splitlines() == [line for line in loud.err.splitlines() if line.startswith("warning: ")]
    assert len(quiet.err.splitlines()) == 1
    assert quiet.out == loud.out.replace("a/model", "b/model").replace("impute a ", "impute b ").replace("generate a ", "generate b ")


@pytest.mark.parametrize(("words", "found"), [("nbridge tra", "train"), ("nbridge train --no", "--no-report")])
def test_bash_completes_subcommands_and_options(words: str, found: str):
    setting = {**os.environ, "_NBRIDGE_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    command = [sys.executable, "-m", "nbridge"]
    assert subprocess.run(command, env=setting, capture_output=True, text=True, check=True).stdout.split() == [found]
