"""The terms of a national record in words of one line: audience, denials, origins."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapters.fields import FieldError
from broker.notice import EVERYONE, Audience, Origin

if TYPE_CHECKING:
    from adapters.fields import Fields

AGREEMENT, TO = "agreement:", "to:"


def audience(fields: Fields, name: str) -> Audience:
    """Read `everyone`, or `agreement:NAME` and `to:BUREAU` in any number. Raises FieldError: empty is nobody."""
    words = fields.need(name).split()
    if words == [EVERYONE]:
        return Audience(everyone=True)
    if not all(word.startswith((AGREEMENT, TO)) and word.partition(":")[2] for word in words):
        raise FieldError(name, "neither everyone nor agreement:… and to:…")
    return Audience(
        everyone=False,
        agreements=tuple(word.removeprefix(AGREEMENT) for word in words if word.startswith(AGREEMENT)),
        to=tuple(word.removeprefix(TO) for word in words if word.startswith(TO)),
    )


def listed(fields: Fields, name: str, separator: str | None = None) -> tuple[str, ...]:
    """Read a list in one field; empty if there is nothing."""
    return tuple(part.strip() for part in (fields.take(name) or "").split(separator) if part.strip())


def origins(fields: Fields, name: str) -> tuple[Origin, ...]:
    """Read `US:AT,DE GB:everyone`: owner, then to whom its part may go; `?` is an owner that is not known."""
    found = []
    for word in listed(fields, name):
        owner, _, release = word.partition(":")
        found.append(Origin(None if owner == "?" else owner, tuple(part for part in release.split(",") if part)))
    return tuple(found)


def whole_number(fields: Fields, name: str) -> int | None:
    """Read a positive whole number; 0 means unknown in such systems, and is reported."""
    said = fields.peek(name)
    if said is not None and said.isdecimal() and int(said):
        fields.take(name)
        return int(said)
    fields.skip(name, "0 means unknown" if said == "0" else "not a whole number")
    return None
