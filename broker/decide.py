"""Decides who receives a notice and what each is shown; pure.

`receivers = allowed by policy & in the issuer's audience & not denied by the issuer & (addressed | subscribed | flash)`
Only the first term is Cedar's; the others come from signed bytes, so that even `permit(principal, action, resource);`
reaches nobody outside the audience. A correction also reaches those who hold what it corrects. A suspended agreement is
no audience, but for a correction and those of its circle who hold that. Withdrawals and restrictions go to the holders,
whatever the policy says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol, Self

from broker.facts import Facts, carried, facts_of, indices
from broker.notice import (
    APPROVAL,
    TO_HOLDERS,
    WITHDRAWAL,
    Decision,
    Header,
    Holder,
    Recipient,
    Routing,
    Terms,
    Verified,
)
from broker.verify import is_order, subject_of

if TYPE_CHECKING:
    from broker.directory import Directory
    from broker.rules import Rules, Verdict

HOLDERS_NOT_REACHED, REACHED_NOBODY, NO_REVIEWER = "holders-not-reached", "reached-nobody", "no-reviewer"
GLASS_BROKEN = "glass-broken"
SOURCE = "source"
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


def facts(notice: Verified, view: View, now: int, *, released: bool = False, holders: int = 0) -> Facts:
    """Compute what the rules may know of a notice. `holders`: who holds what it corrects."""
    return facts_of(
        notice.header, notice.routing, view.directory, view.rules.annex, now, released=released, holders=holders
    )


def decide(
    notice: Verified,
    view: View,
    now: int,
    holders: Sequence[Holder] = (),
    *,
    released: bool = False,
    reviewers: Sequence[Holder] = (),
) -> Decision:
    """Decide at one `now`. `holders` hold what the notice corrects, withdraws or restricts; delivery numbers are 0.

    `released`: a reviewing bureau has approved it; `reviewers` were given it to review and hold nothing older.
    """
    if decided := unruled(notice.header, notice.present, view.directory, holders):
        return decided
    known = facts(notice, view, now, released=released, holders=_mask(holders))
    verdict = view.rules.judge(known)
    if verdict.review and not verdict.receive:
        return _held(notice, known, view, verdict)
    terms = terms_of(notice, known, view, verdict.receive)
    replaced = {each.index: each.numbers for each in (*holders, *reviewers)} if known.corrects or released else {}
    see = sight_of(notice, known, verdict.see, view.directory)
    recipients = _recipients(notice, view.directory, see, terms.receivers, replaced)
    missed = known.corrects and any(not terms.receivers >> each.index & 1 for each in holders)
    warnings = _warnings(recipients, missed=missed, broken=known.derogation)
    return Decision("routed", recipients, terms, verdict.hits, warnings, _on_record(known))


def unruled(header: Header, present: int, directory: Directory, holders: Sequence[Holder]) -> Decision | None:
    """Decide a notice of a kind for which no rule is asked: all of it goes to whom it concerns. None: they are."""
    if header.kind in TO_HOLDERS:
        return _to_holders(header, present & ALL_BUT_ROUTING, directory, holders)
    return _to_issuer(header, present & ALL_BUT_ROUTING, directory) if header.kind == APPROVAL else None


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
        reached=known.addressed | view.subscriptions.mask(header.topics) | flash | known.holders,
    )


def audience_of(notice: Spoken, known: Facts, directory: Directory) -> int:
    """Give everyone, or those addressed and the members of agreements in force. An empty list is nobody.

    A correction has in its audience who holds what it corrects, of a suspended agreement's members, too.
    """
    if notice.routing.audience.everyone:
        return directory.everyone
    mask = known.addressed | carried(notice.routing, known, directory)
    for agreement in notice.routing.audience.agreements:
        mask |= directory.agreement_mask(agreement)
    return mask


def sight_of(notice: Spoken, known: Facts, see: Mapping[str, int], directory: Directory) -> Mapping[str, int]:
    """Narrow what the rules let be seen (compartment → bureaus): who has it only by grants sees what these name."""
    limited = known.granted & ~known.named
    if not limited:
        return see
    grants = [each for each in notice.routing.grants if known.now < each.until]
    return {
        name: mask & (~limited | directory.bureau_mask(each.bureau for each in grants if name in each.compartments))
        for name, mask in see.items()
    }


def _recipients(
    notice: Verified,
    directory: Directory,
    see: Mapping[str, int],
    receivers: int,
    replaced: Mapping[int, tuple[int, ...]],
) -> tuple[Recipient, ...]:
    groups = _shown(notice.header, notice.present, see, receivers)
    ids = directory.ids
    if not replaced:
        return _alike(ids, tuple(groups))
    shown_to = {index: shown for mask, shown in groups for index in indices(mask)}
    return tuple(_recipient(index, ids[index], shown_to[index], replaced.get(index, ())) for index in sorted(shown_to))


@lru_cache(maxsize=256)
def _alike(ids: tuple[str, ...], groups: tuple[tuple[int, int], ...]) -> tuple[Recipient, ...]:
    """Make the lines of new notices once for all that are shown alike."""
    shown_to = {index: shown for mask, shown in groups for index in indices(mask)}
    return tuple(_recipient(index, ids[index], shown_to[index], ()) for index in sorted(shown_to))


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


def _held(notice: Verified, known: Facts, view: View, verdict: Verdict) -> Decision:
    """Give it to the reviewing bureaus only, whole but for its sources; never to its own member."""
    directory = view.directory
    terms = held_terms(notice, known, directory, verdict)
    sources = sum(1 << place for place, slot in enumerate(notice.header.compartments) if slot.name == SOURCE)
    shown = notice.present & ALL_BUT_ROUTING & ~sources
    recipients = tuple(_recipient(index, directory.ids[index], shown, ()) for index in indices(terms.receivers))
    warnings = () if recipients else (NO_REVIEWER,)
    return Decision("held", recipients, terms, verdict.hits, warnings, _on_record(known))


def _on_record(known: Facts) -> int | None:
    """Give what the rules were told of holders, so that it can be repeated; None where nothing is corrected."""
    return known.holders if known.corrects else None


def held_terms(notice: Spoken, known: Facts, directory: Directory, verdict: Verdict) -> Terms:
    """Compute the terms of a notice that is held: the reviewers, but its issuer's member and whom it is kept from."""
    kept_from = directory.mask((notice.header.member,)) | known.denied | known.protected_from
    reviewers = verdict.review & directory.reviewers & ~kept_from
    return Terms(allowed=verdict.review, audience=directory.reviewers, denied=kept_from, reached=reviewers)


def approval_terms(header: Header, directory: Directory) -> Terms:
    """Compute the terms of an approval, or a refusal: it goes to the bureau whose notice was reviewed."""
    bureau = directory.bureau_mask(each.issuer for each in header.references)
    return Terms(allowed=bureau, audience=bureau, denied=0, reached=bureau)


def _to_issuer(approval: Header, shown: int, directory: Directory) -> Decision:
    terms = approval_terms(approval, directory)
    recipients = tuple(_recipient(index, directory.ids[index], shown, ()) for index in indices(terms.receivers))
    return Decision("routed", recipients, terms, (), _warnings(recipients, missed=False))


def _to_holders(header: Header, shown: int, directory: Directory, holders: Sequence[Holder]) -> Decision:
    withdrawn = header.kind == WITHDRAWAL
    reached = [each for each in holders if _is_listed(directory, each.index)]
    recipients = tuple(
        Recipient(each.index, directory.ids[each.index], shown, erases=each.numbers if withdrawn else ())
        for each in sorted(reached, key=_index)
    )
    recipients = _with_issuer(header, directory, shown, recipients)
    mask = sum(1 << each.index for each in recipients)
    terms = Terms(allowed=mask, audience=mask, denied=0, reached=mask)
    return Decision("routed", recipients, terms, (), _warnings(recipients, missed=len(reached) < len(holders)))


def _with_issuer(
    header: Header, directory: Directory, shown: int, holders: tuple[Recipient, ...]
) -> tuple[Recipient, ...]:
    """Add the bureau whose notice an authority withdraws: it gets the signed order like those who hold the notice."""
    subject = subject_of(header)
    issuer = directory.bureaus.get(subject.issuer) if subject and is_order(header) else None
    if issuer is None or any(each.index == issuer.index for each in holders):
        return holders
    return tuple(sorted((*holders, Recipient(issuer.index, issuer.id, shown)), key=_index))


def _warnings(recipients: tuple[Recipient, ...], *, missed: bool, broken: bool = False) -> tuple[str, ...]:
    found = ((HOLDERS_NOT_REACHED, missed), (REACHED_NOBODY, not recipients), (GLASS_BROKEN, broken))
    return tuple(name for name, so in found if so)


def _mask(holders: Sequence[Holder]) -> int:
    mask = 0
    for each in holders:
        mask |= 1 << each.index
    return mask


def _index(line: Recipient | Holder) -> int:
    return line.index


def _is_listed(directory: Directory, index: int) -> bool:
    return index < len(directory.ids) and bool(directory.ids[index])
