"""Says to a member that its key for directories was called lost without its doing, and what it has to do."""

from __future__ import annotations

from pathlib import Path

from adapters.versions import CalledLost
from cli.trust import signatories


def unasked(folder: Path, member: str, found: CalledLost) -> str:
    """Say what is wrong; empty where nothing is lost, or keys speak for the member that its home asked for.

    Empty, too, in a home that never made such keys, which cannot know: its alarm `key-called-lost` rings all the same.
    """
    own = signatories.ever_own(folder, member) if found.keys else frozenset()
    if not own or own.issuperset(found.speaking):
        return ""
    lost, speaking = (", ".join(each[:16] for each in keys) for keys in (found.keys, found.speaking))
    return (
        f"RED: the holders of the root have called {member}'s key for directories lost ({lost}), and {speaking}, which "
        f"was not made here, speaks for {member}. Unless another home of {member} has asked for that, it can give "
        f"{member}'s bureaus keys: tell every member by another way; ask who holds the root (`valise directory "
        f"status`) who wanted it; compare the keys in `valise member show {member}` with your own; have the voice "
        f"given back: `valise key signatory`, and the operator drafts `valise member rekey {member} --lost`"
    )
