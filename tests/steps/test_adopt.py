"""A set that is loaded again for the same directory and annex is the one that was loaded; for any other it is not."""

from __future__ import annotations

from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest

from broker import members
from broker.adopt import Adopter
from broker.directory import NO_ANNEX
from broker.members import WrittenAnnex, WrittenDirectory
from broker.register import Register
from broker.rules import PolicySet, Rules
from tests import federation as world
from tests.exchange.test_policy_versions import NOTHING, WIDE_OPEN

CLEARED = members.canonical(WrittenAnnex(clearances={"GE/ncb": "secret"}))
SUPERVISED = members.canonical(WrittenAnnex(supervision=("GE",)))


def started(
    folder: Path, directory: WrittenDirectory | None = None, policies: PolicySet = NOTHING, annex: bytes | None = None
) -> Rules:
    """What a start puts in force that finds these in its register."""
    bound = {"annex": sha256(annex).hexdigest()} if annex else {}
    found = {
        "version/directory": members.canonical((directory or world.directory()).model_copy(update=bound)),
        "version/policies": policies.content,
    } | ({"version/annex": annex} if annex else {})
    with closing(Register(folder / "register.db")) as register:
        for key, value in found.items():
            register.put(key, value)
        adopter = Adopter(register)
        adopter.restore()
        assert adopter.view is not None
        return adopter.view.rules


def test_the_same_versions_are_loaded_once(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    first = started(tmp_path, annex=CLEARED)
    assert started(tmp_path / "other", annex=CLEARED) is first
    assert first.digest == NOTHING.digest


@pytest.mark.parametrize("change", ["directory", "policies", "annex", "no annex"])
def test_what_is_loaded_is_for_this_set_this_directory_and_this_annex(tmp_path: Path, change: str) -> None:
    (tmp_path / "before").mkdir()
    before = started(tmp_path / "before", annex=CLEARED)
    directory = world.directory(version=2) if change == "directory" else None
    annex = {"annex": SUPERVISED, "no annex": None}.get(change, CLEARED)
    policies = WIDE_OPEN if change == "policies" else NOTHING
    after = started(tmp_path, directory, policies, annex)
    assert after is not before
    assert after.digest == policies.digest
    assert after.annex.digest == (sha256(annex).digest() if annex else NO_ANNEX.digest)
    assert after.annex.supervision == ({"GE"} if annex == SUPERVISED else frozenset())
