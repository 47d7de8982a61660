"""A PKCS#11 token holds a key and signs with it; it never comes out. SoftHSM stands for any token."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pkcs11
import pytest
from pkcs11 import Attribute, KeyType, ObjectClass

from broker.errors import CannotSignError, ConfigurationError, ValiseError
from broker.notice import HEADER_TYPE
from broker.settings import Settings
from broker.signing import PublicKey, pae
from broker.token import Token, find_module
from cli import keyring
from cli.home import MemberHome
from cli.keyring import TokenPlace
from tests.fake_bus import FakeBus
from tests.honest_broker import HonestBroker
from tests.keys.soft_token import PIN, TOKEN, new_token
from tests.making import FEDERATION, NOW


@pytest.fixture
def token(soft_token: dict[str, str]) -> Token:
    assert soft_token
    return Token(find_module(), TOKEN, lambda: PIN)


def asking(*pins: str) -> Callable[[], str]:
    """Who gives these PINs, one each time, and fails where it is asked once more."""
    left = iter(pins)
    return lambda: next(left)


def unplug(tokens: Path) -> Path:
    """Take the token out: its sessions end, and nothing finds it."""
    away = tokens.with_name("away")
    tokens.rename(away)
    tokens.mkdir()
    pkcs11.lib(str(find_module())).reinitialize()
    return away


def plug_in(tokens: Path) -> None:
    """Put it back."""
    tokens.rmdir()
    tokens.with_name("away").rename(tokens)
    pkcs11.lib(str(find_module())).reinitialize()


def fresh() -> str:
    return f"AT/ncb {os.urandom(4).hex()}"


def test_a_key_in_a_token_signs_as_one_in_a_file_does(token: Token) -> None:
    label = fresh()
    made = token.new_key(label)
    signature = token.key(label).sign_payload(HEADER_TYPE, b"header")
    PublicKey.of(made.public.raw).check(signature, pae(HEADER_TYPE, b"header"))
    assert signature == made.sign_payload(HEADER_TYPE, b"header")  # Ed25519 is deterministic: no nonce to leak a key


def test_a_key_in_a_token_cannot_be_read_out(token: Token, tmp_path: Path) -> None:
    label = fresh()
    made = token.new_key(label)
    with pytest.raises(ConfigurationError, match="never leaves"):
        made.save(tmp_path / "ncb.pem")
    private = _session().get_key(ObjectClass.PRIVATE_KEY, KeyType.EC_EDWARDS, label)
    assert (private[Attribute.SENSITIVE], private[Attribute.EXTRACTABLE]) == (True, False)
    with pytest.raises(pkcs11.exceptions.AttributeSensitive):
        private[Attribute.VALUE]


def _session() -> pkcs11.Session:
    return pkcs11.lib(str(find_module())).get_token(token_label=TOKEN).open()


def test_a_label_is_given_once(token: Token) -> None:
    label = fresh()
    token.new_key(label)
    with pytest.raises(ConfigurationError, match="never overwritten"):
        token.new_key(label)


KILLED = """
import os, signal, sys
from pathlib import Path
from broker import durable
from cli import keyring

durable.put_new = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
keyring.make_in_token(Path(sys.argv[1]), keyring.TokenPlace(token=sys.argv[2], key=sys.argv[3]))
"""
"""Killed once the token has the key, before the home says where it is."""


def test_a_key_that_a_kill_left_in_the_token_is_taken_up_by_the_same_command_and_no_other(
    token: Token, tmp_path: Path
) -> None:
    """A key that this home did not begin may be anybody's, and what was begun is done but once."""
    path, label = tmp_path / "keys" / "ncb.token", fresh()
    place = TokenPlace(token=TOKEN, key=label)
    other = tmp_path / "other" / "ncb.token"
    arguments = [sys.executable, "-c", KILLED, str(path), TOKEN, label]
    assert subprocess.run(arguments, check=False, timeout=60).returncode == -signal.SIGKILL
    assert (token.has(label), path.exists()) == (True, False)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=r"which this home did not make: .*name another token"):
            keyring.make_in_token(other, place)
    made = keyring.make_in_token(path, place)
    assert made.public == token.key(label).public
    assert keyring.Kept("AT/ncb", 1, path).load().public == made.public
    assert [each.name for each in path.parent.iterdir()] == ["ncb.token"]
    path.unlink()
    with pytest.raises(ConfigurationError, match="which this home did not make"):
        keyring.make_in_token(path, place)


@pytest.mark.usefixtures("token")
def test_a_key_that_another_home_of_the_bureau_made_is_never_taken_for_the_one_that_was_begun(tmp_path: Path) -> None:
    """Killed before the token had a key of it; meanwhile the other made its own, under the same name."""
    path, other = (tmp_path / name / "ncb.token" for name in ("keys", "other"))
    place = TokenPlace(token=TOKEN, key=fresh())
    path.parent.mkdir()
    path.with_suffix(".begun").write_bytes(keyring._begun(place, os.urandom(keyring.MARK_BYTES)))
    theirs = keyring.make_in_token(other, place)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="which this home did not make"):
            keyring.make_in_token(path, place)
    assert not path.exists()
    assert keyring.Kept("AT/ncb", 1, other).load().public == theirs.public


@pytest.mark.parametrize(
    ("module", "label", "error", "said"),
    [
        ("", "another", CannotSignError, "no token another is plugged in"),
        ("missing.so", TOKEN, ConfigurationError, "cannot be used"),
    ],
)
def test_what_is_not_there_is_named_and_nobody_is_asked_for_a_pin(
    soft_token: dict[str, str], module: str, label: str, error: type[ValiseError], said: str
) -> None:
    assert soft_token
    with pytest.raises(error, match=said):
        Token(Path(module) if module else find_module(), label, asking()).key("AT/ncb 1")


def test_a_key_that_is_not_in_the_token_is_named(token: Token) -> None:
    with pytest.raises(ConfigurationError, match="holds no Ed25519 key AT/none"):
        token.key("AT/none")


def test_a_private_key_with_anothers_public_key_beside_it_is_refused(token: Token) -> None:
    """Labels are free: whoever writes to the token could put his own public key under ours."""
    one, other = fresh(), fresh()
    token.new_key(one)
    token.new_key(other)
    session = pkcs11.lib(str(find_module())).get_token(token_label=TOKEN).open(rw=True)
    session.get_key(ObjectClass.PUBLIC_KEY, KeyType.EC_EDWARDS, one).destroy()
    session.get_key(ObjectClass.PUBLIC_KEY, KeyType.EC_EDWARDS, other)[Attribute.LABEL] = one
    with pytest.raises(ConfigurationError, match="signs with another key"):
        token.key(one)


def test_a_key_signs_again_once_its_token_is_back(token: Token, soft_token: dict[str, str]) -> None:
    """In the same process, and nobody is asked for the PIN anew."""
    made, tokens = token.new_key(fresh()), Path(soft_token["SOFTHSM2_CONF"]).with_name("tokens")
    before = made.sign(b"before")
    unplug(tokens)
    for _ in range(2):
        with pytest.raises(CannotSignError, match="plugged in"):
            made.sign(b"out")
    plug_in(tokens)
    assert made.sign(b"before") == before
    unplug(tokens)
    plug_in(tokens)
    assert made.sign(b"before") == before  # what was out while nobody signed fails nobody


async def test_a_bureau_whose_token_was_out_signs_in_the_same_process_once_it_is_back(
    soft_token: dict[str, str], tmp_path: Path
) -> None:
    """Who publishes for weeks makes what it signs with once."""
    place, bus = TokenPlace(token=TOKEN, key=fresh()), FakeBus()
    made = keyring.make_in_token(keyring.path_of(tmp_path, "AT/ncb", 1, "token"), place)
    home = MemberHome(tmp_path, Settings(role="member", federation=FEDERATION, bus="sqlite:x", member="AT"), "AT/ncb")
    await HonestBroker(bus, NOW).publish_directory()
    await home.versions.follow(bus)
    tokens, maker = Path(soft_token["SOFTHSM2_CONF"]).with_name("tokens"), home.maker()
    unplug(tokens)
    with pytest.raises(CannotSignError):
        maker.key("AT/ncb")
    plug_in(tokens)
    assert maker.key("AT/ncb").public == made.public


def test_a_pin_that_was_refused_is_not_tried_again(soft_token: dict[str, str]) -> None:
    """A few wrong ones lock a token, and a command that runs for weeks looks for its key again and again."""
    name, wrong = "valise-pin", "0000-wrong"
    new_token(name, os.environ | soft_token)
    pkcs11.lib(str(find_module())).reinitialize()  # as it was loaded before
    with pytest.raises(ConfigurationError, match="does not open the token"):
        Token(find_module(), name, asking(wrong)).key("AT/ncb")
    with pkcs11.lib(str(find_module())).get_token(token_label=name).open(rw=True, user_pin=PIN) as session:
        session.set_pin(PIN, wrong)  # so that it would be taken
    with pytest.raises(ConfigurationError, match="does not open the token"):
        Token(find_module(), name, asking(wrong)).key("AT/ncb")
    with pkcs11.lib(str(find_module())).get_token(token_label=name).open(rw=True, user_pin=wrong) as session:
        session.set_pin(wrong, PIN)
    Token(find_module(), name, asking(PIN)).new_key("AT/ncb").sign(b"with another one")
