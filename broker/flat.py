"""Values of notice.py ⇄ plain nested tuples, which pass cheaply from one process of ours to another."""

from __future__ import annotations

import typing
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import cache
from operator import attrgetter
from types import UnionType
from typing import Any, TypeVar

T = TypeVar("T")
Converter = Callable[[Any], Any]


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
    names = tuple(each.name for each in fields(kind))
    get = attrgetter(*names) if len(names) > 1 else lambda value: (getattr(value, names[0]),)
    nested = _nested(kind, _flattener)
    return lambda value: _changed(get(value), nested) if nested else get(value)


@cache
def _raiser(kind: type) -> Converter:
    nested = _nested(kind, _raiser)
    return lambda flat: kind(*_changed(flat, nested)) if nested else kind(*flat)


def _changed(values: tuple[Any, ...], nested: list[tuple[int, Converter]]) -> tuple[Any, ...]:
    changed = list(values)
    for place, convert in nested:
        changed[place] = convert(changed[place])
    return tuple(changed)


def _nested(kind: type, convert: Callable[[type], Converter]) -> list[tuple[int, Converter]]:
    hints = typing.get_type_hints(kind)
    found = ((place, _converter(hints[each.name], convert)) for place, each in enumerate(fields(kind)))
    return [(place, each) for place, each in found if each]


def _converter(hint: Any, convert: Callable[[type], Converter]) -> Converter | None:
    """Make the converter of one field, or None where the value is plain already."""
    if is_dataclass(hint) and isinstance(hint, type):
        return convert(hint)
    if isinstance(hint, UnionType):
        one = _converter(next(each for each in typing.get_args(hint) if each is not type(None)), convert)
        return None if one is None else (lambda value: None if value is None else one(value))
    if typing.get_origin(hint) is not tuple:
        return None
    each = _converter(typing.get_args(hint)[0], convert)
    return None if each is None else (lambda values: tuple([each(value) for value in values]))
