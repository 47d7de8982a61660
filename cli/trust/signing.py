"""A member signs a draft: only roles that it has a part in, and nothing about its own keys that it does not know."""

from __future__ import annotations

import json
from pathlib import Path

from adapters.versions import Versions
from broker.errors import ConfigurationError
from broker.trust import bundle, draft, voices
from broker.trust.bundle import Opened
from broker.trust.draft import Draft
from broker.trust.roles import path_of
from cli import keyring
from cli.trust import signatories


def sign(folder: Path, member: str, made: Draft, base: Opened | None) -> tuple[Draft, list[str]]:
    """Sign with the keys of a member's home; tell for which roles, if any. Whoever signs the first root pins it.

    Raises ConfigurationError where the draft gives this member, or its bureaus, a key that is not in this home.
    """
    _check_own_keys(folder, member, made, base)
    keys = signatories.load(folder)
    _check_own_voices(signatories.own(folder, member) | {each.public.id.hex() for each in keys}, member, made, base)
    signed, done = draft.sign(made, base, member, keys)
    if base is None and made.roots:
        Versions(folder / "versions").pin(bundle.fingerprint(made.roots[0]))
    return signed, done


def _check_own_keys(folder: Path, member: str, made: Draft, base: Opened | None) -> None:
    """Refuse a key that somebody else would have us vouch for: this is how an operator would forge a bureau."""
    said = json.loads(made.files.get(path_of(member), "{}"))
    ours = {each.key_id().hex() for each in keyring.all_kept(folder, member)}
    known = {key_id.hex() for key_id, each in base.directory.keys.items() if _of(each.bureau) == member} if base else {}
    for each in said.get("keys", ()):
        if each["key_id"] not in ours and each["key_id"] not in known:
            message = (
                f"the draft gives {each['bureau']} the key {each['key_id'][:16]}, which is not in {folder / 'keys'}: "
                "do not sign it; ask the operator where it comes from"
            )
            raise ConfigurationError(message)


def _check_own_voices(ours: frozenset[str], member: str, made: Draft, base: Opened | None) -> None:
    """Refuse a key under our name that is not ours: whoever has it would sign for us in all that members decide."""
    root, targets = draft.governors(made, base)
    for name, keyid in voices.voices(root, targets).keys() - voices.standing(base).keys():
        if name == member and keyid not in ours:
            message = (
                f"the draft calls the key {keyid[:16]} {member}'s own, and it is not: "
                "do not sign it; ask the operator where it comes from"
            )
            raise ConfigurationError(message)


def _of(bureau: str) -> str:
    return bureau.partition("/")[0]
