"""Writes the pickles that crates/cumdf-pickle is tested against, and what is in them.

Run from the root of the repository: .venv/bin/python scripts/pickles.py

For each protocol, Python's own pickle writes one file of plain values and one of arrays. Files of
Python 2 (py2_*.pkl) are put together opcode by opcode, as its pickle, its cPickle and numpy 1
write them, since there is no Python 2 here; Python 3 loads each with encoding="latin1" and must
find the same values. Run once more with numpy 1 (these are of 1.26.4), the script only writes
numpy1_*.pkl, which hold the same arrays under the older names. expected.json names for every file the set of values in it, and holds for
every set a description that tests/fixtures.rs compares with what the crate decodes:

- null, true, "text", {"list": [..]}, {"tuple": [..]}, {"set": [..]}, {"dict": [[key, value], ..]};
- {"int": "digits"}, {"float": "16 hexadecimal digits of the big-endian double"},
  {"bytes": "hexadecimal"}, {"dtype": "float32"};
- {"array": "float32", "shape": [..], "values": [..]}, values in C order: doubles as above,
  texts, or for objects descriptions.
"""

import json
import pickle
import struct
from collections import OrderedDict, defaultdict
from pathlib import Path

import numpy as np

OUT = Path(__file__).parent.parent / "crates/cumdf-pickle/tests/fixtures"
NUMPY1 = (2, 4, 5)  # protocols of the files that numpy 1 writes


def double(value):
    return struct.pack(">d", float(value)).hex()


def dtype_name(dtype):
    """The name without its byte order, which numpy changes to its own as it loads."""
    return "object" if dtype.kind == "O" else dtype.str[1:] if dtype.kind in "SU" else dtype.name


def latin1_or_utf8(value):
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin1")


def describe(value):
    """What expected.json says of a value."""
    if value is None or isinstance(value, (bool, np.bool_)):
        return None if value is None else bool(value)
    if isinstance(value, np.ndarray):
        flat = value.flatten(order="C").tolist()
        if value.dtype.kind == "S":
            values = [latin1_or_utf8(v) for v in flat]
        elif value.dtype.kind == "U":
            values = flat
        elif value.dtype.kind == "O":
            values = [describe(v) for v in flat]
        else:
            values = [double(v) for v in flat]
        return {"array": dtype_name(value.dtype), "shape": list(value.shape), "values": values}
    if isinstance(value, np.dtype):
        return {"dtype": dtype_name(value)}
    if isinstance(value, str):
        return str(value)
    if isinstance(value, (bytes, bytearray)):
        return {"bytes": bytes(value).hex()}
    if isinstance(value, (int, np.integer)):
        return {"int": str(int(value))}
    if isinstance(value, (float, np.floating)):
        return {"float": double(value)}
    if isinstance(value, dict):
        return {"dict": [[describe(k), describe(v)] for k, v in value.items()]}
    for name, kind in (("list", list), ("tuple", tuple), ("set", (set, frozenset))):
        if isinstance(value, kind):
            return {name: [describe(v) for v in value]}
    raise TypeError(type(value))


def plain():
    """Every value that is no array, and shared ones."""
    shared = ["shared", 1]
    return {
        "none": None,
        "bools": [True, False],
        "ints": [0, 1, -1, 255, 256, 65535, 65536, -(2**31), 2**31, 2**63 - 1, -(2**63), 2**100],
        "floats": [0.0, -0.0, 1.5, 1e300, -2.5e-310, float("inf"), float("-inf")],
        "text": ["", "plain", "café", "你好", "😀 \\u0041 \\ \n\r\t\0 '\"", "x" * 300],
        "bytes": [b"", b"abc", bytes(range(256)), bytearray(b"\xff\0z"), bytearray()],
        "tuples": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, (4, (5,)))],
        "sets": [set(), {7}, frozenset(), frozenset([8])],
        "empty": [[], {}],
        "keys": {1: "int", (1, "a"): "tuple", None: "none", "é": "text", b"b": "bytes"},
        "ordered": OrderedDict([("z", 1), ("a", 2)]),
        "default": defaultdict(list, {"k": [1]}),
        "shared": [shared, shared, (shared,)],
    }


def arrays():
    """Every element type and memory order."""
    out = {}
    for code in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"):
        for order in "<>":
            values = np.array([[0, 1, 2], [100, 7, 3]]) * (1 if code[0] == "u" else -1)
            out[f"{order}{code}"] = values.astype(order + code)
    cube = np.arange(24, dtype="<f4").reshape(2, 3, 4)
    shared = np.array([1.5, 2.5])
    ragged = np.empty(2, dtype=object)
    ragged[0], ragged[1] = np.array([1, 2], "<i4"), np.array([[3.0]])
    out |= {
        "bool": np.array([True, False, True]),
        "c": cube,
        "fortran": np.asfortranarray(cube),
        "permuted": cube.transpose(1, 0, 2),
        "permuted2": cube.transpose(2, 0, 1),
        "slice": cube[:, ::2, 1:],
        "big_fortran": np.asfortranarray(cube.astype(">f8")),
        "special": np.array([np.inf, -np.inf, 65504, 6e-8], "f2"),
        "s": np.array([b"a", b"caf\xc3\xa9", b"\xe9"], "S8"),
        "u": np.array([["你", "b", "😀c"], ["", "e", "f"]]),
        "u_big": np.array(["né", "b"]).astype(">U2"),
        "u_fortran": np.asfortranarray(np.array([["a", "bb"], ["ccc", "d"], ["e", "f"]])),
        "o": np.array(["text", "你"], dtype=object),
        "o_fortran": np.asfortranarray(np.array([["a", "b"], ["c", "d"], ["e", "f"]], dtype=object)),
        "o_mixed": np.array([None, 1, 2.5, b"b"], dtype=object),
        "ragged": ragged,
        "empty": np.zeros((0, 3), "f4"),
        "empty2": np.zeros((3, 0)),
        "zero_d": np.array(2.5),
        "zero_d_text": np.array("zero"),
        "scalars": [
            np.float32(1.5), np.float64(-2.5), np.float16(0.5), np.int8(-1), np.int64(2**62),
            np.uint64(2**63), np.bool_(True), np.str_("né"), np.bytes_(b"by"),
        ],
        "dtypes": [np.dtype("f4"), np.dtype(">i2"), np.dtype("U3")],
        "shared": [shared, shared],
    }
    return out


class Python2:
    """Writes opcodes as pickle.py and cPickle of Python 2.7 do."""

    def __init__(self, protocol):
        self.protocol = protocol
        self.out = b"\x80\x02" if protocol == 2 else b""
        self.memo = 0

    def put(self):
        if self.protocol == 0:
            self.out += b"p%d\n" % self.memo
        else:
            self.out += b"q%c" % self.memo if self.memo < 256 else b"r" + struct.pack("<I", self.memo)
        self.memo += 1

    def name(self, module, name):
        self.out += b"c%s\n%s\n" % (module, name)
        self.put()

    def tuple(self, *items, put=True):
        if not items and self.protocol:
            self.out += b")"
            return
        if self.protocol < 2 or len(items) > 3:
            self.out += b"("
        for item in items:
            item() if callable(item) else self.save(item)
        self.out += (b"\x85", b"\x86", b"\x87")[len(items) - 1] if self.protocol == 2 and 0 < len(items) < 4 else b"t"
        if put:
            self.put()

    def save(self, value):
        binary = self.protocol > 0
        if value is None:
            self.out += b"N"
        elif isinstance(value, bool):
            text = b"I01\n" if value else b"I00\n"
            self.out += (b"\x88" if value else b"\x89") if self.protocol == 2 else text
        elif isinstance(value, int) and -(2**31) <= value < 2**31:
            if not binary:
                self.out += b"I%d\n" % value
            elif 0 <= value < 256:
                self.out += b"K%c" % value
            elif 0 <= value < 65536:
                self.out += b"M" + struct.pack("<H", value)
            else:
                self.out += b"J" + struct.pack("<i", value)
        elif isinstance(value, int):
            if self.protocol == 2:
                content = pickle.encode_long(value)
                self.out += b"\x8a%c" % len(content) + content
            else:
                self.out += b"L%dL\n" % value
        elif isinstance(value, float):
            self.out += b"G" + struct.pack(">d", value) if binary else b"F%s\n" % repr(value).encode()
        elif isinstance(value, bytes):  # a str
            if not binary:
                self.out += b"S%s\n" % repr(value)[1:].encode()
            elif len(value) < 256:
                self.out += b"U%c" % len(value) + value
            else:
                self.out += b"T" + struct.pack("<i", len(value)) + value
            self.put()
        elif isinstance(value, str):  # a unicode
            if binary:
                self.out += b"X" + struct.pack("<I", len(value.encode())) + value.encode()
            else:
                value = value.replace("\\", "\\u005c").replace("\n", "\\u000a")
                self.out += b"V" + value.encode("raw-unicode-escape") + b"\n"
            self.put()
        elif isinstance(value, tuple):
            self.tuple(*value)
        elif isinstance(value, (list, dict)):
            pairs = isinstance(value, dict)
            self.out += (b"}" if pairs else b"]") if binary else (b"(d" if pairs else b"(l")
            self.put()
            items = [list(item) for item in value.items()] if pairs else [[item] for item in value]
            if binary and len(items) > 1:
                self.out += b"("
            for item in items:
                for part in item:
                    self.save(part)
                if not (binary and len(items) > 1):
                    self.out += b"s" if pairs else b"a"
            if binary and len(items) > 1:
                self.out += b"u" if pairs else b"e"
        elif isinstance(value, np.dtype):
            self.name(b"numpy", b"dtype")
            code = value.str.lstrip("<>|=").encode()
            self.tuple(code.replace(b"O", b"O8"), 0, 1)
            self.out += b"R"
            self.put()
            order = value.str[:1].encode()
            size = (value.itemsize, value.alignment) if value.kind in "SU" else (-1, -1)
            self.tuple(3, order, None, None, None, *size, 63 if value.kind == "O" else 0)
            self.out += b"b"
        elif isinstance(value, np.ndarray):
            self.name(b"numpy.core.multiarray", b"_reconstruct")
            self.tuple(lambda: self.name(b"numpy", b"ndarray"), (0,), b"b")
            self.out += b"R"
            self.put()
            content = list(value.flat) if value.dtype.kind == "O" else value.tobytes("A")
            fortran = bool(np.isfortran(value))
            self.tuple(1, value.shape, value.dtype, fortran, content)
            self.out += b"b"
        elif isinstance(value, np.generic):
            self.name(b"numpy.core.multiarray", b"scalar")
            self.tuple(value.dtype, value.tobytes())
            self.out += b"R"
            self.put()
        else:
            raise TypeError(type(value))

    def finish(self, value):
        self.save(value)
        return self.out + b"."


def python2():
    """A data set of one split as Python 2 code left it: byte strings for texts and payloads."""
    words = np.empty(2, dtype=object)
    words[:] = [b"hello", "caf\u00e9 \u4f60 \\ \n"]
    features = np.arange(2 * 40 * 4, dtype="<f4").reshape(2, 40, 4) / 8
    return {
        b"train": {
            b"features": features,
            b"fortran": np.asfortranarray(features[:, :3, :2].astype(">f8")),
            b"labels": np.array([[-1.5], [2.25]]),
            b"ids": np.array([b"a'b", b'c"\\\n'], "S4"),
            b"texts": np.array(["né", "b"], "<U2"),
            b"words": words,
            b"counts": np.array([1, -2, 3], "<i8"),
            b"mask": np.array([True, False]),
        },
        b"caf\xe9": (np.float32(0.5), np.int64(-3)),
        b"plain": [None, True, 0, 255, 65535, -1, 2**40, 1.5, u"\u4f60", b"x" * 300, (), {}, []],
    }


def same_as_latin1(value):
    """A value as Python 3 loads it with encoding="latin1": byte strings become text."""
    if isinstance(value, bytes):
        return value.decode("latin1")
    if isinstance(value, dict):
        return {same_as_latin1(k): same_as_latin1(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(same_as_latin1(v) for v in value)
    if isinstance(value, np.ndarray) and value.dtype.kind == "O":
        out = np.empty(value.shape, dtype=object)
        out.flat = [same_as_latin1(v) for v in value.flat]
        return out
    return value


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    # Above the 4 KiB from which payloads stay in the file.
    large = {"large": np.arange(-600, 600, dtype="<f4").reshape(300, 4), "text": "né" * 2000}
    readme = {"labels": np.array([[1.5], [-2.0]], "<f4"), "ids": ["a", "b"]}
    if np.__version__.startswith("1."):
        for protocol in NUMPY1:
            (OUT / f"numpy1_{protocol}.pkl").write_bytes(pickle.dumps(arrays(), protocol))
        return
    values = {"plain": plain(), "arrays": arrays(), "py2": python2(), "large": large, "readme": readme}
    files = {}

    def write(name, content, value):
        (OUT / name).write_bytes(content)
        files[name] = value

    for protocol in range(6):
        for name in ("plain", "arrays", "large", "readme"):
            if name in ("plain", "arrays") or (name, protocol) in {("large", 2), ("large", 5), ("readme", 0), ("readme", 2), ("readme", 5)}:
                content = pickle.dumps(values[name], protocol)
                assert describe(pickle.loads(content)) == describe(values[name]), (name, protocol)
                write(f"{name}_{protocol}.pkl", content, name)
    for protocol in range(3):
        content = Python2(protocol).finish(values["py2"])
        loaded = pickle.loads(content, encoding="latin1")
        assert describe(loaded) == describe(same_as_latin1(values["py2"])), protocol
        write(f"py2_{protocol}.pkl", content, "py2")

    files |= {f"numpy1_{protocol}.pkl": "arrays" for protocol in NUMPY1}
    described = {name: describe(value) for name, value in values.items()}
    text = json.dumps({"files": files} | described, separators=(",", ":"))
    (OUT / "expected.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
