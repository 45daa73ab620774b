"""Constructor signatures as the schema of a component.

Positional arguments are geometry and are passed by nbridge; keyword-only arguments are the options of a spec. The signature of a built-in
class is parsed from its source, because importing it would import torch, which takes a second or more: too long to report a misspelt
key. Classes of other packages are imported.
"""

from __future__ import annotations

import ast
import functools
import importlib.machinery
import inspect
import re
import sys
import textwrap
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nbridge.common.messages import clip
from nbridge.errors import SpecError
from nbridge.spec import option_types, registry

REQUIRED: Any = inspect.Parameter.empty
"""Marks an option without a default."""

_NAMESPACE = {**vars(typing), "Mapping": Mapping, "Sequence": Sequence, **vars(option_types)}
_ARGUMENT = re.compile(r"^(\w+): (.*(?:\n +.*)*)", re.MULTILINE)


@dataclass(frozen=True)
class Option:
    """A keyword-only argument."""

    annotation: Any
    default: Any = REQUIRED
    description: str = ""


@dataclass(frozen=True)
class Signature:
    """The relevant arguments of a constructor; ``shape`` is the annotation of the argument that states the supported shapes, if any."""

    shape: Any = None
    options: Mapping[str, Option] = field(default_factory=dict)
    summary: str = ""


@functools.cache
def read_signature(target: str, excluded: tuple[str, ...] = ()) -> Signature:
    """The signature of ``package.module:Class``, without importing a built-in class.

    Keyword-only arguments that nbridge passes itself are ``excluded``: they are not options.

    Raises:
        SpecError: if the class cannot be imported or an annotation cannot be resolved.
    """
    return (signature_of_source(target, excluded) if registry.is_built_in(target) else None) or signature_of_class(target, excluded)


def signature_of_class(target: str, excluded: tuple[str, ...] = ()) -> Signature:
    """The signature of ``package.module:Class``, which is imported."""
    cls = registry.load(target)
    if not isinstance(cls, type):
        raise SpecError([f"'{target}' is of type {type(cls).__name__}, expected a class"])
    try:
        parameters = [] if cls.__init__ is object.__init__ else list(inspect.signature(cls.__init__).parameters.values())
        wanted = {p.name: p for p in parameters if p.name not in excluded and (p.kind is p.KEYWORD_ONLY or p.name == "shape")}
        hints = _hints({p.name: p.annotation for p in wanted.values()}, vars(sys.modules[cls.__init__.__module__]) if wanted else {})
    except Exception as error:
        raise SpecError(
            [f"'{target}': cannot read the annotations of its constructor ({type(error).__name__}: {clip(error, 200)})"]
        ) from error
    return _signature(hints, {p.name: p.default for p in wanted.values() if p.kind is p.KEYWORD_ONLY}, inspect.cleandoc(cls.__doc__ or ""))


def signature_of_source(target: str, excluded: tuple[str, ...] = ()) -> Signature | None:
    """The signature of ``package.module:Class``, parsed from its source; None if the source alone does not suffice."""
    module_name, _, name = target.partition(":")
    tree = _source(module_name)
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)} if tree else {}
    if name not in classes:
        return None
    constructor = _constructor(classes, name)
    if constructor is None:
        return None
    arguments = constructor.args
    options = {a.arg: d for a, d in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if a.arg not in excluded}
    wanted = [a for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs) if a.arg in options or a.arg == "shape"]
    try:
        hints = _hints({a.arg: ast.unparse(a.annotation) if a.annotation else REQUIRED for a in wanted}, _NAMESPACE)
        defaults = {name: REQUIRED if node is None else ast.literal_eval(node) for name, node in options.items()}
    except (NameError, ValueError):
        return None
    return _signature(hints, defaults, ast.get_docstring(classes[name]) or "")


def _constructor(classes: Mapping[str, ast.ClassDef], name: str) -> ast.FunctionDef | None:
    """The ``__init__`` of a class, or of its first parent in the same module that has one."""
    node = classes[name]
    own = [item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"]
    parents = [base.id for base in node.bases if isinstance(base, ast.Name) and base.id in classes]
    return own[0] if own else next(filter(None, (_constructor(classes, parent) for parent in parents)), None)


def _source(module_name: str) -> ast.Module | None:
    """The syntax tree of a module, located like an import but without importing its parent packages."""
    path = None
    spec = None
    for depth, _ in enumerate(parts := module_name.split("."), start=1):
        spec = _find(".".join(parts[:depth]), path)
        if spec is None:
            return None
        path = spec.submodule_search_locations
    return ast.parse(Path(spec.origin).read_text("utf-8")) if spec and spec.origin and spec.has_location else None


def _find(name: str, path: Any) -> importlib.machinery.ModuleSpec | None:
    finders = (finder.find_spec for finder in sys.meta_path if hasattr(finder, "find_spec"))
    return next(filter(None, (find(name, path) for find in finders)), None)


def _hints(annotated: Mapping[str, Any], namespace: Mapping[str, Any]) -> dict[str, Any]:
    """Resolves annotations to types; a missing one becomes `Any`."""
    known = {name: Any if annotation is REQUIRED else annotation for name, annotation in annotated.items()}
    holder = types.SimpleNamespace(__annotations__=known)
    return typing.get_type_hints(holder, globalns=dict(namespace), include_extras=True)


def _signature(hints: Mapping[str, Any], defaults: Mapping[str, Any], docstring: str) -> Signature:
    texts = _descriptions(docstring)
    options = {name: Option(hints[name], default, texts.get(name, "")) for name, default in defaults.items()}
    return Signature(hints.get("shape"), options, docstring.partition("\n")[0])


def _descriptions(docstring: str) -> dict[str, str]:
    """The section "Arguments:" of a docstring as a mapping from name to text."""
    _, _, section = docstring.partition("\nArguments:\n")
    text = textwrap.dedent(section.partition("\n\n")[0])
    return {name: " ".join(words.split()) for name, words in _ARGUMENT.findall(text)}
