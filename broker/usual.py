"""Reads records in the form that we write ourselves, by functions made from their schemas.

Made as source, like the `__init__` of quick.py: one function for each kind of record, no call and no dict for a field.
What it reads is what fastavro reads, or it raises (tests hold them equal). What is wrong with other bytes is fastavro's
to say.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from itertools import count
from types import UnionType
from typing import Any

from broker.quick import maker

Reader = Callable[[bytes], Any]
"""Gives the value. Raises IndexError or ValueError for anything but one whole record in the usual form."""
Made = Callable[[Any], Any]

_SIZE = ("n = data[at]", "if n & 0x81:", "    n, at = _size(data, at)", "else:", "    n >>= 1", "    at += 1")
_NUMBER = (
    "{0} = data[at]", "at += 1", "if {0} & 0x80:", "    {0}, at = _number(data, at - 1)",
    "else:", "    {0} = {0} >> 1 ^ -({0} & 1)",
)  # fmt: skip
_PLAIN: Mapping[str, tuple[str, ...]] = {
    "int": _NUMBER,
    "long": _NUMBER,
    "string": (*_SIZE, "{0} = data[at:at + n].decode()", "at += n"),
    "bytes": (*_SIZE, "{0} = data[at:at + n]", "at += n"),
    "boolean": ("n = data[at]", "at += 1", "if n > 1:", "    raise ValueError", "{0} = n == 1"),
}
"""Source that reads a plain type into the variable {0}. A slice may be cut short: then `at` is behind the end for good,
where every index raises, and so does the last comparison."""


def reader(kind: type, head: bytes, schema: Any, made: Mapping[type, Made], changed: Mapping[str, Made]) -> Reader:
    """Make the reader of a dataclass from a schema of its record, whose bytes begin with `head`.

    A field that this version has not is given its default. `made` makes the values of some dataclasses from the record
    as a dict; `changed` converts fields of `kind`.
    """
    return _reader(kind, head, schema, made, changed, "at != len(data)")


def beginning(kind: type, head: bytes, schema: Any) -> Reader:
    """Make the reader of a dataclass whose fields are the first of a record; what follows them is not looked at."""
    first = {**schema, "fields": schema["fields"][: len(fields(kind))]}
    return _reader(kind, head, first, {}, {}, "at > len(data)")


def _reader(
    kind: type, head: bytes, schema: Any, made: Mapping[type, Made], changed: Mapping[str, Made], wrong: str
) -> Reader:
    maker = _Maker(made)
    result = maker.record(schema, kind, changed)
    body = "\n    ".join((
        f"if data[:{len(head)}] != _head or type(data) is not bytes:", "    raise ValueError", f"at = {len(head)}",
        *maker.lines, f"if {wrong}:", "    raise ValueError", f"return {result}",
    ))  # fmt: skip
    names = maker.names | {"_head": head, "_size": _size, "_number": _number}
    exec(f"def read(data):\n    {body}", names)  # noqa: S102 - names of fields, as in dataclasses itself
    read: Reader = names["read"]
    return read


class _Maker:
    """Writes the source, one variable for each value; its methods give the variable into which they read."""

    def __init__(self, made: Mapping[type, Made]) -> None:
        self.lines: list[str] = []
        self.names: dict[str, Any] = {}
        self._made, self._numbers, self._indent = made, count(), ""
        self._defined: dict[str, Any] = {}

    def record(self, schema: Any, kind: type, changed: Mapping[str, Made]) -> str:
        """Read a record, its fields in the schema's order, and make the dataclass of it."""
        hints = typing.get_type_hints(kind) if is_dataclass(kind) else {}
        read = {each["name"]: self._value(each["type"], hints.get(each["name"])) for each in schema["fields"]}
        for name, convert in changed.items():
            if name not in read:
                continue
            self._say(f"{read[name]} = {self._named(convert)}({read[name]})")
        if kind in self._made or not is_dataclass(kind):
            pairs = "{" + ", ".join(f"{name!r}: {variable}" for name, variable in read.items()) + "}"
            return self._into(f"{self._named(self._made[kind])}({pairs})" if kind in self._made else pairs)
        values = [read.get(each.name) or self._default(each) for each in fields(kind)]
        return self._into(f"{self._named(maker(kind))}({', '.join(values)})")

    def _default(self, field: Field[Any]) -> str:
        if field.default is MISSING:
            raise NotImplementedError(field.name)
        return self._named(field.default)

    def _value(self, schema: Any, hint: Any) -> str:
        if isinstance(schema, list):
            return self._optional(schema, hint)
        if isinstance(schema, dict) and "name" in schema:
            self._defined[schema["name"]] = schema
        if isinstance(schema, str):
            schema = self._defined.get(schema, schema)
        if isinstance(schema, str):
            variable = self._variable()
            self._say(*(line.format(variable) for line in _PLAIN[schema]))
            return variable
        match schema["type"]:
            case "record":
                return self.record(schema, hint, {})
            case "array":
                return self._array(schema["items"], hint)
            case "fixed":
                variable = self._into(f"data[at:at + {schema['size']}]")
                self._say(f"at += {schema['size']}")
                return variable
            case other:
                raise NotImplementedError(other)

    def _optional(self, schema: list[Any], hint: Any) -> str:
        """Read a union of null and something else."""
        null, other = schema
        if null != "null":
            raise NotImplementedError(schema)
        inner = next((each for each in typing.get_args(hint) if each is not type(None)), None)
        variable = self._variable()
        self._say("n = data[at]", "at += 1", "if n == 2:")
        other_one = self._indented(lambda: self._value(other, inner if isinstance(hint, UnionType) else hint))
        self._say(f"    {variable} = {other_one}", "elif n:", "    raise ValueError", "else:", f"    {variable} = None")
        return variable

    def _array(self, items: Any, hint: Any) -> str:
        """Read an array of one block. Every item takes a byte at least, so a count beyond the bytes is none."""
        variable = self._variable()
        self._say(*_SIZE, "if n > len(data):", "    raise ValueError")
        self._say("if n:", f"    {variable} = []", "    for _ in range(n):")
        inner = (typing.get_args(hint) or (None,))[0]
        item = self._indented(lambda: self._value(items, inner), 2)
        self._say(f"        {variable}.append({item})", "    if data[at]:", "        raise ValueError", "    at += 1")
        self._say(f"    {variable} = tuple({variable})", "else:", f"    {variable} = ()")
        return variable

    def _indented(self, act: Callable[[], str], levels: int = 1) -> str:
        before, self._indent = self._indent, self._indent + "    " * levels
        variable = act()
        self._indent = before
        return variable

    def _say(self, *lines: str) -> None:
        self.lines += [self._indent + line for line in lines]

    def _variable(self) -> str:
        return f"v{next(self._numbers)}"

    def _into(self, expression: str) -> str:
        variable = self._variable()
        self._say(f"{variable} = {expression}")
        return variable

    def _named(self, value: Any) -> str:
        name = f"_{len(self.names)}"
        self.names[name] = value
        return name


_NUMBER_BYTES = 9
"""Numbers of ten bytes are fastavro's: only some of them fit 64 bits."""


def _number(data: bytes, at: int) -> tuple[int, int]:
    raw = 0
    for place in range(_NUMBER_BYTES):
        byte = data[at + place]
        raw |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return raw >> 1 ^ -(raw & 1), at + place + 1
    raise ValueError


def _size(data: bytes, at: int) -> tuple[int, int]:
    size, at = _number(data, at)
    if size < 0:
        raise ValueError
    return size, at
