"""A public key to which nobody, or everybody, could be held is refused wherever a key comes in."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from broker import members, points, possession
from broker.errors import ConfigurationError, VersionRefusedError
from broker.possession import Asked
from broker.signing import PublicKey, SigningKey, key_id
from tests import federation as world
from tests.making import FEDERATION

# "Taming the many EdDSAs" (Chalkias, Garillot, Nikolaenko 2020), table 1.
SMALL_ORDER = (
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
)
NOT_CANONICAL = (
    "0100000000000000000000000000000000000000000000000000000000000080",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "f0ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
)
NO_POINT = ("0200000000000000000000000000000000000000000000000000000000000000",)
BAD = (*SMALL_ORDER, *NOT_CANONICAL, *NO_POINT)
# The key of RFC 8032 §7.1 test 1 plus each point of small order, added with affine formulas elsewhere.
MIXED_ORDER = (
    "16a567fe7d4ef5482ab4012c369bf8c5f11e8d0c2559dcda50fde59708f8aee5",
    "ad38a8f0b22ab7ca46ecee7bbef12b5f336c182652fac34392f859dbd9666a7d",
    "40c7570f4dd54835b9131184410ed4a0cc93e7d9ad053cbc6d07a62426999582",
    "9158312a9a8d6e3b34c891d6d61444f8b8211c5117ebad15bdb0bd68b07e0245",
    "b2a4b8a3b47d22ea8d86603ab90b393fc1b87399ab55b3806ba4cb815cd509f2",
    "3b5b475c4b82dd1572799fc546f4c6c03e478c6654aa4c7f945b347ea32af60d",
    "5ca7ced5657291c4cb376e2929ebbb0747dee3aee81452ea424f42974f81fdba",
)


def test_under_a_key_of_small_order_one_signature_fits_any_message() -> None:
    """Why they are refused: the library that checks signatures takes it."""
    neutral = bytes.fromhex(SMALL_ORDER[0])
    for message in (b"I was never there", b"I was there"):
        Ed25519PublicKey.from_public_bytes(neutral).verify(neutral + bytes(32), message)


@pytest.mark.parametrize("raw", BAD)
def test_a_bad_point_is_no_key(raw: str) -> None:
    with pytest.raises(ValueError, match="no Ed25519 public key"):
        PublicKey.of(bytes.fromhex(raw))


@pytest.mark.parametrize("raw", BAD)
def test_a_directory_with_a_bad_point_is_refused_and_says_where(raw: str) -> None:
    public = bytes.fromhex(raw)
    listed = json.loads(members.canonical(world.directory()))
    listed["keys"][2] |= {"public": raw, "key_id": key_id(public).hex()}
    with pytest.raises(VersionRefusedError, match=r"keys\.2: no Ed25519 public key"):
        members.parse(json.dumps(listed).encode())


@pytest.mark.parametrize("raw", [*BAD, *MIXED_ORDER])
def test_a_request_for_a_bad_point_is_refused_before_its_proof_is_looked_at(raw: str) -> None:
    public = bytes.fromhex(raw)
    asked = possession.request(Asked(FEDERATION, "AT/ncb"), SigningKey.new())
    asked |= {"public": raw, "key_id": key_id(public).hex()}
    with pytest.raises(ConfigurationError, match="nobody could be held to"):
        possession.check_request(json.dumps(asked).encode(), FEDERATION)


@pytest.mark.parametrize("raw", MIXED_ORDER)
def test_a_part_of_small_order_is_found_only_when_a_key_is_entered(raw: str) -> None:
    points.check(bytes.fromhex(raw))
    with pytest.raises(ValueError, match="part of small order"):
        points.check_new(bytes.fromhex(raw))


def test_honest_keys_are_taken() -> None:
    points.check_new(bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"))
    for number in range(20):
        points.check_new(SigningKey.from_seed(bytes([number]) * 32).public.raw)
