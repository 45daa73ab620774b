"""The model API: imputes, generates, embeds, evaluates, saves, shares and exports."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.distributions import Independent

from nbridge.common.messages import listing
from nbridge.common.warnings import Finding, issue
from nbridge.data.batch import Batch
from nbridge.data.imputed import Imputed, Summary
from nbridge.data.marks import COUNTED, imputed_before
from nbridge.data.patterns import Patterns, count
from nbridge.data.remote import as_url, is_url, local_copy, refresh
from nbridge.data.split import Splits
from nbridge.errors import DataError, NBridgeError, RunError
from nbridge.evaluation.results import METRICS, Evaluation, Metric, Settings
from nbridge.evaluation.suite import evaluate
from nbridge.inference.complete import impute_rows
from nbridge.inference.impute import embed, generate, impute
from nbridge.inference.intervals import DRAWS, summarise
from nbridge.inference.options import ImputationOptions, Shard
from nbridge.inference.plan import Progress
from nbridge.inference.reading import read_batch
from nbridge.inference.served import Served
from nbridge.models.base import MultimodalVAE
from nbridge.sharing import hub
from nbridge.sharing.onnx import export_model
from nbridge.spec.option_types import Prior
from nbridge.spec.registry import allowing
from nbridge.spec.spec import Spec
from nbridge.training.build import binding_of, build_model
from nbridge.training.checkpoint import load_model, save_model
from nbridge.training.run_folder import model_card

NEEDS_TRAINING_ROWS = frozenset({"coherence", "diversity", "agreement", "attributes"})
"""Metrics whose classifiers or references come from training rows."""
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


class Model(Served):
    """A network with its spec, its data binding and the missingness patterns of its training rows.

    Arguments:
        network: The network, a `nbridge.models.base.MultimodalVAE`.
        spec: Its spec, which names the columns and arrays of each modality. Without it, rows are batches or arrays by modality.
        patterns: The missingness patterns of the training rows; None if unknown.

    Raises:
        TypeError: if the network is not a `MultimodalVAE`.
    """

    def __init__(self, network: MultimodalVAE, spec: Spec | None = None, patterns: Patterns | None = None) -> None:
        super().__init__(network, None if spec is None else binding_of(spec), patterns)
        self.spec = spec

    @classmethod
    def from_spec(cls, spec: Spec) -> Self:
        """Builds an untrained model.

        Raises:
            SpecError: if a constructor rejects its arguments.
        """
        return cls(build_model(spec), spec)

    def impute(
        self,
        rows: Any,
        out: str | os.PathLike[str] | None = None,
        *,
        samples: int | None = None,
        noise: bool = True,
        seed: int = 0,
        intervals: Sequence[float] = (),
        draws: int = DRAWS,
        mask: bool = False,
        first: int = 0,
        shard: tuple[int, int] = (1, 1),
        covariates: Mapping[str, Any] | None = None,
        progress: Progress | None = None,
    ) -> Any:
        r"""Imputes every missing modality and every missing cell; the result has the type of the input.

        The point estimate is the mean (or the most probable class, or a rounded count) of
        :math:`p(x_j \mid x_S) = \mathbb{E}_{q(z \mid x_S)} [p(x_j \mid z)]`. Observed values are never changed.

        =============================================== ======================================================================
        rows                                            result
        =============================================== ======================================================================
        a batch                                         `Imputed`: values, mask and statistics by modality
        a dict of arrays by modality                    a dict of arrays, with masks ``NAME__imputed``
        a data frame, a ``datasets.Dataset``            a frame of the same class; with ``mask=True`` also a frame of flags
        a MuData or AnnData object                      a completed copy
        the path of a file (npz, npy folder, csv,       `Completed`: counts; the completed file is ``out``
        Parquet, h5mu, h5ad)
        paths of tables to join, folders of images      `Completed`; the completed files are in the folder ``out``
        =============================================== ======================================================================

        Arguments:
            rows: The rows.
            out: The file or folder to write, for rows in files; an existing one is replaced.
            samples: The number K of samples, or None for the point estimate. Each decodes all missing modalities of a row from one z.
            noise: Whether samples include the spread of the likelihood.
            seed: Random seed.
            intervals: Probabilities of central predictive intervals, such as 0.9, to return with the point estimate: ``NAME__mean``,
                ``NAME__sd``, ``NAME__lower`` and ``NAME__upper``, or ``NAME__probability`` for classes.
            draws: The number of samples that intervals are computed from.
            mask: Whether to return a second frame, true where a cell was imputed; for data frames only.
            first: The number of the batch's first row among all rows, a multiple of `rows_at_a_time`, so that results do not
                depend on how rows are batched.
            shard: The shard of a file to impute and write: its number, from 1, and the number of shards.
            covariates: Fixed values of covariates, ``{"batch": "A"}``: what the rows would have been in batch A. Encoders are given the own
                value of a row, if it has one, and decoders the fixed one.
            progress: Progress callback: (stage, done, total).

        Raises:
            DataError: if rows do not match the model, options contradict each other, or a file cannot be read or written.

        Warns:
            NBridgeWarning: if rows have missingness patterns that no training row had.

        Example:
            >>> import nbridge, torch
            >>> model = nbridge.Model.from_spec(nbridge.Spec.model_validate({"modalities": {
            ...     "top": {"shape": 4, "encoder": "mlp", "likelihood": "normal"},
            ...     "label": {"shape": 3, "encoder": "mlp", "likelihood": "categorical"}}}))
            >>> rows = nbridge.Batch.complete({"top": torch.randn(5, 4), "label": torch.tensor([0, 1, 2, 0, 1])})
            >>> model.impute(rows.hide("label"), samples=7).values["label"].shape
            torch.Size([7, 5])
        """
        options = ImputationOptions(samples, noise, seed, tuple(intervals), draws, covariates or {})
        if isinstance(rows, Batch):
            return self._impute_batch(rows, options, first, out=out, mask=mask, shard=shard)
        done = impute_rows(self, rows, out, options, shard=Shard(*shard), mask=mask, progress=progress)
        _warn(done.warnings)
        if out is not None:
            return done
        return (done.result, done.flags) if mask else done.result

    def summarise(
        self,
        rows: Any,
        intervals: Sequence[float] = (0.9,),
        *,
        draws: int = DRAWS,
        seed: int = 0,
        covariates: Mapping[str, Any] | None = None,
    ) -> Summary[Tensor]:
        """Mean, standard deviation, intervals and class probabilities of the predictive distribution of every missing value.

        Arguments:
            rows: Rows of any kind that `embed` takes.
            intervals: Probabilities of central intervals.
            draws: The number of samples that they are computed from.
            seed: Random seed.
            covariates: Fixed values of covariates, as for `impute`.

        Raises:
            DataError: if rows do not match the model, or a level is not a probability or needs more samples.
        """
        fixed = self.fixed(covariates)
        return summarise(self.network, self._read(rows, fixed), levels=tuple(intervals), draws=draws, seed=seed, covariates=fixed)

    def generate(
        self,
        num: int,
        given: Mapping[str, ArrayLike | Tensor] | None = None,
        *,
        noise: bool = False,
        seed: int = 0,
        prior: Prior | None = None,
        covariates: Mapping[str, Any] | None = None,
    ) -> dict[str, Tensor]:
        r"""Generates rows: :math:`z \sim p(z)` or :math:`z \sim q(z \mid \mathrm{given})`, then the expectation of :math:`p(x_j \mid z)`.

        Arguments:
            num: The number B of rows.
            given: Values of some modalities: one for all rows, or one for each row.
            noise: Whether to sample from :math:`p(x_j \mid z)` instead.
            seed: Random seed.
            prior: The distribution of z if nothing is given: ``normal`` or ``mixture``; by default the prior used in training.
            covariates: Values of covariates, ``{"batch": "A"}``. Classes of others are drawn by their frequencies in the training rows, and
                numbers are their mean.

        Returns:
            Values of all modalities, shape (B, \*shape).

        Raises:
            DataError: if given values do not match the model, or it does not have the prior.
        """
        return generate(self.network, num, given, noise=noise, seed=seed, prior=prior, covariates=self.fixed(covariates))

    def texts(self, name: str, numbers: ArrayLike | Tensor) -> list[str]:
        """The texts of a modality, from token numbers, shape (B, L), such as those that `generate` returns.

        Raises:
            DataError: if the model lacks the modality, or its values are no texts.
        """
        forms = self.binding.texts
        if name not in forms:
            raise DataError(f"modality {name!r}: no texts; modalities of texts: {listing(forms)}")
        return forms[name].texts(np.asarray(torch.as_tensor(numbers).cpu())).tolist()

    def embed(self, rows: Any, *, samples: int = 1, seed: int = 0, covariates: Mapping[str, Any] | None = None) -> Independent:
        r"""The posterior :math:`q(z \mid x_S)` of each row, batch shape (B,) over D.

        Arguments:
            rows: A batch, the path of a file, a data frame, a MuData or AnnData object, or a dict of arrays by modality.
            samples: The number of posteriors of a stochastic model that mean and variance are computed over.
            seed: Random seed.
            covariates: Fixed values of covariates, which encoders are given in place of a row's own.

        Raises:
            DataError: if rows do not match the model or cannot be read.
        """
        fixed = self.fixed(covariates)
        batch = self._read(rows, fixed)
        return embed(self.network, batch.with_covariates(fixed) if fixed else batch, samples=samples, seed=seed)

    def evaluate(self, rows: Any, settings: Settings | None = None, **options: Any) -> Evaluation:
        """Evaluates imputation of rows that were not used in training (`nbridge.evaluation.suite`).

        Arguments:
            rows: The splits of a run, ``run.splits``; or rows of any kind that `embed` takes. Without a run's splits,
                metrics and verdicts that need training rows are left out.
            settings: What to evaluate.
            options: Options of `nbridge.evaluation.suite.evaluate`.

        Raises:
            OptionError: if a setting is invalid.
            DataError: if rows do not match the model.
        """
        if self.spec is None:
            raise NBridgeError("a model without a spec cannot be evaluated; build it with Model.from_spec, or pass its spec to Model")
        settings = settings or Settings()
        if isinstance(rows, Splits):
            return evaluate(self.network, self.spec, rows, settings, **options)
        batch, _, before = read_batch(self, rows)
        said = "they are evaluated as if they were observed; evaluate the rows before imputation"
        _warn((*imputed_before(before, said), *self.unseen(count(self.names, batch.present))))
        possible: tuple[Any, ...] = tuple(metric for metric in METRICS if metric not in NEEDS_TRAINING_ROWS)
        if refused := [metric for metric in settings.metrics or () if metric not in possible]:
            raise DataError(f"metric {refused[0]!r} needs training rows; pass the splits of a run, model.evaluate(run.splits)")
        metrics: tuple[Metric, ...] = settings.metrics or possible
        chosen = replace(settings, metrics=metrics, split="test")
        return evaluate(self.network, self.spec, Splits(batch, None, batch), chosen, **{"lenient": True, **options})

    def save(self, directory: str | os.PathLike[str]) -> Path:
        """Writes a model folder for `nbridge.load` and the command line: tensors (safetensors), spec and card.

        Raises:
            NBridgeError: if the model has no spec.
            RunError: if the folder cannot be written.
        """
        if self.spec is None:
            raise NBridgeError("a model without a spec cannot be saved; build it with Model.from_spec, or pass its spec to Model")
        if is_url(directory):
            raise RunError(
                f"{as_url(directory)}: a URL, expected a local folder, since three files cannot be replaced at once; copy it afterwards"
            )
        save_model(directory, self.network, self.spec, self.patterns, model_card(self.spec))
        return Path(directory)

    def push(self, repo: str, **options: Any) -> str:
        """Uploads the model to a repository of the Hugging Face hub and returns its address.

        Arguments:
            repo: ``user/name``.
            options: Options of `nbridge.sharing.hub.push`.

        Raises:
            RunError: if the repository is not writable, or the hub cannot be reached.
        """
        with TemporaryDirectory() as folder:
            return hub.push(self.save(folder), repo, **options)

    def export(
        self, path: str | os.PathLike[str], *, given: Iterable[str] | None = None, targets: Iterable[str] | None = None
    ) -> dict[str, Any]:
        """Exports the point estimate of `impute` as a graph that runs without nbridge: ``.onnx``, or ``.pt2`` of `torch.export`.

        Arguments:
            path: The file to write.
            given: The input modalities; all by default.
            targets: The output modalities; all by default.

        Returns:
            The description that is stored in the file.

        Raises:
            RunError: if names or the path are invalid, an extra is missing, or the model cannot be exported.
        """
        classes = {} if self.spec is None else self.spec.data.source.kwargs.get("classes") or {}
        return export_model(self, path, given=given, targets=targets, classes=classes)

    def to(self, device: torch.device | str) -> Self:
        """Moves the network to a device, in place."""
        self.network.to(device)
        return self

    def __repr__(self) -> str:
        parameters = sum(parameter.numel() for parameter in self.network.parameters())
        return f"Model({type(self.network).__name__}: {', '.join(self.names)}; {parameters:,} parameters)"

    def _read(self, rows: Any, fixed: Mapping[str, Tensor] | None = None) -> Batch:
        batch, _, before = read_batch(self, rows, fixed)
        _warn(imputed_before(before, COUNTED))
        return batch

    def _impute_batch(
        self, rows: Batch, options: ImputationOptions, first: int, *, out: object, mask: bool, shard: tuple[int, int]
    ) -> Imputed[Tensor]:
        """Imputes a batch of tensors, on their device."""
        options.check()
        if out is not None or shard != (1, 1):
            raise DataError(f"{'out' if out is not None else 'shard'} is for rows in files; rows in memory are returned")
        if mask:
            raise DataError("mask is for data frames; an imputed batch has masks")
        fixed = self.fixed(options.covariates)
        done = impute(self.network, rows, samples=options.samples, noise=options.noise, seed=options.seed, first=first, covariates=fixed)
        if options.intervals:
            levels = tuple(options.intervals)
            summary = summarise(self.network, rows, levels=levels, draws=options.draws, seed=options.seed, first=first, covariates=fixed)
            done = replace(done, statistics=summary)
        _warn(self.unseen(count(self.names, rows.present)))
        return done


def load(
    source: str | os.PathLike[str],
    *,
    allow: Iterable[str] = (),
    revision: str | None = None,
    token: str | None = None,
    endpoint: str | None = None,
) -> Model:
    """Loads a trained model, in eval mode, on the CPU.

    A model may come from elsewhere, so loading imports nothing that its spec alone asks for: only built-in classes, classes that installed
    packages declare as entry points, classes of modules that are already imported, and the packages in ``allow``.

    Arguments:
        source: A run folder, the model folder in it, the URL of a model folder, ``s3://bucket/model``, or a repository of the Hugging Face
            hub, ``user/name``, if there is no folder of that name.
        allow: Packages or modules, such as ``my_package``, that may also be imported; never from the current folder.
        revision: A branch, tag or commit of the repository; ``main`` by default.
        token: A token, for a private repository.
        endpoint: The address of another hub; by default that of ``HF_ENDPOINT``, or huggingface.co.

    Raises:
        RunError: if there is no finished model, it is damaged, written by a newer version, does not match its spec, or names a class that
            is not installed or not allowed, or the hub cannot be reached.
    """
    with allowing(allow):
        if is_url(source):
            with _as_run_error():
                refresh()
                return Model(*load_model(local_copy(source)))
        if Path(source).exists() or not REPOSITORY.fullmatch(str(source)):
            return Model(*load_model(source))
        try:
            return Model(*hub.load(str(source), revision=revision, token=token, endpoint=endpoint))
        except RunError as error:
            raise RunError(f"{error} (no folder {source} here either)") from error


@contextmanager
def _as_run_error() -> Iterator[None]:
    try:
        yield
    except DataError as error:
        raise RunError(str(error)) from error


def _warn(findings: Iterable[Finding]) -> None:
    for finding in findings:
        issue(finding)
