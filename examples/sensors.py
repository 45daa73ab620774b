"""Sensors: recognises a person's activity from a watch, a phone or both, and imputes the phone's signals from the watch.

Run `python examples/sensors.py` with `sp_sw_har` in $NBRIDGE_DATA (windows of 1.28 s at 50 Hz from an accelerometer and a gyroscope in each
device). Six of 23 people are held out for testing. In training, the phone is missing from a third of the windows.
"""

import numpy as np

import nbridge
from nbridge.data.numpy.archive import read_npz

WATCH, PHONE = ("watch_acc", "watch_gyro"), ("phone_acc", "phone_gyro")
SERIES = {"shape": [3, 64], "features": 32, "encoder": {"type": "conv", "channels": [16, 32]}, "likelihood": "normal"}
SPEC = {
    "latent_dim": 32,
    "modalities": {
        **dict.fromkeys((*WATCH, *PHONE), SERIES),
        "activity": {"shape": 5, "encoder": "mlp", "likelihood": "categorical", "weight": 50},
    },
    "bridges": {"subsets": "random"},
    "training": {"learning_rate": 2e-3, "schedule": "cosine"},
}


def main(epochs: int = 15, people: int = 23) -> None:
    recorded = read_npz("sp_sw_har/sp_sw_har_50hz_w64.npz")
    windows = recorded["subject"] <= people
    rows = {name: recorded[name][windows].astype(np.float32) for name in (*WATCH, *PHONE)}
    rows["activity"] = recorded["label"][windows].astype(float)
    strangers = recorded["subject"][windows] > people - 6

    training = {name: x[~strangers].copy() for name, x in rows.items()}
    at_home = np.random.default_rng(0).random(len(training["activity"])) < 1 / 3
    for name in PHONE:
        training[name][at_home] = np.nan
    stages = {"joint": {"epochs": epochs}, "bridges": {"epochs": epochs}}
    run = nbridge.train({**SPEC, "training": {**SPEC["training"], "stages": stages}}, training)

    test = {name: x[strangers] for name, x in rows.items()}
    most_common = np.bincount(test["activity"].astype(int)).max() / strangers.sum()
    print(f"activity of held-out people; share of the most common one: {most_common:.0%}")
    for what, names in {"watch and phone": (*WATCH, *PHONE), "watch": WATCH, "phone": PHONE}.items():
        predicted = run.model.impute({name: test[name] for name in names})["activity"]
        print(f"  predicted correctly from {what}: {(predicted == test['activity']).mean():.0%}")

    filled = run.model.impute({name: test[name] for name in WATCH}, intervals=(0.9,))
    for name in PHONE:
        within = (filled[f"{name}__lower"] <= test[name]) & (test[name] <= filled[f"{name}__upper"])
        print(f"{name} imputed from the watch: 90 % intervals contain {within.mean():.0%} of the values")


if __name__ == "__main__":
    main()
