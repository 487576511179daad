"""The floor `linear` in scikit-learn: what crates/cumdf-train/src/linear.rs is compared with.

    pip install scikit-learn h5py safetensors
    python scripts/linear_reference.py                      writes tests/golden/linear.safetensors
    python scripts/linear_reference.py data/mine.h5 --clip 5    prints the figures of every condition

The second form prints what crates/cumdf-train/tests/linear.rs holds as expected figures.
"""

import argparse
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import f1_score

GOLDEN = Path(__file__).resolve().parent.parent / "tests" / "golden" / "linear.safetensors"
MODALITIES = ["language", "audio", "vision"]
CONDITIONS = ["l", "a", "v", "la", "lv", "av", "lav"]
SPLITS = ["train", "valid", "test"]
RIDGE = [1e4, 1e3, 1e2, 1e1]  # the strongest first: it wins a tie
LOGISTIC = [1e3, 1e2, 1e1, 1e0]


def ridge(strength, x, y):
    return Ridge(alpha=strength, tol=1e-10).fit(x, y)


def logistic(strength, x, flags):
    """Several emotions of a sample share its weight equally."""
    rows, classes = np.nonzero(flags)
    weight = 1 / flags.sum(1)[rows]
    model = LogisticRegression(C=1 / strength, tol=1e-9, max_iter=100_000)
    return model.fit(x[rows], classes, sample_weight=weight)


def f1_emotions(flags, probs):
    said = probs.argmax(1)
    truth = np.where(flags[np.arange(len(said)), said], said, flags.argmax(1))
    return f1_score(truth, said, average="weighted")


def choose(task, train, valid):
    """Fits on `train` at every strength, and keeps the one that `valid` likes best."""
    (x, y), (x_valid, y_valid) = train, valid
    best = None
    for strength in RIDGE if task == "sentiment" else LOGISTIC:
        if task == "sentiment":
            model = ridge(strength, x, y)
            value = -np.abs(model.predict(x_valid) - y_valid).mean()
        else:
            model = logistic(strength, x, y)
            value = f1_emotions(y_valid, model.predict_proba(x_valid))
        if best is None or value > best[0]:
            best = value, strength, model
    return best[1:]


def golden():
    from safetensors.numpy import save_file

    gen = np.random.default_rng(20261124)
    out = {}

    def case(name, task, n, dim, classes=0):
        x = {s: gen.normal(size=(n, dim)) * np.linspace(0.5, 1.5, dim) + 0.3 for s in SPLITS}
        w = gen.normal(size=(dim, max(classes, 1)))
        z = {s: (2 * x[s] @ w + gen.normal(size=(n, max(classes, 1)))) / np.sqrt(dim) for s in SPLITS}
        if task == "sentiment":  # f32, as labels are
            y = {s: z[s][:, 0].clip(-3, 3).astype("f4").astype("f8") for s in SPLITS}
        else:  # the most likely class, and one in five samples has the second too
            order = {s: (-z[s]).argsort(1) for s in SPLITS}
            y = {s: np.eye(classes, dtype=bool)[order[s][:, 0]] for s in SPLITS}
            for s in SPLITS:
                twice = np.arange(n) % 5 == 4
                y[s][twice, order[s][twice, 1]] = True
        strength, model = choose(task, (x["train"], y["train"]), (x["valid"], y["valid"]))
        predict = model.predict if task == "sentiment" else model.predict_proba
        arrays = dict(strength=np.array([strength]), weights=np.atleast_2d(model.coef_).T,
                      intercept=np.atleast_1d(model.intercept_), prediction=predict(x["test"]))
        for s in SPLITS:
            arrays[f"{s}.x"], arrays[f"{s}.y"] = x[s], y[s].astype("f8")
        out.update({f"{name}.{key}": np.ascontiguousarray(a) for key, a in arrays.items()})
        print(f"{name}: strength {strength:g}")

    case("primal", "sentiment", 60, 8)
    case("dual", "sentiment", 16, 40)
    case("logistic", "emotion", 80, 6, classes=4)
    save_file(out, GOLDEN)


def read(path, clip):
    """Mean features of every split, standardised by the training split; labels; the file's range."""
    import h5py

    with h5py.File(path) as f:
        groups = {s: {key: f[s][key][:] for key in f[s] if key not in ("id", "truth")} for s in SPLITS}
        task, scores = f.attrs["task"], f.attrs.get("range", [-3, 3])
    task = task.decode() if isinstance(task, bytes) else task
    features = {s: [] for s in SPLITS}
    for m, name in enumerate(MODALITIES):
        x, used = {}, {}
        for s, g in groups.items():
            x[s] = g[name].astype("f8")
            used[s] = np.arange(x[s].shape[1]) < g["length"][:, None]
            if "present" in g:
                used[s] &= g["present"][:, m : m + 1].astype(bool)
        if not used["train"].any():  # hidden everywhere, as nothing can be learned about it
            for s in SPLITS:
                features[s].append(np.zeros((len(x[s]), 0)))
            continue
        frames = np.where(np.isfinite(x["train"]), x["train"], np.nan)[used["train"]]
        mean, std = np.nanmean(frames, 0), np.nanstd(frames, 0)
        std[std < 1e-6] = 1
        for s in SPLITS:
            z = np.nan_to_num((x[s] - mean) / std, nan=0, posinf=0, neginf=0)
            z = z.clip(-clip, clip) if clip > 0 else z
            n_used = used[s].sum(1, keepdims=True)
            x[s] = np.where(used[s][..., None], z, 0).sum(1) / np.maximum(n_used, 1)
        if used["train"].shape[1] > 1:  # single frames are standardised already
            seen = x["train"][used["train"].any(1)]
            mean, std = seen.mean(0), seen.std(0)
            std[std < 1e-6] = 1
            x = {s: np.where(used[s].any(1, keepdims=True), (x[s] - mean) / std, 0) for s in SPLITS}
        for s in SPLITS:
            features[s].append(x[s])
    labels = {s: g["label"].astype("f8" if task == "sentiment" else bool) for s, g in groups.items()}
    return task, scores, features, labels


def figures(path, clip):
    task, (low, high), features, y = read(path, clip)
    for condition in CONDITIONS:
        x = {s: np.concatenate([features[s]["lav".index(c)] for c in condition], 1) for s in SPLITS}
        if x["train"].shape[1] == 0:
            continue
        strength, model = choose(task, (x["train"], y["train"]), (x["valid"], y["valid"]))
        if task == "sentiment":
            p, t, neutral = model.predict(x["test"]), y["test"], (low + high) / 2
            polar = t != neutral
            f1 = f1_score(t[polar] > neutral, p[polar] > neutral, average="weighted")
            print(f'("{condition}", {strength:.1f}, &[{np.abs(p - t).mean():.5f}, '
                  f"{np.corrcoef(p, t)[0, 1]:.5f}, {f1:.5f}], {p[0]:.5f}),")
        else:
            p = model.predict_proba(x["test"])
            print(f'("{condition}", {strength:.1f}, &[{f1_emotions(y["test"], p):.5f}], {p[0, 0]:.5f}),')


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", help="a data set in the native layout")
    parser.add_argument("--clip", type=float, default=0.0, help="cut standardised values there; 0: nowhere")
    args = parser.parse_args()
    golden() if args.file is None else figures(args.file, args.clip)
