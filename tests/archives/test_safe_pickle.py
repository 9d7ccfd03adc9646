"""Pickles of published archives: what is read, in every protocol, and what is refused without being run."""

from __future__ import annotations

import pickle
import pickletools
import struct
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.archives import layouts
from xgpt_fairseq.archives import safe_pickle
from xgpt_fairseq.errors import DataError


def same(found: Any, expected: Any) -> bool:
    """Whether both are equal, of the same types and dtypes, all the way down."""
    if isinstance(expected, np.ndarray):
        if not (type(found) is np.ndarray and found.dtype == expected.dtype and found.shape == expected.shape):
            return False
        if expected.dtype.hasobject:
            return all(same(a, b) for a, b in zip(found.flat, expected.flat, strict=True))
        return bool(np.array_equal(found, expected, equal_nan=expected.dtype.kind in "fc"))
    if type(found) is not type(expected):
        return False
    if isinstance(expected, dict):
        return list(found) == list(expected) and all(same(found[key], expected[key]) for key in expected)
    if isinstance(expected, list | tuple):
        return len(found) == len(expected) and all(map(same, found, expected))
    return bool(found == expected)


PLAIN: list[Any] = [
    None, True, 12345678901234567890, -1.5, 2j, "grün", b"\x00\xff", b"", bytearray(b"ab"), bytearray(), [1, [2, ()]],
    {"a": {1: None}, (1, "b"): [b"c"]}, {1, "a"}, frozenset({2.5}), set(),
    np.float32(1.5), np.int64(-3), np.bool_(True), np.str_("ab"), np.float64(np.pi),
    np.arange(12, dtype=np.float32).reshape(3, 4), np.arange(6, dtype=">i2").reshape(2, 3),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.arange(24).reshape(2, 3, 4).transpose(1, 2, 0),
    np.arange(24, dtype=np.float16).reshape(2, 3, 4).transpose(1, 0, 2)[:, ::2],
    np.zeros((0, 4), dtype=np.float32), np.array(3.0), np.array(["a", "bcd"]), np.array([b"a", b"bcd"]),
    np.array([True, False]), np.array([1 + 2j]), np.array({"a": np.ones(2)}, dtype=object),
    np.array([[None, "x"], [1, b"y"]], dtype=object), np.ones((1, 1), dtype=np.uint8),
]  # fmt: skip


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("core", ["numpy.core", "numpy._core"])
def test_everything_plain_comes_back(protocol: int, core: str) -> None:
    for value in (*PLAIN, PLAIN, {"all": PLAIN}):
        data = of_numpy(core, pickle.dumps(value, protocol))
        assert same(safe_pickle.loads(data, "x"), value), value


def of_numpy(core: str, data: bytes) -> bytes:
    """The (short) pickle as the numpy writes it whose inner module is called *core*."""
    for module in ("multiarray", "numeric"):
        new, old = f"{core}.{module}".encode(), f"numpy._core.{module}".encode()
        data = data.replace(b"c" + old + b"\n", b"c" + new + b"\n")  # protocols 0 to 3
        data = data.replace(b"\x8c" + bytes([len(old)]) + old, b"\x8c" + bytes([len(new)]) + new)  # 4 and 5
    framed = data[2:3] == b"\x95"  # from protocol 4 on; the frame's length is not right any more
    return data[:2] + data[11:] if framed else data


@given(
    hnp.arrays(
        dtype=st.one_of(
            hnp.floating_dtypes(endianness="?"), hnp.integer_dtypes(), hnp.unicode_string_dtypes(max_len=4)
        ),
        shape=hnp.array_shapes(min_dims=0, max_dims=3, max_side=4, min_side=0),
    ),
    st.integers(0, 5),
    st.permutations(range(3)),
)
def test_any_array_comes_back(array: np.ndarray, protocol: int, axes: list[int]) -> None:
    array = array.transpose([axis for axis in axes if axis < array.ndim])
    assert same(safe_pickle.loads(pickle.dumps(array, protocol), "x"), array)


def test_what_python_2_wrote() -> None:
    """Strings of bytes, in protocol 2: an array, and text, as numpy 1.16 and Python 2.7 wrote them."""
    array = np.arange(3, dtype="<f4")
    raw = array.tobytes()
    pickled = (
        b"\x80\x02}q\x00(U\x04bboxq\x01cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85q\x04"
        b"U\x01bq\x05\x87q\x06Rq\x07(K\x01K\x03\x85q\x08cnumpy\ndtype\nq\tU\x02f4q\nK\x00K\x01\x87q\x0bRq\x0c(K\x03U"
        b"\x01<q\rNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x0eb\x89U" + bytes([len(raw)]) + raw + b"q\x0ftq\x10b"
        b"U\x08image_idq\x11U\x03\xe9taq\x12u."
    )
    assert same(safe_pickle.loads(pickled, "x"), {"bbox": array, "image_id": "éta"})


def test_the_same_thing_in_many_places_is_read_once() -> None:
    value: Any = [np.ones(2)]
    for _ in range(25):
        value = [value, value]  # 2 ** 25 paths
    found = safe_pickle.loads(pickle.dumps(value), "x")
    assert found[0] is found[1]


# Refused


class Run:
    """Pickles as a call of *function*."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def malicious(file: Path) -> Any:
    """What creates *file* when it is unpickled."""
    return Run(exec, f"import pathlib; pathlib.Path({str(file)!r}).touch()")


def test_the_payload_works(tmp_path: Path) -> None:
    """Or the tests that it is refused would show nothing."""
    pickle.loads(pickle.dumps(malicious(tmp_path / "created")))
    assert (tmp_path / "created").exists()


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("place", [
    lambda evil: evil, lambda evil: {"a": [evil]}, lambda evil: (1, evil), lambda evil: {evil: 1},
    lambda evil: np.array([1, evil], dtype=object), lambda evil: np.array({"bbox": evil}, dtype=object),
])  # fmt: skip
def test_code_is_not_run(protocol: int, place: Callable[[Any], Any], tmp_path: Path) -> None:
    data = pickle.dumps(place(malicious(tmp_path / "created")), protocol)
    with pytest.raises(DataError, match=r"^a\.lmdb, item 5: its pickle asks for \w+\.exec, which is refused and was"):
        safe_pickle.loads(data, "a.lmdb, item 5")
    assert not (tmp_path / "created").exists()


def test_code_in_an_info_file_is_not_run(tmp_path: Path) -> None:
    from xgpt_fairseq.archives.mmf_npy import load_dictionary

    image = layouts.made_up(5)
    np.save(tmp_path / "5_info.npy", layouts.mmf_info(image) | {"more": malicious(tmp_path / "created")})
    with pytest.raises(DataError, match=r"5_info\.npy: its pickle asks for builtins\.exec"):
        load_dictionary(tmp_path / "5_info.npy")
    assert not (tmp_path / "created").exists()
    np.load(tmp_path / "5_info.npy", allow_pickle=True)
    assert (tmp_path / "created").exists()


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


DTYPE = name("numpy", "dtype")
F4 = DTYPE + text("f4") + b"\x85R"
RECONSTRUCT = name("numpy.core.multiarray", "_reconstruct")
ARRAY = RECONSTRUCT + name("numpy", "ndarray") + b"K\x00\x85C\x01b\x87R"

REFUSED = {
    "another function of numpy": (name("numpy", "load") + text("/etc/passwd") + b"\x85R", "numpy.load"),
    "a name with a dot": (b"\x80\x04" + text("numpy") + text("dtype.mro") + b"\x93", "numpy.dtype.mro"),
    "getattr": (name("__builtin__", "getattr"), "__builtin__.getattr"),
    "a name alone": (name("numpy", "dtype"), "the name of a function or type as a value"),
    "a structure": (DTYPE + text("V8") + b"\x85R", "numpy.dtype('V8')"),
    "a date": (DTYPE + text("M8[s]") + b"\x85R", "numpy.dtype('M8[s]')"),
    "a dtype of a list": (DTYPE + b"]\x85R", "numpy.dtype([])"),
    "a dtype with fields": (F4 + b"(K\x03" + text("<") + b"N" + text("a") + b"\x85}tb", "a numpy.dtype with fields"),
    "a dtype of no known order": (F4 + b"(K\x03" + text("x") + b"NNNtb", "a numpy.dtype with the state"),
    "an array of a class": (RECONSTRUCT + name("numpy", "dtype") + b"K\x00\x85C\x01b\x87R", "an array of a class of"),
    "a call of ndarray": (name("numpy", "ndarray") + b"K\x05\x85\x85R", "a call of numpy.ndarray"),
    "an array without a state": (ARRAY, "an array that holds nothing"),
    "an array without a dtype": (ARRAY + b"(K\x01K\x01\x85N\x89C\x04abcdtb", "an array without a dtype"),
    "an array larger than its data": (ARRAY + b"(K\x01K\x09\x85" + F4 + b"\x89C\x04abcdtb", "9 numbers of type"),
    "an array of a negative shape": (ARRAY + b"(K\x01J\xff\xff\xff\xff\x85" + F4 + b"\x89C\x04abcdtb", "shape (-1,)"),
    "an array of numbers of objects": (ARRAY + b"(K\x01K\x01\x85" + F4 + b"\x89]K\x01atb", "in list"),
    "objects in bytes": (ARRAY + b"(K\x01K\x01\x85" + DTYPE + text("O8") + b"\x85R\x89C\x08abcdefghtb", "of 1 objects"),
    "a state of an array": (ARRAY + b"K\x01b", "an array with an unknown state"),
    "a scalar of an object": (
        name("numpy.core.multiarray", "scalar") + DTYPE + text("O") + b"\x85RK\x01\x86R", "a scalar that is not"
    ),
    "more bytes than memory": (name("__builtin__", "bytearray") + b"J\xff\xff\xff\x7f\x85R", "bytearray of int"),
    "zeros": (name("__builtin__", "bytes") + b"J\xff\xff\xff\x7f\x85R", "bytes of int"),
    "a set of a string": (name("__builtin__", "set") + text("abc") + b"\x85R", "a set of str"),
    "another encoding": (name("_codecs", "encode") + text("a") + text("rot13") + b"\x86R", "_codecs.encode to 'rot13'"),
    "a new meaning of a name": (F4[: len(DTYPE)] + b"}" + text("dtype") + text("x") + b"sb", "a change of what a name"),
    "an attribute of a name": (DTYPE + b"}}" + text("__call__") + text("x") + b"s\x86b", "a change of what a name"),
    "a dictionary by an array": (b"}" + ARRAY + b"K\x01s", "a dictionary key or set element"),
    "a set by a tuple of an array": (b"\x80\x04\x8f(" + ARRAY + b"\x85\x90", "a dictionary key or set element"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_refused(kind: str) -> None:
    program, message = REFUSED[kind]
    list(pickletools.genops(program + b"."))  # it is a pickle
    with pytest.raises(DataError) as raised:
        safe_pickle.loads(program + b".", "here")
    assert str(raised.value).startswith("here: its pickle asks for ")
    assert message in str(raised.value)
    assert "which is refused and was not run" in str(raised.value)


def test_other_containers_are_refused() -> None:
    with pytest.raises(DataError, match=r"asks for collections\.OrderedDict"):
        safe_pickle.loads(pickle.dumps(OrderedDict(a=1)), "x")


def test_containers_that_hold_themselves() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(DataError, match="containers nested more than 30 deep"):
        safe_pickle.loads(pickle.dumps(value), "x")


def test_refusals_change_nothing() -> None:
    """After all of these, names mean what they meant."""
    for program, _ in REFUSED.values():
        with pytest.raises(DataError):
            safe_pickle.loads(program + b".", "x")
    assert same(safe_pickle.loads(pickle.dumps(PLAIN), "x"), PLAIN)


@given(st.integers(0, 5), st.data())
def test_damaged_pickles(protocol: int, data: st.DataObject) -> None:
    """Cut, or with a byte changed: an error that names the place, or a value."""
    pickled = bytearray(pickle.dumps({"bbox": np.ones((2, 4)), "n": 2, "x": [b"a", "b"]}, protocol))
    place = data.draw(st.integers(0, len(pickled) - 1))
    damaged = bytes(pickled[:place])
    if data.draw(st.booleans()):
        pickled[place] = data.draw(st.integers(0, 255))
        damaged = bytes(pickled)
    try:
        safe_pickle.loads(damaged, "here")
    except DataError as error:
        assert str(error).startswith("here: its pickle ")


@given(st.binary(max_size=60))
def test_any_bytes(data: bytes) -> None:
    try:
        safe_pickle.loads(data, "here")
    except DataError as error:
        assert str(error).startswith("here: its pickle ")
