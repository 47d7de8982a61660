"""Which bytes are signed, and what a signature binds."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from broker.errors import ConfigurationError, SignatureError
from broker.notice import HEADER_TYPE, RECEIPT_TYPE
from broker.signing import (
    PublicKey,
    SigningKey,
    compartment_digest,
    decision_digest,
    header_digest,
    key_id,
    pae,
)

KEY = SigningKey.from_seed(b"k" * 32)
SALT = b"s" * 32


def test_the_pre_authentication_encoding_is_that_of_dsse() -> None:
    # The example of the DSSE v1.0.2 specification.
    assert pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def test_lengths_are_those_in_bytes() -> None:
    assert pae("ü", "ქ".encode()) == b"DSSEv1 2 \xc3\xbc 3 \xe1\x83\xa5"


def test_a_signature_is_that_of_rfc_8032() -> None:
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    key = SigningKey.from_seed(seed)
    assert key.public.raw.hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert key.sign(b"").hex() == (
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
    )


def test_a_key_id_is_the_digest_of_algorithm_and_key() -> None:
    assert KEY.public.id == key_id(KEY.public.raw) == sha256(b"\x01" + KEY.public.raw).digest()


def test_a_good_signature_is_good() -> None:
    KEY.public.check(KEY.sign_payload(HEADER_TYPE, b"header"), pae(HEADER_TYPE, b"header"))


ORDER = 2**252 + 27742317777372353535851937790883648493
GOOD = KEY.sign(b"message")
UNLIKE = {
    "s beyond the order": GOOD[:32] + (int.from_bytes(GOOD[32:], "little") + ORDER).to_bytes(32, "little"),
    "r of small order": (1).to_bytes(32, "little") + GOOD[32:],
    "r that is no point": b"\x02" + bytes(31) + GOOD[32:],
    "nothing but zeros": bytes(64),
    "cut": GOOD[:63],
    "longer": GOOD + b"m",
    "none": b"",
}


@pytest.mark.parametrize("signature", UNLIKE.values(), ids=UNLIKE)
def test_what_two_libraries_might_see_differently_is_bad_to_both(signature: bytes) -> None:
    with pytest.raises(SignatureError):
        KEY.public.check(signature, b"message")
    with pytest.raises(InvalidSignature):
        Ed25519PublicKey.from_public_bytes(KEY.public.raw).verify(signature, b"message")


def test_bytes_do_not_move_between_signature_and_message() -> None:
    whole = GOOD + b"message"
    for cut in (0, 1, 63, 65, len(whole)):
        with pytest.raises(SignatureError):
            KEY.public.check(whole[:cut], whole[cut:])


@pytest.mark.parametrize("position", range(64))
def test_a_changed_signature_is_bad(position: int) -> None:
    signature = bytearray(KEY.sign(b"message"))
    signature[position] ^= 1
    with pytest.raises(SignatureError):
        KEY.public.check(bytes(signature), b"message")


@pytest.mark.parametrize("signature", [b"", b"\0" * 64, b"\0" * 63, KEY.sign(b"message") + b"\0"])
def test_a_signature_of_another_form_is_bad(signature: bytes) -> None:
    with pytest.raises(SignatureError):
        KEY.public.check(signature, b"message")


def test_a_signature_is_bound_to_message_type_and_key() -> None:
    signature = KEY.sign_payload(HEADER_TYPE, b"header")
    for key, message in (
        (KEY.public, pae(HEADER_TYPE, b"Header")),
        (KEY.public, pae(RECEIPT_TYPE, b"header")),
        (KEY.public, b"header"),
        (SigningKey.from_seed(b"K" * 32).public, pae(HEADER_TYPE, b"header")),
    ):
        with pytest.raises(SignatureError):
            key.check(signature, message)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_public_key_has_32_bytes(size: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        PublicKey.of(b"\1" * size)


def test_digests_of_one_kind_are_never_those_of_another() -> None:
    data = b"data"
    digests = {
        header_digest(SALT + data),
        compartment_digest("", SALT, data),
        decision_digest(SALT, data),
        sha256(SALT + data).digest(),
    }
    assert len(digests) == 4


def test_a_compartment_digest_binds_name_salt_and_bytes() -> None:
    digests = {
        compartment_digest("identity", SALT, b"data"),
        compartment_digest("location", SALT, b"data"),
        compartment_digest("identity", b"S" * 32, b"data"),
        compartment_digest("identity", SALT, b"Data"),
        compartment_digest("identity", SALT, b""),
        compartment_digest("identitys", SALT[1:], b"data"),
    }
    assert len(digests) == 6


def test_a_compartment_digest_is_what_the_page_says() -> None:
    expected = sha256(b"valise/compartment/v1\x00\x00\x08identity" + SALT + b"data").digest()
    assert compartment_digest("identity", SALT, b"data") == expected


def test_a_key_comes_back_from_its_file(tmp_path: Path) -> None:
    KEY.save(tmp_path / "keys" / "ncb.pem")
    assert SigningKey.load(tmp_path / "keys" / "ncb.pem").public.raw == KEY.public.raw
    assert (tmp_path / "keys" / "ncb.pem").stat().st_mode & 0o777 == 0o600


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    KEY.save(tmp_path / "ncb.pem")
    with pytest.raises(FileExistsError):
        SigningKey.new().save(tmp_path / "ncb.pem")


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    KEY.save(tmp_path / "ncb.pem")
    (tmp_path / "ncb.pem").chmod(0o640)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        SigningKey.load(tmp_path / "ncb.pem")


def test_what_is_no_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ncb.pem").write_text("no key")
    (tmp_path / "ncb.pem").chmod(0o600)
    with pytest.raises(ConfigurationError):
        SigningKey.load(tmp_path / "ncb.pem")
    with pytest.raises(ConfigurationError):
        SigningKey.load(tmp_path / "missing.pem")


SMALL_ORDER = (
    "00" * 32,
    "01" + "00" * 31,
    "01" + "00" * 30 + "80",
    "ec" + "ff" * 30 + "7f",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
)


@pytest.mark.parametrize("raw", [*SMALL_ORDER, "ff" * 32, "02" + "00" * 31])
def test_a_key_that_is_no_point_or_of_small_order_is_refused(raw: str) -> None:
    """Under a key of small order one signature fits any message: nobody could be held to it."""
    with pytest.raises(ValueError, match="no "):
        PublicKey.of(bytes.fromhex(raw))
