"""Exit codes: which failure ends the command with which number (DESIGN §10)."""

from __future__ import annotations

import click

from broker.errors import ForbiddenStreamError, ProofError, TrailError, UnavailableError, ValiseError

DONE, FAILED, USAGE, DENIED, VERIFICATION_FAILED, UNAVAILABLE, PARTLY, HELD, UNDECIDED = range(9)
_BY_FAMILY: tuple[tuple[type[ValiseError], int], ...] = (
    (ForbiddenStreamError, DENIED),
    (ProofError, VERIFICATION_FAILED),
    (TrailError, VERIFICATION_FAILED),
    (UnavailableError, UNAVAILABLE),
)
UNREAD = 141
"""Nobody reads any more what is printed as it comes; the same as of a tool that SIGPIPE ends."""
OF_OUTCOME = {
    "sent": UNDECIDED, "unknown": UNDECIDED, "held": HELD,
    "rejected": FAILED, "refused": FAILED, "refused-here": FAILED,
}  # fmt: skip
"""What became of a notice → exit code of the command that published or traces it; DONE for all that is not here."""


def of_outcome(outcome: str) -> int:
    """Give the exit code that says what became of a notice."""
    return OF_OUTCOME.get(outcome, DONE)


def of(error: ValiseError) -> int:
    """Give the exit code of a failure."""
    return next((code for family, code in _BY_FAMILY if isinstance(error, family)), FAILED)


def end(code: int) -> None:
    """End the command whose answer was printed, unless all is well."""
    if code != DONE:
        raise click.exceptions.Exit(code)
