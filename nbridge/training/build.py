"""Builds models and data from a spec."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property, partial
from math import prod
from typing import TypeVar

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from nbridge.common.autograd import gradients
from nbridge.common.memory import free_bytes
from nbridge.common.messages import listing
from nbridge.common.progress import Progress, no_progress
from nbridge.common.randomness import own_draws
from nbridge.common.warnings import Finding
from nbridge.data.arrays import to_batch
from nbridge.data.batch import Batch
from nbridge.data.column import as_array
from nbridge.data.covariates import check_batch, check_sizes, classes_of, read_covariates, same_rows
from nbridge.data.group_split import assigned, check_named, labels_of, of_groups
from nbridge.data.marks import IMPUTED, imputed_before, rows_marked_by
from nbridge.data.patterns import never_together, nothing_observed, numbered
from nbridge.data.rows import Rows
from nbridge.data.source import Binding, DataSource, open_data, source_class
from nbridge.data.split import Dataset, Splits, split
from nbridge.data.split_labels import NoColumnError, RowLabels
from nbridge.data.streaming.stored_rows import StoredRows
from nbridge.data.tables.frames import FrameLike, is_split
from nbridge.errors import DataError, NBridgeError, SpecError
from nbridge.models.base import MultimodalVAE
from nbridge.models.bridged import BridgedVAE
from nbridge.models.conformal import Conformal, has_intervals
from nbridge.models.flow_bridged import FlowBridgedVAE
from nbridge.models.joint import JointVAE
from nbridge.models.mixture_prior import Mixture
from nbridge.models.parts import Parts
from nbridge.models.support import SupportError
from nbridge.nn.bridges import Bridges
from nbridge.nn.covariates import CovariateEncoder, Covariates
from nbridge.nn.decoders import Decoder
from nbridge.nn.encoders import Encoder, TableEncoder
from nbridge.nn.flow_bridge import FlowBridge
from nbridge.nn.fusion import Fusion
from nbridge.nn.likelihoods import Likelihood
from nbridge.nn.mixed import columns_of_elements
from nbridge.spec.columns import ColumnKind
from nbridge.spec.components import Component
from nbridge.spec.mixed import MIXED
from nbridge.spec.objectives import PAPER_OBJECTIVE
from nbridge.spec.option_types import EmptyRows
from nbridge.spec.registry import reading, resolve
from nbridge.spec.spec import Spec
from nbridge.training.likely_mistakes import Names, likely_mistakes, never_observed, without_counts
from nbridge.training.texts import numbered_arrays, text_forms, with_token_count, with_vocabularies

T = TypeVar("T")
TRAINED = 4
"""Numbers that training with Adam keeps for each parameter: its value, its gradient and two moments."""
_LARGE = 10**8
Shapes = Mapping[str, tuple[int, ...]]
_TRAINED = "they are trained on as if they were observed; train on the rows before imputation, or empty these cells"
_BY_ROW = ("ids", "part", "groups")
"""The arrays of a dataset with an entry per row, besides its values."""


@gradients()
def build_model(spec: Spec, *, seed: int | None = None) -> MultimodalVAE:
    """Builds a float32 model with initial weights.

    Arguments:
        spec: The spec.
        seed: Seed of the weights; ``training.seed`` of the spec when left out.

    Raises:
        SpecError: if a constructor rejects its arguments, or the model would not fit into memory.
    """
    if _is_large(spec):
        # On this device weights take no memory.
        with torch.device("meta"):
            check_size(_built(spec), copies=1)
    with own_draws(spec.training.seed if seed is None else seed):
        return _built(spec)


def check_size(model: MultimodalVAE, copies: int | None = None) -> None:
    """Checks that a model fits into the memory of the machine: copies of its weights, by default those that training keeps.

    Raises:
        SpecError: if it doesn't.
    """
    count = sum(parameter.numel() for parameter in model.parameters())
    # On a GPU only the weights are in the memory of the machine.
    copies = copies or (1 if torch.cuda.is_available() else TRAINED)
    training = " in training" if copies > 1 else ""
    if (needed := 4 * count * copies) > (most := free_bytes(in_use=True)):
        found = f"{count:,} parameters would take {needed / 1e9:,.1f} GB{training}, and this machine has {most / 1e9:,.1f} GB"
        raise SpecError([f"{found}; make the largest of latent_dim, hidden, features and shape smaller"])


def _is_large(spec: Spec) -> bool:
    """Whether the model may have more than `_LARGE` weights, by an upper bound.

    It has no more layers than there are numbers in the spec, those of bridges once for each pair of modalities, and none is larger than the
    two largest numbers allow.
    """
    found = {key: _sizes(value) for key, value in spec.as_dict().items() if key not in ("data", "training")}
    largest = sorted([1, 1, *(size for sizes in found.values() for size in sizes)])[-2:]
    layers = sum(map(len, found.values())) + len(spec.modalities) ** 2 * (1 + len(found["bridges"]))
    # A flow has as many residual blocks, of two layers and a modulation each, beside their averages.
    layers += 6 * spec.bridges.bank.kwargs.get("blocks", 0)
    axes = max(len(modality.shape) for modality in spec.modalities.values()) - 1
    # The kernels of convolutions have three elements along each spatial axis.
    return prod(largest) * 3 ** min(axes, 3) * layers > _LARGE


def _sizes(value: object) -> list[int]:
    """The integers in a part of a spec; those of a shape are multiplied."""
    if isinstance(value, dict):
        return [size for key, one in value.items() for size in ([prod(one)] if key == "shape" else _sizes(one))]
    if isinstance(value, list):
        return [size for one in value for size in _sizes(one)]
    return [value] if isinstance(value, int) else []


def _built(spec: Spec) -> MultimodalVAE:
    model = _construct("model", model_class(spec).from_parts, SpecParts(spec), **spec.model.kwargs)
    model.covariates = covariates_of(spec, {name: one.shape for name, one in model.likelihoods.items() if one.elementwise})
    if spec.prior.type != "normal":
        model.mixture = _construct("prior", resolve("priors", spec.prior.type, Mixture), spec.latent_dim, **spec.prior.kwargs)
    if spec.training.conformal:
        model.conformal = Conformal([name for name, one in model.likelihoods.items() if has_intervals(one)], len(model.names))
    return model


def covariates_of(spec: Spec, centred: Mapping[str, tuple[int, ...]] | None = None) -> Covariates | None:
    """The covariates and size columns of a spec; None if it has none. Inputs of modalities of these shapes are ``centred``.

    Raises:
        SpecError: if the classes of one are not known.
    """
    sizes = {column for name, column in spec.size_columns.items() if name in spec.modalities}
    if not spec.covariates and not sizes:
        return None
    for name, one in spec.covariates.items():
        if one.type == "categorical" and one.classes is None:
            raise SpecError(
                [f"covariates.{name}: its classes are not known; write {{type: categorical, classes: [A, B]}}, or train on data"]
            )
        if one.type == "categorical" and name in sizes:
            raise SpecError([f"covariates.{name}: a column of size factors holds numbers; write normal"])
    classes = {name: tuple(map(str, one.classes or ())) for name, one in spec.covariates.items()}
    return Covariates(classes, sorted(sizes), centred or {})


def binding_of(spec: Spec) -> Binding:
    """What a model keeps of the data of a spec; complete where the spec is settled (`settle`)."""
    return Binding(spec.data.source.type, spec.data.source.kwargs, _shapes(spec), texts=text_forms(spec))


def automatic_weights(spec: Spec) -> tuple[str, ...]:
    """The modalities with weights derived from the data; none with the paper's objective or the model ``joint`` (equation 7)."""
    if spec.bridges.objective == "paper" or model_class(spec) is JointVAE:
        return ()
    return tuple(name for name, modality in spec.modalities.items() if modality.weight == "auto")


def model_class(spec: Spec) -> type[MultimodalVAE]:
    """The class of the model of a spec."""
    named = resolve("models", spec.model.type, MultimodalVAE)
    return bridged_class(spec) if named is BridgedVAE else named


def bridged_class(spec: Spec) -> type[BridgedVAE | FlowBridgedVAE]:
    """The class of a bridged model, which depends on the type of its bridges."""
    bridges = resolve("bridges", spec.bridges.bank.type, Bridges)
    return FlowBridgedVAE if issubclass(bridges, FlowBridge) else BridgedVAE


class SpecParts(Parts):
    """The factory of the parts in a spec."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.names = tuple(spec.modalities)
        self.latent_dim = spec.latent_dim
        # Automatic weights are set later, from the training rows.
        self.weights = {name: 1.0 if modality.weight == "auto" else modality.weight for name, modality in spec.modalities.items()}
        self.objective = PAPER_OBJECTIVE if spec.bridges.objective == "paper" else spec.bridges.objective
        self.combine, self.subsets, self.source_encoders = spec.bridges.combine, spec.bridges.subsets, spec.bridges.encoders
        self.exponents, self.prior = spec.bridges.exponents, spec.bridges.prior

    @cached_property
    def _covariates(self) -> int:
        """The width of the vector of covariates."""
        found = covariates_of(self.spec)
        return 0 if found is None else found.width

    def encoder(self, name: str) -> Encoder:
        """An encoder, which reads the covariates too if there are any."""
        encoder = self.plain_encoder(name)
        return CovariateEncoder(encoder, self.spec.modalities[name].shape, self._covariates) if self._covariates else encoder

    def plain_encoder(self, name: str) -> Encoder:
        """An encoder of the modality alone."""
        modality = self.spec.modalities[name]
        encoder_class = resolve("encoders", modality.encoder.type, Encoder)
        geometry: tuple[object, ...] = modality.shape, modality.features
        if issubclass(encoder_class, TableEncoder) and modality.likelihood.type == MIXED:
            geometry = *geometry, columns_of_elements(modality.likelihood.kwargs["columns"])
        return _construct(f"modalities.{name}.encoder", encoder_class, *geometry, **with_token_count(modality))

    def decoder(self, name: str) -> Decoder:
        """A decoder; by default the mirror of the modality's encoder."""
        modality = self.spec.modalities[name]
        likelihood_class = resolve("likelihoods", modality.likelihood.type, Likelihood)
        likelihood = _construct(f"modalities.{name}.likelihood", likelihood_class, modality.shape, **modality.likelihood.kwargs)
        if modality.decoder.type == "mirror":
            component = self._mirror(name)
            # Named by the encoder's class, not by the file that is being read.
            with reading(None):
                network_class = resolve("decoders", component.type, nn.Module)
        else:
            component = modality.decoder
            network_class = resolve("decoders", component.type, nn.Module)
        inputs = self.latent_dim + self._covariates
        network = _construct(f"modalities.{name}.decoder", network_class, inputs, likelihood.raw_shape, **component.kwargs)
        return Decoder(network, likelihood)

    def fusion(self, names: Iterable[str]) -> Fusion:
        fusion_class = resolve("fusions", self.spec.fusion.type, Fusion)
        return _construct("fusion", fusion_class, self._features(names), self.latent_dim, **self.spec.fusion.kwargs)

    def bridges(self, latent_dim: int | None = None) -> Bridges:
        bank = self.spec.bridges.bank
        more = () if latent_dim is None else (latent_dim,)
        return _construct("bridges", resolve("bridges", bank.type, Bridges), self._features(self.names), *more, **bank.kwargs)

    def _features(self, names: Iterable[str]) -> dict[str, int]:
        return {name: self.spec.modalities[name].features for name in names}

    def _mirror(self, name: str) -> Component:
        with torch.device("meta"):
            options = dict(self.plain_encoder(name).mirror())
        return Component(str(options.pop("type")), options)


def build_data(
    spec: Spec, model: MultimodalVAE, data: Mapping[str, ArrayLike | Tensor] | Batch | DataSource | None = None,
    *, warn: Callable[[Finding], None] | None = None, progress: Progress = no_progress,
) -> Splits:  # fmt: skip
    """Loads the rows of a spec, or takes rows in memory, checks them against the model's likelihoods and splits them.

    Modalities of the spec that the model does not have are dropped, without effect on the split, so all models of a spec share one split.

    Arguments:
        spec: The spec.
        model: The model that will see the rows.
        data: Rows to use instead of the spec's source: arrays by modality as in `nbridge.data.arrays.to_batch`, with those named by
            `data.group` and `data.split`; a batch; or the result of `rows_given`.
        warn: Callback for warnings: values imputed before, empty rows, modalities never observed together in training, doubtful groups,
            likely mistakes.
        progress: Progress callback: (task, done, total).

    Raises:
        DataError: if rows do not match the spec or a modality is missing altogether.
    """
    shapes = _shapes(spec)
    progress("reading rows", 0, 0)
    dataset, labels, source = _load(spec, data, shapes)
    if missing := [name for name in model.names if name not in dataset.batch.names]:
        found = listing(dataset.batch.names)
        raise DataError(f"modality {missing[0]!r} is not in these rows, which have {found}")
    if model.covariates is not None:
        dataset = _with_covariates(model.covariates, spec, dataset, labels)
    before = {name: dataset.imputed.get(name, 0) for name in model.names}
    held_out = spec.data.validation + spec.data.test > 0
    dataset, groups = assigned(dataset, labels, group=spec.data.group, split=spec.data.split, held_out=held_out)
    empty = (~torch.stack(list(dataset.batch.present.values())).any(0)).nonzero()[:, 0]
    if any(name in shapes for name in set(dataset.batch.names) - set(model.names)):
        dataset = replace(dataset, batch=dataset.batch.select(*(name for name in dataset.batch.names if name in model.names)))
    _check(model, dataset, progress)
    findings, every = [*imputed_before(before, _TRAINED)], dataset.batch
    if len(empty):
        dataset = _treat_empty(dataset, empty, spec.data.empty_rows, findings)
    splits = split(dataset, validation=spec.data.validation, test=spec.data.test, seed=spec.data.seed)
    findings += of_groups(groups, dataset, splits, validation=spec.data.validation, test=spec.data.test)
    findings += never_together(model.names, splits.train.present)
    if warn is not None:
        for finding in (*findings, *_doubts(model, every, splits.train, source, shapes)):
            warn(finding)
    return splits


def _with_covariates(covariates: Covariates, spec: Spec, dataset: Dataset, labels: Callable[[str], RowLabels]) -> Dataset:
    """All rows with their covariates and size factors."""
    rows = dataset.batch
    if isinstance(rows, Batch) and rows.covariates:
        return replace(dataset, batch=check_batch(covariates, rows))
    found = read_covariates(covariates, labels)
    same_rows(found, len(rows))
    given = rows.with_covariates(found)
    check_sizes(spec.size_columns, given.presence())
    return replace(dataset, batch=given)


def _doubts(model: MultimodalVAE, rows: Rows, train: Rows, source: DataSource | None, shapes: Shapes) -> Iterator[Finding]:
    """Remarks of the source, elements that are never observed, and likely mistakes; elements are numbered where there is no source."""
    names: Names = {name: list(map(str, range(prod(shape)))) for name, shape in shapes.items()}
    classes: Names = {}
    if source is not None:
        names, classes = source.element_names(shapes), source.class_names(shapes)
        yield from (Finding("doubt", "", line) for line in source.remarks(shapes))
    try:
        batch, trained = rows.representative(), train.representative()
    except DataError:
        # Rows on disk that do not fit into memory are refused by training, which says how many would.
        return
    yield from never_observed(model, batch, trained, names)
    yield from (Finding("doubt", "", line) for line in without_counts(model, batch, "" if source is None else source.origin))
    yield from (Finding("doubt", "", line) for line in likely_mistakes(model, batch, names, classes))


def settle(spec: Spec, given: DataSource | None = None) -> Spec:
    """Resolves the options of the data source that depend on the data, so that a model reads other files like its training files.

    Rows passed from Python replace the files. So do the vocabularies of texts, which are options of likelihoods.

    Raises:
        DataError: if the files do not match the spec or cannot be read.
    """
    source = source_of(spec, given)
    shapes = _shapes(spec)
    spec = with_vocabularies(spec, lambda name: source.texts_of(name, shapes), lambda name, row: source.text_place(name, row, shapes))
    options = source.bind(shapes)
    if not options:
        return spec
    # If the source of the spec does not read such data, it is replaced by one that does.
    own = Component(source.name) if source is given else spec.data.source
    named = Component(own.type, {**own.kwargs, **options})
    return spec.model_copy(update={"data": replace(spec.data, source=named)})


def settle_covariates(spec: Spec, data: Mapping[str, ArrayLike | Tensor] | Batch | DataSource | None = None) -> Spec:
    """Writes out the classes of categorical covariates that the spec leaves to the data, so that a model keeps them.

    Raises:
        DataError: if the data have no such column, or it can't be read.
    """
    open_ones = [name for name, one in spec.covariates.items() if one.type == "categorical" and one.classes is None]
    found = {name: _classes_in(spec, data, name) for name in open_ones}
    if not found:
        return spec
    settled = {name: one.model_copy(update={"classes": found[name]}) if name in found else one for name, one in spec.covariates.items()}
    return spec.model_copy(update={"covariates": settled})


def _classes_in(spec: Spec, data: Mapping[str, ArrayLike | Tensor] | Batch | DataSource | None, name: str) -> tuple[str, ...]:
    if isinstance(data, Batch):
        if name not in data.covariates:
            raise DataError(f"covariate {name!r}: not in this batch; give it, Batch(..., covariates={{{name!r}: ...}})")
        return tuple(str(code) for code in range(int(data.covariates[name].max()) + 1))
    try:
        if data is None or isinstance(data, DataSource):
            return classes_of(name, source_of(spec, data).row_labels(name, _shapes(spec)))
        return classes_of(name, labels_of(data, name))
    except NoColumnError as error:
        raise DataError(f"covariates: {error}") from error


def rows_given(spec: Spec, data: Mapping[str, ArrayLike | Tensor] | Batch | FrameLike | None) -> DataSource | None:
    """The source of a data frame, or a MuData or AnnData object, passed from Python; None for arrays by modality or a batch.

    The spec's source determines whether a dict holds columns or modalities.

    Raises:
        DataError: if a data frame or object cannot be read.
    """
    if data is None or isinstance(data, Batch):
        return None
    if isinstance(data, Mapping) and not is_split(data) and source_of(spec).takes_arrays(data, spec.modalities):
        return None
    return open_data(data)


def source_of(spec: Spec, given: DataSource | None = None) -> DataSource:
    """Constructs the data source of a spec, over rows passed from Python if there are any.

    Raises:
        SpecError: if the constructor rejects its options.
    """
    own = _construct("data", source_class(spec.data.source.type), **spec.data.source.kwargs)
    source = own if given is None else own.with_rows(given)
    source.texts = text_forms(spec, training=True)
    if reserved := frozenset(column for column in (spec.data.group, spec.data.split, *_beside(spec)) if column is not None):
        source.reserved = reserved
    if mixed := mixed_columns(spec):
        source.mixed = mixed
    return source


def _beside(spec: Spec) -> set[str]:
    """The columns of covariates and size factors."""
    return {*spec.covariates, *spec.size_columns.values()}


def mixed_columns(spec: Spec) -> dict[str, Mapping[str, ColumnKind]]:
    """The columns of each mixed modality, with their kinds."""
    parts = {name: modality.likelihood for name, modality in spec.modalities.items()}
    return {name: likelihood.kwargs["columns"] for name, likelihood in parts.items() if likelihood.type == MIXED}


def _shapes(spec: Spec) -> dict[str, tuple[int, ...]]:
    return {name: modality.shape for name, modality in spec.modalities.items()}


def _load(
    spec: Spec, data: Mapping[str, ArrayLike | Tensor] | Batch | DataSource | None, shapes: Shapes
) -> tuple[Dataset, Callable[[str], RowLabels], DataSource | None]:
    """All rows, a function that reads a column of labels that is not a modality, and the source, if any."""
    if data is None or isinstance(data, DataSource):
        source = source_of(spec, data)
        return source.load(shapes), partial(source.row_labels, shapes=shapes), source
    if isinstance(data, Batch):
        return Dataset(data), partial(labels_of, {}), None
    named = {key: column for key, column in (("group", spec.data.group), ("split", spec.data.split)) if column is not None}
    check_named(data, named, shapes)
    beside = (set(named.values()) | _beside(spec) | {name + IMPUTED for name in shapes}) - set(shapes)
    batch = to_batch(numbered_arrays(spec, {name: array for name, array in data.items() if name not in beside}), shapes)
    imputed = rows_marked_by({name: name for name in shapes}, lambda key: as_array(key, data[key]) if key in data else None)
    return Dataset(batch, imputed=imputed), partial(labels_of, data), None


def _treat_empty(dataset: Dataset, empty: Tensor, what: EmptyRows, findings: list[Finding]) -> Dataset:
    """Keeps, drops or refuses rows with nothing observed, as the spec requests."""
    rows = empty.tolist()
    if what == "refuse":
        where = dataset.batch.store.origin if isinstance(dataset.batch, StoredRows) else dataset.origin
        origin = f"{where}: " if where else ""
        advice = "remove them, or set data.empty_rows to drop"
        raise DataError(f"{origin}nothing is observed in {numbered(rows)}, and data.empty_rows is refuse; {advice}")
    if what == "keep":
        findings.append(nothing_observed(rows, "such rows are kept, but not trained on; data.empty_rows: drop removes them"))
        return dataset
    findings.append(nothing_observed(rows, "such rows are dropped (data.empty_rows: drop)"))
    kept = torch.ones(len(dataset.batch), dtype=torch.bool)
    kept[empty.cpu()] = False
    picked = kept.nonzero()[:, 0]
    arrays = {name: None if array is None else array[picked.numpy()] for name, array in vars(dataset).items() if name in _BY_ROW}
    return replace(dataset, batch=dataset.batch.subset(picked), **arrays)


def _check(model: MultimodalVAE, dataset: Dataset, progress: Progress) -> None:
    progress("checking rows", 0, len(dataset.batch))
    if isinstance(dataset.batch, StoredRows):
        dataset.batch.check(model.check, progress)
        return
    try:
        model.check(dataset.batch.sample())
    except SupportError as error:
        if dataset.place is not None:
            raise error.at(dataset.place) from error
        raise DataError(f"{dataset.origin}: {error}" if dataset.origin else str(error)) from error
    except DataError as error:
        raise DataError(f"{dataset.origin}: {error}" if dataset.origin else str(error)) from error


def _construct(where: str, build: Callable[..., T], *geometry: object, **options: object) -> T:
    """Calls a constructor and turns its errors into a `SpecError`."""
    try:
        return build(*geometry, **options)
    except NBridgeError:
        raise
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        # A size that torch can't count, or allocate.
        if isinstance(error, RuntimeError) and not any(word in str(error) for word in ("overflow", "allocate")):
            raise
        raise SpecError([f"{where}: {str(error).partition(chr(10))[0]}"]) from error
    except SystemExit as error:
        raise SpecError([f"{where}: its constructor ends the program (SystemExit: {error})"]) from error
