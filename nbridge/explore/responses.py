r"""Answers of the API: draws of each modality and their statistics, as JSON-compatible values.

.. math:: z_k \sim q(z \mid x_S), \qquad p(x_j \mid x_S) \approx \frac{1}{K} \sum_k p(x_j \mid z_k)

All modalities are decoded from the same draws, so that the k-th image, class and dot belong together. Draws are bit-identical to those of
`nbridge.Model.impute` with the same seed: with the noise of the likelihood for values, without it for images and classes. Statistics are
over all K draws, of which the page shows a few.

Axes: K draws, B = 1 row, D latent dimensions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from nbridge.common.messages import clip, did_you_mean
from nbridge.data.batch import Batch
from nbridge.errors import DataError
from nbridge.explore.controls import PAGE
from nbridge.explore.figures import figures
from nbridge.explore.inputs import SIDE, batch_of, image_uri, levels_of, nothing_given, texts_of
from nbridge.explore.latent import pca_of
from nbridge.explore.mixed import answer_of_columns
from nbridge.explore.requests import Decode, Impute, Prior
from nbridge.explore.session import Session
from nbridge.inference.impute import mixture_for, part_seed, serving, which_observed
from nbridge.inference.intervals import statistics_of
from nbridge.models.base import MultimodalVAE
from nbridge.nn.mixed import Mixed
from nbridge.visual.mixed_columns import column_views
from nbridge.visual.modality_kinds import kind_of
from nbridge.visual.png import data_uri, downscale, to_uint8

SHOWN = 8
"""Number of draws shown."""
DRAWS = (99, 39, 19)
"""Number of draws for statistics, fewer for larger rows; with each of them, 90 % intervals end at whole ranks."""
NUMBERS = 2**18
"""Approximate maximum number of values decoded for one answer."""
LEVEL = 0.9
"""Probability of the intervals."""

Show = Mapping[str, list[int]]


def impute(session: Session, request: Impute) -> dict[str, Any]:
    """Imputes the modalities that are not given.

    Raises:
        DataError: when a given value does not match the model, or a requested element does not exist.
    """
    batch, model = batch_of(session, request.given, request.covariates), session.model
    open_ = [name for name in model.names if not which_observed(batch, name).all()]
    with serving(model, part_seed(request.seed, 0)):
        z = model.posterior(batch, draws_of(model)).sample()
        images = {name for name in batch.names if kind_of(model.likelihoods[name]) == "image"}
        return _answer(session, z, open_, request, batch, skipped=images)


def prior(session: Session, request: Prior) -> dict[str, Any]:
    """Draws rows from the prior, as `nbridge.Model.generate` does.

    Raises:
        DataError: when the requested prior is not available.
    """
    model = session.model
    mixture = mixture_for(model, request.prior)
    with serving(model, part_seed(request.seed, 0)):
        drawn = model.prior(1, draws_of(model)).sample() if mixture is None else mixture.sample(1, draws_of(model))
        return _answer(session, drawn.transpose(0, 1), model.names, request)


def decode(session: Session, request: Decode) -> dict[str, Any]:
    """Decodes a point of the latent map, with all other directions of the latent space at their mean.

    Raises:
        DataError: when there is no map.
    """
    model = session.model
    z = pca_of(session).inverse_transform(torch.tensor(request.point, dtype=torch.float64)).to(session.model.dtype)
    with serving(model, part_seed(request.seed, 0)):
        return _answer(session, z.expand(draws_of(model), 1, -1), model.names, request)


def draws_of(model: MultimodalVAE) -> int:
    """The number K of draws for statistics."""
    size = sum(likelihood.numbers for likelihood in model.likelihoods.values())
    return next((number for number in DRAWS if number * size <= NUMBERS), DRAWS[-1])


def _answer(
    session: Session,
    z: Tensor,
    names: Iterable[str],
    request: Impute | Prior | Decode,
    given: Batch | None = None,
    skipped: Iterable[str] = (),
) -> dict[str, Any]:
    """Decodes draws of z, shape (K, 1, D), to the answer for some modalities.

    Modalities that are ``skipped`` are sampled but not returned, so that later ones get the same noise as in `nbridge.Model.impute`;
    ``request.show`` are the elements of vectors to return, and ``given`` is the row that z was inferred from, None for the prior.
    """
    show: Show = request.show
    row = nothing_given(session, request.covariates) if given is None else given
    # Encoders are given the covariates of the row, and decoders the fixed ones.
    decoded = row.with_covariates(levels_of(session, request.fixed))
    if unknown := [name for name in show if name not in session.model.names]:
        known = session.model.names
        raise DataError(
            f"show: no modality {clip(unknown[0])!r} in this model.{did_you_mean(unknown[0], known)} Modalities: {', '.join(known)}"
        )
    answer = {}
    for name in names:
        likelihood = session.model.likelihoods[name]
        decoder = session.model.decoder_of(name, decoded)
        distribution = decoder.served(z, None if given is None else session.model.given(name, given))
        expectation = likelihood.expectation(distribution)
        if not (z.isfinite().all() and expectation.isfinite().all()):
            raise DataError(f"{name}: no finite prediction, because a given value is too far from the data; use values nearer to the data")
        noisy = distribution.sample()
        if name in skipped:
            continue
        expected, kind = likelihood.point(expectation), kind_of(likelihood)
        if kind == "image":
            answer[name] = _image(session, name, expected[:, 0])
        elif kind == "classes":
            answer[name] = {"probabilities": figures(expectation.double().mean(0)[0]), "draws": expected[:SHOWN, 0].tolist()}
        elif isinstance(likelihood, Mixed):
            answer[name] = _columns(session, name, likelihood, noisy[:, 0], expectation[:, 0], show.get(name))
        elif kind == "text":
            answer[name] = {
                "texts": texts_of(likelihood, noisy[:SHOWN, 0]),
                "best": texts_of(likelihood, likelihood.estimate(distribution))[0],
            }
        else:
            # For binary values, probabilities are more informative than draws.
            answer[name] = _elements(name, (expected if kind == "flags" else noisy)[:, 0], show.get(name))
    points = {} if session.pca is None else {"map": figures(session.pca.transform(z[:SHOWN, 0]))}
    return {"modalities": answer, "draws": len(z), "level": LEVEL, **points}


def _image(session: Session, name: str, draws: Tensor) -> dict[str, Any]:
    """Some of the draws, shape (K, C, H, W), their mean and their standard deviation, as images."""
    deviation = draws.double().std(0, correction=0).mean(0, keepdim=True)
    most = deviation.max().item()
    return {
        "draws": [image_uri(session, name, image) for image in draws[:SHOWN]], "mean": image_uri(session, name, draws.mean(0)),
        "sd": data_uri(downscale(to_uint8(deviation, 0, most), SIDE)), "most": figures(torch.tensor([most]))[0],
    }  # fmt: skip


def _columns(
    session: Session, name: str, likelihood: Mixed, draws: Tensor, expectation: Tensor, wanted: list[int] | None
) -> dict[str, Any]:
    """Statistics of some columns of a mixed modality, from draws and expectations, shape (K, W)."""
    views = column_views(session.spec, name, likelihood)
    places = list(range(min(PAGE, len(views)))) if wanted is None else wanted
    return answer_of_columns(name, views, draws, expectation, places, level=LEVEL, shown=SHOWN)


def _elements(name: str, draws: Tensor, wanted: list[int] | None) -> dict[str, Any]:
    r"""Statistics of some elements of draws, shape (K, \*shape)."""
    flat = draws.flatten(1).double()
    places = list(range(min(PAGE, flat.shape[1]))) if wanted is None else wanted
    if beyond := [place for place in places if place >= flat.shape[1]]:
        raise DataError(f"show.{name}: no element {beyond[0]}, expected 0 to {flat.shape[1] - 1}")
    some = flat[:, places]
    found = {what: figure[0] if what in ("lower", "upper") else figure for what, figure in statistics_of(some, [LEVEL]).items()}
    return {"elements": places, **{what: figures(figure) for what, figure in found.items()}, "draws": figures(some[:SHOWN].T)}
