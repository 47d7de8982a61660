"""Values of notice.py ⇄ plain nested tuples, which pass cheaply from one process of ours to another.

Both ways are one expression for each kind of value, made from its fields as in quick.py.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Any, TypeVar

from broker.quick import maker

T = TypeVar("T")
Converter = Callable[[Any], Any]
Writer = Callable[[type, str], str]
"""Writes the expression that converts a dataclass; the second argument is the expression that gives it."""


def flatten(value: object) -> tuple[Any, ...]:
    """Give the fields of a frozen dataclass in their order, nested values flattened likewise."""
    kind: type = type(value)
    flat: tuple[Any, ...] = _flattener(kind)(value)
    return flat


def raised(kind: type[T], flat: tuple[Any, ...]) -> T:
    """Make the value again from what `flatten` gave."""
    plain: type = kind
    value: T = _raiser(plain)(flat)
    return value


@cache
def _flattener(kind: type) -> Converter:
    def flattened(of: type, it: str) -> str:
        made = _each(of, [f"{it}.{each.name}" for each in fields(of)], flattened)
        return f"({', '.join(made)},)"

    return _made(flattened(kind, "value"), {})


@cache
def _raiser(kind: type) -> Converter:
    kinds: dict[str, Any] = {}

    def raised(of: type, it: str) -> str:
        kinds[of.__name__] = maker(of)
        flat = [f"{it}[{place}]" for place in range(len(fields(of)))]
        made = _each(of, flat, raised)
        return f"{of.__name__}({f'*{it}' if made == flat else ', '.join(made)})"

    return _made(raised(kind, "value"), kinds)


def _made(expression: str, names: dict[str, Any]) -> Converter:
    made: Converter = eval(f"lambda value: {expression}", names)  # noqa: S307 - names of fields, as in quick.py
    return made


def _each(kind: type, given: list[str], write: Writer) -> list[str]:
    """Write the expressions that convert the fields of a dataclass."""
    hints = typing.get_type_hints(kind)
    return [_converted(hints[each.name], it, write) for each, it in zip(fields(kind), given, strict=True)]


def _converted(hint: Any, it: str, write: Writer) -> str:
    """Write the expression that converts one value; `it` as it stands where the value is plain already."""
    if is_dataclass(hint) and isinstance(hint, type):
        return write(hint, it)
    if isinstance(hint, UnionType):
        one = _converted(next(each for each in typing.get_args(hint) if each is not type(None)), it, write)
        return it if one == it else f"({one} if {it} is not None else None)"
    if typing.get_origin(hint) is not tuple:
        return it
    # One name is enough for every depth: an inner loop goes over a part of the outer one's `each`, and hides it after.
    each = _converted(typing.get_args(hint)[0], "each", write)
    return it if each == "each" else f"tuple([{each} for each in {it}])"
