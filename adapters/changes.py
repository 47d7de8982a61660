"""Compares a source with what was published from it: new, corrected, withdrawn or unchanged."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from adapters.adapter import Draft, Rejected, SourceReport
from broker.errors import ValiseError
from broker.few import few

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence


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
    corrections: float = 0.5
    few: int = 10
    """So many withdrawals or corrections are never a mass, unless the source, or all of one kind in it, is gone."""
    accept_rejects: bool = False
    accept_withdrawals: bool = False
    accept_corrections: bool = False


class RunRefusedError(ValiseError):
    """The source looks broken; nothing was published."""

    code = "run-refused"


def changes(
    previous: Mapping[str, bytes],
    drafts: Iterable[Draft | Rejected],
    guard: Guard | None = None,
    kinds: Mapping[str, str] | None = None,
    report: SourceReport | None = None,
) -> Iterator[Change]:
    """Compare a whole source with `previous` (record → digest of what was published).

    With `kinds` (record → kind of what was published; adapters/kinds.py) the guard finds a mass within one kind, too.
    What only comparing finds, two source records of one id, is counted in `report`, too: of that id nothing changes
    until it is mended.
    The source is read to its end, and the guard asked, before the first change is given: a refused run has no effect.
    A published record whose source record is rejected now is neither corrected nor withdrawn. Raises RunRefusedError.
    """
    run = _Run(previous, drafts, kinds or {}, report or SourceReport())
    run.refuse(guard or Guard())
    return run.changes()


class _Run:
    """One reading of a source, complete before anything follows from it."""

    def __init__(
        self,
        previous: Mapping[str, bytes],
        drafts: Iterable[Draft | Rejected],
        kinds: Mapping[str, str],
        report: SourceReport,
    ) -> None:
        self.previous, self.kinds, self._report = previous, kinds, report
        self.drafts: dict[str, Draft] = {}
        self.rejected: list[Rejected] = []
        for item in drafts:
            self._add(item)
        kept = self.drafts.keys() | {item.record for item in self.rejected}
        self.withdrawn = [record for record in previous if record not in kept]
        self.digests = {record: draft.digest() for record, draft in self.drafts.items()}

    def _add(self, item: Draft | Rejected) -> None:
        if isinstance(item, Rejected):
            self.rejected.append(item)
        elif item.record in self.drafts:
            twice = Rejected(item.record, "record", "another record has the same id", item.record)
            self._report.count(twice)
            self.rejected.append(twice)
        else:
            self.drafts[item.record] = item

    def refuse(self, guard: Guard) -> None:
        """Raise RunRefusedError if the run looks like an accident."""
        total = len(self.drafts) + len(self.rejected)
        if len(self.rejected) > guard.rejects * total and not guard.accept_rejects:
            names = few([_said(each) for each in self.rejected])
            raise _refused(f"{len(self.rejected)} of {total} records were rejected: {names}", "rejects")
        if self.withdrawn and not guard.accept_withdrawals:
            self._refuse_withdrawals(guard)
        if not guard.accept_corrections:
            self._refuse_corrections(guard)

    def _refuse_withdrawals(self, guard: Guard) -> None:
        gone, before = ([self.kinds.get(each) for each in records] for records in (self.withdrawn, self.previous))
        if not self.drafts:
            raise _refused(f"the source came back empty; {len(before)} records were published from it", "withdrawals")
        there = {draft.kind for draft in self.drafts.values()}
        for kind, count in Counter(before).items():
            if kind and kind not in there and gone.count(kind) == count > 1:
                said = f"the source came back without any {kind}; {count} were published from it"
                raise _refused(said, "withdrawals")
        if mass := _mass(gone, before, guard.withdrawals, guard.few):
            raise _refused(f"{mass} are gone from the source: {few(self.withdrawn)}", "withdrawals")
        if any(item.record is None for item in self.rejected):
            said = f"{len(gone)} records are gone: {few(self.withdrawn)}"
            raise _refused(f"{said}; rejected records without an id may be among them", "withdrawals")

    def _refuse_corrections(self, guard: Guard) -> None:
        """Raise RunRefusedError if most of a source changed at once: a part or a column of it may have been lost."""
        standing = [draft for record, draft in self.drafts.items() if record in self.previous]
        changed = [draft for draft in standing if self.digests[draft.record] != self.previous[draft.record]]
        kinds = [draft.kind for draft in changed]
        if mass := _mass(kinds, [draft.kind for draft in standing], guard.corrections, guard.few):
            names = few([draft.record for draft in changed])
            raise _refused(f"{mass} say something else than before: {names}", "corrections")

    def changes(self) -> Iterator[Change]:
        """Give what follows, withdrawals first: they must not wait for the rest."""
        yield from (Withdrawn(record) for record in self.withdrawn)
        yield from self.rejected
        refused = {item.record for item in self.rejected}
        for record, draft in self.drafts.items():
            digest, before = self.digests[record], self.previous.get(record)
            if record in refused:  # two source records claim it: nothing changes until that is mended
                yield from [Unchanged(record)] if before is not None else []
            elif before is None:
                yield New(draft, digest)
            else:
                yield Unchanged(record) if digest == before else Corrected(draft, digest)


def _refused(said: str, what: str) -> RunRefusedError:
    told = f"where that is meant, `changes` with `Guard(accept_{what}=True)` lets this run pass"
    return RunRefusedError(f"{said}. Nothing was published; {told}")


def _said(item: Rejected) -> str:
    return f"{item.record or item.place} ({item.field}: {item.reason})"


def _mass(some: Sequence[str | None], every: Sequence[str | None], share: float, few: int) -> str | None:
    """Name the first group, all records or those of a kind, of which more than a few and a share are among `some`."""
    counts, totals = Counter(some), Counter(every)
    groups = [(len(some), len(every), "published records")]
    groups += [(count, totals[kind], f"published records of the kind {kind}") for kind, count in counts.items() if kind]
    return next(
        (f"{part} of {whole} {what}" for part, whole, what in groups if part > few and part > share * whole), None
    )
