"""A joiner reads its first directory from a file that somebody sends it; the root that a member told it holds it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from adapters.versions import Versions
from broker import settings
from broker.errors import ConfigurationError, ValiseError, VersionRefusedError
from broker.trust import bundle, draft, roles
from broker.trust.draft import Wanted
from broker.trust.guard import ROOT_FILE
from cli import main as command
from cli.home import clock
from cli.trust import invitation, signatories
from tests.trust import signed_world as world
from tests.trust.signed_world import changed_name, content, next_draft
from tests.trust.test_invitations import BUS, FR, held, sent

NOW = clock()
FIRST = world.first_content(NOW)
ROOT = bundle.first_root(FIRST)


def second() -> bytes:
    base = held(FIRST)
    return content(next_draft(base, changed_name(base, "AT", "Wien"), NOW), base, ("AT",), NOW)


def of_his_own() -> bytes:
    """A federation of the same name and members, each key of it his."""
    keys = {each: (world.seeded(f"his/{each}/root"), world.seeded(f"his/{each}")) for each in world.ENTERED}
    named = [draft.Signatory(each, root.public, key.public) for each, (root, key) in keys.items()]
    root = draft.found(named, (world.SNAPSHOT.public, world.TIMESTAMP.public), NOW, None)
    made = draft.propose(Wanted(world.plain(), named), None, root, NOW, "his own", "operator")
    for member, pair in keys.items():
        made, _ = draft.sign(made, None, member, pair)
    return draft.assemble(made, None, world.SNAPSHOT, world.TIMESTAMP, NOW)


def name_of() -> str:
    return held(FIRST).directory.federation


def test_somebody_invites_a_joiner_to_a_federation_of_his_own(tmp_path: Path) -> None:
    """It bears the right name and is signed through and through, by his keys: nothing of it stands before the joiner
    pins a root, and the one that a member tells it does not lead there. Nor is a founding of his signed meanwhile."""
    folder = tmp_path / "members" / "FR"
    false = of_his_own()
    done = invitation.accept(folder, FR, None, sent(tmp_path / "invitation", false, name_of()))
    assert (done.pinned, done.root) == (False, bundle.first_root(false))
    versions = Versions(folder / "versions")
    assert versions.guard().opened is None
    signatories.make(folder, "FR", name_of())
    founding = tmp_path / "founding.json"
    founding.write_bytes(world.first_draft(NOW).content())
    words = ["--home", str(tmp_path), "directory", "sign", str(founding), "--bureau", FR, "--yes"]
    said = CliRunner().invoke(command.valise, words).exception
    assert "valise directory trust FINGERPRINT" in str(said)
    with pytest.raises(ConfigurationError, match="take that root from a member once more"):
        versions.pin(ROOT)
    assert not (folder / ROOT_FILE).exists()
    invitation.accept(folder, FR, done.settings, sent(tmp_path / "invitation", FIRST))
    versions.pin(ROOT)
    assert versions.guard().opened is not None
    with pytest.raises(VersionRefusedError, match="is not in the chain"):
        invitation.accept(folder, FR, done.settings, sent(tmp_path / "invitation", false, name_of()))


def with_a_key_of_his(said: dict[str, Any]) -> None:
    his = world.seeded("his").public
    file = json.loads(said["files"]["members/AT.json"])
    file["keys"][0] |= {"key_id": his.id.hex(), "public": his.raw.hex()}
    said["files"]["members/AT.json"] = roles.canonical(file).decode()


def without_a_signature(said: dict[str, Any]) -> None:
    envelope = json.loads(said["roots"][0])
    envelope["signatures"] = envelope["signatures"][:1]
    said["roots"][0] = json.dumps(envelope)


def without_a_role(said: dict[str, Any]) -> None:
    del said["roles"]["LV"]


def without_roots(said: dict[str, Any]) -> None:
    said["roots"] = []


def with_a_file_more(said: dict[str, Any]) -> None:
    said["files"]["annex.json"] = "{}"


@pytest.mark.parametrize(
    "change", [with_a_key_of_his, without_a_signature, without_a_role, without_roots, with_a_file_more]
)
def test_somebody_changes_the_directory_in_an_invitation(
    tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    """Whether a root is pinned already or not: nothing is kept, no settings are made."""
    path = sent(tmp_path / "invitation", FIRST)
    said = json.loads(path.read_bytes())
    change(said["directory"])
    path.write_text(json.dumps(said), encoding="utf-8")
    for pinned in (False, True):
        folder = tmp_path / str(pinned)
        if pinned:
            Versions(folder / "versions").pin(ROOT)
        with pytest.raises(VersionRefusedError):
            invitation.accept(folder, FR, None, path)
        assert not (folder / "settings.toml").exists()
        assert not Versions(folder / "versions").given.exists()


def test_somebody_sends_a_joiner_an_invitation_of_before(tmp_path: Path) -> None:
    """An older one than it has, or one whose timestamp has expired; the newer one stays."""
    folder = tmp_path / "own"
    done = invitation.accept(folder, FR, None, sent(tmp_path / "new", second()))
    for pinned in (False, True):
        if pinned:
            Versions(folder / "versions").pin(ROOT)
        with pytest.raises(VersionRefusedError, match="is older than version"):
            invitation.accept(folder, FR, done.settings, sent(tmp_path / "old", FIRST))
    stale = world.first_content(NOW - draft.TIMESTAMP_LIFE_MS - 1)
    with pytest.raises(VersionRefusedError, match="has expired"):
        invitation.accept(tmp_path / "other", FR, None, sent(tmp_path / "stale", stale))
    base = Versions(folder / "versions").guard().opened
    assert base is not None
    assert base.directory.version == 2


def test_somebody_leads_a_members_home_to_another_bus_or_federation(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    done = invitation.accept(folder, FR, None, sent(tmp_path / "invitation", FIRST))
    before = (folder / "settings.toml").read_bytes()
    for false in (
        sent(tmp_path / "bus", FIRST, bus="kafka:elsewhere.example:9093"),
        sent(tmp_path / "name", None, "another.example"),
    ):
        with pytest.raises(ConfigurationError, match="if the operator says by another way"):
            invitation.accept(folder, FR, done.settings, false)
    with pytest.raises(VersionRefusedError, match="it is of"):
        invitation.accept(tmp_path / "new", FR, None, sent(tmp_path / "name", FIRST, "another.example"))
    assert not (tmp_path / "new" / "settings.toml").exists()
    assert (folder / "settings.toml").read_bytes() == before
    assert settings.load(folder).bus == BUS


def test_somebody_sends_a_joiner_a_link_a_pipe_or_a_file_without_end(tmp_path: Path) -> None:
    true = sent(tmp_path / "invitation", FIRST)
    link, pipe, huge = (tmp_path / each for each in ("link", "pipe", "huge"))
    link.symlink_to(true)
    os.mkfifo(pipe)
    huge.touch()
    os.truncate(huge, invitation.LIMIT + 1)
    for each in (link, pipe, huge, Path("/dev/zero")):
        with pytest.raises(ConfigurationError, match="cannot be read: it"):
            invitation.accept(tmp_path / "own", FR, None, each)
    assert not (tmp_path / "own").exists()


def test_an_invitation_of_any_changed_byte_is_refused_or_says_the_same(tmp_path: Path) -> None:
    """What is not signed is its federation's name, which the directory repeats, and the bus."""
    path = sent(tmp_path / "invitation", FIRST)
    whole, plain = path.read_bytes(), held(FIRST).plain
    Versions(tmp_path / "own" / "versions").pin(ROOT)
    for place in range(0, len(whole), max(1, len(whole) // 150)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            done = invitation.accept(tmp_path / "own", FR, None, path)
        except ValiseError:
            continue
        (tmp_path / "own" / "settings.toml").unlink()
        assert done.opened is not None
        assert done.opened.plain == plain
