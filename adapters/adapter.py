"""The SDK of an adapter: what it makes of one source record, and the account that it keeps of every field."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from broker.notice import Audience, Grant, Origin

EVERYONE = Audience(everyone=True)
NO_HOME = "no field of ours holds it"


@dataclass(frozen=True, slots=True)
class Pointer:
    """Another record that a draft speaks of; the outbox turns it into a signed reference."""

    issuer: str
    record: str
    relation: str


@dataclass(frozen=True, slots=True)
class Draft:
    """What a national system wants to say, before the outbox gives it an id, a number and a signature.

    `record` is stable: the same source record gives the same one for ever. The values of `compartments` fit the body
    schemas of the kind (`<kind>.<compartment>`), fields with a default may be left out, and a compartment with nothing
    to say is absent. Times are milliseconds since 1970-01-01T00:00:00Z. `bureau` None: that of the adapter's run.
    """

    record: str
    kind: str
    topics: tuple[str, ...]
    purpose: str
    legal_basis: str
    audience: Audience
    compartments: Mapping[str, Mapping[str, Any]]
    bureau: str | None = None
    conversation: str | None = None
    pointers: tuple[Pointer, ...] = ()
    action_sought: str | None = None
    urgency: str = "routine"
    acknowledge_by: int | None = None
    answer_by: int | None = None
    handling: tuple[str, ...] = ("H0",)
    handling_text: str | None = None
    confidentiality: str = "restricted"
    source_evaluation: str | None = None
    information_evaluation: int | None = None
    expires: int | None = None
    retain_until: int | None = None
    review_due: int | None = None
    languages: tuple[str, ...] = ("en",)
    deny: tuple[str, ...] = ()
    origins: tuple[Origin, ...] = ()
    subject_categories: tuple[str, ...] = ()
    minor: str = "unknown"
    special_categories: tuple[str, ...] = ()
    protected_from: tuple[str, ...] = ()
    grants: tuple[Grant, ...] = ()
    derogation: str | None = None

    def digest(self) -> bytes:
        """SHA-256 of all that it says: equal digests, nothing to publish."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).digest()


@dataclass(frozen=True, slots=True)
class Rejected:
    """A source record that cannot be translated; says where and why, never what the field held.

    `record` is None where not even that could be read.
    """

    place: str
    field: str
    reason: str
    record: str | None = None


@dataclass
class SourceReport:
    """What became of every field of a source that held something: carried or skipped with a reason; counts only.

    `dated`: when the source says it was made, in ms since 1970-01-01T00:00:00Z, for `Outbox.apply`, which then
    refuses an older one; None where it says nothing of it.
    """

    drafts: Counter[str] = field(default_factory=Counter)
    carried: Counter[str] = field(default_factory=Counter)
    skipped: Counter[tuple[str, str]] = field(default_factory=Counter)
    rejected: list[Rejected] = field(default_factory=list)
    dated: int | None = None

    def count(self, made: Draft | Rejected) -> Draft | Rejected:
        """Count a result of the source and hand it back."""
        if isinstance(made, Rejected):
            self.rejected.append(made)
        else:
            self.drafts[made.kind] += 1
        return made

    def carry(self, name: str, times: int = 1) -> None:
        """Count values of a source field that stand in the draft."""
        self.carried[name] += times

    def skip(self, name: str, reason: str, times: int = 1) -> None:
        """Count values of a source field that stand nowhere, and why."""
        self.skipped[name, reason] += times

    def as_json(self) -> dict[str, Any]:
        """Give the report as plain values."""
        return {
            "drafts": dict(sorted(self.drafts.items())),
            "carried": dict(sorted(self.carried.items())),
            "skipped": [
                {"field": name, "reason": reason, "count": count}
                for (name, reason), count in sorted(self.skipped.items())
            ],
            "rejected": [asdict(item) for item in self.rejected],
        }

    def table(self) -> str:
        """Give the report as lines for people."""
        rows = [(name, count, "carried") for name, count in sorted(self.carried.items())]
        rows += [(name, count, f"skipped: {reason}") for (name, reason), count in sorted(self.skipped.items())]
        width = max((len(name) for name, _, _ in rows), default=5)
        lines = [f"{'field':<{width}}  {'values':>7}  what became of them"]
        lines += [f"{name:<{width}}  {count:>7}  {fate}" for name, count, fate in rows]
        made = ", ".join(f"{count} {kind}" for kind, count in sorted(self.drafts.items())) or "none"
        lines.append(f"drafts: {made}; rejected: {len(self.rejected)}")
        lines += [f"  {item.place}: {item.field}: {item.reason}" for item in self.rejected]
        return "\n".join(lines)


class Source(Protocol):
    """One national system: translation only, no bus, no clock, no network."""

    report: SourceReport

    def drafts(self, path: Path) -> Iterator[Draft | Rejected]:
        """Read every record that the system holds now; the report is complete when the iterator has ended."""
