"""Makes computational sequences of CMU-MOSEI's size, to measure their import with.

    .venv/bin/python scripts/make_csd.py FOLDER [--videos 3300] [--level 1]

3,300 videos of 71 seconds on average, 65 hours: 23,100 labelled segments, two words a second with 300
features, 100 audio frames a second with 74, 30 vision frames a second with 35, all float32 in gzip
with the chunks that h5py picks. Values are smooth noise on a grid of 1/64, which deflates to less than
half; what they say is nothing. Everything is seeded. Needs some 4 GB and, with
--level 1, a few minutes; --level 9 is what the SDK writes, and takes far longer. It inflates alike.
"""

import argparse
import json
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np

POOL = 1 << 18  # steps of noise that videos take their stretches from


def noise(rng, dim):
    """Smooth values on a grid, [POOL, dim]."""
    walk = rng.normal(size=(POOL, dim)).astype("f4")
    for _ in range(3):
        walk[1:] = 0.7 * walk[:-1] + 0.5 * walk[1:]
    return np.round(walk * 64) / 64


def put(group, name, values, level, pool):
    """A gzip data set with h5py's own chunks, deflated by several threads."""
    data = group.create_dataset(
        name, values.shape, values.dtype, compression="gzip", compression_opts=level
    )
    chunk = data.chunks
    places = [
        (row, col)
        for row in range(0, values.shape[0], chunk[0])
        for col in range(0, values.shape[1], chunk[1])
    ]

    def pack(place):
        row, col = place
        part = values[row : row + chunk[0], col : col + chunk[1]]
        whole = np.zeros(chunk, values.dtype)
        whole[: part.shape[0], : part.shape[1]] = part
        return zlib.compress(whole, level)

    for place, packed in zip(places, pool.map(pack, places)):
        data.id.write_direct_chunk(place, packed)


class Sequence:
    def __init__(self, folder, name, root, level, pool):
        self.file = h5py.File(folder / name, "w")
        self.data = self.file.create_group(f"{root}/data")
        self.level, self.pool = level, pool
        metadata = self.file.create_group(f"{root}/metadata")
        for key, value in {"root name": root, "dataset name": "CMU-MOSEI"}.items():
            metadata.create_dataset(key, (1,), dtype=h5py.string_dtype())[0] = json.dumps(value)

    def add(self, video, intervals, features):
        group = self.data.create_group(video)
        put(group, "features", features, self.level, self.pool)
        put(group, "intervals", intervals.astype("f4"), self.level, self.pool)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--videos", type=int, default=3300)
    parser.add_argument("--level", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(7)
    pool = ThreadPoolExecutor(args.threads)

    def sequence(name, root):
        return Sequence(args.folder, f"CMU_MOSEI_{name}.csd", root, args.level, pool)

    labels = sequence("Labels", "All Labels")
    words = sequence("TimestampedWords", "words")
    vectors = sequence("TimestampedWordVectors", "glove_vectors")
    audio = sequence("COVAREP", "COVAREP")
    vision = sequence("VisualFacet42", "FACET 4.2")
    pools = {dim: noise(rng, dim) for dim in (300, 74, 35)}

    def features(n, dim):
        start = rng.integers(0, POOL - n)
        return pools[dim][start : start + n]

    videos = [f"video{i:05}" for i in range(args.videos)]
    for done, video in enumerate(videos):
        seconds = float(np.clip(rng.lognormal(4.1, 0.55), 15, 900))
        cuts = np.linspace(0, seconds, 8)
        spans = np.stack([cuts[:-1], cuts[1:]], 1)
        scores = np.round(rng.uniform(-3, 3, (7, 7)), 1).astype("f4")
        labels.add(video, spans, scores)
        starts = np.arange(int(seconds * 2)) / 2
        spans = np.stack([starts, starts + 0.45], 1)
        text = [b"sp" if i % 10 == 9 else b"word" for i in range(len(spans))]
        words.add(video, spans, np.array(text, "S32")[:, None])
        vectors.add(video, spans, features(len(spans), 300))
        for one, rate, dim in [(audio, 100, 74), (vision, 30, 35)]:
            starts = np.arange(int(seconds * rate)) / rate
            values = features(len(starts), dim).copy()
            if one is audio:
                values[rng.integers(0, len(values), 20), rng.integers(0, dim, 20)] = -np.inf
            one.add(video, np.stack([starts, starts + 1 / rate], 1), values)
        if done % 500 == 0:
            print(f"{done} of {args.videos}", flush=True)
    cuts = [int(args.videos * share) for share in (0.7, 0.8)]
    folds = {"train": videos[: cuts[0]], "valid": videos[cuts[0] : cuts[1]], "test": videos[cuts[1] :]}
    (args.folder / "folds.json").write_text(json.dumps(folds))


if __name__ == "__main__":
    main()
