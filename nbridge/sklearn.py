"""A scikit-learn imputer for tables: NaN is imputed from all observed cells; columns may be grouped into modalities."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, cast, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike
from pydantic import ValidationError
from rich.console import Console
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_array, check_is_fitted, validate_data
from torch import Tensor

from nbridge.common.messages import clip, did_you_mean, listing, noun
from nbridge.common.warnings import Finding, issue
from nbridge.data.arrays import to_batch
from nbridge.data.batch import Batch
from nbridge.data.mixed_columns import MixedColumn, MixedColumns
from nbridge.data.text_columns import absent_words, as_numbers, filled, learn_classes, objects_of, taken_for_absent
from nbridge.draft.column_kinds import Tally
from nbridge.draft.mixed_kinds import array_likelihood
from nbridge.errors import DataError, require_positive
from nbridge.inference.impute import impute
from nbridge.inference.intervals import DRAWS, summarise
from nbridge.runs.run import train
from nbridge.spec.columns import CLASSES, MOST_CLASSES, ColumnKind, ColumnType
from nbridge.spec.mixed import MIXED
from nbridge.spec.names import free_name
from nbridge.training.progress import ConsoleProgress

TABLE = "table"
"""The modality of all columns without groups."""
_FILLED = " NaN in its place is filled in."
"""What to do about a class that was not in fit."""
_REQUIRED = " A covariate needs one of them."
"""The same for a covariate."""
STEPS, FEWEST, MOST = 1500, 10, 120
"""Target number of steps per stage with ``epochs=None``, and limits of the resulting number of epochs."""


@dataclass(frozen=True)
class _Group:
    """Columns that form a modality."""

    key: Hashable
    name: str
    columns: np.ndarray


class NBridgeImputer(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Imputes NaN in a table.

    By default, all columns are one mixed modality: each has a likelihood of its own, inferred from its values, and any cell is imputed from
    all others of its row. With groups, a group of which all cells of a row are NaN is a missing modality, imputed from the others; in a
    partially observed group, the observed cells are used as well. A row of only NaN gets the mean of the prior. Observed cells are returned
    bit-identical. Values are converted to float32 for the model.

    Columns of a data frame or an object array may contain text, whose distinct values are classes. The result is then an object array,
    in which observed text is unchanged. NA, null and similar words mark missing values in arrays and lists, with a warning; in text columns
    of a data frame they are classes.

    Arguments:
        groups: The columns of each modality, by its name: indices, names, a slice, or a boolean mask. Every column must be in exactly one
            group.
        covariates: Columns that are given in every row, by name or index, such as the batch of a measurement: other cells are imputed given
            them, and they are in no group. Text, 0 and 1, and few whole numbers are classes; other numbers are standardised.
        likelihoods: Without groups, the likelihood of columns, by name or index, or one for all: normal, lognormal, bernoulli, categorical,
            ordinal, poisson, negative_binomial, or a mapping with options as in a mixed modality. Others are inferred: text is categorical,
            0 and 1 are bernoulli, up to 10 whole numbers with 5 rows each are ordinal, positive skewed numbers are lognormal, and all other
            numbers are normal, and whole if they are whole. With groups, likelihoods as in a spec: one for all groups, or a mapping by
            group, with ``normal`` for missing keys, ``categorical`` for a text column alone, and ``mixed`` for one among others.
            ``categorical`` uses the distinct values of a single column in fit as classes, and treats several columns as one-hot; ``mixed``
            infers the likelihood of each column of the group.
        weights: Weights of log-likelihoods in training, by group; computed from the data by default.
        model: A model of a spec, such as ``bridged``, ``mvae`` or ``jmvae``.
        latent_dim: Dimension of z.
        hidden: Widths of the hidden layers of every network.
        features: Width of the encoders' features.
        epochs: Epochs of each stage; by default about 1,500 steps, within 10 to 120 epochs.
        batch_size: Rows per step.
        learning_rate: Adam's initial learning rate, with cosine decay to 0.
        validation_fraction: The share of rows for selecting the best weights; tables that are too small for it hold out none.
        device: The device for training: ``auto``, ``cpu`` or ``cuda``.
        random_state: Seed of the split, initial weights and training: an integer, a generator, or None for a new seed each time.
        verbose: Whether to show training progress.

    Attributes:
        model_: The trained model.
        groups_: The columns of each modality, by its name in the model: the group's name as an identifier.
        categories_: The values of the classes, in order, of each modality that is a categorical column, by its name, and of each column of
            classes in a mixed modality, by its index.
        mixed_: The columns of each mixed modality, with their likelihoods.
        covariates_: The column of each covariate, by its name in the model.
        constants_: The value of each column that was constant in fit, which is imputed as this value (for text, the class index); NaN for
            other columns.
        texts_: The classes of each text column, by its index, in order of first occurrence in fit.
        n_features_in_: The number of columns.
        feature_names_in_: Their names, if available.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> size = rng.normal(size=(200, 1))
        >>> X = np.hstack([size + 0.1 * rng.normal(size=(200, 2)), size > 0])
        >>> X[:20, :2], X[20:40, 2] = np.nan, np.nan
        >>> imputer = NBridgeImputer({"sizes": [0, 1], "large": [2]}, likelihoods={"large": "categorical"}, epochs=20, random_state=0)
        >>> done = imputer.fit_transform(X)
        >>> bool(np.isnan(done).any()), imputer.sample(X, 5).shape
        (False, (5, 200, 3))
    """

    n_features_in_: int

    def __init__(
        self,
        groups: Mapping[str, Any] | None = None,
        *,
        covariates: str | int | Sequence[str | int] | None = None,
        likelihoods: str | Mapping[Any, Any] | None = None,
        weights: Mapping[Any, float] | None = None,
        model: str = "bridged",
        latent_dim: int = 8,
        hidden: tuple[int, ...] = (64,),
        features: int = 32,
        epochs: int | None = None,
        batch_size: int = 64,
        learning_rate: float = 3e-3,
        validation_fraction: float = 0.1,
        device: str = "auto",
        random_state: int | np.random.RandomState | None = None,
        verbose: bool = False,
    ) -> None:
        self.groups = groups
        self.covariates = covariates
        self.likelihoods = likelihoods
        self.weights = weights
        self.model = model
        self.latent_dim = latent_dim
        self.hidden = hidden
        self.features = features
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.validation_fraction = validation_fraction
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: ArrayLike, y: object = None) -> Self:  # noqa: ARG002 (as scikit-learn has it)
        """Trains a model on a table in which any cells may be NaN.

        Arguments:
            X: The table, an array or a data frame, shape (rows, columns), with at least 2 rows.
            y: Ignored.

        Raises:
            ValueError: if X is not a valid table, groups, covariates or likelihoods do not match it, a column is all NaN, a covariate has
                no value in a row, or a value is outside the support of its likelihood.
        """
        table = self._checked(X, reset=True)
        if (empty := np.flatnonzero(np.isnan(table).all(0))).size:
            raise DataError(f"{self._column(empty[0])}: all NaN, so that nothing can be learned about it; leave it out, or fill it in")
        self.constants_ = np.where(np.nanmin(table, 0) == np.nanmax(table, 0), np.nanmin(table, 0), np.nan)
        given = self._given_columns()
        groups = self._grouped(given)
        modalities = self._modalities(table, groups)
        covariates = self._learn_covariates(table, given, {group.name for group in groups})
        networks = {"hidden": list(self.hidden)}
        spec = {"model": self.model, "latent_dim": self.latent_dim, "modalities": modalities, "fusion": networks, "bridges": networks}
        spec |= {"covariates": covariates} if covariates else {}
        rows = to_batch(self._arrays(table), {name: (modality["shape"],) for name, modality in modalities.items()})
        rows = rows.with_covariates(self._covariate_values(table))
        shown = [ConsoleProgress(Console(markup=False, emoji=False, highlight=False))] if self.verbose else []
        try:
            run = train({**spec, **self._schedule(len(table))}, rows, device=self.device, callbacks=shown)
        finally:
            for progress in shown:
                progress.close()
        self.model_ = run.model
        return self

    def transform(self, X: ArrayLike) -> np.ndarray:
        """Imputes each NaN by its posterior mean, the most probable class, or a rounded count.

        Arguments:
            X: A table with the same columns as in fit.

        Returns:
            The table without NaN, shape (rows, columns); an object array if some columns are text.

        Raises:
            ValueError: if X has other columns, a class that was not in fit, NaN in a covariate, or a value outside the support of its
                likelihood.
        """
        table = self._checked(X)
        return self._as_given(X, table, self._filled(table, impute(self.model_.network, self._batch(table)).values))

    def sample(self, X: ArrayLike, samples: int = 5, *, seed: int = 0) -> np.ndarray:
        """Multiple imputation: each completion decodes all missing cells of a row from one sample of z.

        Arguments:
            X: A table with the same columns as in fit.
            samples: The number K of completions.
            seed: Random seed.

        Returns:
            Samples, shape (K, rows, columns), including the spread of the likelihood; observed cells are the same in all of them.

        Raises:
            ValueError: as in `transform`.
        """
        table = self._checked(X)
        require_positive(samples=samples)
        drawn = impute(self.model_.network, self._batch(table), samples=samples, seed=seed).values
        return self._as_given(X, table, self._filled(table, drawn, samples))

    def interval(self, X: ArrayLike, level: float = 0.9, *, draws: int = DRAWS, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Computes the central predictive interval of each NaN; see `nbridge.inference.intervals.summarise`.

        Arguments:
            X: A table with the same columns as in fit.
            level: The probability of the interval.
            draws: The number of samples that it is computed from.
            seed: Random seed.

        Returns:
            The lower and upper ends, each of shape (rows, columns): the value itself for observed cells, NaN for classes without an order.

        Raises:
            ValueError: as in `transform`, or if the level is not a probability or needs more samples.
        """
        table = self._checked(X)
        summary = summarise(self.model_.network, self._batch(table), levels=(level,), draws=draws, seed=seed)
        lower, upper = (
            self._filled(table, {name: x[0] for name, x in ends.items()}, ends=(share, summary.mean))
            for ends, share in ((summary.lower, (1 - level) / 2), (summary.upper, (1 + level) / 2))
        )
        # Text has no order, and its class indices mean nothing to the user.
        lower[:, list(self.texts_)], upper[:, list(self.texts_)] = np.nan, np.nan
        return lower, upper

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _checked(self, X: ArrayLike, *, reset: bool = False) -> np.ndarray:
        """Validates the table with scikit-learn, and returns it as a numeric array."""
        if not reset:
            check_is_fitted(self, "model_")
        options: dict[str, Any] = {"dtype": [np.float64, np.float32], "ensure_all_finite": "allow-nan", "ensure_min_samples": 1 + reset}
        objects, missing = objects_of(X), absent_words(X)
        texts = self.texts_ if not reset else {} if objects is None else learn_classes(objects, missing)
        self.texts_ = texts
        if objects is None or not texts:
            return np.asarray(validate_data(self, X=cast("Any", X), reset=reset, **options))
        validate_data(self, X=cast("Any", X), reset=reset, skip_check_array=True)
        for line in taken_for_absent(objects, texts, missing, self._column):
            issue(Finding("doubt", "", line))
        try:
            numbers = as_numbers(objects, texts, self._column, missing)
        except DataError as error:
            # NaN is not filled in where the column is a covariate.
            covariates = () if reset else map(self._column, self.covariates_.values())
            given = any(str(error).startswith(f"{column}:") for column in covariates)
            raise DataError(str(error).replace(_FILLED, _REQUIRED) if given else str(error)) from error
        return check_array(numbers, **options)

    def _as_given(self, X: ArrayLike, table: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Values with class texts in text columns, and the original observed cells."""
        objects = objects_of(X)
        return values if objects is None or not self.texts_ else filled(objects, np.isnan(table), values, self.texts_)

    def _column(self, number: int) -> str:
        """The name or index of a column, for messages."""
        names = getattr(self, "feature_names_in_", None)
        return f"column {number}" if names is None else f"column {clip(names[number])!r}"

    def _given_columns(self) -> list[int]:
        """The columns of covariates."""
        names, count = getattr(self, "feature_names_in_", None), self.n_features_in_
        if self.covariates is None or (isinstance(self.covariates, Sequence) and not len(self.covariates)):
            return []
        found = _numbers("covariates: the list", self.covariates, names, count)
        if twice := [number for number in found if found.count(number) > 1]:
            raise DataError(f"covariates: {self._column(twice[0])} is given twice")
        if len(found) == count:
            raise DataError("covariates: all columns, so that there is none to impute; leave some out")
        return found

    def _learn_covariates(self, table: np.ndarray, given: list[int], taken: set[str]) -> dict[str, dict[str, Any]]:
        """The covariates of the spec; sets `covariates_`, and the values of those that are classes."""
        names = getattr(self, "feature_names_in_", None)
        self.covariates_: dict[str, int] = {}
        self._levels: dict[str, np.ndarray] = {}
        found: dict[str, dict[str, Any]] = {}
        for number in given:
            name = free_name(f"column_{number}" if names is None else str(names[number]), {*taken, *self.covariates_})
            self.covariates_[name] = number
            self._require_covariate(table, number)
            values = table[:, number]
            classes = number in self.texts_ or array_likelihood(Tally.of(values.astype(np.float64))).type in (*CLASSES, "bernoulli")
            if classes:
                self._levels[name] = np.unique(values)
            texts = self.texts_.get(number) or [f"{value:.17g}" for value in self._levels.get(name, ())]
            found[name] = {"type": "categorical", "classes": list(texts)} if classes else {"type": "normal"}
        return found

    def _covariate_values(self, table: np.ndarray) -> dict[str, Tensor]:
        """The values of covariates, shape (N,): class indices, or numbers."""
        found = {}
        for name, number in self.covariates_.items():
            self._require_covariate(table, number)
            values = table[:, number]
            if name in self._levels:
                values = self._places(number, values, self._levels[name], _REQUIRED)
            found[name] = torch.from_numpy(np.ascontiguousarray(values)).to(torch.long if name in self._levels else torch.float32)
        return found

    def _require_covariate(self, table: np.ndarray, number: int) -> None:
        if (empty := np.flatnonzero(np.isnan(table[:, number]))).size:
            more = f" ({len(empty) - 1:,} more such row{'s' if len(empty) > 2 else ''})" if len(empty) > 1 else ""
            raise DataError(f"covariates: {self._column(number)}: row {empty[0]} has no value{more}; fill it in, or leave such rows out")

    def _grouped(self, given: list[int]) -> list[_Group]:
        """The groups, checked to contain each column exactly once, but for covariates, which are in none."""
        count, names = self.n_features_in_, getattr(self, "feature_names_in_", None)
        if self.groups is None:
            wanted: Mapping[Any, Any] = {TABLE: [number for number in range(count) if number not in given]}
        elif isinstance(self.groups, Mapping) and self.groups:
            wanted = self.groups
        else:
            raise DataError(f"groups: {noun(self.groups)}, expected a mapping of names to columns, such as {{'rna': [0, 1], 'age': [2]}}")
        groups: list[_Group] = []
        for key, columns in wanted.items():
            numbers = np.array(_numbers(f"groups: {key!r}", columns, names, count), dtype=int)
            group = _Group(key, free_name(str(key), {group.name for group in groups}), numbers)
            groups.append(group)
        owners: dict[int, Hashable] = {}
        for group in groups:
            for number in group.columns.tolist():
                if number in given:
                    raise DataError(f"groups: {self._column(number)} of {group.key!r} is a covariate as well; remove it from one")
                if number in owners:
                    raise DataError(f"groups: {self._column(number)} is in both {owners[number]!r} and {group.key!r}; remove it from one")
                owners[number] = group.key
        if left := [number for number in range(count) if number not in owners and number not in given]:
            raise DataError(f"groups: {self._column(left[0])} is in no group; add it to one, or remove it from X")
        return groups

    def _modalities(self, table: np.ndarray, groups: list[_Group]) -> dict[str, dict[str, Any]]:
        """Builds the modalities of the spec, and sets `groups_`, `mixed_` and `categories_`."""
        self.groups_ = {group.name: group.columns for group in groups}
        likelihoods = self._likelihoods(groups)
        weights = self._by_group(self.weights, "weights", groups, "auto")
        self.mixed_ = {
            group.name: self._mixed(group, likelihoods[group.name], table) for group in groups if _type(likelihoods[group.name]) == MIXED
        }
        likelihoods |= {name: self._columns_of(name, likelihoods[name]) for name in self.mixed_}
        self.categories_ = {
            name: np.unique(table[:, columns][~np.isnan(table[:, columns])])
            for name, columns in self.groups_.items()
            if len(columns) == 1 and _type(likelihoods[name]) == "categorical"
        }
        # Categorical likelihoods need two classes; for a constant column, the second one never occurs.
        sizes = {name: max(2, len(categories)) for name, categories in self.categories_.items()}
        sizes |= {name: columns.width for name, columns in self.mixed_.items()}
        texts = {
            name: self.texts_[columns[0]]
            for name, columns in self.groups_.items()
            if name in self.categories_ and columns[0] in self.texts_
        }
        self.categories_ |= {name: np.array(known, dtype=object) for name, known in texts.items()}
        self.categories_ |= {
            number: np.array(self.texts_[number], dtype=object) if number in self.texts_ else column.levels
            for name, mixed in self.mixed_.items()
            for number, column in zip(self.groups_[name].tolist(), mixed.columns, strict=True)
            if column.levels is not None
        }
        return {
            name: {
                "shape": sizes.get(name, len(columns)),
                "encoder": {"type": "table" if name in self.mixed_ else "mlp", "hidden": list(self.hidden)},
                "likelihood": likelihoods[name],
                "features": self.features,
                "weight": weights[name] if weights[name] == "auto" else float(weights[name]),
            }
            for name, columns in self.groups_.items()
        }

    def _likelihoods(self, groups: list[_Group]) -> dict[str, Any]:
        """The likelihood of each group, by its name in the model."""
        if self.groups is None:
            return {groups[0].name: {"type": MIXED, "columns": None if self.likelihoods == MIXED else self.likelihoods}}
        given = self._by_group(self.likelihoods, "likelihoods", groups, "normal")
        named = self.likelihoods if isinstance(self.likelihoods, Mapping) else {}
        for group in groups:
            texts = [number for number in group.columns.tolist() if number in self.texts_]
            right = "categorical" if len(group.columns) == 1 else MIXED
            if not texts or _type(given[group.name]) in (right, MIXED):
                continue
            if group.key in named:
                what = f"{self._column(texts[0])} contains text"
                raise DataError(f"likelihoods: {group.key!r} is {_type(given[group.name])}, but {what}; use {right}")
            given[group.name] = right
        return given

    def _mixed(self, group: _Group, likelihood: Any, table: np.ndarray) -> MixedColumns:
        """The columns of a mixed group, with the likelihoods that are given or inferred."""
        given = likelihood.get("columns") if isinstance(likelihood, Mapping) else None
        names = getattr(self, "feature_names_in_", None)
        keys = [number if names is None else str(names[number]) for number in group.columns.tolist()]
        if given is not None and not isinstance(given, str | Mapping):
            raise DataError(f"likelihoods: {noun(given)}, expected a likelihood, or a mapping by column")
        if isinstance(given, Mapping) and (unknown := [key for key in given if key not in (*keys, *group.columns.tolist())]):
            text = f"likelihoods: no column {unknown[0]!r}.{did_you_mean(str(unknown[0]), list(map(str, keys)))}"
            raise DataError(f"{text} Columns: {clip(listing(map(str, keys)), 200)}")
        columns = []
        for key, number in zip(keys, group.columns.tolist(), strict=True):
            own = given.get(key, given.get(number)) if isinstance(given, Mapping) else None if number in self.texts_ else given
            columns.append(self._mixed_column(number, own, table[:, number]))
        return MixedColumns(columns)

    def _mixed_column(self, number: int, given: Any, values: np.ndarray) -> MixedColumn:
        """A column of a mixed group, with a likelihood that is given, or else inferred from its values."""
        what, found = self._column(number), values[~np.isnan(values)]
        if number in self.texts_:
            if given is not None and _type(given) != "categorical":
                raise DataError(f"likelihoods: {what} is {_type(given)}, but contains text; use categorical")
            classes = len(self.texts_[number])
            return MixedColumn(ColumnKind(type="categorical", classes=max(2, classes)), np.arange(float(classes)))
        if given is None:
            kind = array_likelihood(Tally.of(found.astype(np.float64)))
        else:
            try:
                kind = ColumnKind.model_validate({"type": given} if isinstance(given, str) else given)
            except ValidationError as error:
                kinds = listing(get_args(ColumnType))
                text = (
                    f"likelihoods: {what}: {clip(_type(given))} is not a likelihood of a column; expected {kinds}, or a mapping with them"
                )
                raise DataError(f"{text}; other likelihoods need groups") from error
        if kind.type not in CLASSES:
            return MixedColumn(kind, inferred=given is None)
        levels = np.unique(found)
        if len(levels) > MOST_CLASSES:
            raise DataError(f"likelihoods: {what} is {kind.type}, but has {len(levels):,} values, expected up to {MOST_CLASSES:,}")
        return MixedColumn(kind.model_copy(update={"classes": max(2, len(levels))}), levels, inferred=given is None)

    def _columns_of(self, name: str, likelihood: Any) -> dict[str, Any]:
        """The likelihood of a mixed group as in a spec."""
        names = getattr(self, "feature_names_in_", None)
        own: dict[str, Any] = {}
        for number, column in zip(self.groups_[name].tolist(), self.mixed_[name].columns, strict=True):
            called = f"column {number}" if names is None or names[number] in own else str(names[number])
            own[called] = column.kind.model_dump()
        return {**(likelihood if isinstance(likelihood, Mapping) else {}), "type": MIXED, "columns": own}

    def _by_group(self, given: Any, what: str, groups: list[_Group], default: Any) -> dict[str, Any]:
        """An option for each group, by its name in the model."""
        if given is None or isinstance(given, str):
            return {group.name: default if given is None else given for group in groups}
        if not isinstance(given, Mapping):
            raise DataError(f"{what}: {noun(given)}, expected a mapping by group")
        keys = [group.key for group in groups]
        if unknown := [key for key in given if key not in keys]:
            known = [str(key) for key in keys]
            raise DataError(f"{what}: no group {unknown[0]!r}.{did_you_mean(unknown[0], known)} Groups: {listing(known)}")
        return {group.name: given.get(group.key, default) for group in groups}

    def _schedule(self, rows: int) -> dict[str, Any]:
        """The training options and the data split."""
        fraction = self.validation_fraction
        if not 0 <= fraction < 1:
            raise DataError(f"validation_fraction is {fraction}, expected a share from 0 to below 1")
        require_positive(**({} if self.epochs is None else {"epochs": self.epochs}))
        held = fraction if round(fraction * rows) >= 1 and rows - round(fraction * rows) >= 2 else 0.0
        # For None, scikit-learn uses NumPy's global generator, which belongs to the caller.
        own = np.random.RandomState() if self.random_state is None else check_random_state(self.random_state)
        seed = int(own.randint(2**31 - 1))
        training = rows - round(held * rows)
        steps = max(1, training // self.batch_size)
        epochs = min(MOST, max(FEWEST, math.ceil(STEPS / steps))) if self.epochs is None else self.epochs
        stages = {stage: {"epochs": epochs} for stage in ("joint", "bridges", "subsets")}
        # Held-out rows calibrate the width of intervals and samples.
        shared = {"calibrate": True, "batch_size": self.batch_size, "learning_rate": self.learning_rate, "schedule": "cosine", "seed": seed}
        return {"data": {"source": "memory", "validation": held, "test": 0.0, "seed": seed}, "training": {**shared, "stages": stages}}

    def _arrays(self, table: np.ndarray) -> dict[str, np.ndarray]:
        """The arrays by modality, with classes as indices."""
        return {
            name: self._elements(name, table[:, columns])
            if name in self.mixed_
            else self._classes(name, table[:, columns[0]])
            if name in self.categories_
            else table[:, columns]
            for name, columns in self.groups_.items()
        }

    def _elements(self, name: str, table: np.ndarray) -> np.ndarray:
        """The elements of a mixed group; values outside the support of a likelihood that was inferred count as missing, with a warning."""
        table = table.copy()
        for place, (number, column) in enumerate(zip(self.groups_[name].tolist(), self.mixed_[name].columns, strict=True)):
            strange = np.flatnonzero(~column.known(table[:, place]))
            if not strange.size:
                continue
            row, what = int(strange[0]), self._column(number)
            if column.levels is not None and not column.inferred:
                raise self._unseen(number, row, table[row, place].item(), column.levels)
            if column.inferred:
                expected = "which fit has not seen" if column.kind.type != "lognormal" else "but fit has seen positive numbers only"
                text = f"{what}: row {row} holds {table[row, place]:g}, {expected} ({len(strange):,} such rows)"
                issue(Finding("doubt", "", f"{text}; other cells are imputed without it"))
                table[strange, place] = np.nan
        return self.mixed_[name].encode(table)

    def _classes(self, name: str, values: np.ndarray) -> np.ndarray:
        if self.groups_[name][0] in self.texts_:
            return values
        return self._places(self.groups_[name][0], values, self.categories_[name])

    def _places(self, number: int, values: np.ndarray, categories: np.ndarray, advice: str = _FILLED) -> np.ndarray:
        """The indices of values among the categories of their column, NaN where a value is."""
        absent = np.isnan(values)
        place = np.searchsorted(categories, values).clip(max=len(categories) - 1)
        if (unseen := np.flatnonzero((categories[place] != values) & ~absent)).size:
            raise self._unseen(number, int(unseen[0]), values[unseen[0]].item(), categories, advice)
        return np.where(absent, np.nan, place)

    def _unseen(self, number: int, row: int, value: float, categories: np.ndarray, advice: str = _FILLED) -> DataError:
        """The error about a class that was not in fit."""
        known = listing(f"{category:g}" for category in categories[:10]) + (", ..." if len(categories) > 10 else "")
        text = f"{self._column(number)}: row {row} holds {value:g}, a category that fit has not seen; it saw {known}."
        return DataError(text + advice)

    def _batch(self, table: np.ndarray) -> Batch:
        shapes = {name: likelihood.shape for name, likelihood in self.model_.likelihoods.items()}
        return to_batch(self._arrays(table), shapes, allow_missing=True).with_covariates(self._covariate_values(table))

    def _filled(
        self, table: np.ndarray, values: Mapping[str, Tensor], *draws: int, ends: tuple[float, Mapping[str, Tensor]] | None = None
    ) -> np.ndarray:
        """The table with NaN replaced by values; samples come first. Modalities without values stay NaN.

        Values that are ``ends`` of intervals come with the probability up to them, and the means.
        """
        out = np.broadcast_to(table, (*draws, *table.shape)).copy()
        bounds = np.finfo(table.dtype)
        for name, columns in self.groups_.items():
            if name in values:
                guess = values[name].numpy().astype(np.float64)
                if name in self.mixed_:
                    mixed = self.mixed_[name]
                    guess = mixed.decode(guess) if ends is None else mixed.ends(guess, ends[1][name].numpy(), ends[0])
                elif name in self.categories_ and columns[0] in self.texts_:
                    guess = guess[..., None]
                elif name in self.categories_:
                    guess = self.categories_[name][guess.astype(int).clip(max=len(self.categories_[name]) - 1)][..., None]
                observed, constants = table[:, columns], self.constants_[columns]
                guess = np.where(np.isnan(constants), guess, constants)
                out[..., columns] = np.where(np.isnan(observed), guess.clip(bounds.min, bounds.max), observed)
        return out


def _numbers(where: str, columns: Any, names: Any, count: int) -> list[int]:
    """The indices of the columns of a group or of covariates; errors start with ``where``."""
    if isinstance(columns, slice):
        found = list(range(count))[columns]
    else:
        alone = isinstance(columns, str) or not isinstance(columns, Iterable)
        wanted: list[Any] = [columns] if alone else list(columns)
        if wanted and all(isinstance(one, bool | np.bool_) for one in wanted):
            if len(wanted) != count:
                raise DataError(f"{where} is a mask of length {len(wanted)}, but X has {count} columns")
            found = np.flatnonzero(wanted).tolist()
        else:
            found = [_number(where, one, names, count) for one in wanted]
    if not found:
        raise DataError(f"{where} has no columns")
    return found


def _number(where: str, column: Any, names: Any, count: int) -> int:
    if isinstance(column, str):
        if names is None:
            raise DataError(f"{where} has {column!r}, but X has no column names; use indices, or fit a data frame")
        if column not in names:
            raise DataError(f"{where} has {column!r}, no such column.{did_you_mean(column, names)} Columns: {clip(listing(names), 200)}")
        return names.tolist().index(column)
    if not isinstance(column, int | np.integer) or isinstance(column, bool):
        raise DataError(f"{where} has {clip(column)}, expected a column index or name")
    if not -count <= column < count:
        raise DataError(f"{where} has column {column}, but X has columns 0 to {count - 1}")
    return int(column) % count


def _type(likelihood: Any) -> Any:
    return likelihood.get("type") if isinstance(likelihood, Mapping) else likelihood
