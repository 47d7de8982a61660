"""Decides who receives a notice and what each is shown; pure.

`receivers = allowed by policy & in the issuer's audience & not denied by the issuer & (addressed | subscribed | flash)`
Only the first term is Cedar's; the others come from signed bytes, so that even `permit(principal, action, resource);`
reaches nobody outside the audience. Withdrawals and restrictions go to the holders, whatever the policy says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol, Self

from broker.facts import Facts, facts_of
from broker.notice import Decision, Header, Holder, Recipient, Routing, Terms, Verified

if TYPE_CHECKING:
    from broker.members import Directory
    from broker.rules import Rules, Verdict

HOLDERS_NOT_REACHED, REACHED_NOBODY = "holders-not-reached", "reached-nobody"
TO_HOLDERS = frozenset({"withdrawal", "restriction"})
"""Kinds that reach every holder whatever the policy says (DESIGN §3.8)."""
ALL_BUT_ROUTING = ~1


class Subscriptions:
    """Which bureaus have subscribed to a topic: `a.b` exactly that, `a.*` everything below `a`, `*` everything."""

    def __init__(self, directory: Directory, patterns: Mapping[str, tuple[str, ...]], *, known: bool = True) -> None:
        self._directory, self._patterns, self.known = directory, dict(patterns), known
        self._exact: dict[str, int] = {}
        self._below: dict[str, int] = {}
        self._everything = 0
        for bureau, given in self._patterns.items():
            for pattern in given:
                self._add(pattern, directory.bureau_mask((bureau,)))
        self._longest = max(map(len, self._below), default=0)

    @classmethod
    def of(cls, directory: Directory, patterns: Mapping[str, tuple[str, ...]]) -> Self:
        """Compile patterns by bureau; bureaus that the directory does not know add nothing."""
        return cls(directory, patterns)

    @classmethod
    def unknown(cls, directory: Directory) -> Self:
        """Stand for subscriptions that this party cannot know: a member's machine knows only its own."""
        return cls(directory, {}, known=False)

    def changed(self, bureau: str, patterns: tuple[str, ...]) -> Subscriptions:
        """Give the same with one bureau's patterns replaced."""
        return Subscriptions(self._directory, {**self._patterns, bureau: patterns}, known=self.known)

    def mask(self, topics: Iterable[str]) -> int:
        """Give the bureaus that have subscribed to any of these topics."""
        mask = self._everything
        for topic in topics:
            mask |= self._exact.get(topic, 0)
            for prefix in self._prefixes(topic):
                mask |= self._below.get(prefix, 0)
        return mask

    def _add(self, pattern: str, bureau: int) -> None:
        if pattern == "*":
            self._everything |= bureau
        elif pattern.endswith(".*"):
            self._below[pattern[:-2]] = self._below.get(pattern[:-2], 0) | bureau
        else:
            self._exact[pattern] = self._exact.get(pattern, 0) | bureau

    def _prefixes(self, topic: str) -> Iterator[str]:
        """Give what stands before each dot, no longer than any pattern: a sender chooses how long a topic is."""
        dot = topic.find(".")
        while 0 <= dot <= self._longest:
            yield topic[:dot]
            dot = topic.find(".", dot + 1)


@dataclass(frozen=True, slots=True)
class View:
    """What is in force when a notice is judged."""

    directory: Directory
    rules: Rules
    subscriptions: Subscriptions


def facts(notice: Verified, directory: Directory, now: int) -> Facts:
    """Compute what the rules may know of a notice."""
    return facts_of(notice.header, notice.routing, directory, now)


def decide(notice: Verified, view: View, now: int, holders: Sequence[Holder] = ()) -> Decision:
    """Decide at one `now`. `holders` hold what the notice corrects, withdraws or restricts; delivery numbers are 0."""
    if notice.header.kind in TO_HOLDERS:
        return _to_holders(notice, view.directory, holders)
    known = facts(notice, view.directory, now)
    verdict = view.rules.judge(known)
    terms = terms_of(notice, known, view, verdict.receive)
    replaced = {each.index: each.numbers for each in holders} if known.corrects else {}
    recipients = _recipients(notice, view.directory, verdict, terms.receivers, replaced)
    missed = any(not terms.receivers >> index & 1 for index in replaced)
    return Decision("routed", recipients, terms, verdict.hits, _warnings(recipients, missed=missed))


class Spoken(Protocol):
    """What the terms are computed from: a notice that was verified, or one that a decision record remembers."""

    @property
    def header(self) -> Header:
        """Its header."""

    @property
    def routing(self) -> Routing:
        """Its opened routing."""


def terms_of(notice: Spoken, known: Facts, view: View, allowed: int) -> Terms:
    """Compute the four terms. The issuing bureau is no part of its own audience."""
    directory, header = view.directory, notice.header
    own = directory.bureau_mask((header.issuer,))
    flash = directory.everyone if header.urgency == "flash" else 0
    return Terms(
        allowed=allowed,
        audience=audience_of(notice, known, directory) & ~own,
        denied=known.denied,
        reached=known.addressed | view.subscriptions.mask(header.topics) | flash,
    )


def audience_of(notice: Spoken, known: Facts, directory: Directory) -> int:
    """Give everyone, or those addressed and the members of agreements in force. An empty list is nobody."""
    if notice.routing.audience.everyone:
        return directory.everyone
    mask = known.addressed
    for agreement in notice.routing.audience.agreements:
        mask |= directory.agreement_mask(agreement)
    return mask


def _recipients(
    notice: Verified, directory: Directory, verdict: Verdict, receivers: int, replaced: Mapping[int, tuple[int, ...]]
) -> tuple[Recipient, ...]:
    shown_to = {
        index: shown
        for mask, shown in _shown(notice.header, notice.present, verdict.see, receivers)
        for index in _indices(mask)
    }
    ids = directory.ids
    return tuple(_recipient(index, ids[index], shown_to[index], replaced.get(index, ())) for index in sorted(shown_to))


@lru_cache(maxsize=1 << 14)
def _recipient(index: int, bureau: str, shown: int, replaces: tuple[int, ...]) -> Recipient:
    """Make a line once: most notices show the same to the same bureau, and a frozen value may be shared."""
    return Recipient(index, bureau, shown, replaces)


def _shown(header: Header, present: int, see: Mapping[str, int], receivers: int) -> list[tuple[int, int]]:
    """Group the receivers by what they are shown: (bureaus, shown); permitted and present, routing never."""
    groups = {receivers: 0} if receivers else {}
    for position, slot in enumerate(header.compartments):
        if not position or not present >> position & 1:
            continue
        permitted, split = see.get(slot.name, 0), {}
        for mask, shown in groups.items():
            if mask & permitted:
                split[mask & permitted] = shown | 1 << position
            if mask & ~permitted:
                split[mask & ~permitted] = shown
        groups = split
    return list(groups.items())


def _to_holders(notice: Verified, directory: Directory, holders: Sequence[Holder]) -> Decision:
    shown = notice.present & ALL_BUT_ROUTING
    withdrawn = notice.header.kind == "withdrawal"
    reached = [each for each in holders if _is_listed(directory, each.index)]
    recipients = tuple(
        Recipient(each.index, directory.ids[each.index], shown, erases=each.numbers if withdrawn else ())
        for each in sorted(reached, key=_index)
    )
    mask = sum(1 << each.index for each in recipients)
    terms = Terms(allowed=mask, audience=mask, denied=0, reached=mask)
    return Decision("routed", recipients, terms, (), _warnings(recipients, missed=len(reached) < len(holders)))


def _warnings(recipients: tuple[Recipient, ...], *, missed: bool) -> tuple[str, ...]:
    return (*((HOLDERS_NOT_REACHED,) if missed else ()), *(() if recipients else (REACHED_NOBODY,)))


def _index(line: Recipient | Holder) -> int:
    return line.index


def _indices(mask: int) -> Iterator[int]:
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


def _is_listed(directory: Directory, index: int) -> bool:
    return index < len(directory.ids) and bool(directory.ids[index])
