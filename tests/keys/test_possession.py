"""Who asks for a key has its private half, asks for this federation and bureau, and may ask."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from broker import possession
from broker.errors import ConfigurationError
from broker.possession import REQUEST_TYPE, Asked, KeyRequest, canonical, check_request
from broker.signing import PublicKey
from tests.making import FEDERATION, key_of

ASKED = Asked(FEDERATION, "AT/ncb", made="today")
NEW, OLD, THIEF = key_of("AT/ncb", 1), key_of("AT/ncb"), key_of("RU/ncb")
IN_FORCE: dict[bytes, PublicKey] = {OLD.public.id: OLD.public}
CHALLENGE = "ab" * 32


def checked(request: dict[str, Any], federation: str = FEDERATION) -> KeyRequest:
    return check_request(json.dumps(request).encode(), federation)


def test_an_honest_request_is_taken() -> None:
    found = checked(possession.request(ASKED, NEW))
    assert (found.asked, found.public.raw) == (ASKED, NEW.public.raw)


def test_a_key_that_is_somebody_elses_cannot_be_asked_for() -> None:
    """Else a thief could have a neighbour's public key entered as his own, and claim what that one signed."""
    stolen = possession.request(ASKED, NEW) | {"proof": THIEF.sign_payload(REQUEST_TYPE, b"anything").hex()}
    with pytest.raises(ConfigurationError, match="does not have the private key"):
        checked(stolen)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("bureau", "RU/ncb"), ("challenge", CHALLENGE), ("knows", CHALLENGE), ("follows", CHALLENGE), ("made", "later"),
    ],
)  # fmt: skip
def test_nothing_in_a_request_can_be_changed(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match="does not have the private key"):
        checked(possession.request(ASKED, NEW) | {name: value})


def test_a_request_of_another_federation_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="another federation"):
        checked(possession.request(ASKED, NEW), "elsewhere")


@pytest.mark.parametrize(
    "changed",
    [
        {"proof": "zz"}, {"proof": ""}, {"algorithm": "rsa"}, {"key_id": "00" * 32}, {"bureau": "at"}, {"bureau": 1},
        {"extra": "signed and never looked at"}, {"challenge": "short"},
    ],
)  # fmt: skip
def test_a_request_of_another_form_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        checked(possession.request(ASKED, NEW) | changed)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"null", b"[" * 100_000, b"\xff", b'{"public": 1}'])
def test_hostile_bytes_are_no_request(content: bytes) -> None:
    with pytest.raises(ConfigurationError, match="is no key request"):
        check_request(content, FEDERATION)


def test_a_first_key_needs_nobody_to_ask_for_it() -> None:
    checked(possession.request(ASKED, NEW)).check_entry(None, None)


def test_a_further_key_is_asked_for_by_the_one_in_force() -> None:
    checked(possession.request(ASKED, NEW, OLD)).check_entry(None, IN_FORCE)


def test_a_further_key_that_nobody_asks_for_is_refused() -> None:
    """Proof of possession alone would let anybody add a key of his own to a neighbour's bureau."""
    with pytest.raises(ConfigurationError, match="valise key rotate"):
        checked(possession.request(ASKED, NEW)).check_entry(None, IN_FORCE)


def test_a_key_that_is_not_in_force_asks_for_nothing() -> None:
    asked = checked(possession.request(ASKED, NEW, OLD))
    with pytest.raises(ConfigurationError, match="valise key challenge AT/ncb"):
        asked.check_entry(None, {})


def test_a_forged_endorsement_is_refused() -> None:
    forged = possession.request(ASKED, NEW, THIEF) | {"follows": OLD.public.id.hex()}
    forged["proof"] = NEW.sign_payload(REQUEST_TYPE, canonical(forged)).hex()
    with pytest.raises(ConfigurationError, match="did not sign"):
        checked(forged).check_entry(None, IN_FORCE)


def test_an_answered_challenge_stands_for_a_lost_key() -> None:
    checked(possession.request(replace(ASKED, challenge=CHALLENGE), NEW)).check_entry(CHALLENGE, IN_FORCE)


@pytest.mark.parametrize("answer", ["", "cd" * 32])
def test_a_challenge_that_was_given_must_be_answered(answer: str) -> None:
    with pytest.raises(ConfigurationError, match="does not answer the challenge"):
        checked(possession.request(replace(ASKED, challenge=answer), NEW, OLD)).check_entry(CHALLENGE, IN_FORCE)
