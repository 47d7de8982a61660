"""Says which rejections on record are untrue, as far as the trail tells and what senders kept of what they sent.

Of what is rejected only the digest of its bytes is on record, the key that it names, and the digest of its header where
its issuer had signed that. So most codes are the broker's word until somebody brings the sender's own copy: then who
signed it is checked again, of a notice its times, its id and its number, of a receipt what it speaks of. What
compartments held, and which words were on the allow-lists of then, nobody can say. What was not repeated is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from broker import codec, errors
from broker.confirm import Given, confirm
from broker.errors import (
    AlreadyExpiredError,
    AlreadyWithdrawnError,
    BatchRefusedError,
    CompartmentMismatchError,
    CouldNotBeJudgedError,
    EmptyAudienceError,
    IdReusedError,
    InvalidFieldError,
    InvalidReferenceError,
    IssuedInFutureError,
    KeyNotInForceError,
    KeyOfAnotherError,
    KeyRevokedError,
    NoticeRejectedError,
    NumberReusedError,
    OtherFederationError,
    SignatureError,
    StaleStatementError,
    StreamOfAnotherError,
    TooLargeError,
    UnknownDeliveryError,
    UnknownHandlingError,
    UnknownKeyError,
    UnknownKindError,
    UnknownMemberError,
    UnknownPurposeError,
    WrongShardError,
)
from broker.notice import CLOCK_SKEW_MS, WITHDRAWAL, Envelope, Header, Receipt, Statement
from broker.once import Once
from broker.signing import header_digest
from broker.verify import Arrival, signed_header, subject_of, verify_statement

if TYPE_CHECKING:
    from broker.directory import Directory
    from broker.notice import DecisionRecord, Leaf
    from broker.recorded import Recorded
    from broker.statements import Statements

REJECTED = "rejected"


def _codes(*kinds: type[NoticeRejectedError]) -> frozenset[str]:
    return frozenset(each.code for each in kinds)


CODES = _codes(
    *(each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, NoticeRejectedError))
) - {NoticeRejectedError.code}
"""Codes that a broker gives."""
OF_SIGNED = _codes(
    UnknownPurposeError, UnknownHandlingError, InvalidReferenceError, CompartmentMismatchError, EmptyAudienceError,
    AlreadyExpiredError, IdReusedError, AlreadyWithdrawnError, NumberReusedError,
)  # fmt: skip
"""Codes of what its issuer had signed: the leaf names its header."""
OF_UNSIGNED = _codes(
    TooLargeError, UnknownKeyError, SignatureError, KeyNotInForceError, KeyRevokedError, KeyOfAnotherError,
    StreamOfAnotherError, OtherFederationError, UnknownMemberError, UnknownDeliveryError, StaleStatementError,
    WrongShardError, BatchRefusedError, CouldNotBeJudgedError,
)  # fmt: skip
"""Codes of what was no notice, or none that its issuer had signed: the leaf names no header."""
OF_KEY = _codes(KeyNotInForceError, KeyRevokedError, UnknownMemberError)
"""Codes of which the key that is on record tells whether they are true (`signers`)."""
NEVER_KNOWN = _codes(CouldNotBeJudgedError, TooLargeError)
"""Codes of which a copy does not tell that: a bug of the broker's, and the size of compartments that are forgotten."""
OF_WORDS = _codes(InvalidFieldError, UnknownKindError)
"""Codes of statements that depend on the allow-lists of then."""
DIGEST_OF_NOTHING = sha256(b"").digest()


@dataclass(frozen=True, slots=True)
class NoticeCopy:
    """A notice as its issuer sent it, without its compartments, and its place in its series, which they held."""

    envelope: Envelope
    series: bytes
    number: int
    record_digest: bytes
    source: str


class Rejections:
    """What the leaves so far say of rejections.

    `ids` and `numbers` are those of what was taken in, and kept, like `statements`, by who follows that; `given` tells
    who was given the notice of a leaf.
    """

    def __init__(
        self,
        statements: Statements,
        ids: Once,
        numbers: Once,
        given: Callable[[int], Given | None],
        copies: Iterable[NoticeCopy],
    ) -> None:
        self._statements, self._ids, self._numbers, self._given = statements, ids, numbers, given
        self._sent = {each.record_digest: each for each in copies}
        self._headers = {header_digest(each.envelope.header): each for each in self._sent.values()}
        self._taken_in = Once()
        self._withdrawn: set[bytes] = set()
        """Header digests of notices that were withdrawn before they came."""
        self._rejected = Once()
        """Header digests of what was rejected: under an id that was withdrawn first it stands for that, too."""
        self._used: set[tuple[str, bytes] | tuple[str, bytes, int]] = set()
        """Ids of these, and ids and numbers of what was rejected, as far as somebody brought a copy."""
        self._unseen: set[str | None] = set()
        """Bureaus of which something was rejected that nobody brought; None: it is not known of which."""
        self.count = 0
        self.on_word: dict[str, int] = {}
        """Rejections that nothing here says the truth of, by code."""

    def take_in(self, recorded: Recorded, *, has_lost: bool) -> str:
        """Note a notice that was taken in; say whether its issuer had been told that it was not, "" if not."""
        self._taken_in.before(recorded.leaf.header_digest, recorded.leaf_number)
        subject = subject_of(recorded.header)
        if subject and subject.relation == "withdraws" and recorded.leaf.about is None:
            self._withdrawn.add(subject.header_digest)
            self._used.add((subject.issuer, subject.notice_id))
        first = self._rejected.at(recorded.leaf.header_digest)
        return "" if first is None or has_lost else f"takes in the notice that leaf {first} had rejected"

    def take(
        self,
        number: int,
        leaf: Leaf,
        record: DecisionRecord,
        directory: Directory | None,
        receipt: tuple[bytes, str] | None,
        *,
        has_lost: bool,
    ) -> str:
        """Take in the next rejection; say why it is untrue, "" if nothing tells.

        `receipt`: what was rejected, if its bureau kept that, and the name of its file. `has_lost`: why it was may be
        among the leaves that were lost. Without the directory of its leaf nothing is said of keys.
        """
        self.count += 1
        if receipt and sha256(receipt[0]).digest() != record.record_digest:
            receipt = None  # while its file is read, its bureau may date it anew under its number
        wrong: str | None = _misformed(leaf, record) or self._is_taken_in(leaf)
        wrong = wrong or self._misnames(record, receipt) or None
        if wrong is None and not has_lost:
            wrong = self._by_trail(leaf, record, directory)
            if wrong is None:
                arrival = Arrival(record.stream, leaf.now, directory, self._statements.revoked) if directory else None
                wrong = self._by_copy(number, leaf, record, arrival, receipt)
        if wrong is None:
            self.on_word[leaf.code or ""] = self.on_word.get(leaf.code or "", 0) + 1
        self._note(number, leaf, record, directory)
        return wrong or ""

    def _is_taken_in(self, leaf: Leaf) -> str:
        first = self._taken_in.at(leaf.header_digest) if leaf.header_digest else None
        return f"is called {REJECTED}, and it is the notice that leaf {first} had taken in" if first is not None else ""

    def _misnames(self, record: DecisionRecord, receipt: tuple[bytes, str] | None) -> str:
        """Say whether a rejection names another key than what was rejected, of which its code may well be true."""
        if receipt:
            key_id, source = codec.decode(Statement, receipt[0]).key_id, receipt[1]
        elif sent := self._sent.get(record.record_digest):
            key_id, source = sent.envelope.key_id, sent.source
        else:
            return ""
        return f"names another key than what {source} kept of it" if record.key_id not in (None, key_id) else ""

    def _note(self, number: int, leaf: Leaf, record: DecisionRecord, directory: Directory | None) -> None:
        """Note what a rejection has used up: what its issuer had signed burns its id and its number."""
        if leaf.header_digest is None:
            return
        self._rejected.before(leaf.header_digest, number)
        if copy := self._headers.get(leaf.header_digest):
            header = codec.decode(Header, copy.envelope.header)
            self._used |= {(header.issuer, header.notice_id), (header.issuer, copy.series, copy.number)}
            return
        key = directory.key(record.key_id) if directory and record.key_id else None
        self._unseen.add(key.bureau if key else None)

    # Each gives "" where the code is true, and None where it cannot tell.

    def _by_trail(self, leaf: Leaf, record: DecisionRecord, directory: Directory | None) -> str | None:
        """Say what the trail says against a rejection."""
        if leaf.code == AlreadyWithdrawnError.code:
            if leaf.header_digest in self._withdrawn:
                return ""
            before = self._rejected.at(leaf.header_digest) is not None
            return None if before else f"is {leaf.code}, and no withdrawal of it is on record"
        if directory is None or record.key_id is None:
            return None
        if leaf.code in OF_KEY:
            return ""
        listed = directory.key(record.key_id) or directory.auditors.get(record.key_id)
        # One that is listed may be that of a revocation, which names another that is not.
        return "" if leaf.code == UnknownKeyError.code and not listed else None

    def _by_copy(
        self,
        number: int,
        leaf: Leaf,
        record: DecisionRecord,
        arrival: Arrival | None,
        receipt: tuple[bytes, str] | None,
    ) -> str | None:
        """Say what its sender's own copy says against a rejection."""
        if leaf.code in NEVER_KNOWN or (receipt and leaf.code in OF_WORDS):
            return None
        if leaf.header_digest is not None:
            copy = self._headers.get(leaf.header_digest)
            return self._by_header(leaf, copy, codec.decode(Header, copy.envelope.header)) if copy else None
        if arrival and receipt:
            data, source = receipt
            return _untrue(leaf, source, lambda: self._judge(number, codec.decode(Statement, data), arrival))
        sent = self._sent.get(record.record_digest)
        if sent and not record.stream.startswith("notices."):  # where it came is the broker's word, what follows is not
            is_true = leaf.code == UnknownKindError.code
            return None if is_true else f"is {leaf.code}, and what {sent.source} kept of it does not travel there"
        if arrival and sent:
            return _untrue(leaf, sent.source, lambda: signed_header(sent.envelope, arrival))
        return None

    def _judge(self, number: int, statement: Statement, arrival: Arrival) -> None:
        """Check a receipt as the broker does. Raises NoticeRejectedError."""
        said = verify_statement(statement, arrival)
        if isinstance(said, Receipt):
            confirm(said, lambda each: self._given(each) if each < number else None)

    def _by_header(self, leaf: Leaf, copy: NoticeCopy, header: Header) -> str | None:
        """Say whether the header that the leaf names bears out the code."""
        true: bool | None = None
        if leaf.code == IssuedInFutureError.code:
            true = header.issued > leaf.now + CLOCK_SKEW_MS
        if leaf.code == AlreadyExpiredError.code:
            true = header.expires is not None and header.expires <= leaf.now and header.kind != WITHDRAWAL
        if leaf.code == IdReusedError.code:
            true = self._is_used(self._ids, (header.issuer, header.notice_id))
        if leaf.code == NumberReusedError.code:
            true = self._is_used(self._numbers, (header.issuer, copy.series, copy.number))
        return "" if true else None if true is None else f"is {leaf.code}, and what {copy.source} kept of it is not"

    def _is_used(self, taken_in: Once, thing: tuple[str, bytes] | tuple[str, bytes, int]) -> bool | None:
        """Say whether an issuer has used an id or a number before; None: something of it was rejected unseen."""
        if taken_in.at(thing) is not None or thing in self._used:
            return True
        return None if {thing[0], None} & self._unseen else False


def _misformed(leaf: Leaf, record: DecisionRecord) -> str:
    """Say why no broker rejects so, "" if one may."""
    code, signed = leaf.code or "", leaf.header_digest is not None
    if code not in CODES:
        return f"is {REJECTED} as {code or 'nothing'}, which no broker says"
    if code in (OF_UNSIGNED if signed else OF_SIGNED):
        return f"is {code}, and names {'a' if signed else 'no'} notice that its issuer had signed"
    if record.statement:  # its key would be taken for that of a statement
        return f"is {REJECTED}, and holds a statement"
    if code == BatchRefusedError.code and record.record_digest != DIGEST_OF_NOTHING:
        return f"is {code}, and its bytes could be read"
    return ""


def _untrue(leaf: Leaf, source: str, check: Callable[[], object]) -> str | None:
    """Say why what `source` kept was not to be rejected so."""
    try:
        check()
    except NoticeRejectedError as error:
        if error.code == leaf.code:
            return None if error.code == StreamOfAnotherError.code else ""  # where it came is the broker's word, too
        return None if error.code in OF_WORDS else f"is {leaf.code}, and what {source} kept of it is {error.code}"
    return f"is {leaf.code}, and what {source} kept of it is not"
