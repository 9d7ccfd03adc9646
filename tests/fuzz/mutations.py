"""Small changes of files, as disks, downloads and strangers make them; each is decided by one seed.

A change may go inside: into a member of a zip (npz, checkpoints) or behind gzip, whose checksums would else catch all.
"""

from __future__ import annotations

import gzip
import io
import random
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

Random = random.Random
Mutation = Callable[[bytes, Random], bytes]

BYTES = (0x00, 0x01, 0x7F, 0x80, 0xFF, 0x0A, 0x22)
INTEGERS = (0, 1, 2, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**40, 2**63 - 1, 2**64 - 1)
NUMBERS = (b"0", b"-1", b"1", b"3", b"007", b"65537", b"4294967296", b"9223372036854775808", b"1" * 30, b"1" * 5000,
           b"1e400", b"-1e-400", b"0.5", b"NaN", b"Infinity", b"1_0", b"")  # fmt: skip
VALUES = (b"null", b"true", b"-1", b"1e400", b"NaN", b'""', b"[]", b"{}", b'"\\ud800"', b'"\\u0000"', b"[[]]",
          b'"../../up"', b'"/dev/zero"', b'"' + b"x" * 5000 + b'"', b"[" * 20_000, b'{"a":' * 20_000)  # fmt: skip
TEXTS = ("", "\0", "\ufeff", "\u2028", "\r", "\t", "..", "/", "é" * 200, "\ud7ff", "<unk>", "@@", " " * 300)
DTYPES = (b"'|O'", b"'<M8[ns]'", b"'<f2'", b"'<f8'", b"'>f4'", b"'|V4'", b"'<U99999999'", b"'|S0'", b"'|b1'", b"'<c16'",
          b"[('a', '<f4')]", b"'<f4 '", b"'<i8'", b"None", b"'f4,f4'", b"'<f17'")  # fmt: skip
SHAPES = (b"()", b"(0,)", b"(-1,)", b"(4,)", b"(99999999999,)", b"(2, 2, 2)", b"(0, 16)", b"(1 << 70,)", b"(3.0,)",
          b"[3]", b"(9223372036854775807, 16)", b"('3',)", b"None", b"(True, 4)", b"(")  # fmt: skip
_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?")
_VALUE = re.compile(rb'"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?|true|false|null|[\[\]{},:]')
_DTYPE = re.compile(rb"(?<='descr': )[^,]+(?=, )")
_SHAPE = re.compile(rb"(?<='shape': )\([^)]*\)")
_NPY = b"\x93NUMPY"


def mutated(data: bytes, chance: Random, *, inside: bool = True) -> bytes:
    """*data* with one to three changes."""
    if inside and chance.random() < 0.6:
        if data.startswith(b"PK"):
            return _within_zip(data, chance)
        if data.startswith(b"\x1f\x8b"):
            return gzip.compress(mutated(gzip.decompress(data), chance, inside=False), mtime=0)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        data = chance.choice(_fitting(data))(data, chance)
    return data


def mutate_folder(folder: Path, chance: Random) -> str:
    """Change one file below *folder*, or two with each other; what was done, in words."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    file = chance.choice(files)
    name = file.relative_to(folder).as_posix()
    way = chance.random()
    if way < 0.01:
        file.unlink()
        return f"{name} taken away"
    if way < 0.02:
        file.write_bytes(b"")
        return f"{name} emptied"
    if way < 0.03:
        file.unlink()
        file.mkdir()
        return f"{name} is a folder"
    if way < 0.05 and len(files) > 1:
        other = chance.choice([each for each in files if each != file])
        one, two = file.read_bytes(), other.read_bytes()
        file.write_bytes(two)
        other.write_bytes(one)
        return f"{name} and {other.relative_to(folder).as_posix()} exchanged"
    file.write_bytes(mutated(file.read_bytes(), chance))
    return f"{name} changed"


def _fitting(data: bytes) -> list[Mutation]:
    ways: list[Mutation] = [_flip_bits, _set_byte, _set_integer, _cut, _leave_out, _double, _move, _insert]
    head = data[: 1 << 16]
    if head.startswith(_NPY):
        ways += [_npy_header] * 6
    elif b"\0" not in head[:64]:
        ways += [_number, _number, _value, _value, _value, _text]
    elif _VALUE.search(head[:512]):
        ways += [_number, _value]  # safetensors, npy in others
    return ways


def _place(data: bytes, chance: Random) -> int:
    """Where: half of the time in the first bytes or the last, where headers are."""
    size = max(len(data), 1)
    way = chance.random()
    if way < 0.35:
        return chance.randrange(min(size, 256))
    if way < 0.5:
        return size - 1 - chance.randrange(min(size, 256))
    return chance.randrange(size)


def _flip_bits(data: bytes, chance: Random) -> bytes:
    changed = bytearray(data or b"\0")
    for _ in range(chance.choice((1, 1, 2, 8))):
        changed[_place(data, chance)] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _set_byte(data: bytes, chance: Random) -> bytes:
    at = _place(data, chance)
    return data[:at] + bytes([chance.choice(BYTES)]) + data[at + 1 :]


def _set_integer(data: bytes, chance: Random) -> bytes:
    size = chance.choice((2, 4, 8))
    at = _place(data, chance) // size * size
    value = (chance.choice(INTEGERS) % (1 << 8 * size)).to_bytes(size, chance.choice(("little", "big")))
    return data[:at] + value + data[at + size :]


def _cut(data: bytes, chance: Random) -> bytes:
    return data[: chance.randrange(len(data) + 1)]


def _piece(data: bytes, chance: Random) -> tuple[int, int]:
    at = _place(data, chance)
    return at, min(at + chance.choice((1, 4, 16, 200, 4096)), len(data))


def _leave_out(data: bytes, chance: Random) -> bytes:
    begin, end = _piece(data, chance)
    return data[:begin] + data[end:]


def _double(data: bytes, chance: Random) -> bytes:
    begin, end = _piece(data, chance)
    return data[:end] + data[begin:]


def _move(data: bytes, chance: Random) -> bytes:
    begin, end = _piece(data, chance)
    to = _place(data, chance)
    return data[:to] + data[begin:end] + data[to + end - begin :]


def _insert(data: bytes, chance: Random) -> bytes:
    at = _place(data, chance)
    return data[:at] + chance.randbytes(chance.choice((1, 2, 7, 300))) + data[at:]


def _replace_match(pattern: re.Pattern[bytes], values: tuple[bytes, ...]) -> Mutation:
    def change(data: bytes, chance: Random) -> bytes:
        # of a large file only a window is searched
        start = 0 if len(data) < 1 << 15 else chance.randrange(len(data) - (1 << 14))
        found = list(pattern.finditer(data, start, start + (1 << 15)))
        if not found:
            return _flip_bits(data, chance)
        match = chance.choice(found)
        return data[: match.start()] + chance.choice(values) + data[match.end() :]

    return change


_number = _replace_match(_NUMBER, NUMBERS)
_value = _replace_match(_VALUE, VALUES)


def _text(data: bytes, chance: Random) -> bytes:
    at = _place(data, chance)
    return data[:at] + chance.choice(TEXTS).encode("utf-8", "surrogatepass") + data[at:]


def _npy_header(data: bytes, chance: Random) -> bytes:
    """Another type, another shape, or any damage, in a header whose length is right again."""
    size = int.from_bytes(data[8:10], "little") if data[6:7] == b"\x01" else 0
    header, rest = data[10 : 10 + size], data[10 + size :]
    way = chance.randrange(3)
    if way == 0:
        header = _DTYPE.sub(lambda _: chance.choice(DTYPES), header, count=1)
    elif way == 1:
        header = _SHAPE.sub(lambda _: chance.choice(SHAPES), header, count=1)
    else:
        header = chance.choice((_flip_bits, _set_byte, _leave_out, _insert, _double))(header, chance)
    return data[:8] + (len(header) % (1 << 16)).to_bytes(2, "little") + header + rest


def _within_zip(data: bytes, chance: Random) -> bytes:
    """One member changed, and its checksum with it."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [(info, archive.read(info)) for info in archive.infolist()]
    except (zipfile.BadZipFile, NotImplementedError):
        return mutated(data, chance, inside=False)
    chosen = chance.randrange(len(members))
    # a checkpoint's structure is one small pickle among many tensors
    pickles = [place for place, (info, _) in enumerate(members) if info.filename.endswith(".pkl")]
    chosen = chance.choice(pickles) if pickles and chance.random() < 0.7 else chosen
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w") as archive:
        for place, (info, content) in enumerate(members):
            archive.writestr(info, mutated(content, chance, inside=False) if place == chosen else content)
    return output.getvalue()
