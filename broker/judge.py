"""Judges one record: what it is, what follows from it, what changes in the register.

Reads the register, changes nothing: a `Ruling` is applied as a whole or not at all, so that a bug of ours that hits one
record stops that record only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from broker import codec, streams
from broker.confirm import Given, confirm
from broker.decide import View, decide
from broker.errors import (
    AlreadyWithdrawnError,
    BatchRefusedError,
    IdReusedError,
    InvalidFieldError,
    InvalidReferenceError,
    NoticeRejectedError,
    NumberReusedError,
    StaleStatementError,
    UnknownDeliveryError,
    UnknownKeyError,
)
from broker.notice import (
    APPROVAL,
    NOT_RELEASED,
    ORDERED,
    RECORD_LIMIT,
    REFUSE,
    RELEASED,
    RESTRICTION,
    WITHDRAWAL,
    Decision,
    Envelope,
    Header,
    Holder,
    Look,
    Receipt,
    Reference,
    Revocation,
    Series,
    Signed,
    Standing,
    Statement,
    Subscription,
    Verified,
)
from broker.overdue import held_key, held_since
from broker.quick import quick
from broker.register import GAPS_LIMIT, Register, missing_numbers, notice_key, use_number
from broker.statements import further_back
from broker.verify import is_order, reopen, subject_of

if TYPE_CHECKING:
    from broker.bus import Record

MISSING_TOLD = 100
"""Missing numbers that an outcome lists."""
NOT_GIVEN = "no such notice is held that this bureau was given to review"
"""One answer to whatever an approval names wrongly: another would tell of what its bureau was not given."""
PASSED_LIMIT = 50_000
"""Replaced versions of which a later one is known without a look at those between."""
OWN_LEAF = -1
"""Stands for the number of the leaf in the making."""

Checked = Verified | Receipt | Subscription | Revocation | Look | NoticeRejectedError


@quick
@dataclass(frozen=True, slots=True)
class Ruling:
    """What follows from one record. In `standings` a leaf number of OWN_LEAF means this record's own leaf."""

    kind: str
    code: str | None = None
    detail: str = ""
    header: bytes = b""
    header_digest: bytes | None = None
    routing: bytes = b""
    statement: bytes = b""
    key_id: bytes | None = None
    """Under which key the notice was signed; of what is rejected the one that it names."""
    signature: bytes | None = None
    """Over `header`."""
    about: int | None = None
    missing: tuple[int, ...] = ()
    missing_count: int = 0
    notice_id: bytes | None = None
    issuer: str | None = None
    verified: Verified | None = None
    decision: Decision | None = None
    inherited: tuple[Holder, ...] = ()
    warnings: tuple[str, ...] = ()
    own: tuple[str, Standing] | None = None
    """The entry of the notice itself; its holders are filled in when delivery numbers are known."""
    standings: tuple[tuple[str, Standing], ...] = ()
    series: tuple[tuple[str, Series], ...] = ()
    entries: Mapping[str, bytes | None] = field(default_factory=dict)
    tell: tuple[str, ...] = ()
    then: Ruling | None = None
    """What follows in a leaf of its own: the release of the notice that this one approves, or its end."""
    view: View | None = None
    """The view that is in force from the next step on, if this record changes it."""


class Judge:
    """Judges the records of one shard, one at a time, against what the ones before left.

    `has_lost`: leaves of its log were lost for good, so that what a notice names may be among them.
    """

    def __init__(
        self, register: Register, view: View, given: Callable[[int], Given | None], *, has_lost: bool = False
    ) -> None:
        self.register, self.view, self._given, self._has_lost = register, view, given, has_lost
        # Of a version that was replaced a later one: what was walked through once is passed over from then on.
        self._later: dict[tuple[str, bytes], bytes] = {}

    def rule(self, record: Record, checked: Checked, now: int) -> Ruling:
        """Say what follows from a checked record. Every NoticeRejectedError ends here, as a ruling."""
        try:
            ruling = self._rule(record, checked, now)
        except NoticeRejectedError as error:
            ruling = self._refuse(error)
        return ruling if ruling.tell else replace(ruling, tell=_told(record, ruling))

    def _rule(self, record: Record, checked: Checked, now: int) -> Ruling:
        if isinstance(checked, NoticeRejectedError):
            raise checked
        if isinstance(checked, Verified):
            return self._notice(checked, now)
        statement = _payload(record)
        try:
            return self._statement(checked, statement)
        except NoticeRejectedError as error:
            error.key_id = codec.decode(Statement, statement).key_id
            raise

    def _statement(self, checked: Receipt | Subscription | Revocation | Look, statement: bytes) -> Ruling:
        if isinstance(checked, Receipt):
            return self._receipt(checked, statement)
        if isinstance(checked, Subscription):
            return self._subscription(checked, statement)
        if isinstance(checked, Look):
            return self._look(checked, statement)
        return self._revocation(checked, statement)

    # Notices

    def _refuse(self, error: NoticeRejectedError) -> Ruling:
        """Reject; a notice whose header its issuer signed burns its id and its number (DESIGN §3.5, §7)."""
        signed = error.signed
        if not isinstance(signed, Signed):
            return refused(error)
        header = signed.header
        standing = self.register.standing(header.issuer, header.notice_id)
        if standing and standing.header_digest == signed.header_digest and _arrived(standing):
            return _repeated(standing, header, signed.header_digest, error.key_id)
        named = Ruling(
            "rejected", error.code, str(error), header_digest=signed.header_digest, key_id=error.key_id,
            notice_id=header.notice_id, issuer=header.issuer,
        )  # fmt: skip
        return named if standing and _arrived(standing) else self._burn(named, signed, standing)

    def _burn(self, ruling: Ruling, signed: Signed, before: Standing | None) -> Ruling:
        header, routing = signed.header, signed.routing
        number = (routing.series, routing.number) if routing else (b"", 0)
        # A withdrawal that came first stays one; of a record's name no more is kept than a good one has.
        state = "withdrawn" if before and before.state == "withdrawn" else "refused"
        record = header.record if len(header.record) <= RECORD_LIMIT else ""
        own = Standing(signed.header_digest, state, OWN_LEAF, number[0], number[1], record, _burnt(header), (), b"")
        series: tuple[tuple[str, Series], ...] = ()
        if routing and routing.number >= 1:
            key = _series_key(header.issuer, routing.series)
            used = use_number(self.register.series(key), routing.number)
            series = ((key, used),) if used and len(used.missing) <= GAPS_LIMIT else ()
        return replace(ruling, own=(notice_key(header.issuer, header.notice_id), own), series=series)

    def _notice(self, verified: Verified, now: int) -> Ruling:
        try:
            return self._accept(verified, now)
        except NoticeRejectedError as error:
            error.signed = Signed(verified.header, verified.header_digest, verified.routing)
            error.key_id = verified.envelope.key_id
            raise

    def _accept(self, verified: Verified, now: int) -> Ruling:
        header, digest = verified.header, verified.header_digest
        standing = self.register.standing(header.issuer, header.notice_id)
        if standing and standing.header_digest != digest:
            raise IdReusedError
        if standing and _arrived(standing):
            return _repeated(standing, header, digest, verified.envelope.key_id)
        if standing:
            raise AlreadyWithdrawnError
        key, series = self._use_number(verified)
        reference = subject_of(header)
        target = self.register.standing(reference.issuer, reference.notice_id) if reference else None
        if reference and is_order(header):
            reference, target = self._newest(reference, target)
        if reference:
            self._check_known(reference, target)
            _check_subject(header, reference, target)
            _check_ends(reference, target)
        holders = target.holders if target else ()
        decision = decide(verified, self.view, now, holders)
        waiting = _waiting(header, decision, reference, target, now)
        ruling = self._routed(verified, decision, (reference, target), (key, series), waiting)
        if reference is None or target is None:
            return ruling
        if header.kind == APPROVAL:
            return replace(ruling, then=self._reviewed(header, reference, target, now))
        if is_order(header) and target.envelope:
            return replace(ruling, then=_follow_up(ORDERED, reopen(codec.decode(Envelope, target.envelope)), target))
        return ruling

    def _check_known(self, reference: Reference, target: Standing | None) -> None:
        """Check that what is corrected or restricted is on record. Raises InvalidReferenceError.

        Else it would stand beside that, and unrestricted, once it came. Only a withdrawal may come first.
        """
        if target is None and reference.relation in ("corrects", "restricts") and not self._has_lost:
            message = "what it corrects or restricts is not on record"
            raise InvalidReferenceError(message)

    def _newest(self, reference: Reference, target: Standing | None) -> tuple[Reference, Standing]:
        """Find the version that stands of what an authority ends: the last corrections may never have reached it.

        Raises InvalidReferenceError.
        """
        if target is None or target.header_digest != reference.header_digest:
            message = "what is withdrawn by order is not on record"
            raise InvalidReferenceError(message)
        issuer, notice_id, passed = reference.issuer, reference.notice_id, list[tuple[str, bytes]]()
        while later := self._later.get((issuer, notice_id), target.replaced_by):
            passed.append((issuer, notice_id))
            notice_id, newer = later, self.register.standing(issuer, later)
            assert newer is not None, "a notice was replaced by one that was never taken in"
            target = newer
        if len(self._later) > PASSED_LIMIT:
            self._later.clear()
        self._later |= dict.fromkeys(passed, notice_id)
        return replace(reference, notice_id=notice_id, header_digest=target.header_digest), target

    def _reviewed(self, approval: Header, reference: Reference, target: Standing, now: int) -> Ruling:
        """Release a held notice, decided anew at this `now`, or end it. Raises InvalidReferenceError."""
        # Not the holders: of a held correction those are also who has the version before it.
        given = self._given(target.leaf_number)
        if given is None or approval.issuer not in given.bureaus:
            raise InvalidReferenceError(NOT_GIVEN)
        if not self.view.directory.reviews(approval.issuer):
            message = "this bureau reviews no longer"
            raise InvalidReferenceError(message)
        held = reopen(codec.decode(Envelope, target.envelope))
        if held.header.expires is not None and held.header.expires <= now:
            message = "the held notice has expired"
            raise InvalidReferenceError(message)
        if approval.action_sought == REFUSE:
            return _ended_by_review(held, reference, target)
        self._check_sender(held)
        # By their index: one that was suspended since has no more of it than when it was given that to review.
        reviewing = filter(None, map(self.view.directory.bureaus.get, given.bureaus))
        holders, reviewers = _apart(target.holders, {each.index for each in reviewing})
        decision = decide(held, self.view, now, holders, released=True, reviewers=reviewers)
        if decision.state == "held":
            message = "the rules hold it although it was released"
            raise InvalidReferenceError(message)
        return _released(held, reference, target, decision)

    def _check_sender(self, held: Verified) -> None:
        """Check that the issuer of a held notice may still send it, under this key. Raises InvalidReferenceError."""
        if not self.view.directory.is_active(held.header.member):
            message = "the member that sent it has been suspended since"
            raise InvalidReferenceError(message)
        kept = self.register.get(f"revoked/{held.envelope.key_id.hex()}")
        if kept is not None and _compromised_since(kept) is not None:
            message = "the key that signed it has been called compromised since: its issuer has to publish it anew"
            raise InvalidReferenceError(message)

    def _use_number(self, verified: Verified) -> tuple[str, Series]:
        routing = verified.routing
        key = _series_key(verified.header.issuer, routing.series)
        series = use_number(self.register.series(key), routing.number)
        if series is None:
            raise NumberReusedError
        if len(series.missing) > GAPS_LIMIT:
            message = "number: the series has too many gaps"
            raise InvalidFieldError(message)
        return key, series

    def _routed(
        self,
        verified: Verified,
        decision: Decision,
        subject: tuple[Reference | None, Standing | None],
        series: tuple[str, Series],
        entries: Mapping[str, bytes | None],
    ) -> Ruling:
        header, routing, (reference, target) = verified.header, verified.routing, subject
        own = Standing(
            verified.header_digest, decision.state, OWN_LEAF, routing.series, routing.number,
            header.record, header.version, (), codec.encode(verified.envelope),
        )  # fmt: skip
        missing = missing_numbers(series[1], MISSING_TOLD)
        return Ruling(
            decision.state,
            header=verified.envelope.header,
            header_digest=verified.header_digest,
            routing=verified.routing_opened.salt + verified.routing_opened.data,
            key_id=verified.envelope.key_id,
            signature=verified.envelope.signature,
            about=target.leaf_number if target else None,
            missing=missing,
            missing_count=sum(last - first + 1 for first, last in series[1].missing),
            notice_id=header.notice_id,
            issuer=header.issuer,
            verified=verified,
            decision=decision,
            inherited=_inherited(header, decision, target),
            warnings=(*decision.warnings, *(("series-gap",) if missing else ())),
            own=(notice_key(header.issuer, header.notice_id), own),
            standings=_ended(header, reference, target),
            series=(series,),
            entries=entries,
            tell=(header.member,),
        )

    # Statements

    def _receipt(self, receipt: Receipt, statement: bytes) -> Ruling:
        key = f"receipts/{receipt.bureau}"
        used = use_number(self.register.series(key), receipt.number)
        if used is None:
            return Ruling("repeated", statement=statement)
        if len(used.missing) > GAPS_LIMIT:
            message = "number: too many gaps"
            raise InvalidFieldError(message)
        confirm(receipt, self._given)
        return Ruling(
            "receipt",
            receipt.act,
            statement=statement,
            about=receipt.items[0].leaf_number if len(receipt.items) == 1 else None,
            issuer=receipt.bureau,
            series=((key, used),),
            tell=(receipt.issuer_member,),
        )

    def _subscription(self, subscription: Subscription, statement: bytes) -> Ruling:
        key = f"subscription/{subscription.bureau}"
        kept = self.register.get(key)
        payload = codec.decode(Statement, statement).payload
        if kept == payload:
            return Ruling("repeated", statement=statement)
        if kept is not None and codec.decode(Subscription, kept).number >= subscription.number:
            raise StaleStatementError
        subscriptions = self.view.subscriptions.changed(subscription.bureau, subscription.patterns)
        return Ruling(
            "subscribed",
            statement=statement,
            issuer=subscription.bureau,
            entries={key: payload},
            view=replace(self.view, subscriptions=subscriptions),
        )

    def _look(self, look: Look, statement: bytes) -> Ruling:
        """Record who is about to look at clear data, and tell the member whose notices they are."""
        key = f"look/{look.by}/{look.look_id.hex()}"
        if self.register.get(key) is not None:
            return Ruling("repeated", statement=statement)
        for leaf_number in look.leaves:
            given = self._given(leaf_number)
            if given is None or given.issuer_member != look.issuer_member:
                message = f"leaf {leaf_number} is no notice of {look.issuer_member}"
                raise UnknownDeliveryError(message)
        return Ruling(
            "look",
            statement=statement,
            about=look.leaves[0] if len(look.leaves) == 1 else None,
            issuer=look.by,
            entries={key: b"\1"},
            tell=(look.issuer_member,),
        )

    def _revocation(self, revocation: Revocation, statement: bytes) -> Ruling:
        """Take a key out of force; everybody is told, so that holders find what they hold under it.

        Who may: any key in force of the same member. Its own, too: a thief who does that ends only his own power, and a
        member whose other keys he revoked can still end his. What reaches further back is taken as a new one.
        """
        key = f"revoked/{revocation.key_id.hex()}"
        kept = self.register.get(key)
        if kept is not None and not further_back(revocation, _compromised_since(kept)):
            return Ruling("repeated", statement=statement, tell=(revocation.bureau.partition("/")[0],))
        found = self.view.directory.key(revocation.key_id)
        member = revocation.bureau.partition("/")[0]
        if found is None or found.bureau.partition("/")[0] != member:
            message = "the revoked key is not one of this member's"
            raise UnknownKeyError(message)
        return Ruling(
            "revoked",
            statement=statement,
            issuer=revocation.bureau,
            entries={key: statement},
            tell=tuple(sorted(self.view.directory.members)),
        )


def _compromised_since(kept: bytes) -> int | None:
    """Tell from when on the revocation on record calls its key into doubt; None: from its own leaf."""
    return codec.decode(Revocation, codec.decode(Statement, kept).payload).compromised_since


def _follow_up(kind: str, notice: Verified, target: Standing) -> Ruling:
    """Tell the issuer what another bureau's word did to its notice: what is signed, and routing, are the notice's."""
    return Ruling(
        kind,
        header=notice.envelope.header,
        header_digest=notice.header_digest,
        routing=notice.routing_opened.salt + notice.routing_opened.data,
        key_id=notice.envelope.key_id,
        signature=notice.envelope.signature,
        about=target.leaf_number,
        notice_id=notice.header.notice_id,
        issuer=notice.header.issuer,
        entries={held_key(notice.header.issuer, notice.header.notice_id): None},
        tell=(notice.header.member,),
    )


def _released(held: Verified, reference: Reference, target: Standing, decision: Decision) -> Ruling:
    reached = {each.index for each in decision.recipients}
    return replace(
        _follow_up(RELEASED, held, target),
        verified=held,
        decision=decision,
        warnings=decision.warnings,
        inherited=tuple(each for each in target.holders if each.index not in reached),
        own=(notice_key(reference.issuer, reference.notice_id), replace(target, state="routed", holders=())),
    )


def _ended_by_review(held: Verified, reference: Reference, target: Standing) -> Ruling:
    # A withdrawal must still reach its reviewers and, of a correction, those who have the version before it.
    ended = replace(target, state="refused", envelope=b"")
    key = notice_key(reference.issuer, reference.notice_id)
    return replace(_follow_up(NOT_RELEASED, held, target), standings=((key, ended),))


def _waiting(
    header: Header, decision: Decision, reference: Reference | None, target: Standing | None, now: int
) -> Mapping[str, bytes | None]:
    """Note that a notice waits for its review, or no longer: what it was about has been withdrawn or replaced."""
    if decision.state == "held":
        return {held_key(header.issuer, header.notice_id): held_since(now, header.expires)}
    if reference and target and target.state == "held" and reference.relation in _END_STATES:
        return {held_key(reference.issuer, reference.notice_id): None}
    return {}


def _burnt(header: Header) -> int:
    """Give the version of what is rejected: beside what changes a notice that one stands, whatever number it has."""
    return max(header.version, 2) if subject_of(header) else header.version


def _payload(record: Record) -> bytes:
    """Give the bytes of a record that `check` has read."""
    if record.value is None:
        raise BatchRefusedError(record.fault)
    return record.value


def _arrived(standing: Standing) -> bool:
    """Tell whether the notice itself was ever taken in: a withdrawal may have come before it."""
    return bool(standing.series) or standing.state != "withdrawn"


def _series_key(issuer: str, series: bytes) -> str:
    return f"series/{issuer}/{series.hex()}"


def _repeated(standing: Standing, header: Header, digest: bytes, key_id: bytes | None) -> Ruling:
    return Ruling(
        "repeated", standing.state, header_digest=digest, key_id=key_id, about=standing.leaf_number,
        notice_id=header.notice_id, issuer=header.issuer,
    )  # fmt: skip


def _check_subject(header: Header, reference: Reference, target: Standing | None) -> None:
    """Check what a notice changes against the register. Raises InvalidReferenceError."""
    if header.kind == APPROVAL:
        if target is None or target.state != "held" or target.header_digest != reference.header_digest:
            raise InvalidReferenceError(NOT_GIVEN)
        return
    if target is None:
        return
    if target.header_digest != reference.header_digest:
        message = "the reference names other header bytes"
        raise InvalidReferenceError(message)
    if target.record and target.record != header.record:
        message = "the reference names another record"
        raise InvalidReferenceError(message)
    if target.state == "replaced":
        message = f"the notice of leaf {target.leaf_number} was replaced by a later version: name that one"
        raise InvalidReferenceError(message)
    if reference.relation == "corrects" and (target.state == "withdrawn" or header.version <= target.version):
        message = "a correction has a higher version, and what was withdrawn is not corrected"
        raise InvalidReferenceError(message)


def _check_ends(reference: Reference, target: Standing | None) -> None:
    """Check that what a notice ends or restricts is something that bureaus hold. Raises InvalidReferenceError."""
    if target is None or reference.relation not in _END_STATES:
        return
    if target.state == "refused" and not target.holders and (target.version > 1 or reference.relation == "withdraws"):
        # What stands of its record (the version before it, what it was to end or restrict, another that calls itself
        # the first) is with holders who would not hear of this. What corrects a first version reaches its own audience.
        message = "what it names was rejected, and nobody was given it: name the version that stands, if there is one"
        raise InvalidReferenceError(message)
    if reference.relation == "restricts" and target.state in {"withdrawn", "refused"}:
        message = "what was withdrawn is not restricted"
        raise InvalidReferenceError(message)
    ends = codec.decode(Header, codec.decode(Envelope, target.envelope).header).kind if target.envelope else ""
    if ends == RESTRICTION:
        # It was told to the holders of what it restricts, who would keep that.
        message = "a restriction is no version of its record: name the notice that it restricts"
        raise InvalidReferenceError(message)
    if ends in {WITHDRAWAL, APPROVAL}:
        message = "a withdrawal or an approval stands: publish the record anew"
        raise InvalidReferenceError(message)


def _apart(holders: tuple[Holder, ...], given: Collection[int]) -> tuple[tuple[Holder, ...], tuple[Holder, ...]]:
    """Part the holders of a held notice: who has a version before it, and who was only given it itself to review."""
    only = tuple(each for each in holders if each.index in given and len(each.numbers) == 1)
    return tuple(each for each in holders if each not in only), only


def _inherited(header: Header, decision: Decision, target: Standing | None) -> tuple[Holder, ...]:
    """Keep as holders of the record those whom its correction does not reach: a withdrawal must.

    Of a correction that is held all: whoever reviews it keeps the version before it, too.
    """
    if target is None or header.kind == WITHDRAWAL:
        return ()
    if decision.state == "held":
        return target.holders
    reached = {each.index for each in decision.recipients}
    return tuple(each for each in target.holders if each.index not in reached)


_END_STATES = {"corrects": "replaced", "withdraws": "withdrawn", "restricts": "restricted"}


def _ended(header: Header, reference: Reference | None, target: Standing | None) -> tuple[tuple[str, Standing], ...]:
    """Change the entry of the notice that this one corrects, withdraws or restricts."""
    if reference is None or reference.relation not in _END_STATES:
        return ()
    key = notice_key(reference.issuer, reference.notice_id)
    state = _END_STATES[reference.relation]
    if target is None:
        if state != "withdrawn":
            return ()
        return ((key, Standing(reference.header_digest, state, OWN_LEAF, b"", 0, header.record, 0, (), b"")),)
    if state == "restricted":
        return ((key, replace(target, state=state)),)
    replaced_by = header.notice_id if state == "replaced" else b""
    return ((key, replace(target, state=state, holders=(), envelope=b"", replaced_by=replaced_by)),)


def _told(record: Record, ruling: Ruling) -> tuple[str, ...]:
    """Name who gets the outcome: the member on whose stream the record came; an accepted receipt needs none."""
    member = streams.member_of(record.stream)
    quiet = ruling.kind == "repeated" and ruling.notice_id is None
    return (member,) if member and not quiet else ()


def refused(error: NoticeRejectedError) -> Ruling:
    """Reject a record of which nothing is known but that it came."""
    return Ruling("rejected", error.code, str(error), key_id=error.key_id)
