"""Reads drafts as people write them: JSON, one notice or a list."""

from __future__ import annotations

import json
import typing
from collections.abc import Iterator
from dataclasses import is_dataclass
from functools import cache
from typing import IO, Any

from pydantic import TypeAdapter, ValidationError

from adapters.adapter import Draft
from broker.errors import ValiseError
from broker.few import few
from broker.members import no_name_twice
from broker.notice import KINDS

_DRAFT: TypeAdapter[Draft] = TypeAdapter(Draft)


class BadFileError(ValiseError):
    """The file does not hold drafts."""

    code = "bad-file"


def load(file: IO[str]) -> list[Draft]:
    """Read the drafts of an open file. Raises BadFileError."""
    try:
        text = file.read()
    except UnicodeDecodeError as error:
        raise BadFileError(f"{name_of(file)} is not UTF-8: save it as UTF-8") from error
    return read(text, name_of(file))


def load_one(file: IO[str]) -> Draft:
    """Read the one draft of an open file. Raises BadFileError."""
    found = load(file)
    if len(found) != 1:
        raise BadFileError(f"{name_of(file)} holds {len(found)} drafts: a correction is one")
    return found[0]


def name_of(file: IO[str]) -> str:
    """Name a file as it is written on the command line."""
    name = str(getattr(file, "name", "-"))
    return "-" if name == "<stdin>" else name


def read(text: str, name: str) -> list[Draft]:
    """Read one draft or a list of them. Raises BadFileError that names the place, never what the field held."""
    try:
        value = json.loads(text.removeprefix("\ufeff"), object_pairs_hook=no_name_twice)
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise BadFileError(f"{name} holds half of a surrogate pair, which is no character") from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise BadFileError(f"{name} is no JSON: {error}") from error
    except ValueError as error:
        raise BadFileError(f"{name}: {error}") from error
    values = value if isinstance(value, list) else [value]
    return [
        _draft(each, f"{name}, draft {place} of {len(values)}" if len(values) > 1 else name)
        for place, each in enumerate(values, 1)
    ]


_SAID = {"missing": "is missing", "dataclass_type": "is no object of its fields"}
"""What is said of a fault whose own words speak of our program."""


def _draft(value: Any, place: str) -> Draft:
    if not isinstance(value, dict):
        raise BadFileError(f"{place}: a draft is an object; see `valise schema show person --example`")
    unknown = sorted(_unknown(value, Draft, ""))
    if unknown:
        raise BadFileError(f"{place}: no such field: {', '.join(unknown)}")
    try:
        given = {"audience": _audience(value["audience"])} if "audience" in value else {}
        return _DRAFT.validate_python(value | given)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        wrong = few([f"{'.'.join(map(str, each['loc']))}: {_SAID.get(each['type'], each['msg'])}" for each in found])
        kind = next((each for each in KINDS if each == value.get("kind")), "person")
        example = f"valise schema show {kind} --example"
        raise BadFileError(f"{place}: {wrong}; see `{example}`") from error


def _unknown(value: Any, kind: Any, place: str) -> Iterator[str]:
    """Name the fields that nothing here reads: one more `deny`, passed over in silence, would reach whom it denies."""
    hints = _hints(kind)
    if isinstance(value, dict) and hints is not None:
        for name, each in value.items():
            if name in hints:
                yield from _unknown(each, hints[name], f"{place}{name}.")
            else:
                yield f"{place}{name}"
    elif isinstance(value, list) and typing.get_origin(kind) is tuple:
        for position, each in enumerate(value):
            yield from _unknown(each, typing.get_args(kind)[0], f"{place}{position}.")


@cache
def _hints(kind: Any) -> dict[str, Any] | None:
    """Give the types of a dataclass's fields, else None; worked out for each draft they took longer than all else."""
    return typing.get_type_hints(kind) if is_dataclass(kind) else None


def _audience(value: Any) -> Any:
    """`"everyone"`, or an object that may leave out what is empty."""
    if value == "everyone":
        return {"everyone": True}
    if isinstance(value, dict):
        return {"everyone": False} | value
    return value
