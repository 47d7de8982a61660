"""Which of a bureau's keys signs, and what the operator sees of it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from broker import durable
from broker.directory import Directory
from broker.errors import ConfigurationError
from broker.key_use import Use
from broker.members import WrittenKey, canonical, parse
from broker.notice import CLOCK_SKEW_MS, Revocation
from broker.rules import PolicySet
from broker.settings import Settings
from cli import key_use, keyring
from cli.home import MemberHome
from tests import federation as world
from tests.fake_bus import FakeBus
from tests.making import FEDERATION, NOW, key_of

OLD, NEW = key_of("AT/ncb"), key_of("AT/ncb", 1)
DAY = 86_400_000


def home(folder: Path, *generations: int) -> Path:
    for generation in generations:
        key_of("AT/ncb", generation - 1).save(keyring.path_of(folder, "AT/ncb", generation, "pem"))
    return folder


def listing(*more: WrittenKey) -> Directory:
    return parse(canonical(world.directory(extra_keys=more)))


def signs(folder: Path, directory: Directory | None, now: int = NOW) -> int:
    return keyring.signing(folder, "AT/ncb", directory, now).generation


def test_a_key_that_nobody_has_entered_signs_nothing(tmp_path: Path) -> None:
    folder = home(tmp_path, 1, 2)
    assert signs(folder, listing()) == 1
    assert signs(folder, None) == 1


def test_the_newest_key_in_force_signs(tmp_path: Path) -> None:
    folder = home(tmp_path, 1, 2)
    later = listing(world.written_key("AT/ncb", 1, NOW + DAY))
    assert [signs(folder, later, at) for at in (NOW, NOW + DAY - 1, NOW + DAY)] == [1, 1, 2]


def test_after_its_end_a_key_gives_way_to_the_one_before_that_is_still_good(tmp_path: Path) -> None:
    folder = home(tmp_path, 1, 2)
    short = listing(world.written_key("AT/ncb", 1, 0, NOW))
    assert signs(folder, short) == 1


def test_a_key_of_another_bureau_in_the_directory_is_not_ours_to_sign_with(tmp_path: Path) -> None:
    stolen = world.written_key("AT/ncb", 1).model_copy(update={"bureau": "AT/organised-crime"})
    assert signs(home(tmp_path, 1, 2), listing(stolen)) == 1


def test_a_revoked_key_signs_nothing_any_more(tmp_path: Path) -> None:
    folder, both = home(tmp_path, 1, 2), listing(world.written_key("AT/ncb", 1))
    keyring.forget(folder, NEW.public.id)
    keyring.forget(folder, NEW.public.id)
    assert signs(folder, both) == 1
    keyring.forget(folder, OLD.public.id)
    with pytest.raises(ConfigurationError, match="valise key rotate"):
        signs(folder, both)


def test_without_any_key_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="valise key new --bureau AT/ncb"):
        signs(tmp_path, listing())


@pytest.mark.parametrize("name", ["ncb.0.pem", "ncb.01.pem", "ncb.x.pem", "NCB.pem", "ncb.pem.bak", "ncb.request.json"])
def test_other_files_are_no_keys(tmp_path: Path, name: str) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / name).write_text("")
    assert keyring.all_kept(tmp_path, "AT") == []


def test_keys_that_are_revoked_at_once_are_all_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable, "ALONE_S", 60.0)  # the others may take that long on a busy machine
    ids = [bytes([number]) * 32 for number in range(16)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(partial(keyring.forget, tmp_path), ids))
    assert keyring.revoked(tmp_path) == frozenset(ids)


def test_a_home_has_no_key_of_another_member(tmp_path: Path) -> None:
    settings = Settings(role="member", federation=FEDERATION, bus="sqlite:bus.db", member="AT")
    at = MemberHome(home(tmp_path, 1), settings, "AT/ncb")
    assert at.kept_key().bureau == "AT/ncb"
    with pytest.raises(ConfigurationError, match="is the home of AT and has no key of DE/ncb"):
        at.kept_key("DE/ncb")


def test_a_passphrase_is_asked_for_once_in_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever follows its inbox makes what signs its receipts every few seconds; a key file that changed is another."""
    settings, passphrase = Settings(role="member", federation=FEDERATION, bus="sqlite:x", member="AT"), b"x" * 20
    at, path = MemberHome(tmp_path, settings, "AT/ncb"), keyring.path_of(tmp_path, "AT/ncb", 1, "pem")
    OLD.save(path, passphrase)
    secret = tmp_path / "passphrase"
    secret.touch(mode=0o600)
    secret.write_bytes(passphrase)
    monkeypatch.setenv("VALISE_PASSPHRASE_FILE", str(secret))
    assert at.key().public == OLD.public
    monkeypatch.delenv("VALISE_PASSPHRASE_FILE")
    assert at.key().public == OLD.public
    path.unlink()
    NEW.save(path, passphrase)
    with pytest.raises(ConfigurationError, match=r"passphrase of .* is needed"):
        at.key()


async def test_where_the_newest_directory_is_lost_no_key_is_guessed(tmp_path: Path) -> None:
    """It would be the oldest, which the broker takes from nobody any more."""
    settings, bus = Settings(role="member", federation=FEDERATION, bus="sqlite:bus.db", member="AT"), FakeBus()
    at = MemberHome(home(tmp_path, 1, 2), settings, "AT/ncb")
    directory = world.directory(extra_keys=(world.written_key("AT/ncb", 1),))
    await world.write_versions(bus, directory, PolicySet.packaged())
    await at.versions.follow(bus)
    assert at.kept_key().generation == 2
    (tmp_path / "versions" / parse(canonical(directory)).digest.hex()).unlink()
    with pytest.raises(ConfigurationError, match="is missing or damaged: `valise directory status`"):
        at.kept_key()


def standing(use: dict[bytes, Use], revoked: dict[bytes, Revocation] | None = None) -> dict[str, tuple[str, bool]]:
    directory = listing(world.written_key("AT/ncb", 1, NOW - DAY), world.written_key("LV/ncb", 1, NOW + DAY))
    found = key_use.lines(directory, revoked or {}, use, NOW)
    return {each.key_id: (each.state, each.lagging) for each in found}


def test_who_signs_with_an_old_key_after_the_new_one_came_is_named() -> None:
    since = NOW - DAY + CLOCK_SKEW_MS
    assert standing({OLD.public.id: Use(3, since)})[OLD.public.id.hex()] == ("in force", True)
    assert standing({OLD.public.id: Use(3, since - 1)})[OLD.public.id.hex()] == ("in force", False)
    assert standing({NEW.public.id: Use(3, since)})[NEW.public.id.hex()] == ("in force", False)


def test_a_key_whose_successor_is_not_in_force_yet_is_not_old() -> None:
    lv, later = key_of("LV/ncb").public.id, key_of("LV/ncb", 1).public.id.hex()
    found = standing({lv: Use(1, NOW)})
    assert (found[lv.hex()], found[later]) == (("in force", False), ("not yet in force", False))


def test_a_revoked_successor_makes_no_key_old() -> None:
    revoked = {NEW.public.id: Revocation(FEDERATION, "AT/ncb", NEW.public.id, "stolen", NOW)}
    found = standing({OLD.public.id: Use(1, NOW)}, revoked)
    assert (found[OLD.public.id.hex()], found[NEW.public.id.hex()]) == (("in force", False), ("revoked", False))
