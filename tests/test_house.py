"""The house: who may import whom, what is public, and what a public name must bring."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import nbridge

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "nbridge"

# A package, or a file at the root, imports only from those before it, and from itself.
PACKAGES = [
    "version", "errors", "common", "spec", "nn", "data", "models", "acceleration", "inference", "visual", "training", "evaluation",
    "sharing", "model", "runs", "draft", "report", "trackers", "explore", "sklearn", "testing", "cli", "__main__",
]  # fmt: skip
PLACE = {name: number for number, name in enumerate(PACKAGES)}
FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


def package(module: str) -> str:
    return module.split(".")[1]


def imports(tree: ast.AST) -> set[str]:
    found = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"nbridge.{alias.name}" for alias in node.names} if node.module == "nbridge" else {node.module}
    return found


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_a_file_imports_only_from_its_own_package_and_those_before_it(path: Path):
    own = package(module_of(path))
    assert own in PLACE, f"{own} is no package that has a place yet"
    for module in imports(ast.parse(path.read_text())):
        if module.startswith("nbridge."):
            assert PLACE[package(module)] <= PLACE[own], f"{own} imports {module}"


def test_the_root_has_few_files():
    assert len(list(PACKAGE.glob("*.py"))) <= 8


def test_files_import_each_other_in_one_direction():
    edges = {module_of(path): {m for m in imports(ast.parse(path.read_text())) if m.startswith("nbridge.")} for path in FILES}
    done: set[str] = set()

    def visit(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, " -> ".join((*above, module))
        if module not in done:
            for other in edges.get(module, ()):
                visit(other, (*above, module))
            done.add(module)

    for module in edges:
        visit(module, ())


@pytest.mark.parametrize(
    "path", [path for path in FILES if "models" in path.parts or path.stem in ("encoders", "decoders", "likelihoods", "fusion")]
)
def test_models_and_parts_never_see_a_spec_a_path_a_device_string_or_a_logger(path: Path):
    tree = ast.parse(path.read_text())
    assert not {m for m in imports(tree) if m.split(".")[-1] in ("spec", "pathlib", "logging", "rich", "acceleration")}
    assert not {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and node.value in ("cuda", "cpu", "mps")}


def test_public_names_are_few_declared_in_one_place_and_documented():
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    declared = {alias.name: node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    del declared["TYPE_CHECKING"], declared["annotations"], declared["__version__"]
    assert declared == nbridge._HOME
    assert len(declared) <= 30
    for name, home in declared.items():
        value = getattr(nbridge, name)
        assert value.__module__ == home
        assert value.__doc__, name
        assert name in dir(nbridge)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = nbridge.nothing


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_every_file_and_every_public_name_in_it_is_documented(path: Path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree) or not path.read_text().strip(), "the file says nothing of itself"
    for node in tree.body:
        overloaded = isinstance(node, ast.FunctionDef) and any(ast.unparse(one) == "overload" for one in node.decorator_list)
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_") and not overloaded:
            assert ast.get_docstring(node), node.name


def test_importing_the_package_imports_no_torch_and_its_command_line_no_torch_either():
    heavy = ("torch", "numpy", "sklearn", "matplotlib", "pydantic", "pyarrow")
    code = f"import sys, nbridge, nbridge.cli.main; sys.exit(any(module in sys.modules for module in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_readme_shows_exactly_two_commands_that_set_everything_up():
    lines = (ROOT / "README.md").read_text().splitlines()
    commands = [line for line in lines if line.startswith("python3 -m venv")]
    assert len(commands) == 2
    assert all("-c constraints.txt" in line for line in commands)
    assert commands[0].endswith("nbridge train modality_specs/digits.yaml")
    assert commands[1].endswith("pytest -n auto --dist loadfile")
    assert "torch==2.13.0" in (ROOT / "constraints.txt").read_text().splitlines()


def test_no_two_files_of_tests_share_a_name():
    """pytest imports them by their names alone."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
