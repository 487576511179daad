"""Writes the loose arrays and manifests that crates/cumdf-data/tests read.

    .venv/bin/python scripts/arrays.py

Needs numpy and h5py. Values are a formula of the index, `value` below, which the tests repeat; it is
exact in half precision.
"""

import shutil
import zipfile
from pathlib import Path

import h5py
import numpy as np

OUT = Path(__file__).parent.parent / "crates/cumdf-data/tests/it/fixtures/arrays"
SPLITS = {"train": 5, "valid": 2, "test": 3}
T, DIMS = 4, {"language": 3, "audio": 2, "vision": 2}


def counted(*shape: int, low: int = 1, dtype="f4"):
    """low, low + 1, .. in C order."""
    return (np.arange(np.prod(shape)) + low).reshape(shape).astype(dtype)


def length(n: int):
    return 1 + np.arange(n) % T


def stream(split: str, modality: str, dtype="f4"):
    """[N, T, d]: 64 * sample + 8 * step + feature + 1 + a quarter for each split, 0 past the length."""
    n, d = SPLITS[split], DIMS[modality]
    sample, step, feature = np.ogrid[:n, :T, :d]
    values = 64 * sample + 8 * step + feature + 1 + list(SPLITS).index(split) / 4
    return np.where(step < length(n)[:, None, None], values, 0).astype(dtype)


def rewrap(path: Path, array, header: str, version=(1, 0)):
    """An .npy file with a header of our own."""
    text = header.encode("latin1")
    size = len(text).to_bytes(2 if version[0] == 1 else 4, "little")
    path.write_bytes(b"\x93NUMPY" + bytes(version) + size + text + array.tobytes())


shutil.rmtree(OUT, ignore_errors=True)
(OUT / "types").mkdir(parents=True)

# One array of every type, in both byte orders, and in both orders of the axes.
for code in ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"]:
    low = -3 if code[0] in "fi" else 0
    for name, order in [("little", "<"), ("big", ">")]:
        np.save(OUT / f"types/{code}-{name}.npy", counted(3, 2, 2, low=low, dtype=order + code))
np.save(OUT / "types/bool.npy", counted(3, 2, 2) % 2 == 1)
np.save(OUT / "types/fortran.npy", np.asfortranarray(counted(5, 4, 3, 2)))
np.save(OUT / "types/fortran-flat.npy", np.asfortranarray(counted(7)))
np.save(OUT / "types/text.npy", np.array(["größer", "b[0]", "", "😀"]))
np.save(OUT / "types/bytes.npy", np.array([b"a", b"bc", b"def"]))
np.save(OUT / "types/objects.npy", np.array(["a", None], dtype=object), allow_pickle=True)
np.save(OUT / "types/complex.npy", counted(2, dtype="c8"))
np.save(OUT / "types/fields.npy", np.zeros(2, dtype=[("a", "f4"), ("b", "i4")]))
np.save(OUT / "types/scalar.npy", np.float32(7))
np.save(OUT / "types/empty.npy", np.zeros((0, 3), dtype="f4"))
np.lib.format.write_array(open(OUT / "types/version3.npy", "wb"), counted(6), version=(3, 0))
rewrap(OUT / "types/python2.npy", counted(2, 3), "{'descr': '<f4', 'fortran_order': False, 'shape': (2L, 3L), }")
np.savez(OUT / "types/stored.npz", first=counted(4, 3), second=counted(2, low=9, dtype="i8"))
np.savez_compressed(OUT / "types/packed.npz", first=counted(4, 3), turned=np.asfortranarray(counted(3, 5)))
np.savez(OUT / "types/one.npz", only=counted(3, 2))
with zipfile.ZipFile(OUT / "types/bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
    archive.writestr(zipfile.ZipInfo("zeros.npy"), bytes(1 << 20), zipfile.ZIP_DEFLATED)

# A sentiment data set in files of all kinds.
packed = {}
with h5py.File(OUT / "all.h5", "w") as file:
    for split, n in SPLITS.items():
        np.save(OUT / f"{split}-text.npy", stream(split, "language", "f8"))
        packed[f"{split}_audio"] = np.asfortranarray(stream(split, "audio", ">f4"))
        group = file.create_group(split)
        group["vision"] = stream(split, "vision", "f2")
        group.create_dataset("chunked", data=stream(split, "vision"), chunks=(1, T, 2), compression="gzip")
        group["utterance"] = np.arange(2 * n).reshape(n, 2) + 1
        group["names"] = [f"{split} ä{i}" for i in range(n)]
        group["numbers"] = np.arange(n, dtype="u8") + (2**63 + 100 * list(SPLITS).index(split))
        group["class"] = np.arange(n) % 2
        group["flags"] = np.arange(n)[:, None] % 3 != np.arange(2)
        np.save(OUT / f"{split}-label.npy", (np.arange(n) % 7 - 3.0).reshape(n, 1, 1))
        np.save(OUT / f"{split}-length.npy", length(n))
        (OUT / f"{split}-names.txt").write_text("".join(f"{split}_{i}\n" for i in range(n)))
np.savez_compressed(OUT / "audio.npz", **packed)
