"""The terms of a national record in words of one line: audience, denials, origins, handling."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from adapters.fields import FieldError
from broker.notice import EVERYONE, Audience, Origin

if TYPE_CHECKING:
    from adapters.fields import Fields

AGREEMENT, TO = "agreement:", "to:"
COLUMNS = frozenset({"audience", "deny", "origins", "handling"})
"""What a table of records has to have: without its column nothing would be denied, and nobody told."""
DIGITS = 18
"""So many digits fit into what our schemas hold; int() itself fails beyond 4,300, and would end the whole source."""
_PARTY = re.compile(r"[A-Z][A-Z0-9]*(?:/[a-z0-9-]+)?")


def audience(fields: Fields, name: str) -> Audience:
    """Read `everyone`, or `agreement:NAME` and `to:BUREAU` in any number. Raises FieldError: empty is nobody."""
    words = [word for said in fields.need_all(name) for word in said.split()]
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
    """Read a list in one field, or in several of one name; empty if there is nothing."""
    return tuple(part.strip() for said in fields.take_all(name) for part in said.split(separator) if part.strip())


def denied(fields: Fields, name: str) -> tuple[str, ...]:
    """Read members and bureaus. Raises FieldError: a word like `RU,` would deny nobody."""
    words = listed(fields, name)
    if not all(map(_PARTY.fullmatch, words)):
        raise FieldError(name, "names something else than members and bureaus")
    return words


def handling(fields: Fields, name: str) -> tuple[str, ...]:
    """Read handling codes. Raises FieldError: that nothing is said of it does not mean that anything goes."""
    return tuple(code for said in fields.need_all(name) for code in said.split())


def origins(fields: Fields, name: str) -> tuple[Origin, ...]:
    """Read `US:AT,DE GB:everyone`: owner, then to whom its part may go; `?` is an owner that is not known."""
    found = []
    for word in listed(fields, name):
        owner, _, release = word.partition(":")
        found.append(Origin(None if owner == "?" else owner, tuple(part for part in release.split(",") if part)))
    return tuple(found)


def whole_number(fields: Fields, name: str) -> int | None:
    """Read a positive whole number; 0 means unknown in such systems, and is reported. Raises FieldError."""
    said = fields.peek(name)
    if said is not None and said.isdecimal() and (number := in_bounds(name, said)):
        fields.take(name)
        return number
    fields.skip(name, "0 means unknown" if said == "0" else "not a whole number")
    return None


def in_bounds(name: str, digits: str) -> int:
    """Give the number that digits say. Raises FieldError where no field of ours holds it."""
    if len(digits) > DIGITS:
        raise FieldError(name, f"a number of more than {DIGITS} digits")
    return int(digits)
