"""The federation of tests under threshold signatures: who holds which key, and what they sign together."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any

from broker import members
from broker.members import WrittenDirectory
from broker.signing import SigningKey
from broker.trust import bundle, draft, roles
from broker.trust.bundle import Opened, Trust
from broker.trust.draft import Draft, Signatory, Wanted
from tests import federation
from tests.making import NOW

ENTERED = ("AT", "LV", "GE")
"""Members that hold keys for metadata; RU and EUROPOL have not entered."""


def seeded(name: str) -> SigningKey:
    """A key, the same in every run."""
    return SigningKey.from_seed(sha256(f"trust/{name}".encode()).digest())


SNAPSHOT, TIMESTAMP = seeded("snapshot"), seeded("timestamp")


def root_key(member: str) -> SigningKey:
    """The offline key of a member."""
    return seeded(f"{member}/root")


def member_key(member: str) -> SigningKey:
    """The key with which a member signs all but root and targets."""
    return seeded(f"{member}/member")


def signatory(member: str) -> Signatory:
    """Its public halves."""
    return Signatory(member, root_key(member).public, member_key(member).public)


def plain(written: WrittenDirectory | None = None, **changes: object) -> dict[str, Any]:
    """The directory as JSON; members that have not entered have no key."""
    whole = written or federation.directory(**changes)  # type: ignore[arg-type] # fields of WrittenDirectory
    kept = tuple(each for each in whole.keys if each.bureau.partition("/")[0] in ENTERED)
    found: dict[str, Any] = json.loads(members.canonical(whole.model_copy(update={"keys": kept})))
    return found


def first_draft(now: int = NOW) -> Draft:
    """What founds the federation."""
    signatories = [signatory(each) for each in ENTERED]
    root = draft.found(signatories, (SNAPSHOT.public, TIMESTAMP.public), now, None)
    return draft.propose(Wanted(plain(), signatories), None, root, now, "the first directory", "operator")


def next_draft(base: Opened, wanted: Mapping[str, Any], now: int = NOW, **more: Any) -> Draft:
    """What changes a directory."""
    return draft.propose(Wanted(wanted, **more), base, None, now, "a change", "operator")


def signed_by(made: Draft, base: Opened | None, *signers: str) -> Draft:
    """The draft with the signatures of these members."""
    for member in signers:
        made, _ = draft.sign(made, base, member, [root_key(member), member_key(member)])
    return made


def content(made: Draft, base: Opened | None = None, signers: Sequence[str] = ENTERED, now: int = NOW) -> bytes:
    """The bundle that comes of a draft."""
    return draft.assemble(signed_by(made, base, *signers), base, SNAPSHOT, TIMESTAMP, now)


def first_content(now: int = NOW) -> bytes:
    """The first bundle."""
    return content(first_draft(now), now=now)


def root() -> str:
    """The first root, as it is pinned."""
    return bundle.fingerprint(first_draft().roots[0])


def opened(given: bytes, before: Opened | None = None, now: int | None = NOW) -> Opened:
    """A bundle as somebody opens it who has seen the one before."""
    trust = Trust(root())
    return bundle.open_bundle(given, replace(trust, seen=before.seen) if before else trust, now)


def changed_name(base: Opened, member: str, name: str) -> dict[str, Any]:
    """The directory with another name for a member's bureau."""
    found: dict[str, Any] = json.loads(base.plain)
    for each in found["bureaus"]:
        if each["id"] == f"{member}/ncb":
            each["name"] = name
    return found


def unnamed(base: Opened) -> Opened:
    """The same as it was signed before an agreement's file named keys."""
    said = json.loads(base.written.files["agreements/circle.json"])
    text = draft.json_of({name: each for name, each in said.items() if name != "keys"})
    envelope = roles.text_of(
        roles.written(draft._signing("agreement-circle", text, base.seen["agreement-circle"][0], NOW))
    )
    made = Draft(
        title="", by="operator", roles={"agreement-circle": envelope}, files={"agreements/circle.json": text.decode()}
    )
    return opened(content(made, base), base)
