"""Checks decision records with policies that the auditor holds, and tells what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.versions import Versions
from broker.errors import ConfigurationError, VersionRefusedError
from broker.notice import Leaf
from broker.records import Records
from broker.report import Gap
from broker.trail import Trail
from cli.officer import in_force, sets
from cli.progress import progress

if TYPE_CHECKING:
    from broker.recheck import Grounds, Rechecked
    from broker.rules import PolicySet
    from cli.seen import Seen


def records_beside(trail: Path) -> Path:
    """Say where the decision records of a trail lie, if they are there."""
    suffix = trail.resolve().name.removeprefix("trail")
    return trail.resolve().parent / f"records{suffix}.db"


NOT_REPEATED = (("decisions", "not repeated: name your own copy of the policies with --policy"),)


@dataclass(frozen=True, slots=True)
class Decisions:
    """What checking the decision records came to; `policies` are the digests of the sets that were named."""

    found: Rechecked
    policies: tuple[str, ...]

    @classmethod
    def of(cls, trail: Path, policies: Sequence[Path], seen: Seen, gaps: Sequence[Gap] = ()) -> Decisions:
        """Check the records beside a trail. Raises ConfigurationError where something to check with is missing.

        Receipts that speak of leaves in `gaps` only are lost with them: nobody can find them on record.
        """
        from broker.recheck import Sent, recheck  # noqa: PLC0415 -- cedarpy is slow to import

        file = records_beside(trail)
        if not file.is_file():
            message = f"there are no decision records beside {trail}: decisions can be checked at the operator only"
            raise ConfigurationError(message)
        named = [_open(each) for each in policies]
        sent = {
            each.digest: Sent(each.bureau, each.number, each.source, statement=each.read, again=each.again)
            for each in seen.receipts()
            if not each.leaves or not all(_is_lost(leaf, gaps) for leaf in each.leaves)
        }
        sent |= {
            each.digest: Sent(each.bureau, each.number, each.source, each.series, again=each.again)
            for each in seen.notices()
        }
        grounds = _grounds(Versions(trail.resolve().parent / "versions"), named) if named else _none
        with closing(Records.to_read(file)) as records:
            told = progress("decisions checked")
            found = recheck(Trail.open(trail), records, grounds, sent, told, copies=seen.copies())
        return cls(found, tuple(each.digest.hex() for each in named))

    @property
    def whole(self) -> bool:
        """Whether every decision and signature was checked, or none was to be."""
        return not self.policies or not (self.found.others or self.found.unsigned)

    def lines(self) -> Iterator[tuple[str, str]]:
        """Tell it for people."""
        found = self.found
        yield "records", f"{found.records:,} decision records held against their leaves"
        yield "receipts", f"{found.receipts:,} that bureaus sent are on record, {found.waiting:,} may be on their way"
        if found.rejections:
            yield from _rejections(found)
        if self.policies:
            yield "decisions", f"{found.decisions:,} repeated under {', '.join(each[:16] for each in self.policies)}"
        else:
            yield from NOT_REPEATED
        if found.unfollowed:
            some = f"{found.unfollowed:,} decisions from leaf {found.unfollowed_from} on"
            yield "not followed", f"{some}: too much before it does not hold to say who held what"
        for digest, count in sorted(found.others.items() if self.policies else ()):
            yield "not repeated", f"{count:,} decisions under the policy set {digest[:16]}, which was not named"
        for digest, count in sorted(found.unsigned.items() if self.policies else ()):
            said = f"the signatures of {count:,} receipts, withdrawals and the like under the policy set {digest[:16]}"
            yield "not checked", f"{said}, which was not named"
        if found.no_key:
            yield "no key", f"under which key {found.no_key:,} notices were signed no record says: an earlier version's"

    def value(self) -> dict[str, Any]:
        """Give it as JSON has it."""
        return {
            "records": self.found.records,
            "receipts": self.found.receipts,
            "receipts_waiting": self.found.waiting,
            "rejections": self.found.rejections,
            "rejections_on_word": self.found.on_word,
            "repeated": self.found.decisions,
            "not_repeated": self.found.others,
            "signatures_not_checked": self.found.unsigned,
            "no_key_on_record": self.found.no_key,
            "not_followed": self.found.unfollowed,
            "not_followed_from": self.found.unfollowed_from,
            "policies": list(self.policies),
        }


def _rejections(found: Rechecked) -> Iterator[tuple[str, str]]:
    """Say which codes nobody but the broker bears out: more are repeated with the policies, and with senders' files."""
    left = sum(found.on_word.values())
    yield "rejections", f"{found.rejections - left:,} of {found.rejections:,} repeated"
    if left:
        codes = ", ".join(f"{count:,} {code}" for code, count in sorted(found.on_word.items()))
        yield "broker's word", f"is all that says why {left:,} were rejected: {codes}"


def _is_lost(leaf: int, gaps: Sequence[Gap]) -> bool:
    return any(each.first <= leaf <= each.last for each in gaps)


def _open(path: Path) -> PolicySet:
    """Open the auditor's own copy: a folder of files, or a version as it is published."""
    from broker.rules import PolicySet  # noqa: PLC0415

    if path.is_dir():
        return sets.of_folder(path)
    try:
        return PolicySet.parse(path.read_bytes())
    except (OSError, VersionRefusedError) as error:
        message = f"{path} is no policy set: name a folder of Cedar files, or a version's file ({error})"
        raise ConfigurationError(message) from error


def _none(_: Leaf) -> Grounds | None:
    return None


def _grounds(versions: Versions, named: Sequence[PolicySet]) -> Callable[[Leaf], Grounds | None]:
    """Compile each named set for each directory that it was in force with, once."""
    from broker.recheck import Grounds  # noqa: PLC0415
    from broker.rules import Rules  # noqa: PLC0415

    by_digest = {each.digest: each for each in named}
    made: dict[tuple[bytes, bytes], Grounds] = {}

    def grounds(leaf: Leaf) -> Grounds | None:
        policies, key = by_digest.get(leaf.policies), (leaf.directory, leaf.policies)
        if policies is None:
            return None
        if key not in made:
            directory = in_force.directory_of(versions, leaf.directory)
            annex = in_force.annex_of(versions, directory)
            made[key] = Grounds(directory, Rules.load(policies, directory, annex))
        return made[key]

    return grounds
