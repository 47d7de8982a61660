"""A stock client, Debian's kcat, reads a bureau's inbox and is refused another's."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.kafka_world import KafkaWorld

pytestmark = pytest.mark.kafka

LIMIT_S = 60


def kcat(kafka: KafkaWorld, principal: str, *arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    program = shutil.which("kcat")
    if program is None:
        pytest.fail("kcat is missing: apt-get install kcat")
    ca, chain, key = kafka.pki(principal)
    settings = {
        "security.protocol": "ssl",
        "ssl.ca.location": ca,
        "ssl.certificate.location": chain,
        "ssl.key.location": key,
        "isolation.level": "read_committed",
        "auto.offset.reset": "earliest",
    }
    options = [word for name, value in settings.items() for word in ("-X", f"{name}={value}")]
    command = [program, "-b", kafka.bootstrap, *options, *arguments]
    return subprocess.run(command, input=given, capture_output=True, timeout=LIMIT_S, check=False)


@pytest.fixture(scope="module")
def delivered(federation_kafka: KafkaWorld) -> KafkaWorld:
    """A record in each inbox, written as the router would."""
    for inbox in ("inbox.at.ncb", "inbox.at.organised-crime", "inbox.lv.ncb"):
        done = kcat(federation_kafka, "router", "-P", "-t", inbox, "-k", "id", "-X", "acks=all", given=inbox.encode())
        assert done.returncode == 0, done.stderr
    return federation_kafka


@pytest.mark.parametrize(
    ("principal", "inbox"), [("at.ncb", "inbox.at.ncb"), ("at.adapter", "inbox.at.organised-crime")]
)
def test_kcat_reads_its_own_inbox(delivered: KafkaWorld, principal: str, inbox: str) -> None:
    done = kcat(delivered, principal, "-C", "-t", inbox, "-o", "beginning", "-e", "-q", "-f", "%k %s\n")
    assert (done.returncode, done.stdout.decode().splitlines()[:1]) == (0, [f"id {inbox}"])


def test_kcat_reads_its_own_inbox_in_a_group_of_its_own(delivered: KafkaWorld) -> None:
    done = kcat(delivered, "at.ncb", "-q", "-e", "-f", "%s\n", "-G", "at.ncb.reader", "inbox.at.ncb")
    assert (done.returncode, done.stdout.decode().splitlines()[:1]) == (0, ["inbox.at.ncb"])


@pytest.mark.parametrize(
    ("principal", "inbox"),
    [("at.ncb", "inbox.lv.ncb"), ("at.ncb", "inbox.at.organised-crime"), ("lv.adapter", "inbox.lv.ncb")],
)
def test_kcat_is_refused_anothers_inbox(delivered: KafkaWorld, principal: str, inbox: str) -> None:
    done = kcat(delivered, principal, "-C", "-t", inbox, "-o", "beginning", "-e", "-q")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"Topic authorization failed" in done.stderr


def test_kcat_is_refused_another_group(delivered: KafkaWorld) -> None:
    done = kcat(delivered, "at.ncb", "-q", "-e", "-G", "lv.ncb.reader", "inbox.at.ncb")
    assert done.stdout == b""
    assert done.returncode != 0
    assert b"Group authorization failed" in done.stderr
