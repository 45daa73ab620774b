"""Images with attributes: generates faces from attributes, and predicts attributes from a face.

Run `python examples/image_attributes.py faces.png` with `celeba10k`, the first 10,000 faces of CelebA, in $NBRIDGE_DATA. It trains for some
minutes on one core and writes a row of eight faces for each description.
"""

import sys

import numpy as np
from PIL import Image

import nbridge

NAMES = ("Black_Hair", "Blond_Hair", "Eyeglasses", "Male", "Smiling")
DESCRIPTIONS = (("Blond_Hair", "Smiling"), ("Black_Hair", "Male"), ("Black_Hair", "Male", "Smiling"), ("Eyeglasses", "Male"))
IMAGE = {"shape": [3, 64, 64], "features": 256, "encoder": {"type": "conv", "channels": [16, 32, 64]}, "likelihood": "discretized_logistic"}


def main(out: str, rows: int | None = None, epochs: int = 5) -> None:
    spec = {
        "latent_dim": 64,
        "data": {"source": "celeba", "attributes": NAMES, "rows": rows, "validation": 0.05, "test": 0.1},
        "modalities": {
            "image": IMAGE,
            # Weighted, because an image has 59,000 nats and five attributes only a few.
            "attributes": {"shape": len(NAMES), "encoder": "mlp", "likelihood": {"type": "bernoulli", "attributes": True}, "weight": 200},
        },
        "bridges": {"type": "flow"},
        "training": {
            "batch_size": 64, "learning_rate": 3e-3, "schedule": "cosine",
            "stages": {"joint": {"epochs": epochs}, "bridges": {"epochs": 4 * epochs}},
        },
    }  # fmt: skip
    run = nbridge.train(spec)
    assert run.splits.test is not None
    test = run.splits.test.sample()
    predicted = run.model.impute(test.only("image")).values["attributes"]
    for number, name in enumerate(NAMES):
        right = (predicted[:, number].round() == test.values["attributes"][:, number]).float().mean()
        share = test.values["attributes"][:, number].mean()
        print(f"{name} predicted from the face: {right:.0%} correct (majority class: {max(share, 1 - share):.0%})")

    drawn = [draw(run.model, wanted) for wanted in DESCRIPTIONS]
    Image.fromarray(np.concatenate(drawn)).save(out)
    print(f"{out}: {len(drawn)} descriptions, 8 faces each")


def draw(model: nbridge.Model, wanted: tuple[str, ...]) -> np.ndarray:
    """Eight faces side by side, bytes of shape (64, 512, 3)."""
    faces = model.generate(8, {"attributes": [float(name in wanted) for name in NAMES]})["image"]
    return (faces.permute(2, 0, 3, 1).reshape(64, -1, 3).clamp(0, 1) * 255).round().byte().numpy()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "faces.png")
