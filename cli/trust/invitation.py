"""An invitation: what a member needs of a federation before it can read its bus, in one file from the operator.

It names the federation and the bus, and holds the signed directory of the day, if there is one yet: that a member will
sign its entry against. It holds no secret, no annex, no policies, nothing of the trail. Only the directory can be
checked: by its signatures, from its first root on, which the joiner compares with another member's (`directory trust`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from adapters.signed import VERSION_LIMIT
from adapters.versions import Versions
from broker import durable, reading
from broker import settings as settings_file
from broker.errors import ConfigurationError
from broker.members import no_name_twice
from broker.settings import Settings
from broker.trust import bundle, roles
from broker.trust.bundle import Opened, WrittenBundle
from cli.home import clock
from cli.operator_home import OperatorHome
from cli.trust import proposing

LIMIT = VERSION_LIMIT + 4096
"""Bytes of a file: the directory as the bus would carry it, and where that bus is."""


class Invitation(BaseModel):
    """What the file says, nothing of it verified."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    invitation: Literal["valise/invitation/1"] = "valise/invitation/1"
    federation: str = Field(pattern=r"\A[^\x00-\x1f\x7f-\x9f]{1,255}\z")
    bus: str = Field(pattern=r"\Akafka:[!-~]+\z", max_length=4000)
    """As settings name it: kafka:HOST:PORT[,HOST:PORT…]. No other kind: a path would be one of the sender's choice."""
    directory: WrittenBundle | None = None
    """The newest one; none before the first is in force."""

    def content(self) -> bytes:
        """Write it."""
        return roles.canonical(self.model_dump(mode="json")) + b"\n"


@dataclass(frozen=True, slots=True)
class Accepted:
    """What an invitation has made of a member's home."""

    settings: Settings
    opened: Opened | None
    """The directory; checked only under the root that it names itself where none is pinned."""
    root: str
    """Fingerprint of the root that is pinned here, or of the one to compare; empty where there is no directory."""
    pinned: bool


async def write(home: OperatorHome) -> tuple[Invitation, Opened | None]:
    """Invite members to the federation as it stands now; give the directory, too, that the invitation holds.

    Raises ConfigurationError, UnavailableError.
    """
    if home.settings.bus_kind != "kafka":
        message = "the embedded bus lies beside its members' homes, who read it themselves: nobody needs an invitation"
        raise ConfigurationError(message)
    opened = (await proposing.standing(home)).opened
    if opened is None and (refused := home.versions.refused()):
        message = f"the directory on the bus is not taken here: {refused}"
        raise ConfigurationError(message)
    if opened is not None and roles.TIMESTAMP in opened.overdue(clock()):
        message = "the timestamp has expired, nobody would take it: `valise directory refresh` first"
        raise ConfigurationError(message)
    written = opened.written if opened else None
    return Invitation(federation=home.settings.federation, bus=home.settings.bus, directory=written), opened


def is_nearby(bus: str) -> bool:
    """Say whether a bus names itself as only who is on this machine can reach it, as nodes of `valise kafka up` do."""
    hosts = {each.rpartition(":")[0].strip("[]") for each in bus.removeprefix("kafka:").split(",")}
    return any(each in ("localhost", "::1") or each.startswith("127.") for each in hosts)


def read(path: Path) -> Invitation:
    """Read a file that anybody may have sent. Raises ConfigurationError."""
    try:
        content = reading.read(path, LIMIT)
        json.loads(content, object_pairs_hook=no_name_twice)
        return Invitation.model_validate_json(content)
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror}"
        raise ConfigurationError(message) from error
    except (ValueError, RecursionError) as error:
        message = f"{path} is no invitation: have the operator write another with `valise member invite`"
        raise ConfigurationError(message) from error


def accept(folder: Path, bureau: str, known: Settings | None, file: Path) -> Accepted:
    """Take an invitation into a member's home, which may not be there yet: the directory, then settings.

    `known`: the home's settings, if it has any; they stay. Raises ConfigurationError where they name another federation
    or bus, or a certificate with which the home reads that, VersionRefusedError where the directory does not hold or is
    older than one that was accepted here under the same root.
    """
    found = read(file)
    if known is not None:
        _check_same(folder, known, found)
    versions = Versions(folder / "versions")
    if found.directory is None and versions.given.is_file():
        message = (
            "it says that nothing is founded yet, and an invitation of before brought a directory: ask which is right, "
            f"and if it is this one remove {versions.given}"
        )
        raise ConfigurationError(message)
    opened = versions.accept(found.directory.content(), found.federation) if found.directory else None
    durable.make_private(folder)
    settings = known or settings_file.of_member(bureau, found.federation, found.bus)
    if known is None:
        settings_file.save(folder, settings)
    pinned = versions.guard().root
    root = pinned or (bundle.fingerprint(opened.written.roots[0]) if opened else "")
    return Accepted(settings, opened, root, bool(pinned))


def _check_same(folder: Path, known: Settings, found: Invitation) -> None:
    """Whoever could lead a home elsewhere by a file would stand between it and its federation."""
    if known.tls:
        message = f"{folder} has a certificate: it reads the bus itself, and needs no invitation"
        raise ConfigurationError(message)
    here = (known.federation, known.bus)
    if here != (found.federation, found.bus):
        message = (
            f"the invitation is to {found.federation} on {found.bus}, and {folder / 'settings.toml'} names "
            f"{known.federation} on {known.bus}: correct that if the operator says by another way that it has changed"
        )
        raise ConfigurationError(message)
