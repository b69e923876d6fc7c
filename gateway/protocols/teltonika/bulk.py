"""Constructs that read many fixed-width integers with one call of ``struct``; :mod:`.wire` declares codecs with them.

As ordinary construct fields a record of 17 IO elements costs 117 us interpreted and 22 us compiled; :class:`Record`
compiles to one straight function over the body, 3 us (``python -m bench.decode``). The ``_emit...`` methods write the
text of that function: ``_data`` is the whole body, ``_at`` the place in it, and a slice that runs over the end is
short, so no count can cost more than the bytes that are there.

Everything here parses and builds, interpreted and compiled, and is big-endian, as the whole protocol is.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from io import BytesIO
from typing import Any

from construct import CheckError, Construct, FormatFieldError, StreamError, Struct, stream_read, stream_write

Value = dict[str, Any]
Pair = tuple[int, int]
Blob = tuple[int, bytes]


class Fields(Construct):  # type: ignore[misc]  # construct has no types
    """Adjacent integers: ``Fields(angle="H", satellites="B")`` parses to ``{"angle": 90, "satellites": 7}``.

    A format is one character of the ``struct`` module.
    """

    def __init__(self, **formats: str) -> None:
        super().__init__()
        self.names = tuple(formats)
        self.layout = struct.Struct(">" + "".join(formats.values()))

    def _parse(self, stream: BytesIO, context: Any, path: str) -> Value:
        values = self.layout.unpack(stream_read(stream, self.layout.size, path))
        return dict(zip(self.names, values, strict=True))

    def _build(self, obj: Value, stream: BytesIO, context: Any, path: str) -> Value:
        data = _pack(self.layout, [obj[name] for name in self.names], path)
        stream_write(stream, data, len(data), path)
        return obj

    def _sizeof(self, context: Any, path: str) -> int:
        return self.layout.size

    def _emit_lines(self, code: Any) -> list[str]:
        """Lines that read the fields into local variables of their names."""
        unpack = f"unpack_{code.allocateId()}"
        code.append(f"{unpack} = struct.Struct({self.layout.format!r}).unpack_from")
        return [f"{', '.join(self.names)}, = {unpack}(_data, _at)", f"_at += {self.layout.size}"]


class Pairs(Construct):  # type: ignore[misc]
    """A count, then so many pairs of AVL id and value of one width: ``[(239, 1), (240, 0)]``."""

    def __init__(self, count: str, avl_id: str, value: str) -> None:
        super().__init__()
        self.count = struct.Struct(">" + count)
        self.pair = struct.Struct(">" + avl_id + value)

    def _parse(self, stream: BytesIO, context: Any, path: str) -> list[Pair]:
        (count,) = self.count.unpack(stream_read(stream, self.count.size, path))
        return list(self.pair.iter_unpack(stream_read(stream, count * self.pair.size, path)))

    def _build(self, obj: list[Pair], stream: BytesIO, context: Any, path: str) -> list[Pair]:
        data = _pack(self.count, [len(obj)], path) + b"".join(_pack(self.pair, pair, path) for pair in obj)
        stream_write(stream, data, len(data), path)
        return obj

    def _emit_lines(self, code: Any, name: str) -> list[str]:
        """Lines that read the pairs into the local variable ``name``."""
        unpack = f"iter_unpack_{code.allocateId()}"
        code.append(f"{unpack} = struct.Struct({self.pair.format!r}).iter_unpack")
        return [
            f"_start = _at + {self.count.size}",
            f"_at = _start + {self.pair.size} * ({_emit_integer(self.count.size)})",
            f"{name} = list({unpack}(_data[_start:_at]))",
        ]


class Blobs(Construct):  # type: ignore[misc]
    """A count, then so many AVL ids with a value of its own length: ``[(256, b"WVW...")]``. A length may be 0."""

    def __init__(self, count: str, avl_id: str, length: str) -> None:
        super().__init__()
        self.count = struct.Struct(">" + count)
        self.head = struct.Struct(">" + avl_id + length)

    def _parse(self, stream: BytesIO, context: Any, path: str) -> list[Blob]:
        (count,) = self.count.unpack(stream_read(stream, self.count.size, path))
        return [self._parse_one(stream, path) for _ in range(count)]

    def _parse_one(self, stream: BytesIO, path: str) -> Blob:
        avl_id, length = self.head.unpack(stream_read(stream, self.head.size, path))
        return avl_id, stream_read(stream, length, path)

    def _build(self, obj: list[Blob], stream: BytesIO, context: Any, path: str) -> list[Blob]:
        blobs = (_pack(self.head, [avl_id, len(value)], path) + value for avl_id, value in obj)
        data = _pack(self.count, [len(obj)], path) + b"".join(blobs)
        stream_write(stream, data, len(data), path)
        return obj

    def _emit_lines(self, code: Any, name: str) -> list[str]:
        """Lines that read the blobs into the local variable ``name``."""
        unpack = f"unpack_{code.allocateId()}"
        code.append(f"{unpack} = struct.Struct({self.head.format!r}).unpack_from")
        return [
            f"_count = {_emit_integer(self.count.size)}",
            f"_at += {self.count.size}",
            f"{name} = []",
            "while _count:",
            f"    _id, _length = {unpack}(_data, _at)",
            f"    _start = _at + {self.head.size}",
            "    _at = _start + _length",
            f"    {name}.append((_id, _data[_start:_at]))",
            "    _count -= 1",
        ]


class Record(Construct):  # type: ignore[misc]
    """One flat dict: the fields of ``head``, then each group under its name.

    The field ``total`` of the head is the number of elements in all groups: wrong, it is a CheckError; to build, it
    need not be given. Compiled, it reads from a BytesIO only, and leaves it at the record's first byte on an error.
    """

    def __init__(self, head: Fields, **groups: Pairs | Blobs) -> None:
        super().__init__()
        self.head = head
        self.groups = groups

    def _parse(self, stream: BytesIO, context: Any, path: str) -> Value:
        record: Value = self.head._parse(stream, context, path)
        for name, group in self.groups.items():
            record[name] = group._parse(stream, context, f"{path} -> {name}")
        if record["total"] != self._total(record):
            raise CheckError("N total is not the number of IO elements", path=path)
        return record

    def _build(self, obj: Value, stream: BytesIO, context: Any, path: str) -> Value:
        obj = {**obj, "total": self._total(obj)}
        self.head._build(obj, stream, context, path)
        for name, group in self.groups.items():
            group._build(obj[name], stream, context, f"{path} -> {name}")
        return obj

    def _total(self, record: Value) -> int:
        return sum(len(record[name]) for name in self.groups)

    def _emitparse(self, code: Any) -> str:
        function = f"parse_record_{code.allocateId()}"
        read = self.head._emit_lines(code)
        for name, group in self.groups.items():
            read += group._emit_lines(code, name)
        code.append("\n".join(_emit_record(function, read, (*self.head.names, *self.groups), self.groups)))
        code.append(f"from {__name__} import ends_too_early, total_is_wrong")
        return f"{function}(io)"


class FlatStruct(Struct):  # type: ignore[misc]
    """A Struct whose members refer to each other only (``this.count``, no ``this._``).

    Compiled, its context is the dict that it returns. The context of a Struct costs as much as a record to make, and
    refers to itself: whatever was parsed then waits for the garbage collector, which halves the speed of it all.
    """

    def _emitparse(self, code: Any) -> str:
        function = f"parse_flat_struct_{code.allocateId()}"
        lines = [self._emit_line(code, member) for member in self.subcons]
        code.append("\n    ".join([f"def {function}(io):", "this = {}", *lines, "return this"]))
        return f"{function}(io)"

    def _emit_line(self, code: Any, member: Construct) -> str:
        target = f"this[{member.name!r}] = " if member.name else ""
        return target + str(member._compileparse(code))


def ends_too_early() -> StreamError:
    """What a compiled record raises when the body ends inside it."""
    return StreamError("the body ends inside a record")


def total_is_wrong() -> CheckError:
    """What a compiled record raises when N total is not the number of its IO elements."""
    return CheckError("N total is not the number of IO elements")


def _emit_record(function: str, read: list[str], names: Iterable[str], groups: Iterable[str]) -> list[str]:
    return [
        f"def {function}(io):",
        "    _data, _at = io.getvalue(), io.tell()",
        "    try:",
        *(f"        {line}" for line in read),
        "    except (IndexError, struct.error):",
        "        raise ends_too_early() from None",
        "    if _at > len_(_data):",
        "        raise ends_too_early()",
        f"    if total != {' + '.join(f'len_({name})' for name in groups)}:",
        "        raise total_is_wrong()",
        "    io.seek(_at)",
        f"    return {{{', '.join(f'{name!r}: {name}' for name in names)}}}",
    ]


def _emit_integer(size: int) -> str:
    """The integer at ``_at``; for one or two bytes, indexing beats ``unpack_from`` by half."""
    return {1: "_data[_at]", 2: "_data[_at] << 8 | _data[_at + 1]"}[size]


def _pack(layout: struct.Struct, values: Iterable[Any], path: str) -> bytes:
    try:
        return layout.pack(*values)
    except struct.error as error:
        raise FormatFieldError(str(error), path=path) from error
