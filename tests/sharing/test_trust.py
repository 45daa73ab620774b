"""A model or a run that came from elsewhere imports nothing by itself: no module beside it, and no installed one that was not allowed."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Call, in_this_process
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from processes import Script, Started

import nbridge
from nbridge.cli.main import EXAMPLES, LOADING, OWN_SPEC
from nbridge.errors import RunError, SpecError
from nbridge.spec import registry
from nbridge.training.checkpoint import CONFIG
from nbridge.training.run_folder import RESOLVED

SPEC = {
    "modalities": {
        "x": {"shape": 3, "encoder": "mlp", "likelihood": "normal"},
        "kind": {"shape": 2, "encoder": "mlp", "likelihood": "categorical"},
    },
    "training": {"stages": {"joint": {"epochs": 1}, "bridges": {"epochs": 1}}},
}
ROWS = {"x": np.random.default_rng(0).normal(size=(40, 3)), "kind": np.arange(40) % 2}
PARTS = """
import pathlib
pathlib.Path("executed").touch()
from nbridge.nn.encoders import MLPEncoder
class Mine(MLPEncoder):
    pass
"""
LOAD = """
import sys
sys.path.insert(0, "")
import nbridge
try:
    model = nbridge.load("run", allow=sys.argv[1:])
    print(type(model.network.encoders["x"]).__name__)
except nbridge.NBridgeError as error:
    print(type(error).__name__, error)
"""
COMMANDS: dict[str, tuple[str, ...]] = {
    "resume": ("resume", "run"),
    "impute": ("impute", "run", "rows.npz", "--out", "done.npz"),
    "generate": ("generate", "run", "--out", "drawn.npz"),
    "embed": ("embed", "run", "rows.npz", "--out", "codes.npz"),
    "evaluate": ("evaluate", "run"),
    "report": ("report", "run"),
    "explore": ("explore", "run", "--no-browser"),
    "export": ("export", "run", "--out", "graph.pt2"),
    "push": ("push", "run", "user/name"),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    nbridge.train(SPEC, ROWS, out=folder)
    return folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a run whose spec names a class of `my_parts`, and rows."""
    shutil.copytree(trained, tmp_path / "run")
    name_class(tmp_path / "run", "my_parts:Mine")
    np.savez(tmp_path / "rows.npz", **{name: values[:5] for name, values in ROWS.items()})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def name_class(run: Path, name: str) -> None:
    """Lets both specs of a run name another encoder; its options are those of the built-in one."""
    rename_class(run, name)
    text = (run / RESOLVED).read_text()
    assert "type: mlp" in text
    (run / RESOLVED).write_text(text.replace("type: mlp", f"type: '{name}'", 1))


def install(folder: Path, module: str, text: str, entry_points: str = "") -> Path:
    """Installs a package into a folder of its own, for `PYTHONPATH`."""
    site = folder / "site"
    site.mkdir(exist_ok=True)
    (site / f"{module}.py").write_text(text)
    if entry_points:
        information = site / "plug_in-1.0.dist-info"
        information.mkdir()
        (information / "METADATA").write_text("Metadata-Version: 2.1\nName: plug-in\nVersion: 1.0\n")
        (information / "entry_points.txt").write_text(f"[nbridge.encoders]\n{entry_points}\n")
    return site


def loaded(*allow: str, site: Path | None = None) -> str:
    """What a fresh process says that loads the run, with the current folder first in its path."""
    before = "" if site is None else f"import sys; sys.path.append({str(site)!r})\n"
    code, out, err = Started(Script(before + LOAD), "script", *allow).ended()
    assert (code, err) == (0, "")
    return out.strip()


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    return in_this_process(monkeypatch, capsys, 200)


@pytest.fixture(autouse=True)
def _nothing_imported() -> Iterator[None]:
    yield
    sys.modules.pop("my_parts", None)


# What is beside the model is not run


def test_a_module_beside_a_model_is_not_run_and_the_line_says_who_asks_for_it_and_how_to_allow_it(folder: Path):
    (folder / "my_parts.py").write_text(PARTS)
    assert loaded() == (
        "RunError run/model/config.json: modalities.x.encoder.type: asks for the class 'my_parts:Mine', which is not imported, because "
        "this file may come from elsewhere. If you trust the package 'my_parts', allow it: nbridge.load(..., allow=['my_parts']), or "
        "--allow-code my_parts"
    )
    assert not (folder / "executed").exists()


def test_even_an_allowed_module_is_not_taken_from_the_current_folder(folder: Path):
    (folder / "my_parts.py").write_text(PARTS)
    assert loaded("my_parts").endswith(
        "'my_parts:Mine': module 'my_parts' is not installed (the current folder is not searched for a file that may come from elsewhere)"
    )
    assert not (folder / "executed").exists()


def test_an_installed_package_is_imported_if_it_is_allowed_and_not_otherwise(folder: Path):
    (folder / "my_parts.py").write_text("raise RuntimeError('the one in the current folder')")
    site = install(folder, "my_parts", PARTS)
    assert "asks for the class 'my_parts:Mine'" in loaded(site=site)
    assert "asks for the class 'my_parts:Mine'" in loaded("my_part", "parts", site=site)
    assert not (folder / "executed").exists()
    assert loaded("my_parts", site=site) == "Mine"


@pytest.mark.parametrize("verb", COMMANDS)
def test_every_command_that_loads_refuses_and_takes_the_option(folder: Path, verb: str, call: Call):
    (folder / "my_parts.py").write_text(PARTS)
    code, _, err = call(*COMMANDS[verb])
    assert code == 2
    assert err.count("\n") == 1
    assert "asks for the class 'my_parts:Mine'" in err
    assert err.endswith("--allow-code my_parts\n")
    code, _, err = call(*COMMANDS[verb], "--allow-code", "my_parts")
    assert code == 2
    assert err.count("\n") == 1
    assert "module 'my_parts' is not installed" in err
    assert not (folder / "executed").exists()


def test_doctor_names_the_class_and_imports_nothing(folder: Path, call: Call):
    (folder / "my_parts.py").write_text(PARTS)
    code, out, err = call("doctor", "run")
    assert (code, err) == (0, "")
    assert out.count("asks for the class 'my_parts:Mine'") == 2
    assert not (folder / "executed").exists()


def test_the_option_lets_an_installed_package_in(folder: Path, call: Call, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(install(folder, "my_parts", PARTS))
    assert call(*COMMANDS["impute"], "--allow-code", "other", "--allow-code", "my_parts") == (
        0,
        "done.npz: 5 rows; imputed x 0, kind 0\n",
        "",
    )


def test_commands_either_read_the_users_own_spec_or_take_the_option():
    """Each command is one of the two, or reads neither a spec nor a model."""
    assert not set(OWN_SPEC) & set(LOADING)
    assert {verb.__name__ for verb in set(EXAMPLES) - set(OWN_SPEC) - set(LOADING)} == {"schema"}
    assert {verb.__name__ for verb in LOADING} == {*COMMANDS, "pull", "doctor"}


def test_training_from_a_spec_of_ones_own_imports_from_the_current_folder(folder: Path, call: Call):
    (folder / "my_parts.py").write_text(PARTS)
    path = folder / "own.yaml"
    path.write_text(
        "modalities: {label: {shape: 10, encoder: 'my_parts:Mine', likelihood: categorical}}\ndata: {source: digits}\nmodel: vae\n"
    )
    code, out, _ = call("validate", str(path))
    assert (code, out.startswith(f"{path}: valid. vae, 1 modality")) == (0, True)
    assert (folder / "executed").exists()


# What is imported already, and what packages declare


def test_a_class_that_is_imported_already_needs_no_permission(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(install(folder, "my_parts", PARTS))
    with pytest.raises(RunError, match="asks for the class 'my_parts:Mine'"):
        nbridge.load("run")
    import my_parts  # pyright: ignore[reportMissingImports]

    assert type(nbridge.load("run").network.encoders["x"]) is my_parts.Mine
    rename_class(folder / "run", "my_parts.more:Mine")
    with pytest.raises(RunError, match=r"asks for the class 'my_parts\.more:Mine'"):
        nbridge.load("run")
    # Nothing that earlier loads found is trusted later.
    del sys.modules["my_parts"]
    rename_class(folder / "run", "my_parts:Mine")
    with pytest.raises(RunError, match="asks for the class 'my_parts:Mine'"):
        nbridge.load("run")


def rename_class(run: Path, name: str) -> None:
    """Lets the spec of a model name another encoder."""
    path = run / "model" / CONFIG
    config = json.loads(path.read_text())
    config["spec"]["modalities"]["x"]["encoder"]["type"] = name
    path.write_text(json.dumps(config))


def test_an_attribute_that_an_imported_module_would_import_lazily_is_not_asked_for(folder: Path, monkeypatch: pytest.MonkeyPatch):
    lazy = "import pathlib\ndef __getattr__(name):\n    pathlib.Path('executed').touch()\n    raise AttributeError(name)\n"
    monkeypatch.syspath_prepend(install(folder, "my_parts", lazy))
    import my_parts  # noqa: F401 # pyright: ignore[reportMissingImports]

    with pytest.raises(RunError, match="module 'my_parts' has no 'Mine'"):
        nbridge.load("run")
    assert not (folder / "executed").exists()


@pytest.mark.parametrize("name", ["spectral", "my_parts:Mine"])
def test_an_entry_point_of_an_installed_package_needs_no_permission(folder: Path, name: str):
    site = install(folder, "my_parts", PARTS, "spectral = my_parts:Mine")
    rename_class(folder / "run", name)
    (folder / "my_parts.py").write_text("raise RuntimeError('the one in the current folder')")
    assert loaded(site=site) == "Mine"


def test_metadata_in_the_current_folder_installs_nothing(folder: Path):
    (folder / "my_parts.py").write_text(PARTS)
    site = install(folder, "other", "", "spectral = my_parts:Mine")
    shutil.move(site / "plug_in-1.0.dist-info", folder)
    rename_class(folder / "run", "spectral")
    assert loaded().startswith("RunError run/model/config.json: modalities.x.encoder.type: unknown encoder 'spectral'.")
    assert not (folder / "executed").exists()


def test_a_missing_entry_point_is_reported_by_its_package(folder: Path, monkeypatch: pytest.MonkeyPatch):
    site = install(folder, "my_parts", PARTS, "spectral = my_parts:Mine")
    spec = {**SPEC, "modalities": {**SPEC["modalities"], "x": {"shape": 3, "encoder": "spectral", "likelihood": "normal"}}}
    registry.entry_points.cache_clear()
    with monkeypatch.context() as patch:
        patch.syspath_prepend(site)
        nbridge.Model.from_spec(nbridge.Spec.model_validate(spec)).save("saved")
    registry.entry_points.cache_clear()
    shutil.rmtree(folder / "run")
    shutil.move("saved", "run")
    assert loaded() == "RunError run/config.json: encoder 'spectral' is in the package plug-in, which is not installed: pip install plug-in"
    (site / "my_parts.py").unlink()
    said = loaded(site=site)
    assert said.endswith("module 'my_parts' of the package plug-in is missing; install it again: pip install --force-reinstall plug-in")


# What an import may do


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("raise SystemExit", "module 'my_parts' cannot be imported (SystemExit)"),
        ("raise SystemExit(0)", "module 'my_parts' cannot be imported (SystemExit: 0)"),
        ("class Stop(BaseException): ...\nraise Stop('now')", "module 'my_parts' cannot be imported (Stop: now)"),
        ("class Stop(KeyboardInterrupt): ...\nraise Stop", "module 'my_parts' cannot be imported (Stop)"),
        ("raise GeneratorExit", "module 'my_parts' cannot be imported (GeneratorExit)"),
        ("def __getattr__(name): raise SystemExit(0)", "module 'my_parts' cannot be imported (SystemExit: 0)"),
        ("import nowhere_mod", "module 'my_parts' needs 'nowhere_mod', which is not installed"),
        (
            PARTS + "    def __init__(self, *parts, hidden=(), **options): raise SystemExit(0)\n",
            "modalities.x.encoder: its constructor ends the program (SystemExit: 0)",
        ),
    ],
)
def test_what_an_import_raises_is_one_line_and_never_a_silent_success(
    folder: Path, text: str, reason: str, call: Call, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.syspath_prepend(install(folder, "my_parts", text))
    code, out, err = call(*COMMANDS["generate"], "--allow-code", "my_parts")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert reason in err


def test_a_class_that_ends_the_program_while_it_serves_is_an_error(folder: Path, call: Call, monkeypatch: pytest.MonkeyPatch):
    text = PARTS + "    def forward(self, x):\n        raise SystemExit(0)\n"
    monkeypatch.syspath_prepend(install(folder, "my_parts", text))
    code, out, err = call(*COMMANDS["embed"], "--allow-code", "my_parts")
    assert (code, out) == (2, "")
    assert err == "the code of a class outside nbridge ended the program before the command was done (SystemExit)\n"


# Any name

IDENTIFIERS = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True)
TARGETS = st.builds(
    "{}:{}".format, st.lists(IDENTIFIERS, min_size=1, max_size=3).map(".".join), st.lists(IDENTIFIERS, min_size=1, max_size=2).map(".".join)
)
ODD = st.sampled_from([
    "nbridge.__main__:main", "os:system", "builtins:exec", "subprocess:Popen", "antigravity:fly", "this:s", "idlelib.idle:idlelib",
    "nbridge.cli.main:main", "nbridge.nn.encoders:Encoder.register_buffer", "torch.nn:Linear", "sys:modules", "nbridge.nowhere:X",
])  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.one_of(TARGETS, ODD, st.text(max_size=20)),
    kind=st.sampled_from(["encoder", "decoder", "likelihood"]),
    where=st.sampled_from(["modality", "model", "source", "bridges"]),
)
def test_no_name_in_a_model_imports_a_module(trained: Path, name: str, kind: str, where: str, tmp_path: Path):
    config = json.loads((trained / "model" / CONFIG).read_text())
    spec: dict[str, Any] = config["spec"]
    if where == "modality":
        spec["modalities"]["x"][kind]["type"] = name
    elif where == "source":
        spec["data"] = {"source": name}
    else:
        spec[where]["type"] = name
    shutil.copytree(trained / "model", tmp_path / "model", dirs_exist_ok=True)
    (tmp_path / "model" / CONFIG).write_text(json.dumps(config))
    before = set(sys.modules)
    with suppress(RunError):
        nbridge.load(tmp_path / "model")
    assert {module for module in set(sys.modules) - before if not module.startswith("nbridge.")} == set()


@pytest.mark.parametrize("packages", [[""], ["my package"], ["my_parts:Mine"], ["."], [3]])
def test_what_is_allowed_is_the_name_of_a_package(trained: Path, packages: list[Any]):
    with pytest.raises(SpecError, match="expected the name of a package"):
        nbridge.load(trained, allow=packages)


def test_a_single_name_is_allowed_like_a_list_of_one(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(install(folder, "my_parts", PARTS))
    assert type(nbridge.load("run", allow="my_parts").network.encoders["x"]).__name__ == "Mine"


@pytest.mark.parametrize("load", [nbridge.load, nbridge.resume])
def test_the_restriction_ends_with_the_load(folder: Path, load: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(install(folder, "my_parts", PARTS))
    path = [*sys.path]
    with pytest.raises((RunError, SpecError)):
        load(folder / "run")
    assert registry.load("my_parts:Mine").__name__ == "Mine"
    assert sys.path == path
