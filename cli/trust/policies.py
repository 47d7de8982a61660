"""Policy sets under two members' signatures: drafted by the operator or a member, signed like any draft."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from broker.errors import ConfigurationError
from broker.trust import draft
from broker.trust.roles import POLICIES
from cli.home import clock
from cli.trust import proposing

if TYPE_CHECKING:
    from broker.trust.bundle import Opened
    from broker.trust.draft import Draft
    from cli.operator_home import OperatorHome

SUFFIX = ".draft.json"


@dataclass(frozen=True, slots=True)
class Signed:
    """A policy set, and the signed bytes that `versions` carries."""

    policies: bytes
    content: bytes
    draft: Draft


def must_be_signed(home: OperatorHome) -> bool:
    """Say whether this federation takes signed policy sets only."""
    return home.versions.guard().root is not None


def propose(home: OperatorHome, policies: bytes, author: str) -> tuple[Path, Opened]:
    """Draft a policy set for two members to sign; give the draft, and the directory that says who may.

    Raises ConfigurationError where nobody has a role yet.
    """
    guard = home.versions.guard()
    if guard.opened is None:
        message = "nobody may sign policies yet: the directory comes first (`valise directory draft`)"
        raise ConfigurationError(message)
    number = guard.seen.get(POLICIES, (0, ""))[0] + 1
    return proposing.keep(home, draft.propose_policies(policies, number, author, clock())), guard.opened


def signed(home: OperatorHome, file: Path) -> Signed:
    """Read a draft that was signed. Raises VersionRefusedError that says who must still sign."""
    made, opened = draft.read_draft(file.read_bytes()), home.versions.guard().opened
    content = draft.allowed(made, opened)
    return Signed((made.policies or "").encode(), content, made)
