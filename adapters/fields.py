"""One record of a source, watched: each value is taken, or skipped for a reason, or named as left over."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from adapters.adapter import NO_HOME

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from adapters.adapter import SourceReport


RESTRICTIONS = frozenset(
    {"audience", "deny", "origins", "handling", "protected_from", "verteiler", "ausgenommen", "herkunft", "behandlung"}
)
"""Names under which the sources say whom a record may reach: in any case, and wherever they stand in a field's path."""
NOT_READ = "restricts, and stands where we do not read it"
_PARTS = re.compile(r"[/.@{}\s]+")


def restricts(path: str) -> bool:
    """Tell whether a field of this name or path would restrict a record."""
    return not RESTRICTIONS.isdisjoint(_PARTS.split(path.casefold()))


class Fields:
    """Named values of one record; `empty` are the words by which this source says that there is nothing.

    Nothing is dropped in silence: `close` reports whatever was neither taken nor skipped.
    """

    def __init__(
        self,
        values: Mapping[str, str | Sequence[str] | None],
        report: SourceReport,
        prefix: str = "",
        empty: frozenset[str] = frozenset(),
    ) -> None:
        self._report, self._prefix = report, prefix
        self._left: dict[str, list[str]] = {}
        for name, given in values.items():
            many = [given] if isinstance(given, str) else given or ()
            kept = [text for text in (value.strip() for value in many) if text and text not in empty]
            if kept:
                self._left[name] = kept

    def __contains__(self, name: str) -> bool:
        return name in self._left

    def peek(self, name: str) -> str | None:
        """Look at a value without taking it."""
        return "; ".join(self._left[name]) if name in self._left else None

    def take(self, name: str) -> str | None:
        """Give a value that the draft will hold; several are joined."""
        values = self.take_all(name)
        return "; ".join(values) if values else None

    def take_all(self, name: str) -> list[str]:
        """Give all values of a field that the draft will hold."""
        values = self._left.pop(name, [])
        if values:
            self._report.carry(self._prefix + name, len(values))
        return values

    def need(self, name: str) -> str:
        """Give a value without which there is no draft. Raises FieldError."""
        return "; ".join(self.need_all(name))

    def need_all(self, name: str) -> list[str]:
        """Give all values of a field without which there is no draft. Raises FieldError."""
        values = self.take_all(name)
        if not values:
            raise FieldError(self._prefix + name, "missing")
        return values

    def skip(self, name: str, reason: str) -> None:
        """Pass over a field for a reason."""
        values = self._left.pop(name, [])
        if values:
            self._report.skip(self._prefix + name, reason, len(values))

    def skip_all(self, reason: str) -> None:
        """Pass over all that is left."""
        for name in list(self._left):
            self.skip(name, reason)

    def close(self) -> None:
        """Report what is left over. Raises FieldError if that would restrict: in that shape nobody has read it."""
        for name in self._left:
            if restricts(self._prefix + name):
                raise FieldError(self._prefix + name, NOT_READ)
        self.skip_all(NO_HOME)


class FieldError(Exception):
    """A source record cannot be translated for what one field holds or lacks; says which and why, never what."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field, self.reason = field, reason
