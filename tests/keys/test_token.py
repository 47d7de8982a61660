"""A PKCS#11 token holds a key and signs with it; it never comes out. SoftHSM stands for any token."""

from __future__ import annotations

import os
from pathlib import Path

import pkcs11
import pytest
from pkcs11 import Attribute, KeyType, ObjectClass

from broker.errors import ConfigurationError
from broker.notice import HEADER_TYPE
from broker.signing import PublicKey, pae
from broker.token import Token, find_module
from tests.keys.soft_token import PIN, TOKEN


@pytest.fixture
def token(soft_token: dict[str, str]) -> Token:
    assert soft_token
    return Token(find_module(), TOKEN, PIN)


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


@pytest.mark.parametrize(
    ("module", "label", "said"),
    [
        ("", "another", "no token another is plugged in"),
        ("missing.so", TOKEN, "cannot be used"),
    ],
)
def test_what_is_not_there_is_named(soft_token: dict[str, str], module: str, label: str, said: str) -> None:
    assert soft_token
    with pytest.raises(ConfigurationError, match=said):
        Token(Path(module) if module else find_module(), label, PIN).key("AT/ncb 1")


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
