"""The two keys with which a member signs directories and policies: how they are kept, and made again after a kill."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from broker import durable, settings
from broker.errors import ConfigurationError
from broker.settings import Settings
from broker.signing import SigningKey
from cli.trust import signatories
from tests.keys.soft_token import TOKEN
from tests.trust.test_commands import valise

SECRET = "correct horse battery staple"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with the home of FR, which has settings and no key."""
    made = Settings(role="member", federation="test", bus="kafka:localhost:9", member="FR", bureau="FR/ncb")
    settings.save(tmp_path / "members" / "FR", made)
    return tmp_path


@pytest.fixture(autouse=True)
def nothing_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VALISE_PASSPHRASE_FILE", raising=False)


async def test_a_passphrase_encrypts_every_key_that_the_command_makes(home: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.touch(mode=0o600)
    secret.write_text(SECRET, encoding="ascii")
    done = await valise(home, "key", "new", "--bureau", "FR/ncb", "--passphrase-file", str(secret))
    assert done.code == 0, done.err
    folder = home / "members" / "FR"
    assert signatories.bare(folder) == []
    for name in ("root", "member"):
        assert SigningKey.load(folder / "trust" / f"{name}.pem", lambda _: SECRET.encode())


async def test_who_keeps_a_key_in_a_token_is_told_which_keys_lie_open(home: Path, soft_token: dict[str, str]) -> None:
    assert soft_token
    done = await valise(home, "key", "new", "--bureau", "FR/ncb", "--pkcs11", TOKEN)
    assert done.code == 0, done.err
    said = " ".join(done.err.split())
    assert all(f"FR/trust/{name}.pem" in said for name in ("root", "member"))
    assert "without a passphrase" in said


def test_keys_that_a_kill_left_without_their_request_are_taken_up(tmp_path: Path) -> None:
    key = SigningKey.new()
    key.save(tmp_path / "trust" / "root.pem")
    (tmp_path / "trust" / "member.pem").touch(mode=0o600)  # killed between making the file and writing it
    read = signatories.read(signatories.make(tmp_path, "FR", "test"), "test")
    assert (read.root, read.member) == (key.public, "FR")
    assert {read.root.id, read.key.id} == {each.public.id for each in signatories.load(tmp_path)}


async def test_a_command_that_was_killed_half_way_is_given_again(home: Path) -> None:
    signatories.make(home / "members" / "FR", "FR", "test")
    again = await valise(home, "key", "new", "--bureau", "FR/ncb", "--json")
    assert again.code == 0, again.err
    assert again.value["bureau"] == "FR/ncb"


def test_who_makes_them_beside_another_waits_and_gives_the_request_of_the_first(tmp_path: Path) -> None:
    """Else it writes over keys of which the first has sent the request already, and the member's root is lost."""
    trust, first = tmp_path / "trust", SigningKey.new()
    trust.mkdir()
    with ThreadPoolExecutor(1) as other:
        with durable.alone(trust):
            second = other.submit(signatories.make, tmp_path, "FR", "test")
            with pytest.raises(TimeoutError):
                second.result(timeout=0.3)
            first.save(trust / "root.pem")
            (trust / "FR.signatory.json").write_bytes(b"what the first has sent")
        assert second.result().read_bytes() == b"what the first has sent"
    assert SigningKey.load(trust / "root.pem").public == first.public
    assert {each.name for each in trust.iterdir()} == {"root.pem", "FR.signatory.json"}


def test_the_next_keys_that_a_kill_has_left_are_gone_on_with_and_a_request_is_for_one_pair(tmp_path: Path) -> None:
    trust, first = tmp_path / "trust", signatories.make(tmp_path, "FR", "test")
    (trust / "root.pem").unlink()  # it is kept elsewhere
    left = SigningKey.new()
    left.save(trust / "root.2.pem")
    second = signatories.rotate(tmp_path, "FR", "test")
    assert (signatories.read(second, "test").root, first.exists()) == (left.public, False)
    assert signatories.make(tmp_path, "FR", "test") == second
    third = signatories.rotate(tmp_path, "FR", "test")
    assert [each.name for each in (second, third)] == ["FR.2.signatory.json", "FR.3.signatory.json"]
    assert {each.public for each in signatories.load(tmp_path)} >= {left.public, signatories.read(third, "test").key}
    assert signatories.of(["FR"], [tmp_path], "test") == {"FR": signatories.read(third, "test")}
    signatories.make(tmp_path / "other", "FR", "test")
    with pytest.raises(ConfigurationError, match="asks for other keys, too"):
        signatories.of(["FR"], [tmp_path], "test")
    assert signatories.of(["AT"], [tmp_path], "test") == {}


def test_a_key_that_a_kill_left_encrypted_is_taken_up_and_the_other_encrypted_like_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    SigningKey.new().save(tmp_path / "trust" / "root.pem", SECRET.encode())
    with pytest.raises(ConfigurationError, match="is needed"):  # nobody sits here
        signatories.make(tmp_path, "FR", "test")
    secret = tmp_path / "secret"
    secret.touch(mode=0o600)
    secret.write_text(SECRET, encoding="ascii")
    monkeypatch.setenv("VALISE_PASSPHRASE_FILE", str(secret))
    signatories.make(tmp_path, "FR", "test")
    assert signatories.bare(tmp_path) == []
