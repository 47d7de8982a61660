"""A kill while a key's file is made leaves no key: nobody signs with half of one, and the same command makes it."""

from __future__ import annotations

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from os import mkfifo
from pathlib import Path

import pytest

from broker import authorities, durable
from broker.errors import ConfigurationError
from broker.possession import check_request
from broker.signing import SigningKey
from cli import backup, keyring, keys, passphrases, seed
from cli import main as command
from cli.auditor import enrolled
from cli.auditor.witness import identity
from cli.home import clock
from cli.operator_home import make, own_key
from cli.trust import signatories
from cli.trust.proposing import operator_keys
from tests.making import key_of
from tests.trust.test_commands import made, valise

CHALLENGE = "5a" * 32
KILLED = """
import os, signal, sys
from pathlib import Path
from broker.signing import SigningKey

os.link = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
SigningKey.new().save(Path(sys.argv[1]))
"""
"""Killed once the key is on disk, before it is in its place."""


LINKED = """
import os, signal, sys
from pathlib import Path
from broker.signing import SigningKey

link = os.link
os.link = lambda *names: (link(*names), os.kill(os.getpid(), signal.SIGKILL))
SigningKey.new().save(Path(sys.argv[1]))
"""
"""Killed once the key is in its place, while it has its first name, too."""


def killed_once_it_is_made(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    done = subprocess.run([sys.executable, "-c", LINKED, str(path)], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert path.stat().st_nlink == 2
    assert len(durable.left(path)) == 1


def test_no_second_name_of_a_key_stays_that_a_kill_has_left(tmp_path: Path) -> None:
    path = tmp_path / "ncb.pem"
    killed_once_it_is_made(path)
    other = tmp_path / f".ncb.pem.2.{'0' * 16}.new"  # of `ncb.pem.2`
    other.touch()
    with pytest.raises(FileExistsError):
        SigningKey.new().save(path)
    assert {*tmp_path.iterdir()} == {path, other}
    killed_once_it_is_made(tmp_path / "log.key")
    own_key(tmp_path / "log.key")
    assert {*tmp_path.iterdir()} == {path, other, tmp_path / "log.key"}


def test_a_members_root_that_a_kill_left_under_two_names_is_told_and_has_one_once_it_is_asked_for_again(
    tmp_path: Path,
) -> None:
    root = tmp_path / "trust" / "root.pem"
    killed_once_it_is_made(root)
    assert {*signatories.bare(tmp_path)} == {root, *durable.left(root)}
    signatories.make(tmp_path, "FR", "test")
    assert (durable.left(root), root.stat().st_nlink) == ([], 1)


BUREAUS_KEY = LINKED.replace("from broker.signing import SigningKey", "from cli.keys import Wanted, make_key").replace(
    "SigningKey.new().save(Path(sys.argv[1]))", 'make_key(Path(sys.argv[1]), "FR/ncb", "test", Wanted("0" * 64))'
)


def test_the_first_key_of_a_bureau_that_a_kill_left_without_a_request_gets_it_and_one_name_by_the_same_command(
    tmp_path: Path,
) -> None:
    done = subprocess.run([sys.executable, "-c", BUREAUS_KEY, str(tmp_path)], check=False, timeout=60)
    (lies,) = keyring.kept(tmp_path, "FR/ncb")
    assert (done.returncode, len(durable.left(lies.path))) == (-signal.SIGKILL, 1)
    path, request = keys.make_key(tmp_path, "FR/ncb", "test", keys.Wanted(CHALLENGE))
    assert {*path.parent.iterdir()} == {lies.path, request}
    asked = check_request(request.read_bytes(), "test")
    assert (asked.public, asked.asked.challenge) == (lies.load().public, CHALLENGE)
    with pytest.raises(ConfigurationError, match="has a key already"):
        keys.make_key(tmp_path, "FR/ncb", "test")
    assert check_request(request.read_bytes(), "test") == asked


def test_who_finds_a_key_without_its_request_writes_over_none_of_who_made_it(tmp_path: Path) -> None:
    """Two people at once: he has written his request by then, with the challenge that he was given."""
    _, request = keys.make_key(tmp_path, "FR/ncb", "test", keys.Wanted(CHALLENGE))
    (kept,) = keyring.kept(tmp_path, "FR/ncb")
    keys._put_request(kept, {}, only_if_none=True)
    assert check_request(request.read_bytes(), "test").asked.challenge == CHALLENGE


def test_a_passphrase_that_is_named_opens_the_key_that_was_left(tmp_path: Path) -> None:
    wanted = keys.Wanted(passphrase=b"correct horse battery staple")
    path, request = keys.make_key(tmp_path, "FR/ncb", "test", wanted)
    request.unlink()
    with pytest.raises(ConfigurationError, match="does not open this key"):
        keys.make_key(tmp_path, "FR/ncb", "test", keys.Wanted(passphrase=b"another horse battery staple"))
    assert keys.make_key(tmp_path, "FR/ncb", "test", wanted) == (path, request)


CHANGED = """
import os, signal, sys
from pathlib import Path
from broker import authorities, durable

sync, times = durable.sync, iter(range(int(sys.argv[2])))
durable.sync = lambda folder: sync(folder) if next(times, None) is not None else os.kill(os.getpid(), signal.SIGKILL)
authorities.encrypt(Path(sys.argv[1]), sys.argv[4].encode(), sys.argv[3].encode())
"""
"""Killed while the authorities' keys come under another passphrase, once so many of them have."""


def test_a_change_of_the_authorities_passphrase_that_was_killed_is_ended_by_the_same_command(tmp_path: Path) -> None:
    """Until then neither passphrase signs anything, and what refuses says how to go on."""
    first, second, now = "the first long passphrase", "the second long passphrase", datetime.now(UTC)
    pki = authorities.init_pki(tmp_path, ["AT"], now, passphrase=first.encode())
    arguments = [sys.executable, "-c", CHANGED, str(pki), "2", first, second]
    assert subprocess.run(arguments, check=False, timeout=60).returncode == -signal.SIGKILL
    for each in (first, second):
        with pytest.raises(ConfigurationError, match="`valise certificate passphrase` was cut off, call it again"):
            authorities.check_opens(pki, each.encode())
    with pytest.raises(ConfigurationError, match="does not open this key of an authority"):
        authorities.encrypt(pki, second.encode(), b"another long passphrase")
    assert len(authorities.encrypt(pki, second.encode(), first.encode())) == len(list(pki.glob("*-ca.key"))) + 1 - 3
    authorities.check_opens(pki, second.encode())
    assert [each.name for each in pki.glob("*.new")] == []
    assert {each.stat().st_mode & 0o777 for each in pki.glob("*.key")} == {0o600}
    assert authorities.encrypt(pki, second.encode(), first.encode()) == []


async def test_the_next_key_that_a_kill_left_without_a_request_gets_it_and_what_was_entered_needs_none(
    tmp_path: Path,
) -> None:
    stage = await made(tmp_path)
    await stage.member("AT/ncb").follow()
    home = stage.home
    folder, rotate = home / "members" / "AT", ("key", "rotate", "--bureau", "AT/ncb", "--json")
    (first,) = keyring.kept(folder, "AT/ncb")
    first.request.unlink()
    assert "has a key already" in (await valise(home, "key", "new", "--bureau", "AT/ncb")).err
    assert (await valise(home, *rotate)).code == 0
    second = keyring.kept(folder, "AT/ncb")[-1]
    second.request.unlink()
    again = await valise(home, *rotate)
    assert (again.value["key"], again.value["follows"]) == (str(second.path), first.load().public.id.hex())
    asked = check_request(second.request.read_bytes(), seed.seed().federation)
    asked.check_entry(None, {first.load().public.id: first.load().public})
    assert "send" in (await valise(home, *rotate)).err
    assert [each.path for each in keyring.kept(folder, "AT/ncb")] == [first.path, second.path]


def test_a_witnesss_key_that_a_kill_left_under_two_names_has_one_once_it_is_asked_for_again(tmp_path: Path) -> None:
    """And the verifier key that the kill left out: of that key, under the name that is given now."""
    path, again = tmp_path / "witness.pem", ["audit", "witness", "--new-key", "witness.example/at"]
    killed_once_it_is_made(path)
    key = SigningKey.load(path)
    for code in (0, 1):  # once it is whole it is never made again
        with pytest.raises(SystemExit) as done:
            command.main([*again, str(path)])
        assert done.value.code == code
    assert {*tmp_path.iterdir()} == {path, tmp_path / "witness.pem.vkey"}
    assert (identity(path).name, identity(path).key.public) == ("witness.example/at", key.public)
    with pytest.raises(SystemExit):
        command.main([*again[:-1], "no name", str(tmp_path / "none.pem")])
    assert not (tmp_path / "none.pem").exists()


def killed_while_it_makes(path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert not path.exists()
    assert [each.name.startswith(f".{path.name}.") for each in path.parent.glob(".*")] == [True]


def test_a_bureaus_next_key_of_which_a_kill_left_half_keeps_nobody_from_signing(tmp_path: Path) -> None:
    first, second = (keyring.path_of(tmp_path, "AT/ncb", each, "pem") for each in (1, 2))
    key_of("AT/ncb").save(first)
    killed_while_it_makes(second)
    assert [each.path for each in keyring.all_kept(tmp_path, "AT")] == [first]
    assert keyring.signing(tmp_path, "AT/ncb", None, 0).path == first
    SigningKey.new().save(second)
    assert [each.path for each in keyring.all_kept(tmp_path, "AT")] == [first, second]


def test_an_auditors_key_of_which_a_kill_left_half_is_made_by_the_same_command(tmp_path: Path) -> None:
    killed_while_it_makes(tmp_path / "auditor-1.pem")
    path, _ = enrolled.make_key(tmp_path, "auditor-1", "test")
    assert list(tmp_path.glob("*.pem")) == [path]


def test_an_auditors_key_that_a_kill_left_without_its_request_gets_it_by_the_same_command(tmp_path: Path) -> None:
    path = tmp_path / "auditor-1.pem"
    killed_once_it_is_made(path)
    _, request = enrolled.make_key(tmp_path, "auditor-1", "test")
    (asked,) = enrolled.written(tmp_path, (), "test", clock())
    assert (asked.key_id, {*tmp_path.iterdir()}) == (SigningKey.load(path).public.id.hex(), {path, request})
    with pytest.raises(ConfigurationError, match="has a key already"):
        enrolled.make_key(tmp_path, "auditor-1", "test")


def test_the_logs_key_of_which_a_kill_left_half_is_made_again_and_no_backup_has_that(tmp_path: Path) -> None:
    home = make(tmp_path, seed.seed(), "sqlite")
    home.key_path.unlink()
    home.vkey_path.unlink()
    killed_while_it_makes(home.key_path)
    assert home.key_path.parent == home.folder
    assert not [each for each in backup._files(home.folder) if each.name.startswith(".")]
    assert make(tmp_path, seed.seed(), "sqlite").owner().key.public.raw


def test_of_two_who_make_a_key_of_the_operators_at_once_both_have_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, path, secret = SigningKey.new(), tmp_path / "log.key", tmp_path / "secret"
    mkfifo(secret, 0o600)
    monkeypatch.setenv(passphrases.VARIABLE, str(secret))
    with ThreadPoolExecutor(1) as other:
        second = other.submit(own_key, path)
        with secret.open("wb") as asked:  # it has seen that there is no key, and asks for its passphrase
            first.save(path)
            asked.write(b"correct horse battery staple")
        assert second.result().public == first.public
    assert SigningKey.load(path).public == first.public


def test_the_operators_two_keys_stay_once_they_are_made(tmp_path: Path) -> None:
    home = make(tmp_path, seed.seed(), "sqlite")
    made = operator_keys(home)
    assert [each.public for each in operator_keys(home)] == [each.public for each in made]


def test_an_empty_key_file_of_a_version_before_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "ncb.2.pem").touch(mode=0o600)
    with pytest.raises(ConfigurationError, match=r"ncb\.2\.pem is empty: .*remove the file"):
        SigningKey.load(tmp_path / "ncb.2.pem")
