"""The wheel and the source distribution hold everything, and the wheel works where there is no checkout."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import nbridge

pytest.importorskip("hatchling", reason='the build backend is missing; pip install -e ".[test]"')

ROOT = Path(__file__).parent.parent
PACKAGE = {str(path.relative_to(ROOT)) for path in (ROOT / "nbridge").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
ONE_AFTER_ANOTHER = """
import json, sys
from nbridge.__main__ import main

for command in json.loads(sys.argv[1]):
    sys.argv = ["nbridge", *command]
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise
"""
"""Runs commands in one process, in which torch is imported once."""
Run = Callable[..., subprocess.CompletedProcess[str]]


def build(project: Path, kind: str, folder: Path) -> Path:
    """A wheel or an sdist of a project, by its own build backend and without a network."""
    code = f"import sys; from hatchling.build import build_{kind}; print(build_{kind}(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", code, str(folder)], cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, "wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, "sdist", tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs a command of an environment that has the wheel and its dependencies, in a folder far from the checkout."""
    home, folder = tmp_path_factory.mktemp("environment"), tmp_path_factory.mktemp("elsewhere")
    venv.create(home, with_pip=False)
    python = home / ("Scripts" if os.name == "nt" else "bin") / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # The dependencies of this environment, by a plain path: its own .pth files, and so its editable install, are not read.
    (own,) = home.rglob("site-packages")
    paths = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (own / "dependencies.pth").write_text("\n".join(sorted(paths)) + "\n")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}

    def run(command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [str(python.with_name(command)), *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    return run


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(wheel: Path):
    with zipfile.ZipFile(wheel) as file:
        names = {name for name in file.namelist() if ".dist-info/" not in name}
    assert names == PACKAGE
    assert {"nbridge/runs/run.py", "nbridge/py.typed", "nbridge/explore/static/index.html"} <= names


def test_the_sdist_holds_the_package_and_builds_the_same_wheel(sdist: Path, wheel: Path, tmp_path: Path):
    with tarfile.open(sdist) as file:
        file.extractall(tmp_path, filter="data")
    (project,) = tmp_path.iterdir()
    names = {str(path.relative_to(project)) for path in project.rglob("*") if path.is_file()}
    assert names >= PACKAGE | {"README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml", "tests/test_wheel.py"}
    again = build(project, "wheel", tmp_path)
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(again) as other:
        assert {item.filename: item.CRC for item in one.infolist()} == {item.filename: item.CRC for item in other.infolist()}


def test_the_wheel_names_its_version_its_licence_and_its_command(wheel: Path):
    with zipfile.ZipFile(wheel) as file:
        texts = {name.split("/")[-1]: file.read(name).decode() for name in file.namelist() if ".dist-info/" in name}
    assert f"\nVersion: {nbridge.__version__}\n" in texts["METADATA"]
    assert "\nLicense-Expression: Apache-2.0\n" in texts["METADATA"]
    assert "nbridge = nbridge.__main__:main" in texts["entry_points.txt"]
    assert "Apache License" in texts["LICENSE"]


def test_the_installed_package_is_not_the_checkout(installed: Run):
    code = (
        "import nbridge, importlib.resources as r; print(nbridge.__file__);"
        "print(sorted(p.name for p in (r.files('nbridge') / 'explore' / 'static').iterdir()), (r.files('nbridge') / 'py.typed').is_file())"
    )
    where, files = installed("python", "-c", code).stdout.splitlines()
    assert not Path(where).is_relative_to(ROOT)
    assert files == "['cards.js', 'explore.css', 'explore.js', 'index.html', 'map.js', 'page.js', 'sharing.js'] True"


def test_help_and_schema_work(installed: Run):
    assert "Usage: nbridge" in installed("nbridge", "--help").stdout
    found = json.loads(installed("nbridge", "schema").stdout)
    assert found == json.loads((ROOT / "nbridge.schema.json").read_text())


def test_a_table_becomes_a_model_a_report_and_a_completed_table(installed: Run, tmp_path: Path):
    rows = tmp_path / "patients.csv"
    with rows.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "lab_a", "lab_b", "kind"])
        for number in range(60):
            kind = number % 3
            lab = ["", ""] if number % 5 == 0 else [f"{kind + number % 7 / 10}", f"{kind - number % 11 / 10}"]
            writer.writerow([f"p{number}", *lab, "" if number % 4 == 1 else "abc"[kind]])
    spec, run, completed = (str(tmp_path / name) for name in ("patients.yaml", "run", "completed.csv"))
    short = [f"--set=training.stages.{stage}.updates=4" for stage in ("joint", "bridges")]
    commands = (
        ["init", str(rows), "--out", spec],
        ["train", spec, "--out", run, *short],
        ["impute", run, str(rows), "--out", completed],
    )
    installed("python", "-c", ONE_AFTER_ANOTHER, json.dumps(commands))
    assert "<html" in (Path(run) / "report.html").read_text()
    with Path(completed).open(newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) == 60
    assert all(row["lab_a"] and row["lab_b"] and row["kind"] for row in table)
