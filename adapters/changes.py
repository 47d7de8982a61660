"""Compares a source with what was published from it: new, corrected, withdrawn or unchanged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from adapters.adapter import Draft, Rejected
from broker.errors import ValiseError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


@dataclass(frozen=True, slots=True)
class New:
    """A record that was not published before."""

    draft: Draft
    digest: bytes


@dataclass(frozen=True, slots=True)
class Corrected:
    """A record that says something else than what was published."""

    draft: Draft
    digest: bytes


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """A published record that the source no longer holds."""

    record: str


@dataclass(frozen=True, slots=True)
class Unchanged:
    """A record that says what was published."""

    record: str


Change = New | Corrected | Withdrawn | Unchanged | Rejected


@dataclass(frozen=True, slots=True)
class Guard:
    """What a run may do without being told to; a share is of 1."""

    rejects: float = 0.05
    withdrawals: float = 0.2
    few: int = 10
    """So many withdrawals are never a mass, unless the source is empty."""
    accept_rejects: bool = False
    accept_withdrawals: bool = False


class RunRefusedError(ValiseError):
    """The source looks broken; nothing was published."""

    code = "run-refused"


def changes(
    previous: Mapping[str, bytes], drafts: Iterable[Draft | Rejected], guard: Guard | None = None
) -> Iterator[Change]:
    """Compare a whole source with `previous` (record → digest of what was published).

    The source is read to its end, and the guard asked, before the first change is given: a refused run has no effect.
    A published record whose source record is rejected now is neither corrected nor withdrawn. Raises RunRefusedError.
    """
    run = _Run(previous, drafts)
    run.refuse(guard or Guard())
    return run.changes()


class _Run:
    """One reading of a source, complete before anything follows from it."""

    def __init__(self, previous: Mapping[str, bytes], drafts: Iterable[Draft | Rejected]) -> None:
        self.previous = previous
        self.drafts: dict[str, Draft] = {}
        self.rejected: list[Rejected] = []
        for item in drafts:
            self._add(item)
        kept = self.drafts.keys() | {item.record for item in self.rejected}
        self.withdrawn = [record for record in previous if record not in kept]

    def _add(self, item: Draft | Rejected) -> None:
        if isinstance(item, Rejected):
            self.rejected.append(item)
        elif item.record in self.drafts:
            self.rejected.append(Rejected(item.record, "record", "another record has the same id", item.record))
        else:
            self.drafts[item.record] = item

    def refuse(self, guard: Guard) -> None:
        """Raise RunRefusedError if the run looks like an accident."""
        total = len(self.drafts) + len(self.rejected)
        if len(self.rejected) > guard.rejects * total and not guard.accept_rejects:
            raise RunRefusedError(f"{len(self.rejected)} of {total} records were rejected")
        if not self.withdrawn or guard.accept_withdrawals:
            return
        gone, before = len(self.withdrawn), len(self.previous)
        if not self.drafts:
            raise RunRefusedError(f"the source came back empty; {before} records were published from it")
        if gone > guard.few and gone > guard.withdrawals * before:
            raise RunRefusedError(f"{gone} of {before} published records are gone from the source")
        if any(item.record is None for item in self.rejected):
            raise RunRefusedError(f"{gone} records are gone, and rejected records without an id may be among them")

    def changes(self) -> Iterator[Change]:
        """Give what follows, withdrawals first: they must not wait for the rest."""
        yield from (Withdrawn(record) for record in self.withdrawn)
        yield from self.rejected
        refused = {item.record for item in self.rejected}
        for record, draft in self.drafts.items():
            digest, before = draft.digest(), self.previous.get(record)
            if record in refused and before is not None:
                yield Unchanged(record)  # two source records claim it: what is published stays until that is mended
            elif before is None:
                yield New(draft, digest)
            else:
                yield Unchanged(record) if digest == before else Corrected(draft, digest)
