"""An imputer of tables for scikit-learn: columns are grouped into modalities, and NaN is filled in from all that is there."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self, cast

import numpy as np
from numpy.typing import ArrayLike
from rich.console import Console
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_array, check_is_fitted, validate_data
from torch import Tensor

from nbridge.common.messages import clip, did_you_mean, listing, noun
from nbridge.data.arrays import to_batch
from nbridge.data.batch import Batch
from nbridge.data.text_columns import as_numbers, filled, learn_classes, objects_of
from nbridge.errors import DataError, require_positive
from nbridge.inference.impute import impute
from nbridge.inference.intervals import DRAWS, summarise
from nbridge.runs.run import train
from nbridge.spec.names import free_name
from nbridge.training.progress import ConsoleReporter

ALONE = 8
"""A table of more columns is one modality where no groups are named: n columns alone would need n (n - 1) bridges."""
STEPS, FEWEST, MOST = 1500, 10, 120
"""Steps of a stage that ``epochs=None`` aims at, and bounds of the epochs that this takes."""


@dataclass(frozen=True)
class _Group:
    """Columns that are one modality."""

    key: Hashable
    name: str
    columns: np.ndarray


class NBridgeImputer(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Fills in NaN of a table whose columns are grouped into modalities.

    In a row, a group whose cells are all NaN is an absent modality, and is filled in from the others; of a group that is NaN in part the
    cells that are there tell as well. A row of NaN alone gets the mean of the prior. Observed cells come back bit-identical. Values are
    taken as 32-bit numbers.

    Columns may hold text, in a data frame or an array of objects: such a column is a group by itself, of classes. Then what comes back is
    an array of objects, with the text of observed cells to the letter.

    Arguments:
        groups: The columns of each modality, by its name: their numbers, their names, a slice, or a truth value for each column. All
            columns must be in exactly one. Left out, each column is a modality of its own where there are at most 8; of more columns all
            of numbers are one modality.
        likelihoods: What values mean, as in a spec: one likelihood for all groups, or one for each by the group's name (by the column's
            name or number where ``groups`` is left out); ``normal`` where a mapping leaves it out. ``categorical`` makes the values of a
            single column classes, as fit sees them, and takes several columns as one-hot. Text is always ``categorical``.
        weights: Weights of log-likelihoods in training, by group; they follow from the data where left out.
        model: A model of a spec, such as ``bridged``, ``mvae`` or ``jmvae``.
        latent_dim: Number of dimensions of z.
        hidden: Widths of the hidden layers of every network.
        features: Width of what encoders give.
        epochs: Epochs of each stage; left out, about as many as make 1,500 steps, 10 to 120.
        batch_size: Rows in a step.
        learning_rate: Adam's learning rate, which falls to 0 as a cosine.
        validation_fraction: The share of rows that choose the best weights; tables too small for it hold out none.
        device: Where training runs: ``auto``, ``cpu`` or ``cuda``.
        random_state: Seed of the split, of initial weights and of training: a number, a generator, or None for another one each time.
        verbose: Whether training shows its progress.

    Attributes:
        model_: The model, which all functions of this library take.
        groups_: The columns of each modality, by its name in the model: the group's name as an identifier.
        categories_: The values that are classes, in order, of each modality that is a categorical column.
        constants_: The value of each column that held one value alone in fit, which is all that it is filled in with (of text the number
            of the class); NaN for the others.
        texts_: By the number of a column of text, its classes in order, as fit saw them first.
        n_features_in_: The number of columns.
        feature_names_in_: Their names, where they have any.

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
        likelihoods: str | Mapping[Any, Any] = "normal",
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
        """Trains a model on a table, in which any cells may be NaN.

        Arguments:
            X: The table, an array or a data frame, (rows, columns); 2 rows at least.
            y: Is not used.

        Raises:
            ValueError: when X is no such table, groups or likelihoods do not fit it, a column is all NaN, or a value lies outside its
                likelihood's support.
        """
        table = self._checked(X, reset=True)
        if (empty := np.flatnonzero(np.isnan(table).all(0))).size:
            raise DataError(f"{self._column(empty[0])}: all NaN, so that nothing can be learned about it; leave it out, or fill it in")
        self.constants_ = np.where(np.nanmin(table, 0) == np.nanmax(table, 0), np.nanmin(table, 0), np.nan)
        modalities = self._modalities(table, self._grouped())
        networks = {"hidden": list(self.hidden)}
        spec = {"model": self.model, "latent_dim": self.latent_dim, "modalities": modalities, "fusion": networks, "bridges": networks}
        rows = to_batch(self._arrays(table), {name: (modality["shape"],) for name, modality in modalities.items()})
        reporter = ConsoleReporter(Console(markup=False, emoji=False, highlight=False)) if self.verbose else None
        try:
            run = train({**spec, **self._schedule(len(table))}, rows, device=self.device, reporter=reporter)
        finally:
            if reporter is not None:
                reporter.close()
        self.model_ = run.model
        return self

    def transform(self, X: ArrayLike) -> np.ndarray:
        """Fills in each NaN by its posterior mean, the most likely class, or a whole count.

        Arguments:
            X: A table with the columns of the one that was fitted.

        Returns:
            Its values, shape (rows, columns), in which nothing is NaN: objects where some columns are text.

        Raises:
            ValueError: when X has other columns, a class that fit has not seen, or a value outside its likelihood's support.
        """
        table = self._checked(X)
        return self._as_given(X, table, self._filled(table, impute(self.model_.network, self._batch(table)).values))

    def sample(self, X: ArrayLike, samples: int = 5, *, seed: int = 0) -> np.ndarray:
        """Multiple imputation: several completions of a table, each of which decodes all absent cells of a row from one draw of z.

        Arguments:
            X: A table with the columns of the one that was fitted.
            samples: The number K of completions.
            seed: Seed of the draws.

        Returns:
            Draws, shape (K, rows, columns), with the spread that observed values have; observed cells are the same in all of them.

        Raises:
            ValueError: as `transform`.
        """
        table = self._checked(X)
        require_positive(samples=samples)
        drawn = impute(self.model_.network, self._batch(table), samples=samples, seed=seed).values
        return self._as_given(X, table, self._filled(table, drawn, samples))

    def interval(self, X: ArrayLike, level: float = 0.9, *, draws: int = DRAWS, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """The central predictive interval of each NaN: see `nbridge.inference.intervals.summarise`.

        Arguments:
            X: A table with the columns of the one that was fitted.
            level: The probability of the interval.
            draws: The number of draws that it is taken from.
            seed: Seed of the draws.

        Returns:
            The lower and the upper ends, each of shape (rows, columns): the value itself where it is observed, NaN for classes, which
            have no order.

        Raises:
            ValueError: as `transform`, and when the level is no probability or needs more draws.
        """
        table = self._checked(X)
        summary = summarise(self.model_.network, self._batch(table), levels=(level,), draws=draws, seed=seed)
        lower, upper = (self._filled(table, {name: x[0] for name, x in ends.items()}) for ends in (summary.lower, summary.upper))
        # Text has no order, and no number that would mean anything to a reader.
        lower[:, list(self.texts_)], upper[:, list(self.texts_)] = np.nan, np.nan
        return lower, upper

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _checked(self, X: ArrayLike, *, reset: bool = False) -> np.ndarray:
        """The table as an array, in scikit-learn's own words where it is none."""
        if not reset:
            check_is_fitted(self, "model_")
        options: dict[str, Any] = {"dtype": [np.float64, np.float32], "ensure_all_finite": "allow-nan", "ensure_min_samples": 1 + reset}
        objects = objects_of(X)
        texts = self.texts_ if not reset else {} if objects is None else learn_classes(objects)
        self.texts_ = texts
        if objects is None or not texts:
            return np.asarray(validate_data(self, X=cast("Any", X), reset=reset, **options))
        validate_data(self, X=cast("Any", X), reset=reset, skip_check_array=True)
        return check_array(as_numbers(objects, texts, self._column), **options)

    def _as_given(self, X: ArrayLike, table: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Values with text in columns of text, and the cells that were given as they were."""
        objects = objects_of(X)
        return values if objects is None or not self.texts_ else filled(objects, np.isnan(table), values, self.texts_)

    def _column(self, number: int) -> str:
        """A column, for messages."""
        names = getattr(self, "feature_names_in_", None)
        return f"column {number}" if names is None else f"column {clip(names[number])!r}"

    def _grouped(self) -> list[_Group]:
        """The groups, which have each column once."""
        count, names = self.n_features_in_, getattr(self, "feature_names_in_", None)
        if self.groups is None and count - len(self.texts_) > ALONE:
            plain = [number for number in range(count) if number not in self.texts_]
            alone = {(number if names is None else names[number]): [number] for number in self.texts_}
            wanted: Mapping[Any, Any] = {"table": plain, **alone}
        elif self.groups is None:
            wanted = {(number if names is None else names[number]): [number] for number in range(count)}
        elif isinstance(self.groups, Mapping) and self.groups:
            wanted = self.groups
        else:
            raise DataError(f"groups: {noun(self.groups)}, expected a mapping of names to columns, such as {{'rna': [0, 1], 'age': [2]}}")
        groups: list[_Group] = []
        for key, columns in wanted.items():
            group = _Group(
                key, free_name(str(key), {group.name for group in groups}), np.array(_numbers(key, columns, names, count), dtype=int)
            )
            groups.append(group)
            self._check_text(group)
        owners: dict[int, Hashable] = {}
        for group in groups:
            for number in group.columns.tolist():
                if number in owners:
                    raise DataError(f"groups: {self._column(number)} is in {owners[number]!r} and in {group.key!r}, expected one of them")
                owners[number] = group.key
        if left := [number for number in range(count) if number not in owners]:
            raise DataError(f"groups: {self._column(left[0])} is in none; add it to one, or leave it out of X")
        return groups

    def _check_text(self, group: _Group) -> None:
        """Checks that a column of text is all of its group."""
        text = [number for number in group.columns.tolist() if number in self.texts_]
        if text and len(group.columns) > 1:
            raise DataError(f"groups: {group.key!r} has {self._column(text[0])}, which holds text, beside others; give it a group alone")

    def _modalities(self, table: np.ndarray, groups: list[_Group]) -> dict[str, dict[str, Any]]:
        """The modalities of a spec, once it is known which columns they have and which of these hold classes."""
        likelihoods = self._by_group(self.likelihoods, "likelihoods", groups, "normal")
        likelihoods |= {group.name: self._of_text(group, likelihoods[group.name]) for group in groups if group.columns[0] in self.texts_}
        weights = self._by_group(self.weights, "weights", groups, "auto")
        self.groups_ = {group.name: group.columns for group in groups}
        self.categories_ = {
            name: np.unique(table[:, columns][~np.isnan(table[:, columns])])
            for name, columns in self.groups_.items()
            if len(columns) == 1 and _type(likelihoods[name]) == "categorical"
        }
        # A column that holds one class has a second one that is never there.
        classes = {name: max(2, len(categories)) for name, categories in self.categories_.items()}
        texts = {name: self.texts_[columns[0]] for name, columns in self.groups_.items() if columns[0] in self.texts_}
        self.categories_ |= {name: np.array(known, dtype=object) for name, known in texts.items()}
        return {
            name: {
                "shape": classes.get(name, len(columns)),
                "encoder": {"type": "mlp", "hidden": list(self.hidden)},
                "likelihood": likelihoods[name],
                "features": self.features,
                "weight": weights[name] if weights[name] == "auto" else float(weights[name]),
            }
            for name, columns in self.groups_.items()
        }

    def _of_text(self, group: _Group, likelihood: Any) -> Any:
        """The likelihood of a column of text: a categorical one, unless another was asked for by its name."""
        if _type(likelihood) == "categorical":
            return likelihood
        if isinstance(self.likelihoods, Mapping) and group.key in self.likelihoods:
            what = self._column(group.columns[0])
            raise DataError(f"likelihoods: {group.key!r} is {_type(likelihood)}, and {what} holds text, expected categorical")
        return "categorical"

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
        """How long to train, and on which rows."""
        fraction = self.validation_fraction
        if not 0 <= fraction < 1:
            raise DataError(f"validation_fraction is {fraction}, expected a share from 0 to below 1")
        require_positive(**({} if self.epochs is None else {"epochs": self.epochs}))
        held = fraction if round(fraction * rows) >= 1 and rows - round(fraction * rows) >= 2 else 0.0
        # NumPy's global generator, which scikit-learn takes for None, belongs to the caller.
        own = np.random.RandomState() if self.random_state is None else check_random_state(self.random_state)
        seed = int(own.randint(2**31 - 1))
        training = rows - round(held * rows)
        steps = max(1, training // self.batch_size)
        epochs = min(MOST, max(FEWEST, math.ceil(STEPS / steps))) if self.epochs is None else self.epochs
        stages = {stage: {"epochs": epochs} for stage in ("joint", "bridges", "subsets")}
        # Intervals and draws are what this class promises, so the rows held out set how wide they are.
        shared = {"calibrate": True, "batch_size": self.batch_size, "learning_rate": self.learning_rate, "schedule": "cosine", "seed": seed}
        return {"data": {"source": "memory", "validation": held, "test": 0.0, "seed": seed}, "training": {**shared, "stages": stages}}

    def _arrays(self, table: np.ndarray) -> dict[str, np.ndarray]:
        """The modalities; classes by their number."""
        return {
            name: self._classes(name, table[:, columns[0]]) if name in self.categories_ else table[:, columns]
            for name, columns in self.groups_.items()
        }

    def _classes(self, name: str, values: np.ndarray) -> np.ndarray:
        if self.groups_[name][0] in self.texts_:
            return values
        categories, absent = self.categories_[name], np.isnan(values)
        place = np.searchsorted(categories, values).clip(max=len(categories) - 1)
        if (unseen := np.flatnonzero((categories[place] != values) & ~absent)).size:
            known = listing(f"{category:g}" for category in categories[:10]) + (", ..." if len(categories) > 10 else "")
            raise DataError(
                f"{self._column(self.groups_[name][0])}: row {unseen[0]} holds {values[unseen[0]]:g}, a category that fit has not seen; "
                f"it saw {known}. NaN in its place is filled in."
            )
        return np.where(absent, np.nan, place)

    def _batch(self, table: np.ndarray) -> Batch:
        shapes = {name: likelihood.shape for name, likelihood in self.model_.likelihoods.items()}
        return to_batch(self._arrays(table), shapes, allow_missing=True)

    def _filled(self, table: np.ndarray, values: Mapping[str, Tensor], *draws: int) -> np.ndarray:
        """The table with values in place of NaN; draws come first. What is not given of a modality stays NaN."""
        out = np.broadcast_to(table, (*draws, *table.shape)).copy()
        bounds = np.finfo(table.dtype)
        for name, columns in self.groups_.items():
            if name in values:
                guess = values[name].numpy().astype(np.float64)
                if name in self.categories_ and columns[0] in self.texts_:
                    guess = guess[..., None]
                elif name in self.categories_:
                    guess = self.categories_[name][guess.astype(int).clip(max=len(self.categories_[name]) - 1)][..., None]
                observed, constants = table[:, columns], self.constants_[columns]
                guess = np.where(np.isnan(constants), guess, constants)
                out[..., columns] = np.where(np.isnan(observed), guess.clip(bounds.min, bounds.max), observed)
        return out


def _numbers(key: object, columns: Any, names: Any, count: int) -> list[int]:
    """The numbers of the columns of a group."""
    if isinstance(columns, slice):
        found = list(range(count))[columns]
    else:
        alone = isinstance(columns, str) or not isinstance(columns, Iterable)
        wanted: list[Any] = [columns] if alone else list(columns)
        if wanted and all(isinstance(one, bool | np.bool_) for one in wanted):
            if len(wanted) != count:
                raise DataError(f"groups: {key!r} has {len(wanted)} truth values, and X has {count} columns")
            found = np.flatnonzero(wanted).tolist()
        else:
            found = [_number(key, one, names, count) for one in wanted]
    if not found:
        raise DataError(f"groups: {key!r} has no column, expected one or more")
    return found


def _number(key: object, column: Any, names: Any, count: int) -> int:
    if isinstance(column, str):
        if names is None:
            raise DataError(f"groups: {key!r} has {column!r}, and X has no names of columns; give their numbers, or a data frame to fit")
        if column not in names:
            raise DataError(
                f"groups: {key!r} has {column!r}, no such column.{did_you_mean(column, names)} Columns: {clip(listing(names), 200)}"
            )
        return names.tolist().index(column)
    if not isinstance(column, int | np.integer) or isinstance(column, bool):
        raise DataError(f"groups: {key!r} has {clip(column)}, expected a number or a name of a column")
    if not -count <= column < count:
        raise DataError(f"groups: {key!r} has column {column}, and X has {count} columns, 0 to {count - 1}")
    return int(column) % count


def _type(likelihood: Any) -> Any:
    return likelihood.get("type") if isinstance(likelihood, Mapping) else likelihood
