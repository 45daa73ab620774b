"""Valid specs that hypothesis draws, as plain YAML values."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from nbridge.spec.names import RESERVED

WIDTHS = st.lists(st.integers(1, 300), max_size=3)
RATES = st.floats(0, 0.9)
POSITIVE = st.floats(1e-12, 1e12)
ACTIVATIONS = st.sampled_from(["leaky_relu", "relu", "elu", "gelu", "silu", "tanh"])
NAMES = st.from_regex(r"[a-zA-Zäß]+(_[a-z0-9]+)?", fullmatch=True).filter(
    lambda name: name not in RESERVED and name not in ("id", "kl") and name.isidentifier()
)
LAYERS = {"batch_norm": st.booleans(), "activation": ACTIVATIONS}


def component(type_name: str, **options: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """A type by its name alone, or with some of its options."""
    return st.just(type_name) | st.fixed_dictionaries({"type": st.just(type_name)}, optional=options)


MLP = component("mlp", hidden=WIDTHS, **LAYERS)
ANY_SHAPE = st.lists(st.integers(1, 40), min_size=1, max_size=4)
LOCATION_SCALE = {"scale": st.sampled_from(["learned", "predicted"]) | POSITIVE | st.just(1), "standardize": st.booleans()}
LIKELIHOODS = st.one_of(
    component("bernoulli"), component("normal", **LOCATION_SCALE), component("laplace", **LOCATION_SCALE), component("poisson"),
    component("negative_binomial"), component("discretized_logistic", levels=st.integers(2, 65536)),
)  # fmt: skip
COMMON = {"features": st.integers(1, 512), "weight": st.floats(0, 1e6) | st.integers(0, 50)}


def _modality(shape: st.SearchStrategy[Any], encoder: Any, likelihood: Any, decoder: Any) -> st.SearchStrategy[dict[str, Any]]:
    required = {"shape": shape, "encoder": encoder, "likelihood": likelihood}
    return st.fixed_dictionaries(required, optional={"decoder": st.just("mirror") | decoder, **COMMON})


MODALITIES = st.one_of(
    _modality(ANY_SHAPE | st.integers(1, 99), component("mlp", hidden=WIDTHS, dropout=RATES, **LAYERS), LIKELIHOODS, MLP),
    _modality(
        st.lists(st.integers(1, 40), min_size=2, max_size=4),
        component("conv", channels=WIDTHS.filter(len), **LAYERS),
        LIKELIHOODS,
        component("conv"),
    ),
    _modality(st.integers(2, 99), component("embedding", embedding_dim=st.integers(1, 64)), component("categorical"), MLP),
)
OBJECTIVES = st.just("paper") | st.dictionaries(st.sampled_from(["elbo", "distill", "match", "cross"]), POSITIVE, min_size=1)
MODELS = st.one_of(
    component("bridged"), component("joint"), component("vae", modality=st.none() | NAMES), component("jmvae", alpha=st.floats(0, 1e6)),
    component("telbo", one_stage=st.booleans()), component("mvae", random_subsets=st.integers(0, 9)),
    component("bivcca", mixing=st.none() | st.dictionaries(NAMES, st.floats(0, 1))),
)  # fmt: skip
SETTINGS = {
    "batch_size": st.integers(2, 4096), "learning_rate": POSITIVE, "gradient_clip": st.none() | POSITIVE,
    "schedule": st.sampled_from(["auto", "constant", "cosine", "decay"]), "warmup_steps": st.integers(0, 99),
    "weight_decay": st.floats(0, 1), "kl_annealing": st.integers(0, 99), "patience": st.none() | st.just("auto") | st.integers(1, 99),
    "updates": st.none() | st.integers(1, 99_999),
}  # fmt: skip
STAGE = st.fixed_dictionaries({}, optional={"epochs": st.none() | st.integers(1, 999), **SETTINGS}).filter(
    lambda stage: not (stage.get("epochs") and stage.get("updates"))
)
TRAINING = st.fixed_dictionaries(
    {},
    optional={
        "seed": st.integers(-(2**62), 2**62), "precision": st.sampled_from(["auto", "float32", "bf16"]),
        "cache_features": st.booleans(), "compile": st.booleans(), "calibrate": st.booleans(),
        "checkpoint_seconds": st.floats(0, 1e9),
        "stages": st.dictionaries(st.sampled_from(["joint", "bridges", "subsets"]), STAGE), **SETTINGS,
    },
)  # fmt: skip
SPLIT = {"validation": st.floats(0, 0.4), "test": st.floats(0, 0.5), "seed": st.integers(0, 99)}
DATA = st.one_of(
    st.sampled_from(["digits", "memory"]),
    st.fixed_dictionaries(
        {"source": st.just("npz"), "path": st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1)}, optional=SPLIT
    ),
    st.fixed_dictionaries({"source": st.just("digits")}, optional={"binarize": st.booleans(), **SPLIT}),
    st.fixed_dictionaries({}, optional=SPLIT),
)


def _can_wait(spec: dict[str, Any]) -> bool:
    """Whether there are validation rows where a stage has patience."""
    training, data = spec.get("training", {}), spec.get("data", {})
    patient = any(isinstance(part.get("patience"), int) for part in (training, *training.get("stages", {}).values()))
    return not patient or isinstance(data, str) or data.get("validation", 0.1) > 0


SPECS = st.fixed_dictionaries(
    {"modalities": st.dictionaries(NAMES, MODALITIES, min_size=1, max_size=6)},
    optional={
        "spec_version": st.just(1),
        "name": st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1).filter(
            lambda text: text.isprintable() and text.strip()
        ),
        "model": MODELS,
        "latent_dim": st.integers(1, 512),
        "data": DATA,
        "fusion": MLP | st.fixed_dictionaries({}, optional={"hidden": WIDTHS}),
        "bridges": st.fixed_dictionaries(
            {},
            optional={
                "hidden": WIDTHS,
                "objective": OBJECTIVES,
                "combine": st.sampled_from(["mean", "poe"]),
                "encoders": st.sampled_from(["shared", "own"]),
            },
        ),
        "prior": st.just("normal") | component("mixture", components=st.integers(1, 200)),
        "training": TRAINING,
    },
).filter(_can_wait)
