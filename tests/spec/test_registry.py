"""Names of components, and the errors that a misspelt or a broken one gives."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from nbridge.errors import SpecError
from nbridge.nn.encoders import Encoder, MLPEncoder
from nbridge.spec import registry

KNOWN = ", ".join(sorted(registry.BUILT_IN["encoders"]))
DECODERS = ", ".join(sorted(registry.BUILT_IN["decoders"]))
OWN = "For your own class write 'package.module:Class'."


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in registry.BUILT_IN.items() for name in names])
def test_every_built_in_name_is_a_class_of_its_kind(kind: str, name: str) -> None:
    assert isinstance(registry.resolve(kind, name, registry.load(registry.BASES[kind])), type)


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("encoders", "mpl", f"unknown encoder 'mpl'. Did you mean 'mlp'? Known: {KNOWN}. {OWN}"),
        ("encoders", "transformer", f"unknown encoder 'transformer'. Known: {KNOWN}. {OWN}"),
        ("decoders", "cnov", f"unknown decoder 'cnov'. Did you mean 'conv'? Known: {DECODERS}. {OWN}"),
        ("models", "", f"unknown model ''. Known: bivcca, bridged, jmvae, joint, mvae, telbo, vae. {OWN}"),
        ("fusions", "a\nb", f"unknown fusion 'a?b'. Known: mlp. {OWN}"),
        ("fusions", "x" * 99, f"unknown fusion '{'x' * 40}...'. Known: mlp. {OWN}"),
        ("encoders", "my.module:", "invalid encoder 'my.module:', expected the form 'package.module:Class'"),
        ("encoders", "my module:Class", "invalid encoder 'my module:Class', expected the form 'package.module:Class'"),
        ("encoders", "module:1", "invalid encoder 'module:1', expected the form 'package.module:Class'"),
        ("encoders", ".module:Class", "invalid encoder '.module:Class', expected the form 'package.module:Class'"),
    ],
)
def test_an_unknown_name_gets_a_suggestion_and_the_known_ones(kind: str, name: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        registry.locate(kind, name)
    assert caught.value.problems == [message]


def test_a_class_of_ones_own_is_named_by_its_path() -> None:
    assert registry.locate("encoders", "my_package.module:Outer.Inner") == "my_package.module:Outer.Inner"
    assert registry.resolve("encoders", "nbridge.nn.encoders:MLPEncoder", Encoder) is MLPEncoder


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("nowhere_mod:Mine", "'nowhere_mod:Mine': module 'nowhere_mod' is not installed"),
        ("nowhere_mod.parts:Mine", "'nowhere_mod.parts:Mine': module 'nowhere_mod' is not installed"),
        ("needy_mod:Mine", "'needy_mod:Mine': module 'needy_mod' needs 'nowhere_mod', which is not installed"),
        ("leaving_mod:Mine", "'leaving_mod:Mine': module 'leaving_mod' cannot be imported (SystemExit: 0)"),
        ("stopping_mod:Mine", "'stopping_mod:Mine': module 'stopping_mod' cannot be imported (Stop)"),
        ("broken_mod:Mine", "'broken_mod:Mine': module 'broken_mod' cannot be imported (ZeroDivisionError: division by zero)"),
        ("unparsable_mod:Mine", "'unparsable_mod:Mine': module 'unparsable_mod' cannot be imported (SyntaxError: invalid syntax"),
        ("own_mod:Mien", "'own_mod:Mien': module 'own_mod' has no 'Mien'. Did you mean 'Mine'?"),
        ("own_mod:helper", "encoder 'own_mod:helper' is of type function, expected a class"),
        ("own_mod:Mine", "encoder 'own_mod:Mine' does not inherit from nbridge.nn.encoders.Encoder"),
    ],
)
def test_a_class_that_cannot_serve_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, message: str) -> None:
    (tmp_path / "own_mod.py").write_text("class Mine: ...\ndef helper(): ...\n")
    (tmp_path / "broken_mod.py").write_text("1 / 0\n")
    (tmp_path / "unparsable_mod.py").write_text("def (:\n")
    (tmp_path / "needy_mod.py").write_text("import nowhere_mod.parts\n")
    (tmp_path / "leaving_mod.py").write_text("raise SystemExit(0)\n")
    (tmp_path / "stopping_mod.py").write_text("class Stop(KeyboardInterrupt): ...\nraise Stop\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SpecError) as caught:
        registry.resolve("encoders", target, Encoder)
    (problem,) = caught.value.problems
    assert problem.startswith(message)
    assert "\n" not in problem


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A package that declares an encoder `spectral`, and an `mlp` of its own."""
    information = tmp_path / "plug_in-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: plug-in\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[nbridge.encoders]\nspectral = plug_in.parts:Spectral\nmlp = plug_in.parts:Other\n")
    monkeypatch.syspath_prepend(tmp_path)
    registry.entry_points.cache_clear()
    yield
    registry.entry_points.cache_clear()


@pytest.mark.usefixtures("installed")
def test_an_installed_package_adds_names_and_replaces_none() -> None:
    assert registry.locate("encoders", "spectral") == "plug_in.parts:Spectral"
    assert registry.locate("encoders", "mlp") == "nbridge.nn.encoders:MLPEncoder"
    assert registry.known("encoders") == sorted({*registry.BUILT_IN["encoders"], "spectral"})
    with pytest.raises(SpecError, match=r"^unknown encoder 'spectrum'\. Did you mean 'spectral'\? Known: conv, embedding, mlp, spectral, "):
        registry.locate("encoders", "spectrum")


def test_a_built_in_name_asks_no_installed_package(monkeypatch: pytest.MonkeyPatch) -> None:
    registry.entry_points.cache_clear()
    monkeypatch.setattr(importlib.metadata, "distributions", lambda **_: pytest.fail("looked up"))
    assert registry.locate("likelihoods", "normal") == "nbridge.nn.likelihoods:Normal"


@pytest.mark.parametrize(
    ("program", "path", "expected"),
    [
        ({"__spec__": object()}, ["{here}", "", "/a", "."], ["/a"]),
        ({"__spec__": object()}, ["{here}", "/a", "{here}"], ["/a", "{here}"]),
        ({"__spec__": object()}, ["/a", "/b"], ["/a", "/b"]),
        ({"__spec__": None, "__file__": "{here}/script.py"}, ["{here}", "/a"], ["/a"]),
        ({"__spec__": None, "__file__": "/elsewhere/bin/nbridge"}, ["/elsewhere/bin", "{here}"], ["/elsewhere/bin", "{here}"]),
        ({"__spec__": None}, ["", "/a"], ["/a"]),
    ],
    ids=["python -m", "python -m, with the folder in PYTHONPATH too", "python -m, elsewhere", "a script", "a command", "a prompt"],
)
def test_the_current_folder_is_no_place_of_installed_packages_unless_it_was_added_explicitly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: dict[str, Any], path: list[str], expected: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    here = str(Path.cwd())
    told = {key: value.format(here=here) if isinstance(value, str) else value for key, value in program.items()}
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(**told))
    monkeypatch.setattr(sys, "path", [entry.format(here=here) for entry in path])
    assert registry.installed_path() == [entry.format(here=here) for entry in expected]


@pytest.mark.parametrize("name", registry.BUILT_IN["models"])
def test_the_table_of_stages_is_what_the_model_declares(name: str) -> None:
    from nbridge.spec.reader import spec_from_dict
    from nbridge.training.build import build_model

    part = {"shape": 2, "encoder": "mlp", "likelihood": "normal"}
    with torch.random.fork_rng():
        model = build_model(spec_from_dict({"model": name, "modalities": {"a": part, "b": part}}))
    assert registry.load(registry.BUILT_IN["models"][name]) is type(model)
    assert tuple(stage.name for stage in model.stages()) == registry.STAGES[name]
