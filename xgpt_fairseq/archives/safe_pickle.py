"""Reads pickles of published archives without running any code that they name.

A pickle is a program that calls functions by name. This module allows the few names that arrays, numbers, strings and
plain containers need, and maps each to a function of its own. numpy's reconstruction never runs on untrusted data,
since a forged dtype alone can make numpy interpret bytes as pointers. Every other name is refused. Protocols 0 to 5 of
Python 2 (whose strings are read as Latin-1) and 3, of numpy 1 and 2, are supported.
"""

from __future__ import annotations

import io
import math
import pickle
import re
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from xgpt_fairseq.errors import DataError

# Booleans, integers, floats, complex numbers, fixed-width bytes and text, objects. Structures and dates are refused.
_DTYPE: Final = re.compile(r"[biufc]\d{1,2}|[SU]\d{1,9}|O8?")
_PLAIN: Final = frozenset({type(None), bool, int, float, complex, str, bytes, bytearray})
_MAX_DEPTH: Final = 30


class _Refused(Exception):
    """The pickle contains something that is not allowed; the message says what."""


class _Dtype:
    """Replaces `numpy.dtype`: the name of a simple type, and its byte order."""

    __slots__ = ("dtype",)

    def __init__(self, name: Any, align: Any = False, copy: Any = False) -> None:
        if not (isinstance(name, str) and _DTYPE.fullmatch(name)):
            raise _Refused(f"numpy.dtype({name!r})")
        self.dtype = np.dtype(name)

    def __setstate__(self, state: Any) -> None:
        # (version, byte order, subarray, names, fields, size, alignment, flags)
        if not (isinstance(state, tuple) and len(state) >= 5 and state[1] in ("<", ">", "=", "|")):
            raise _Refused(f"a numpy.dtype with the state {state!r}")
        if any(part is not None for part in state[2:5]):
            raise _Refused("a numpy.dtype with fields")
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """An array as created by `_reconstruct`; its contents follow later."""

    __slots__ = ("value",)

    def __init__(self, kind: Any, shape: Any, typecode: Any) -> None:
        if kind is not _NDARRAY:
            raise _Refused("an array of a class of its own")
        self.value: npt.NDArray[Any] | None = None

    def __setstate__(self, state: Any) -> None:
        # ([version,] shape, dtype, whether in Fortran order, contents)
        if not (isinstance(state, tuple) and len(state) in (4, 5)):
            raise _Refused("an array with an unknown state")
        shape, dtype, fortran, data = state[-4:]
        self.value = _fill(data, dtype, shape, "F" if fortran else "C")


class _Global:
    """The object behind an allowed name: it can only be called (a pickle could also set attributes)."""

    __slots__ = ("_function",)

    _function: Callable[..., Any]

    def __init__(self, function: Callable[..., Any]) -> None:
        object.__setattr__(self, "_function", function)

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setattr__(self, name: str, value: Any) -> None:
        raise _Refused("a change of what a name means")

    def __setstate__(self, state: Any) -> None:
        raise _Refused("a change of what a name means")


def _fill(data: Any, dtype: Any, shape: Any, order: str) -> npt.NDArray[Any]:
    if not isinstance(dtype, _Dtype):
        raise _Refused("an array without a dtype")
    if not (isinstance(shape, tuple) and all(type(size) is int and size >= 0 for size in shape)):
        raise _Refused(f"an array of shape {shape!r}")
    count = math.prod(shape)
    if dtype.dtype.hasobject:
        if not (type(data) is list and len(data) == count):
            raise _Refused(f"an array of {count} objects that holds a different number")
        objects = np.empty(count, dtype=object)
        for index, value in enumerate(data):
            objects[index] = value
        return objects.reshape(shape)
    return _numbers(data, dtype.dtype, count).reshape(shape, order="F" if order == "F" else "C")


def _numbers(data: Any, dtype: np.dtype[Any], count: int) -> npt.NDArray[Any]:
    if isinstance(data, str):  # Python 2 wrote bytes as a string
        data = data.encode("latin1")
    if type(data) not in (bytes, bytearray) or len(data) != count * dtype.itemsize:
        size = f"{len(data)} bytes" if type(data) in (bytes, bytearray) else type(data).__name__
        raise _Refused(f"{count} numbers of type {dtype} in {size}")
    return np.frombuffer(data, dtype=dtype) if data else np.empty(count, dtype=dtype)


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any, axis_order: Any = None) -> _Array:
    """`_frombuffer` of protocol 5. With *axis_order* (from numpy 2.3) the axes are stored in another order."""
    array = _Array(_NDARRAY, None, None)
    array.value = _fill(data, dtype, shape, order)
    if axis_order is not None:
        if not (isinstance(axis_order, tuple) and all(type(axis) is int for axis in axis_order)):
            raise _Refused(f"an array whose axes are {axis_order!r}")
        array.value = array.value.transpose(axis_order)
    return array


def _scalar(dtype: Any, data: Any) -> Any:
    if not isinstance(dtype, _Dtype) or dtype.dtype.hasobject:
        raise _Refused("a scalar that is not a number or text")
    return _numbers(data, dtype.dtype, 1)[0]


def _encode(text: Any, encoding: Any) -> bytes:
    """`_codecs.encode`, with which Python 3 writes bytes in protocols 0 to 2."""
    if not isinstance(text, str) or encoding != "latin1":
        raise _Refused(f"_codecs.encode to {encoding!r}")
    return text.encode("latin1")


def _bytes(data: Any = b"") -> bytes:
    return bytes(_copied(data, "bytes"))


def _bytearray(data: Any = b"", encoding: Any = "latin1") -> bytearray:
    return bytearray(_encode(data, encoding) if isinstance(data, str) else _copied(data, "bytearray"))


def _copied(data: Any, name: str) -> bytes:
    if not isinstance(data, bytes):  # a number n would give n zeros
        raise _Refused(f"{name} of {type(data).__name__}")
    return data


def _complex(real: Any, imaginary: Any) -> complex:
    if not (type(real) is float and type(imaginary) is float):
        raise _Refused(f"complex of {type(real).__name__}")
    return complex(real, imaginary)


def _set(items: Any = ()) -> set[Any]:
    return set(_items(items))


def _frozenset(items: Any = ()) -> frozenset[Any]:
    return frozenset(_items(items))


def _items(items: Any) -> list[Any] | tuple[Any, ...]:
    if type(items) not in (list, tuple):
        raise _Refused(f"a set of {type(items).__name__}")
    plain: list[Any] | tuple[Any, ...] = items
    return plain


def _no_array(*arguments: Any) -> Any:
    raise _Refused("a call of numpy.ndarray")


_NDARRAY: Final = _Global(_no_array)
_GLOBALS: Final = {
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _Global(_Dtype),
    ("_codecs", "encode"): _Global(_encode),
}
_GLOBALS.update(
    {
        (f"{core}.{module}", name): _Global(function)
        for core in ("numpy.core", "numpy._core")  # numpy 1, numpy 2
        for module, name, function in (
            ("multiarray", "_reconstruct", _Array),
            ("multiarray", "scalar", _scalar),
            ("numeric", "_frombuffer", _from_buffer),
        )
    }
)
_GLOBALS.update(
    {
        (module, name): _Global(function)
        for module in ("builtins", "__builtin__")  # Python 3; Python 2, and Python 3 in protocols 0 to 2
        for name, function in (
            ("bytes", _bytes),
            ("bytearray", _bytearray),
            ("complex", _complex),
            ("set", _set),
            ("frozenset", _frozenset),
        )
    }
)


class _Unpickler(pickle._Unpickler):
    """Pure-Python unpickler: the C one pre-allocates a memo whose size the pickle controls."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _GLOBALS[module, name]
        except KeyError:
            raise _Refused(f"{module}.{name}") from None


def loads(data: bytes, where: str) -> Any:
    """Load the pickle *data*.

    It may contain None, bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset, numpy
    scalars and numpy arrays, also of objects.

    Args:
        where: the file and the record, for messages.

    Raises:
        DataError: the pickle needs anything else, or is damaged. No code of it has been run.
    """
    try:
        return _plain(_Unpickler(io.BytesIO(data), encoding="latin1").load(), 0, {})
    except _Refused as refused:
        raise DataError(
            f"{where}: its pickle asks for {refused}, which is refused and was not run: only numpy arrays, numbers, "
            "strings and plain containers are read"
        ) from None
    except Exception as error:  # a damaged pickle can raise almost anything
        raise DataError(f"{where}: its pickle is not readable ({type(error).__name__}: {error})") from None


def _plain(value: Any, depth: int, known: dict[int, Any]) -> Any:
    """*value* with its placeholders replaced by real arrays. Refuses everything that is not plain data.

    Args:
        known: results by identity, so that shared objects are converted once.
    """
    kind = type(value)
    if kind in _PLAIN or isinstance(value, np.generic):
        return value
    if id(value) in known:
        return known[id(value)]
    if depth > _MAX_DEPTH:
        raise _Refused(f"containers nested more than {_MAX_DEPTH} deep")
    result: Any
    if kind is _Array:
        result = value.value
        if result is None:
            raise _Refused("an array that holds nothing")
        if result.dtype.hasobject:
            flat = result.reshape(-1)
            for index in range(flat.size):
                flat[index] = _plain(flat[index], depth + 1, known)
    elif kind is dict:
        result = {_plain_key(key): _plain(item, depth + 1, known) for key, item in value.items()}
    elif kind in (list, tuple):
        result = kind([_plain(item, depth + 1, known) for item in value])
    elif kind in (set, frozenset):
        result = kind([_plain_key(item) for item in value])
    else:
        raise _Refused("the name of a function or type as a value")
    known[id(value)] = result
    return result


def _plain_key(key: Any) -> Any:
    if type(key) is tuple:
        return tuple(_plain_key(part) for part in key)
    if type(key) in _PLAIN or isinstance(key, np.generic):
        return key
    raise _Refused("a dictionary key or set element other than a number or string")
