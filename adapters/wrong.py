"""Says what is wrong with a draft: the field, and what it holds where that says nothing of a person.

On the member's own machine only: what the broker says of a rejection never holds a value (broker/errors.py).
"""

from __future__ import annotations

import re

from adapters.adapter import Draft
from broker.errors import (
    InvalidFieldError,
    InvalidReferenceError,
    NoticeRejectedError,
    UnknownHandlingError,
    UnknownKindError,
    UnknownPurposeError,
    UnreadableError,
)
from broker.notice import APPROVAL, RESTRICTION, WITHDRAWAL

SHOWN = frozenset(
    {
        "bureau", "kind", "purpose", "handling", "topics", "urgency", "confidentiality", "source_evaluation",
        "information_evaluation", "derogation", "agreements", "to", "deny",
    }
)  # fmt: skip
"""Fields of words from lists. What a subject is, of which age, and from whom it must be protected is not among them."""
NAMED = frozenset({"agreements", "to", "deny"})
"""Fields that name what the directory must have."""
_UNFIT = re.compile(r" on field (\w+)$")
"""How fastavro's complaint ends; what stands before it tells the value."""
LIMIT = 80
"""Characters of a value; whoever writes a whole report into such a field finds it by its beginning."""
MADE_BY = {
    WITHDRAWAL: "`valise withdraw RECORD` makes a withdrawal, and `valise withdraw ID --order` an authority's",
    RESTRICTION: "no command makes a restriction yet",
    APPROVAL: "`valise review release ID` makes an approval, and `refuse ID` one that refuses",
}
"""How a notice is made that few would write by hand."""
_FIELDS = {UnknownKindError: "kind", UnknownPurposeError: "purpose", UnknownHandlingError: "handling"}


def why(draft: Draft, error: NoticeRejectedError, lacking: str = "not all of it is in the directory") -> str:
    """Say why a draft is refused; `lacking`: what is said of names that the directory does not have."""
    if field := _FIELDS.get(type(error)):
        return f"{str(error).rstrip('.')}: {_held(draft, field)}"
    names = str(error).split(", ")
    if isinstance(error, InvalidFieldError) and all(map(str.isidentifier, names)):
        return ", ".join(f"{each} {_said(draft, each, lacking)}" if each in SHOWN else each for each in names)
    if isinstance(error, InvalidReferenceError) and draft.kind in MADE_BY:
        return f"{error} ({MADE_BY[draft.kind]})"
    unfit = _UNFIT.search(str(error.__cause__)) if isinstance(error, UnreadableError) else None
    return f"{error}: field {unfit[1]}" if unfit else str(error)


def _said(draft: Draft, field: str, lacking: str) -> str:
    return _held(draft, field) + (f": {lacking}" if field in NAMED else "")


def _held(draft: Draft, field: str) -> str:
    value = getattr(draft.audience if field in ("agreements", "to") else draft, field)
    text = " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return f"'{text[:LIMIT]}{'…' if len(text) > LIMIT else ''}'"
