"""Writes the pickled packs that crates/cumdf-data/tests read, in the layouts of three projects.

    .venv/bin/python scripts/packs.py

Needs numpy. The packs are small and their values a formula, `value` below, which the tests repeat;
layouts, key names, shapes and types are those of the public files. The names of samples are made up.
"""

import pickle
from pathlib import Path

import numpy as np

OUT = Path(__file__).parent.parent / "crates/cumdf-data/tests/it/fixtures/packs"
SPLITS = {"train": 5, "valid": 2, "test": 3}
T = 6


def value(split: str, modality: int, sample: int, step: int, feature: int) -> float:
    """Never 0, and exact in half precision."""
    offset = 512 * (list(SPLITS).index(split) + 1)
    return offset + 128 * modality + 16 * sample + 2 * step + 0.5 * feature


def length(sample: int) -> int:
    return 2 + sample % (T - 1)


def stream(split: str, modality: int, dim: int, front: bool, steps: int = T, dtype="f4"):
    """[N, steps, dim] with zeros in front or behind."""
    n = SPLITS[split]
    out = np.zeros((n, steps, dim), dtype)
    for i in range(n):
        used = min(length(i), steps)
        for t in range(used):
            at = steps - used + t if front else t
            out[i, at] = [value(split, modality, i, t, f) for f in range(dim)]
    return out


def scores(split: str):
    return np.array([-3 + 0.8 * i for i in range(SPLITS[split])], "f4")


def mmsa(aligned: bool):
    pack = {}
    for split, n in SPLITS.items():
        # BERT gives padding a vector too; only the mask tells how many steps are used.
        text = stream(split, 0, 4, front=False)
        text[text == 0] = 7.0
        bert = np.zeros((n, 3, T), "f4")
        for i in range(n):
            bert[i, 0, : length(i)] = 101
            bert[i, 1, : length(i)] = 1
        pack[split] = {
            "raw_text": np.array([f"sentence {i}" for i in range(n)]),
            "audio": stream(split, 1, 3, False, T if aligned else 9, "f8"),
            "vision": stream(split, 2, 2, False, T if aligned else 8, "f8"),
            "id": np.array([f"{split}_video$_${i}" for i in range(n)]),
            "text": text,
            "text_bert": bert,
            "annotations": np.array(["Negative" if s < 0 else "Positive" for s in scores(split)]),
            "classification_labels": np.sign(scores(split)) + 1,
            "regression_labels": scores(split),
        }
        if not aligned:
            lengths = [length(i) for i in range(n)]
            pack[split]["audio_lengths"] = lengths
            pack[split]["vision_lengths"] = lengths
    return pack


def mult(emotions: bool):
    """Padded in front; the first audio value of every split's first sample is -inf."""
    pack = {}
    for split, n in SPLITS.items():
        audio = stream(split, 1, 3, True, dtype="f8")
        audio[0, T - length(0), 0] = -np.inf
        part = {
            "vision": stream(split, 2, 2, True, dtype="f8"),
            "text": stream(split, 0, 4, True),
            "audio": audio,
        }
        if emotions:
            labels = np.zeros((n, 4, 2), "i8")  # neutral, happy, sad, angry: no, yes
            for i in range(n):
                for c in range(4):
                    yes = c == i % 4 or (c == 3 and i == 1)
                    labels[i, c, int(yes)] = 1
            if split == "train":
                labels[4, :, :] = [1, 0]  # none of the four
            part["labels"] = labels
        else:
            part["labels"] = scores(split).reshape(n, 1, 1).astype("f8")
            part["id"] = np.array(
                [[f"{split}_video".encode(), str(float(i)).encode(), str(i + 0.5).encode()] for i in range(n)]
            )
        pack[split] = part
    return pack


def lmf(emotion: int | None = None):
    """One vector an utterance for audio and vision; NaN as LMF's own files have it."""
    pack = {}
    for split, n in SPLITS.items():
        covarep = stream(split, 1, 3, False)[:, 0]
        covarep[1, 2] = np.nan
        label = scores(split).reshape(n, 1)
        if emotion is not None:
            label = np.array([[float(i % 4 != emotion), float(i % 4 == emotion)] for i in range(n)])
        pack[split] = {
            "covarep": covarep,
            "facet": stream(split, 2, 2, False)[:, 0],
            "glove": stream(split, 0, 4, True),
            "label": label,
        }
    return pack


def write(name: str, pack, protocol: int):
    (OUT / name).write_bytes(pickle.dumps(pack, protocol=protocol))


OUT.mkdir(parents=True, exist_ok=True)
write("mmsa_aligned.pkl", mmsa(aligned=True), 4)
write("mmsa_unaligned.pkl", mmsa(aligned=False), 4)
write("mult_mosi.pkl", mult(emotions=False), 3)
write("mult_iemocap.pkl", mult(emotions=True), 2)
write("lmf_mosi.pkl", lmf(), 2)
names = ["happy", "sad", "angry", "neutral"]
write("lmf_iemocap.pkl", {name: lmf(i) for i, name in enumerate(names)}, 0)
