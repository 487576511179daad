"""Makes the golden case of the importer of computational sequences.

    .venv/bin/python scripts/align_reference.py

Writes small .csd files, as h5py and CMU-MultimodalSDK write them, into
crates/cumdf-data/tests/it/fixtures/csd, and beside them what an import has to make of them, in the
native layout: expected_last.h5 (the defaults, four steps) and expected_first.h5 (first words, silence
kept, incomplete samples dropped). Everything is seeded; a second run changes nothing that a reader
sees. Needs h5py and numpy (scripts/setup --python).

The procedure is the SDK's `align` to the words and then to the labels, in plain loops that compare
everything with everything, written from the procedure and not from the Rust code. Where the SDK and
the importer part ways (values that are not finite, words without frames), this follows the importer's
documentation, crates/cumdf-data/src/import/sequences.rs.
"""

import json
import math
from pathlib import Path

import h5py
import numpy as np

OUT = Path(__file__).resolve().parent.parent / "crates/cumdf-data/tests/it/fixtures/csd"
EPSILON = 1e-5
STEPS = 4
FOLDS = {"train": ["vidA", "vid_B", "-vidC"], "valid": ["vidD", "nolabels"], "test": ["vidE", "vidF"]}


def write(name, root, entries, about, **options):
    """One .csd file; `entries` maps names to (intervals, features). Packed if options are given."""
    with h5py.File(OUT / name, "w", track_order=False) as file:
        data = file.create_group(f"{root}/data")
        for entry, (intervals, features) in entries.items():
            group = data.create_group(entry)
            packed = dict(compression="gzip", compression_opts=9) if options else {}
            group.create_dataset("features", data=features, **packed, **options)
            packed.update(chunks=None if len(intervals) < 100 else True)
            group.create_dataset("intervals", data=intervals, **packed)
        metadata = file.create_group(f"{root}/metadata")
        text = h5py.string_dtype()
        about = {"root name": root, "dataset name": "CMU-MOSI", "md5": None, **about}
        for key, value in about.items():
            metadata.create_dataset(key, (1,), dtype=text)[0] = json.dumps(value)


def grid(rng, low, high):
    """Times on a grid of 1/64 s, so that many ends touch, and f4 holds them exactly."""
    return round(rng.uniform(low, high) * 64) / 64


def make(rng):
    """Intervals and features of all sequences of all videos."""
    words, vectors, audio, vision, labels = {}, {}, {}, {}, {}
    for v, video in enumerate(["vidA", "vid_B", "-vidC", "vidD", "vidE", "vidF", "unused"]):
        end, spans, texts = 0.0, [], []
        for i in range(18):
            start = end + (grid(rng, 0, 0.2) if rng.random() < 0.3 else 0)
            end = start + grid(rng, 0.05, 0.6)
            spans.append([start, end])
            texts.append(b"sp" if i % 6 == 4 else b"w%d" % i)
        spans[7][1] = spans[7][0]  # a word of no length
        features = rng.normal(size=(len(spans), 5))
        order = rng.permutation(len(spans)) if v == 1 else np.arange(len(spans))
        spans, texts = np.array(spans)[order], np.array(texts, dtype="S32")[order]
        words[video] = (spans.astype("f4"), texts[:, None])
        vectors[video] = (spans, features[order].astype("f4"))

        n = int(end * 50)
        times = np.arange(n)[:, None] / 50 + [[0, 0.03 if v == 2 else 0.02]]  # overlapping in -vidC
        values = rng.normal(size=(n, 4)).astype("f4")
        values[rng.random(values.shape) < 0.01] = np.nan
        values[rng.random(values.shape) < 0.01] = -np.inf
        values[: n // 3, 2] = np.nan  # words in which a feature has nothing at all
        keep = (times[:, 0] < 2) | (times[:, 0] > 3.5)  # words without a frame
        keep &= times[:, 0] > (3 if v == 3 else -1)  # and segments without one
        order = rng.permutation(keep.sum()) if v == 0 else np.arange(keep.sum())
        audio[video] = (times[keep][order].astype("f4"), values[keep][order])

        times = np.cumsum(np.full(int(end * 15), 1 / 15))[:, None] + [[0, 1 / 15]]
        if video != "vidE":  # a video that one sequence lacks
            vision[video] = (times, rng.normal(size=(len(times), 3)))

        cuts = sorted(grid(rng, 0, end) for _ in range(6))
        spans = [[a, b] for a, b in zip([0.0, *cuts], [*cuts, end])]
        spans += [[end + 1, end + 2], [1.0, 1.0], [0.5, 3.0]]  # no word, no length, many words
        if v == 2:
            spans.reverse()
        scores = np.round(rng.uniform(-3, 3, size=(len(spans), 1)), 1)
        labels[video] = (np.array(spans, dtype="f4"), scores.astype("f4"))
    return words, vectors, audio, vision, labels


def overlap(a, b):
    return min(a[1], b[1]) - max(a[0], b[0]) > EPSILON


def mean(frames, dim):
    """Plain mean of what is finite, feature by feature; nan where nothing is."""
    row = []
    for d in range(dim):
        finite = [float(frame[d]) for frame in frames if math.isfinite(frame[d])]
        row.append(sum(finite) / len(finite) if finite else math.nan)
    return row


def expected(sequences, first, silence, drop):
    """Samples of each split: id, label, length, present, features."""
    words, vectors, audio, vision, labels = sequences
    splits = {}
    for split, videos in FOLDS.items():
        samples = []
        for video in videos:
            if video not in labels:
                continue
            steps = []
            spans, features = vectors[video]
            for span, vector, text in zip(spans, features, words[video][1][:, 0]):
                if span[1] - span[0] < EPSILON or (text == b"sp" and not silence):
                    continue
                frames = []
                for sequence, dim in [(audio, 4), (vision, 3)]:
                    times, values = sequence.get(video, ([], []))
                    own = [row for t, row in zip(times, values) if overlap(span, t)]
                    frames.append((len(own), mean(own, dim)))
                steps.append((span, vector, frames))
            steps.sort(key=lambda step: step[0][0])
            for row, (span, label) in enumerate(zip(*labels[video])):
                if span[1] - span[0] < EPSILON:
                    continue
                own = [step for step in steps if overlap(span, step[0])]
                if not own:
                    continue
                own = own[:STEPS] if first else own[-STEPS:]
                sample = {"id": f"{video}[{row}]", "label": label[0], "length": len(own)}
                features = [np.zeros((STEPS, dim), "f4") for dim in (5, 4, 3)]
                features[0][: len(own)] = [step[1] for step in own]
                present = [1]
                for m in range(2):
                    there = any(step[2][m][0] for step in own)
                    present.append(int(there))
                    if there:
                        features[m + 1][: len(own)] = [step[2][m][1] for step in own]
                if not (drop and 0 in present):
                    samples.append({**sample, "present": present, "features": features})
        splits[split] = samples
    return splits


def write_native(name, splits):
    with h5py.File(OUT / name, "w") as file:
        file.attrs["name"], file.attrs["task"], file.attrs["range"] = "CMU-MOSI", "sentiment", [-3, 3]
        for split, samples in splits.items():
            group = file.create_group(split)
            for m, modality in enumerate(["language", "audio", "vision"]):
                rows = [sample["features"][m] for sample in samples]
                group.create_dataset(modality, data=np.stack(rows))
            for key, dtype in [("label", "f4"), ("length", "i4"), ("present", "u1")]:
                group[key] = np.array([sample[key] for sample in samples], dtype)
            group["id"] = [sample["id"] for sample in samples]


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    sequences = make(np.random.default_rng(20))
    words, vectors, audio, vision, labels = sequences
    write("CMU_MOSI_TimestampedWords.csd", "words", words, {})
    write("CMU_MOSI_TimestampedWordVectors.csd", "glove_vectors", vectors, {"dimension names": ["v"] * 5})
    write("CMU_MOSI_COVAREP.csd", "COVAREP", audio, {}, chunks=(60, 3))
    write("CMU_MOSI_Visual_Facet_42.csd", "FACET_4.2", vision, {}, chunks=(50, 3), shuffle=True)
    about = {"dimension names": ["sentiment score"]}
    write("CMU_MOSI_Opinion_Labels.csd", "Opinion Segment Labels", labels, about)
    lines = [f"standard_{split}_fold={videos!r}\n" for split, videos in FOLDS.items()]
    (OUT / "cmu_mosi_std_folds.py").write_text("# As the SDK writes them.\n" + "".join(lines))
    write_native("expected_last.h5", expected(sequences, first=False, silence=False, drop=False))
    write_native("expected_first.h5", expected(sequences, first=True, silence=True, drop=True))


if __name__ == "__main__":
    main()
