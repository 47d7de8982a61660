"""Why a member's machine refuses something that claims to be on record: one class for each reason."""

from __future__ import annotations

from broker.errors import ProofError, ValiseError


class RefusedError(ProofError):
    """What arrived is not shown to anybody; `code` is kept with its place in the stream and raised as an alarm."""

    code = "refused"

    def __init__(self, message: str = "") -> None:
        super().__init__(message or (self.__doc__ or "").partition("\n")[0])


class RetentionOverError(ValiseError):
    """What is here may not be opened any more."""

    code = "retention-over"


class UnreadableDeliveryError(RefusedError):
    """The bytes are not what the schema they name describes."""

    code = "unreadable"


class OtherBureauError(RefusedError):
    """It was made for another bureau."""

    code = "other-bureau"


class OtherFederationError(RefusedError):
    """It names another federation."""

    code = "other-federation"


class UnknownHeadError(RefusedError):
    """Its checkpoint is none of the heads that extend each other here."""

    code = "unknown-head"


class SplitViewError(RefusedError):
    """Its checkpoint has another root than the head of the same size that is known here."""

    code = "split-view"


class NotInTrailError(RefusedError):
    """The inclusion proof does not lead from the leaf to the checkpoint."""

    code = "not-in-trail"


class WrongLeafError(RefusedError):
    """The leaf on record does not say what arrived."""

    code = "wrong-leaf"


class WrongRowError(RefusedError):
    """The row is not this bureau's, or not below the leaf's root of rows."""

    code = "wrong-row"


class UnknownDirectoryError(RefusedError):
    """The leaf names a directory that the operator has not published."""

    code = "unknown-directory"


class IssuerKeyError(RefusedError):
    """The key was not one of the issuing bureau's keys in force, or its signature does not fit."""

    code = "issuer-key"


class AlteredError(RefusedError):
    """Header or compartments are not those that the issuer signed."""

    code = "altered"


class NotAsShownError(RefusedError):
    """What is open is not exactly what the row says is shown."""

    code = "not-as-shown"


class NumberReusedError(RefusedError):
    """The delivery number belongs to another delivery that was kept before."""

    code = "number-reused"


class LeafReusedError(RefusedError):
    """The leaf number belongs to another leaf that was kept before: the log was begun again behind what was seen."""

    code = "leaf-reused"


class UnrelatedError(RefusedError):
    """It would replace or erase a delivery of another issuer or record, or without the right to."""

    code = "unrelated"
