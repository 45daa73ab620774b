"""Omics: imputes protein levels of breast cancer patients whose protein was never measured, with 90 % intervals.

Run `python examples/omics.py` with the TCGA data of `modality_specs/tcga.yaml` in $NBRIDGE_DATA. The test part has no protein levels, so
errors cannot be measured there. They are measured on held-out patients of the training part, with their protein levels hidden.
"""

from pathlib import Path

import numpy as np

import nbridge
from nbridge.data.numpy.archive import read_npz

SPEC = Path(__file__).parent.parent / "modality_specs" / "tcga.yaml"
SUBTYPES = ("Basal", "Her2", "LumA")


def main(epochs: tuple[int, int] = (100, 60)) -> None:
    cohort = read_npz("tcga_brca_mixomics/tcga_brca.npz")
    known = {name: cohort[f"train_{name}"] for name in ("mirna", "mrna", "protein")}
    known["subtype"] = np.array([SUBTYPES.index(subtype) for subtype in cohort["train_subtype"]], float)
    lengths = [f"training.stages.{stage}.epochs={count}" for stage, count in zip(("joint", "bridges"), epochs, strict=True)]
    run = nbridge.train(SPEC, known, overrides=lengths)
    assert run.splits.test is not None
    learned, left_out = ({name: x.numpy() for name, x in part.sample().values.items()} for part in (run.splits.train, run.splits.test))

    filled = run.model.impute({name: left_out[name] for name in ("mirna", "mrna")}, intervals=(0.9,))
    truth, mean = left_out["protein"], learned["protein"].mean(0)
    within = (filled["protein__lower"] <= truth) & (truth <= filled["protein__upper"])
    print(f"protein of {len(truth)} held-out patients: RMSE {rmse(filled['protein'] - truth):.3f}, of the mean {rmse(mean - truth):.3f}")
    print(f"90 % intervals contain {within.mean():.0%} of the values")
    print(f"subtypes predicted correctly: {(filled['subtype'] == left_out['subtype']).mean():.0%}")

    draws = run.model.impute({name: cohort[f"test_{name}"] for name in ("mirna", "mrna")}, samples=20)["protein"]
    surest = cohort["protein_names"][(draws.std(0).mean(0) / learned["protein"].std(0)).argsort()[:3]]
    print(f"protein never measured: {draws.shape[1]} patients, {len(draws)} draws each; most certain: {', '.join(surest)}")


def rmse(error: np.ndarray) -> float:
    return float(np.sqrt(np.square(error).mean()))


if __name__ == "__main__":
    main()
