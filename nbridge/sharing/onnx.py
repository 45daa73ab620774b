"""Exports models for other runtimes, as ONNX or as torch.export's pt2, from `nbridge.sharing.graph.ImputationGraph`.

A file holds the graph, its weights and a JSON description under the key ``nbridge``: names, shapes, types, classes, version.
"""

from __future__ import annotations

import inspect
import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from nbridge.common.atomic_files import replacing, writing
from nbridge.common.messages import clip, did_you_mean, listing
from nbridge.common.process_state import ignored_warnings, log_level
from nbridge.data.batch import Batch
from nbridge.data.column import PRESENT
from nbridge.errors import NBridgeError, RunError
from nbridge.inference.impute import fixed_points, generate
from nbridge.inference.served import Served
from nbridge.models.base import MultimodalVAE
from nbridge.sharing.graph import ImputationGraph
from nbridge.version import __version__

ENDINGS = (".onnx", ".pt2")
KEY = "nbridge"
"""Key of the description: in the metadata of an ONNX file, or ``nbridge.json`` among the extra files of a pt2."""
MAX_BYTES = 2**31 - 2**20
"""Maximum size in bytes of the weights in one ONNX file."""
ROWS = 32
"""Number of rows on which a graph is compared with its model before it is written."""
TOLERANCE = 1e-4


def export_model(
    model: Served, path: str | os.PathLike[str],
    *, given: Iterable[str] | None = None, targets: Iterable[str] | None = None, classes: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Any]:  # fmt: skip
    r"""Exports the point estimate of `nbridge.Model.impute` as a graph that runs without nbridge, in the units of the data.

    Inputs are ``NAME``, float32 of shape (B, \*shape) or, for classes, int64 of shape (B,), and ``NAME__present``, boolean of shape (B,);
    outputs are ``NAME__completed``. One graph handles any number of rows with any pattern of presence. It does not check that values are in
    the support of their likelihood, and a modality of a row is either completely present or absent. The file is written atomically:
    ``.onnx`` (``pip install "nbridge[onnx]"``), or ``.pt2``, which `torch.export.load` reads. By default all modalities are inputs and
    outputs; those not given are always absent. Class names by modality or column are for the description, if the model does not have them.

    Returns:
        The description stored in the file.

    Raises:
        RunError: when a name or the path is invalid, an extra is missing, the model has covariates or cannot be exported, or the file
            cannot be written.

    Example:
        >>> import nbridge, tempfile
        >>> model = nbridge.build_model(nbridge.Spec.model_validate({"modalities": {
        ...     "top": {"shape": 4, "encoder": "mlp", "likelihood": "normal"},
        ...     "label": {"shape": 3, "encoder": "mlp", "likelihood": "categorical"}}}))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     description = export_model(Served(model), f"{folder}/label.pt2", given=["top"], targets=["label"])
        ...     graph = torch.export.load(f"{folder}/label.pt2").module()
        >>> list(description["inputs"]), list(description["outputs"])
        (['top', 'top__present'], ['label__completed'])
        >>> graph(top=torch.randn(7, 4), top__present=torch.ones(7, dtype=torch.bool))["label__completed"].shape
        torch.Size([7])
    """
    path = Path(path)
    if path.suffix.lower() not in ENDINGS:
        raise RunError(f"{path}: expected a file that ends in {' or '.join(ENDINGS)}")
    network = model.network
    if network.covariates is not None:
        columns = listing(network.covariates.names)
        raise RunError(f"{path}: a model with covariates or columns of size factors ({columns}) cannot be exported")
    given, targets = _known(network, "given", given), _known(network, "targets", targets)
    _check_texts(network, targets)
    as_onnx = path.suffix.lower() == ".onnx"
    if as_onnx:
        _check_extra()
        _check_size(network, path)
    graph = ImputationGraph(network, given, targets)
    rows = _rows(graph)
    _compare(graph, network, rows)
    fields = model.binding.own.fields(model.binding.shapes)
    columns = {name: tuple(field.column for field in own) for name, own in fields.items()}
    description = _description(graph, rows, classes or {}, columns)
    # Torch logs and warns about its own packages during export.
    with log_level("torch.onnx", logging.ERROR), ignored_warnings():
        program = _traced(graph, rows)
        with writing(path), replacing(path) as temporary:
            if as_onnx:
                _write_onnx(program, rows, description, temporary)
            else:
                with temporary.open("wb") as file:
                    torch.export.save(program, file, extra_files={f"{KEY}.json": json.dumps(description)})
    return description


def _known(model: MultimodalVAE, option: str, names: Iterable[str] | None) -> tuple[str, ...]:
    """The requested modalities, in the model's order."""
    asked = model.names if names is None else tuple(names)
    for name in asked:
        if name not in model.names:
            hint = did_you_mean(name, model.names)
            raise RunError(f"{option} {clip(name)!r}: no such modality in this model.{hint} Modalities: {listing(model.names)}")
    if not asked:
        raise RunError(f"{option}: expected one or more modalities. Modalities: {listing(model.names)}")
    return tuple(name for name in model.names if name in asked)


def _check_texts(model: MultimodalVAE, targets: Iterable[str]) -> None:
    if texts := [name for name in targets if not model.likelihoods[name].averaged]:
        others = [name for name in model.names if name not in texts]
        advice = f"targets={others}" if others else "this model has no other modality"
        raise RunError(f"targets {texts[0]!r}: texts are written token by token, which a graph cannot do; leave it out: {advice}")


def _check_extra() -> None:
    if missing := [name for name in ("onnx", "onnxscript") if find_spec(name) is None]:
        verb = "is" if len(missing) == 1 else "are"
        raise RunError(f'ONNX export needs {" and ".join(missing)}, which {verb} not installed: pip install "nbridge[onnx]"')


def _check_size(model: MultimodalVAE, path: Path) -> None:
    size = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    if size > MAX_BYTES:
        raise RunError(f"{path}: the model's weights are {size / 2**30:.1f} GiB, and an ONNX file holds 2 GiB; export to .pt2")


def _rows(graph: ImputationGraph) -> dict[str, Tensor]:
    """Rows generated by the model, with half of their modalities absent, for tracing the graph and comparing it with the model."""
    values = generate(graph.model, ROWS, noise=True, prior="normal")
    present = torch.rand(len(graph.given), ROWS, generator=torch.Generator().manual_seed(0)) < 0.5
    rows: dict[str, Tensor] = {}
    for name, shown in zip(graph.given, present, strict=True):
        rows |= {name: graph.model.likelihoods[name].canonical(values[name]), name + PRESENT: shown}
    return rows


def _compare(graph: ImputationGraph, model: MultimodalVAE, rows: Mapping[str, Tensor]) -> None:
    """Checks that the masked posterior equals the model's posterior; a custom class may have overridden only one of them."""
    names = graph.given
    batch = Batch({name: rows[name] for name in names}, {name: rows[name + PRESENT] for name in names})
    with torch.no_grad():
        try:
            masked = graph.posterior(rows)
        except NBridgeError as error:
            raise RunError(f"cannot be exported: {error}") from error
        served = graph.model.fixed_posterior(batch, fixed_points(graph.model)[1])
        for one, other in ((masked.mean, served.mean), (masked.stddev, served.stddev)):
            if not torch.allclose(one.expand_as(other), other, rtol=TOLERANCE, atol=TOLERANCE):
                kind = type(model).__name__
                far = (one - other).abs().max()
                raise RunError(f"cannot be exported: masked_posterior of {kind} differs from its posterior, by up to {far:.2g}")


class _Keywords(nn.Module):
    """Wraps a graph to take named inputs in any order; a traced program with a mapping as input would depend on its order."""

    def __init__(self, graph: ImputationGraph, names: Iterable[str]) -> None:
        super().__init__()
        self.traced = graph

        def forward(**inputs: Tensor) -> dict[str, Tensor]:
            return graph(inputs)

        keywords = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in names]
        vars(forward)["__signature__"] = inspect.Signature(keywords)
        self.forward = forward


def _traced(graph: ImputationGraph, rows: Mapping[str, Tensor]) -> ExportedProgram:
    number = Dim("rows")
    try:
        by_name = _Keywords(graph, rows)
        program = torch.export.export(by_name, (), dict(rows), dynamic_shapes={name: {0: number} for name in rows}, strict=False)
    except Exception as error:
        # A custom part may do anything that a graph cannot; torch raises many different errors, with long messages.
        raise RunError(f"cannot be exported: torch.export cannot trace a part of the model ({_first_line(error)})") from error
    for node in program.graph.nodes:
        # Stack traces would publish local file paths.
        node.meta.pop("stack_trace", None)
    # Example inputs would be pickled.
    program.example_inputs = None
    return program


def _first_line(error: Exception) -> str:
    return clip(next(iter(str(error).strip().splitlines()), type(error).__name__), 200)


def _write_onnx(program: ExportedProgram, rows: Mapping[str, Tensor], description: Mapping[str, Any], path: Path) -> None:
    names = {"input_names": list(rows), "output_names": list(description["outputs"])}
    shapes = {name: {0: "rows"} for name in rows}
    try:
        made = torch.onnx.export(program, **names, dynamic_shapes=shapes, dynamo=True, verbose=False)
    except Exception as error:
        raise RunError(f"cannot be exported to ONNX: a part of the model has no equivalent ({_first_line(error)}); try .pt2") from error
    assert made is not None
    made.model.producer_name, made.model.producer_version = "nbridge", __version__
    made.model.metadata_props[KEY] = json.dumps(description)
    made.save(path, external_data=False)


def _description(
    graph: ImputationGraph, rows: Mapping[str, Tensor], classes: Mapping[str, Sequence[str]], columns: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    inputs = {name: _kind(x) for name, x in rows.items()}
    with torch.no_grad():
        outputs = {name: _kind(x) for name, x in graph(dict(rows)).items()}
    return {
        "nbridge": __version__,
        "model": type(graph.model).__name__,
        "modalities": {name: _modality(graph.model, name, classes, columns.get(name, ())) for name in graph.model.names},
        "inputs": inputs,
        "outputs": outputs,
    }


def _kind(x: Tensor) -> dict[str, Any]:
    return {"type": str(x.dtype).removeprefix("torch."), "shape": ["rows", *x.shape[1:]]}


def _modality(model: MultimodalVAE, name: str, classes: Mapping[str, Sequence[str]], columns: Sequence[str]) -> dict[str, Any]:
    """A modality's shape and likelihood, and, for table data, its columns and their classes."""
    named = {column: list(classes[column]) for column in columns or (name,) if column in classes}
    likelihood = model.likelihoods[name]
    entry: dict[str, Any] = {"shape": list(likelihood.shape), "likelihood": type(likelihood).__name__}
    return entry | ({"columns": list(columns)} if columns else {}) | ({"classes": named} if named else {})
