"""Faces and captions: sentences made from attributes, written for a face that has none, and faces drawn for a sentence.

Run `python examples/captions.py faces.png` with `celeba10k`, the first 10,000 faces of CelebA, in $NBRIDGE_DATA. It trains for some minutes
on one core, prints captions of faces that were not trained on, and writes a row of eight faces for each of three captions.
"""

import sys

import numpy as np
from PIL import Image

import nbridge
from nbridge.data.benchmarks.celeba import CelebA

NAMES = ("Male", "Black_Hair", "Blond_Hair", "Brown_Hair", "Smiling", "Eyeglasses", "Wearing_Hat")
SIDE = 32
CAPTIONS = ("A smiling woman with blond hair.", "A man with black hair.", "A man with eyeglasses.")


def sentence(attributes: np.ndarray) -> str:
    """A sentence that says the attributes of a face."""
    true = {name for name, value in zip(NAMES, attributes, strict=True) if value}
    hair = next((f"{name.split('_', maxsplit=1)[0].lower()} hair" for name in NAMES[1:4] if name in true), "")
    worn = [words for name, words in (("Eyeglasses", "eyeglasses"), ("Wearing_Hat", "a hat")) if name in true]
    details = " and ".join([*([hair] if hair else []), *worn])
    person = f"{'smiling ' if 'Smiling' in true else ''}{'man' if 'Male' in true else 'woman'}"
    return f"A {person}{f' with {details}' if details else ''}."


def main(out: str, rows: int | None = None, updates: int = 1500) -> None:
    conv = {"type": "conv", "channels": [16, 32, 64]}
    read = CelebA(attributes=NAMES, rows=rows).load({"image": (3, SIDE, SIDE), "attributes": (len(NAMES),)}).batch.sample().values
    captions = [sentence(row) for row in read["attributes"].numpy()]
    spec = {
        "latent_dim": 48,
        "modalities": {
            "image": {"shape": [3, SIDE, SIDE], "encoder": conv, "likelihood": "discretized_logistic"},
            "caption": {"shape": 16, "encoder": "text", "likelihood": {"type": "text", "tokens": "words"}},
        },
        "data": {"validation": 0.05, "test": 0.1},
        "training": {"stages": {"joint": {"updates": updates}, "bridges": {"updates": updates}}},
    }  # fmt: skip
    run = nbridge.train(spec, {"image": read["image"], "caption": captions})
    assert run.splits.test is not None
    test = run.splits.test.sample(500)
    true = run.model.texts("caption", test.values["caption"])
    found = run.model.texts("caption", run.model.impute(test.only("image")).values["caption"])
    for said, face in list(zip(found, true, strict=True))[:5]:
        print(f"{said}  (true: {face})")
    right = np.mean([one == other for one, other in zip(found, true, strict=True)])
    common = max(map(true.count, set(true))) / len(true)
    print(f"captions exactly right from the face: {right:.0%} (the most frequent caption: {common:.0%})")
    rows_of_faces = [draw(run.model, caption) for caption in CAPTIONS]
    Image.fromarray(np.concatenate(rows_of_faces)).save(out)
    print(f"{out}: {len(CAPTIONS)} captions, 8 faces each")


def draw(model: nbridge.Model, caption: str) -> np.ndarray:
    """Eight faces side by side for a caption, bytes of shape (SIDE, 8 * SIDE, 3)."""
    faces = model.impute({"caption": [caption]}, samples=8, noise=False)["image"][:, 0]
    return (faces.transpose(2, 0, 3, 1).reshape(SIDE, -1, 3).clip(0, 1) * 255).round().astype(np.uint8)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "faces.png")
