"""Makes frozen dataclasses quick to make, some fifty for each notice at a broker, and has cycles sought rarely.

The `__init__` of a frozen dataclass sets each field by a call of `object.__setattr__`, six times as slow as an
assignment. Ours assigns while the new value still is of a twin class, of the same slots and open to assignment.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from typing import Any, TypeVar

T = TypeVar("T")
_MAKERS: dict[type, Callable[..., Any]] = {}


def quick(kind: type[T]) -> type[T]:
    """Replace the `__init__` of a frozen dataclass with slots; what it takes and makes stays the same.

    Nothing may derive from it.
    """
    known = [each for each in fields(kind) if each.init]  # type: ignore[arg-type]  # T is a dataclass
    twin = type(kind.__name__, (), {"__slots__": kind.__slots__})  # type: ignore[attr-defined]
    names: dict[str, Any] = {"_become": object.__setattr__, "_twin": twin, "_kind": kind, "_missing": MISSING}
    taken = ", ".join(_parameter(each, names) for each in known)
    set_ = "\n    ".join(f"self.{each.name} = {_value(each)}" for each in known)
    after = "\n    self.__post_init__()" if hasattr(kind, "__post_init__") else ""
    made = (
        f'def __init__(self, {taken}):\n    _become(self, "__class__", _twin)\n    {set_}\n    self.__class__ = _kind'
    )
    plain = "\n    ".join(f"self.{each.name} = {each.name}" for each in known)
    making = (
        f"def make({', '.join(each.name for each in known)}):\n    self = _twin()\n    {plain}"
        f"\n    self.__class__ = _kind{after}\n    return self"
    )
    exec(f"{made}{after}\n{making}", names)  # noqa: S102 - names of fields, as in dataclasses itself
    _MAKERS[kind] = names["make"]
    names["__init__"].__qualname__ = f"{kind.__qualname__}.__init__"
    kind.__init__ = names["__init__"]  # type: ignore[method-assign]
    kind.__init_subclass__ = classmethod(_refuse_subclass)  # type: ignore[assignment]
    return kind


def maker(kind: type[T]) -> Callable[..., T]:
    """Give a function that makes what a quick class makes, in half the time: it takes all fields, in their order.

    A call of a class goes through C to `__init__` and back; a call of this does not. Gives the class if it has none.
    """
    return _MAKERS.get(kind, kind)


def seek_cycles_rarely(objects: int) -> None:
    """Let this process look for cycles only each time that so many new objects are held, instead of 700.

    What we make for a batch of notices has none; looking through it that often costs a tenth.
    """
    gc.set_threshold(objects, 20, 20)


def _refuse_subclass(cls: type, /, **_: object) -> None:
    message = f"{cls.__name__}: what derives from a quick class would be made as its base"
    raise TypeError(message)


def _parameter(each: Field[Any], names: dict[str, Any]) -> str:
    if each.default is not MISSING:
        names[f"_default_{each.name}"] = each.default
        return f"{each.name}=_default_{each.name}"
    if each.default_factory is not MISSING:
        names[f"_factory_{each.name}"] = each.default_factory
        return f"{each.name}=_missing"
    return each.name


def _value(each: Field[Any]) -> str:
    if each.default_factory is MISSING:
        return each.name
    return f"_factory_{each.name}() if {each.name} is _missing else {each.name}"
