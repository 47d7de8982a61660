"""Reads drafts as people write them: JSON, one notice or a list."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import IO, Any

from pydantic import TypeAdapter, ValidationError

from adapters.adapter import Draft
from broker.errors import ValiseError

_DRAFT: TypeAdapter[Draft] = TypeAdapter(Draft)
_NAMES = frozenset(each.name for each in fields(Draft))


class BadFileError(ValiseError):
    """The file does not hold drafts."""

    code = "bad-file"


def load(file: IO[str]) -> list[Draft]:
    """Read the drafts of an open file. Raises BadFileError."""
    return read(file.read(), name_of(file))


def name_of(file: IO[str]) -> str:
    """Name a file as it is written on the command line."""
    name = str(getattr(file, "name", "-"))
    return "-" if name == "<stdin>" else name


def read(text: str, name: str) -> list[Draft]:
    """Read one draft or a list of them. Raises BadFileError that names the place, never what the field held."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadFileError(f"{name} is no JSON: {error}") from error
    values = value if isinstance(value, list) else [value]
    return [_draft(each, f"{name}[{place}]" if len(values) > 1 else name) for place, each in enumerate(values)]


def _draft(value: Any, place: str) -> Draft:
    if not isinstance(value, dict):
        raise BadFileError(f"{place}: a draft is an object; see `valise schema show person --example`")
    unknown = sorted(value.keys() - _NAMES)
    if unknown:
        raise BadFileError(f"{place}: no such field: {', '.join(unknown)}")
    try:
        return _DRAFT.validate_python(value | {"audience": _audience(value.get("audience"))})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise BadFileError(f"{place}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def _audience(value: Any) -> Any:
    """`"everyone"`, or an object that may leave out what is empty."""
    if value == "everyone":
        return {"everyone": True}
    if isinstance(value, dict):
        return {"everyone": False} | value
    return value
