"""Exit codes: which failure ends the command with which number (DESIGN §10)."""

from __future__ import annotations

from broker.errors import ForbiddenStreamError, ProofError, TrailError, UnavailableError, ValiseError

DONE, FAILED, USAGE, DENIED, VERIFICATION_FAILED, UNAVAILABLE, PARTLY, HELD = range(8)
_BY_FAMILY: tuple[tuple[type[ValiseError], int], ...] = (
    (ForbiddenStreamError, DENIED),
    (ProofError, VERIFICATION_FAILED),
    (TrailError, VERIFICATION_FAILED),
    (UnavailableError, UNAVAILABLE),
)
OF_OUTCOME = {"routed": DONE, "held": HELD, "rejected": FAILED}
"""What became of a notice → exit code of the command that published it."""


def of(error: ValiseError) -> int:
    """Give the exit code of a failure."""
    return next((code for family, code in _BY_FAMILY if isinstance(error, family)), FAILED)
