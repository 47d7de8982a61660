"""Failures, sorted by who can mend them.

`NoticeRejectedError`: the sender can; the record ends in a leaf with the error's `code` and the loop goes on.
`UnavailableError`: time can; nothing was kept and the same records come again.
`ProofError`: nobody should; something that claims to be on record is not, exit code 4.
`ConfigurationError`: whoever runs this machine can; the message says what to do.
Anything else is a bug of ours: the process stops with nothing committed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class ValiseError(Exception):
    """Any failure that Valise foresees; `code` is stable and never changes its meaning."""

    code = "failed"


class UnavailableError(ValiseError):
    """The other side cannot be reached or is busy; nothing was kept, try the same again."""

    code = "unavailable"


class CannotSignError(UnavailableError):
    """The token that holds a key does not sign now; it may be plugged in again."""

    code = "cannot-sign"


class FencedError(UnavailableError):
    """Another process has taken over this shard, or emptied its cache; this one must stop writing at once."""

    code = "fenced"


class TopicGoneError(UnavailableError):
    """No node has the topic of a stream: nothing is written or read there until the operator makes it again."""

    code = "topic-gone"

    def __init__(self, streams: Sequence[str]) -> None:
        super().__init__(
            f"no node has a topic for {', '.join(streams)}: `valise kafka check` says more, and `valise kafka check "
            "--mend` of the operator makes again, empty, what may be"
        )
        self.streams = tuple(streams)


class OffsetGoneError(ValiseError):
    """The stream no longer holds this offset: a catch-up is needed, never a silent jump."""

    code = "offset-gone"

    def __init__(self, stream: str, offset: int, start: int) -> None:
        super().__init__(f"{stream} starts at {start}; offset {offset} is gone: ask for a catch-up")
        self.stream, self.offset, self.start = stream, offset, start


class InputLostError(ValiseError):
    """An input of the broker does not hold what it has to take next: it goes on only if the operator says so."""

    code = "input-lost"

    def __init__(self, stream: str, offset: int, what: str) -> None:
        super().__init__(what)
        self.stream, self.offset = stream, offset


class ForbiddenStreamError(ValiseError):
    """The principal may not do this on that stream (streams.py names who may)."""

    code = "denied"

    def __init__(self, principal: str, act: str, stream: str) -> None:
        super().__init__(f"{principal} may not {act} {stream}")
        self.principal, self.act, self.stream = principal, act, stream


class ConfigurationError(ValiseError):
    """Something on this machine is set wrongly; the message says what to do."""

    code = "configuration"


class ProofError(ValiseError):
    """A signature, proof, row or head does not hold: what was shown is not what is on record."""

    code = "proof-failed"


class TrailError(ValiseError):
    """The trail on this disk contradicts the record: refuse to run."""

    code = "trail-contradicts"


class RegisterEmptiedError(TrailError):
    """The register does not name what the last leaf was decided under: who holds what is forgotten, too."""

    code = "register-emptied"

    def __init__(self, kinds: Sequence[str]) -> None:
        super().__init__(
            f"register names {' and '.join(f'no {each}' for each in kinds)}, though the last leaf was decided under "
            "them: its stream was emptied"
        )
        self.kinds = tuple(kinds)


class CopiedError(TrailError):
    """The bus file is a copy: whether it is all that the world saw is not known before it is compared."""

    code = "copied"


class LostLeavesError(TrailError):
    """Somebody outside holds a head that goes beyond what was restored: what came after is lost here."""

    code = "lost-leaves"

    def __init__(self, size: int, source: str, ours: int) -> None:
        super().__init__(f"{source} saw {size} leaves of this log; what was restored ends at {ours}")
        self.size, self.source, self.ours = size, source, ours


class NothingLostError(TrailError):
    """No head outside goes beyond what is here: the log itself can go on, and a new one must not begin."""

    code = "nothing-lost"


class LogNotNamedError(TrailError):
    """The newest directory names another log of this shard than the one here: no member would follow it."""

    code = "log-not-named"


class NothingToCompareError(TrailError):
    """Nobody outside was named who saw this log."""

    code = "nothing-to-compare"


class DamagedError(ValiseError):
    """An encrypted file is not as it was written, or the key is another's."""

    code = "damaged"

    def __init__(self) -> None:
        super().__init__("the file is damaged, cut off, or under another key: nothing of it was used")


class NoticeRejectedError(ValiseError):
    """The sender's record cannot be taken; it is recorded with `code` and passed over.

    `message` may name ids, digests, limits and field names, never what a field held. `signed` is the
    `notice.Signed` of a notice whose header was signed by its issuer: its id and number are burnt. `key_id` is the
    key that the record names, as far as it could be read.
    """

    code = "rejected"
    signed: object = None
    key_id: bytes | None = None

    def __init__(self, message: str = "") -> None:
        super().__init__(message or (self.__doc__ or "").partition("\n")[0])


class TooLargeError(NoticeRejectedError):
    """The record is over the size limit."""

    code = "too-large"

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"{size} bytes are over the limit of {limit}")
        self.size, self.limit = size, limit


class UnreadableError(NoticeRejectedError):
    """The bytes are not what the schema they name describes."""

    code = "unreadable"


class LeftoverBytesError(NoticeRejectedError):
    """Bytes are left over after the record."""

    code = "leftover-bytes"


class UnknownSchemaError(NoticeRejectedError):
    """The schema fingerprint is not on the allow-list."""

    code = "unknown-schema"


class UnknownKeyError(NoticeRejectedError):
    """The key is not in the directory."""

    code = "unknown-key"


class UnknownMemberError(NoticeRejectedError):
    """The issuer is not in the directory, or not active."""

    code = "unknown-member"


class KeyNotInForceError(NoticeRejectedError):
    """The key was not in force when the record was taken in."""

    code = "key-not-in-force"


class KeyRevokedError(NoticeRejectedError):
    """The key had been revoked when the record was taken in."""

    code = "key-revoked"


class KeyOfAnotherError(NoticeRejectedError):
    """The key belongs to another bureau than the issuer that the record names."""

    code = "key-of-another"


class StreamOfAnotherError(NoticeRejectedError):
    """The record came on the stream of another member than its signer's."""

    code = "stream-of-another"


class SignatureError(NoticeRejectedError):
    """The signature does not fit the bytes."""

    code = "bad-signature"


class OtherFederationError(NoticeRejectedError):
    """The record names another federation."""

    code = "other-federation"


class UnknownKindError(NoticeRejectedError):
    """No such kind of notice or statement."""

    code = "unknown-kind"


class UnknownPurposeError(NoticeRejectedError):
    """No such purpose."""

    code = "unknown-purpose"


class UnknownHandlingError(NoticeRejectedError):
    """No such handling code."""

    code = "unknown-handling"


class InvalidFieldError(NoticeRejectedError):
    """A field of the header or routing is outside what it may hold."""

    code = "invalid-field"


class InvalidReferenceError(NoticeRejectedError):
    """The references do not fit the kind, or name what this issuer may not touch."""

    code = "invalid-reference"


class CompartmentMismatchError(NoticeRejectedError):
    """Compartments are not exactly those that the header lists, or a digest does not fit."""

    code = "compartment-mismatch"


class EmptyAudienceError(NoticeRejectedError):
    """The audience names nobody."""

    code = "empty-audience"


class IssuedInFutureError(NoticeRejectedError):
    """The signer's clock is more than five minutes ahead."""

    code = "issued-in-future"


class AlreadyExpiredError(NoticeRejectedError):
    """The notice had expired before it was taken in."""

    code = "already-expired"


class IdReusedError(NoticeRejectedError):
    """The same issuer used this notice id with other header bytes."""

    code = "id-reused"


class AlreadyWithdrawnError(NoticeRejectedError):
    """Its withdrawal came before the notice."""

    code = "already-withdrawn"


class NumberReusedError(NoticeRejectedError):
    """The number of this series was used by another notice."""

    code = "number-reused"


class UnknownDeliveryError(NoticeRejectedError):
    """The receipt speaks of something that this bureau was not given."""

    code = "unknown-delivery"


class StaleStatementError(NoticeRejectedError):
    """A newer statement of the same kind is already on record."""

    code = "stale-statement"


class WrongShardError(NoticeRejectedError):
    """What the record refers to is on record in another shard."""

    code = "wrong-shard"


class BatchRefusedError(NoticeRejectedError):
    """A batch of the bus could not be read, or expands past its bound."""

    code = "batch-refused"


class CouldNotBeJudgedError(NoticeRejectedError):
    """Our own code failed on this record; nobody gets it and the operator is alarmed."""

    code = "could-not-be-judged"


class VersionRefusedError(ValiseError):
    """A directory, policy set or schema set cannot be adopted; the old one stays in force."""

    code = "version-refused"
