"""Registry of component types: short names and their classes, imported on demand.

A type in a spec is one of the names below, a name that an installed package declares as an entry point (groups ``nbridge.encoders``,
``nbridge.decoders``, ``nbridge.likelihoods`` and ``nbridge.datasets``), or ``package.module:Class``.

A spec that the user wrote may name any class. A file of a model or a run may come from elsewhere, so while it is read (`reading`) only
built-in classes, entry points, classes that are already imported, and packages that the caller allows (`allowing`) can be loaded, and
modules are never taken from the current folder.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import inspect
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple

from nbridge.common.messages import clip, did_you_mean
from nbridge.errors import SpecError, StoppedError

BUILT_IN: Mapping[str, Mapping[str, str]] = {
    "encoders": {
        "mlp": "nbridge.nn.encoders:MLPEncoder",
        "conv": "nbridge.nn.encoders:ConvEncoder",
        "embedding": "nbridge.nn.encoders:EmbeddingEncoder",
        "table": "nbridge.nn.encoders:TableEncoder",
        "text": "nbridge.nn.text:TextEncoder",
    },
    "decoders": {
        "mlp": "nbridge.nn.decoders:MLPDecoder",
        "conv": "nbridge.nn.decoders:ConvDecoder",
        "table": "nbridge.nn.decoders:TableDecoder",
        "text": "nbridge.nn.text:TextDecoder",
    },
    "likelihoods": {
        "bernoulli": "nbridge.nn.likelihoods:Bernoulli",
        "categorical": "nbridge.nn.likelihoods:Categorical",
        "normal": "nbridge.nn.likelihoods:Normal",
        "laplace": "nbridge.nn.likelihoods:Laplace",
        "discretized_logistic": "nbridge.nn.likelihoods:DiscretizedLogistic",
        "poisson": "nbridge.nn.likelihoods:Poisson",
        "negative_binomial": "nbridge.nn.likelihoods:NegativeBinomial",
        "mixed": "nbridge.nn.mixed:Mixed",
        "text": "nbridge.nn.text_likelihood:Text",
    },
    "fusions": {"mlp": "nbridge.nn.fusion:Fusion"},
    "bridges": {"mlp": "nbridge.nn.bridges:BridgeBank", "flow": "nbridge.nn.flow_bridge:FlowBridge"},
    "priors": {"mixture": "nbridge.models.mixture_prior:Mixture"},
    "models": {
        "bridged": "nbridge.models.bridged:BridgedVAE",
        "joint": "nbridge.models.joint:JointVAE",
        "vae": "nbridge.models.vae:VAE",
        "jmvae": "nbridge.models.jmvae:JMVAE",
        "telbo": "nbridge.models.telbo:TELBO",
        "mvae": "nbridge.models.mvae:MVAE",
        "bivcca": "nbridge.models.bivcca:BiVCCA",
    },
    # In the order in which formats are asked whether they read some rows.
    "datasets": {
        "mudata": "nbridge.data.omics.source:MuDataSource",
        "h5mu": "nbridge.data.omics.source:H5MU",
        "h5ad": "nbridge.data.omics.source:H5MU",
        "images": "nbridge.data.images.source:Images",
        "table": "nbridge.data.tables.source:Table",
        "parquet": "nbridge.data.tables.parquet:Parquet",
        "npy": "nbridge.data.numpy.npy:NPYFolder",
        "npz": "nbridge.data.numpy.npz:NPZ",
        "frame": "nbridge.data.tables.frame_source:FrameSource",
        "memory": "nbridge.data.memory:Memory",
        "celeba": "nbridge.data.benchmarks.celeba:CelebA",
        "digits": "nbridge.data.benchmarks.digits:Digits",
        "emoji": "nbridge.data.benchmarks.emoji:Emoji",
        "mnist": "nbridge.data.benchmarks.mnist:MNIST",
        "fashion_mnist": "nbridge.data.benchmarks.mnist:FashionMNIST",
        "mnist_fashion": "nbridge.data.benchmarks.paired:MNISTFashion",
        "polymnist": "nbridge.data.benchmarks.polymnist:PolyMNIST",
    },
}
"""The class of each short name, by kind."""

FROM_PYTHON = ("memory", "frame", "mudata")
"""Data sources that take their rows from Python instead of a file."""

NOUNS: Mapping[str, str] = {
    "encoders": "encoder", "decoders": "decoder", "likelihoods": "likelihood", "fusions": "fusion", "bridges": "bridges", "priors": "prior",
    "models": "model", "datasets": "data source",
}  # fmt: skip
"""The singular noun for each kind in error messages."""

BASES: Mapping[str, str] = {
    "encoders": "nbridge.nn.encoders:Encoder",
    "decoders": "torch.nn:Module",
    "likelihoods": "nbridge.nn.likelihoods:Likelihood",
    "fusions": "nbridge.nn.fusion:Fusion",
    "bridges": "nbridge.nn.bridges:Bridges",
    "priors": "nbridge.models.mixture_prior:Mixture",
    "models": "nbridge.models.base:MultimodalVAE",
    "datasets": "nbridge.data.source:DataSource",
}
"""The required base class of each kind."""

STAGES: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(BUILT_IN["models"], ("joint",)), "bridged": ("joint", "bridges"), "telbo": ("joint", "subsets"),
}  # fmt: skip
"""The training stages of each model, in order."""

EXTENSIBLE = frozenset({"encoders", "decoders", "likelihoods", "datasets"})
"""The kinds that installed packages can add to."""
_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
_MISSING = object()
_TARGET = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


def known(kind: str) -> list[str]:
    """The built-in and installed names of a kind, sorted."""
    return sorted({*BUILT_IN[kind], *installed(kind)})


def locate(kind: str, name: str, keywords: tuple[str, ...] = ()) -> str:
    """The class of a type, as ``package.module:Class``. ``kind`` is one of `BUILT_IN`; the error message also lists ``keywords``.

    Raises:
        SpecError: if the name is unknown.
    """
    if name in BUILT_IN[kind]:
        return BUILT_IN[kind][name]
    if ":" in name:
        if _TARGET.fullmatch(name):
            return name
        raise SpecError([f"invalid {NOUNS[kind]} '{clip(name)}', expected the form 'package.module:Class'"])
    if name in installed(kind):
        return installed(kind)[name]
    names = sorted({*known(kind), *keywords})
    raise SpecError([
        f"unknown {NOUNS[kind]} '{clip(name)}'.{did_you_mean(name, names)} Known: {', '.join(names)}. "
        "For your own class write 'package.module:Class'."
    ])  # fmt: skip


def is_built_in(target: str) -> bool:
    """Whether ``package.module:Class`` belongs to this package."""
    return target.startswith("nbridge.")


_file: ContextVar[str | None] = ContextVar("nbridge_file", default=None)
"""The file being read that may come from elsewhere; None while a user's own spec is read."""
_allowed: ContextVar[frozenset[str]] = ContextVar("nbridge_allowed", default=frozenset())
"""Packages and modules that such files may import."""


@contextmanager
def reading(file: str | os.PathLike[str] | None) -> Iterator[None]:
    """Restricts `load` while a file that may come from elsewhere is read and its model is built; None lifts the restriction."""
    token = _file.set(None if file is None else os.fspath(file))
    try:
        yield
    finally:
        _file.reset(token)


@contextmanager
def allowing(packages: Iterable[str]) -> Iterator[None]:
    """Allows packages or modules, by name, in addition to those already allowed, to files that may come from elsewhere.

    Raises:
        SpecError: if one is not the name of a package.
    """
    names = [packages] if isinstance(packages, str) else list(packages)
    if wrong := [name for name in names if not isinstance(name, str) or not _MODULE.fullmatch(name)]:
        raise SpecError([f"allowed code {clip(wrong[0])!r}: expected the name of a package, such as my_package"])
    token = _allowed.set(_allowed.get() | frozenset(names))
    try:
        yield
    finally:
        _allowed.reset(token)


def load(target: str) -> Any:
    """Imports ``package.module:Class``.

    Raises:
        SpecError: if the module cannot be imported or has no such attribute, or the file being read (`reading`) may not import it.
    """
    module_name, _, name = target.partition(":")
    package = _entry_point_packages().get(target) if not _is_own(target) else None
    restricted = _file.get() is not None and not _is_own(target) and package is None and not _is_allowed(module_name)
    if restricted and module_name not in sys.modules:
        raise SpecError([_refusal(target)])
    isolated = package is not None or (_file.get() is not None and not _is_own(target))
    try:
        with _installed_only() if isolated and module_name not in sys.modules else nullcontext():
            value: Any = importlib.import_module(module_name)
        for part in name.split("."):
            # A module or class may import something in `__getattr__`, which is not called for code that is only imported already.
            found = inspect.getattr_static(value, part, _MISSING) if restricted else getattr(value, part, _MISSING)
            if found is _MISSING:
                raise SpecError([f"'{target}': module '{module_name}' has no '{part}'.{did_you_mean(part, vars(value))}"])
            value = found
    except SpecError:
        raise
    except BaseException as error:
        # Everything else, because SystemExit of a module would end the program without a message and with exit code 0.
        if type(error) in (KeyboardInterrupt, StoppedError):
            raise
        raise SpecError([f"'{target}': {_reason(error, module_name, package)}"]) from error
    return value


def _is_own(target: str) -> bool:
    """Whether a class is in this package, private modules such as ``__main__`` excluded, or is a base class of a kind."""
    return target in BASES.values() or (is_built_in(target) and "__" not in target)


def _is_allowed(module_name: str) -> bool:
    return any(module_name == name or module_name.startswith(f"{name}.") for name in _allowed.get())


def _refusal(target: str) -> str:
    package = clip(target.partition(":")[0].partition(".")[0], 100)
    return (
        f"asks for the class '{clip(target, 200)}', which is not imported, because this file may come from elsewhere. "
        f"If you trust the package '{package}', allow it: nbridge.load(..., allow=['{package}']), or --allow-code {package}"
    )


def _reason(error: BaseException, module_name: str, package: str | None) -> str:
    """Why a module cannot be imported; ``package`` is the installed package that declares it, if any."""
    if not isinstance(error, ModuleNotFoundError) or error.name is None:
        reason = clip((str(error).splitlines() or [""])[0], 200)
        return f"module '{module_name}' cannot be imported ({type(error).__name__}{f': {reason}' if reason else ''})"
    if module_name != error.name and not module_name.startswith(f"{error.name}."):
        return f"module '{module_name}' needs '{clip(error.name)}', which is not installed"
    if package is not None:
        return f"module '{error.name}' of the package {package} is missing; install it again: pip install --force-reinstall {package}"
    elsewhere = " (the current folder is not searched for a file that may come from elsewhere)" if _file.get() is not None else ""
    return f"module '{error.name}' is not installed{elsewhere}"


@contextmanager
def _installed_only() -> Iterator[None]:
    """Hides the current folder from imports."""
    before, kept = [*sys.path], installed_path()
    sys.path[:] = kept
    try:
        yield
    finally:
        sys.path[:] = before + [entry for entry in sys.path if entry not in kept]


def installed_path() -> list[str]:
    """`sys.path` without the current folder, where Python itself added it: ``""``, or the folder of the program.

    An entry for the current folder of ``PYTHONPATH`` or of an editable installation is kept.
    """
    path = [entry for entry in sys.path if entry not in ("", ".")]
    program = sys.modules.get("__main__")
    is_module, file = getattr(program, "__spec__", None) is not None, getattr(program, "__file__", None)
    try:
        here = Path.cwd()
        # `python -m` adds the current folder, and `python SCRIPT` the folder of the script, before all other entries.
        added = not sys.flags.safe_path and (is_module or (file is not None and Path(file).resolve().parent == here))
    except OSError:  # the current folder was removed
        return path
    if added and str(here) in path:
        path.remove(str(here))
    return path


def resolve(kind: str, name: str, base: type) -> type:
    """Imports the class of a type. ``kind`` is one of `BUILT_IN`; the class must extend ``base``.

    Raises:
        SpecError: if the name is unknown, its module cannot be imported, or it is not a subclass of ``base``.
    """
    target = locate(kind, name)
    value = load(target)
    if not isinstance(value, type):
        raise SpecError([f"{NOUNS[kind]} '{target}' is of type {type(value).__name__}, expected a class"])
    if not issubclass(value, base):
        raise SpecError([f"{NOUNS[kind]} '{target}' does not inherit from {base.__module__}.{base.__qualname__}"])
    return value


class _EntryPoint(NamedTuple):
    """A class that an installed package declares, and the name of the package."""

    target: str
    package: str


def installed(kind: str) -> dict[str, str]:
    """The classes that installed packages declare, by name; if two packages declare the same name, the first one found wins."""
    return {name: point.target for name, point in entry_points(kind).items()}


def package_of(kind: str, name: str) -> str | None:
    """The installed package that declares a name; None for built-in names and classes written out."""
    return None if name in BUILT_IN[kind] or ":" in name or name not in entry_points(kind) else entry_points(kind)[name].package


@functools.cache
def entry_points(kind: str) -> dict[str, _EntryPoint]:
    """The entry points of a kind by name. Packages in the current folder are not installed, even if they have metadata there."""
    if kind not in EXTENSIBLE:
        return {}
    found: dict[str, _EntryPoint] = {}
    seen: set[str] = set()
    for package in importlib.metadata.distributions(path=installed_path()):
        name = package.metadata["Name"]
        if name in seen:
            continue  # an older version later in the path
        seen.add(name)
        for point in package.entry_points.select(group=f"nbridge.{kind}"):
            found.setdefault(point.name, _EntryPoint(f"{point.module}:{point.attr}", name))
    return found


def _entry_point_packages() -> dict[str, str]:
    """The installed package of each declared class."""
    return {point.target: point.package for kind in sorted(EXTENSIBLE) for point in entry_points(kind).values()}
