"""`valise audit witness` as a process: its key, its state, and what is left when it is killed."""

from __future__ import annotations

import json
import os
import signal
import ssl
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from broker import authorities, cosignature, fetch
from broker.errors import UnavailableError
from broker.fetch import Place
from broker.settings import Settings, Tls
from broker.settings import Witness as Named
from cli import witnessing
from tests.witness.log import LOG, ORIGIN, Log

NAME = "witness.example/w1"


def valise(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cli.main", "audit", "witness", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def vkey(tmp_path: Path) -> str:
    said = valise("--new-key", NAME, str(tmp_path / "w1.key"))
    assert said.returncode == 0, said.stderr
    return said.stdout.splitlines()[0]


@contextmanager
def running(folder: Path, crash: str = "", *more: str) -> Iterator[tuple[Place, subprocess.Popen[str]]]:
    words = [
        "--origin",
        str(LOG),
        "--key",
        "w1.key",
        "--state",
        "witness.db",
        "--listen",
        "127.0.0.1:0",
        "--json",
        *more,
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "cli.main", "audit", "witness", *words],
        cwd=folder,
        env=os.environ | {"VALISE_CRASH_AT": crash, "PYTHONPATH": str(Path(__file__).parent.parent.parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout
        said: Any = json.loads(process.stdout.readline())
        port = int(said["listen"].rpartition(":")[2])
        yield Place("127.0.0.1", port, "", None), process
    finally:
        process.kill()
        process.communicate()


async def add(place: Place, body: bytes) -> fetch.Answer:
    return await fetch.ask(place, "/add-checkpoint", body)


def test_a_new_key_is_private_and_its_verifier_key_is_the_answer(tmp_path: Path, vkey: str) -> None:
    assert cosignature.parse_cosigner(vkey).name == NAME
    assert stat.S_IMODE((tmp_path / "w1.key").stat().st_mode) == 0o600
    assert (tmp_path / "w1.key.vkey").read_text(encoding="utf-8").strip() == vkey
    again = valise("--new-key", NAME, str(tmp_path / "w1.key"))
    assert again.returncode == 1
    assert "there already" in again.stderr


async def test_what_it_saw_outlasts_kill_9(tmp_path: Path, vkey: str) -> None:
    log = Log(5)
    with running(tmp_path) as (place, process):
        answer = await add(place, log.request(0))
        assert answer.status == 200
        assert cosignature.cosignatures(log.note().encode() + answer.body, [cosignature.parse_cosigner(vkey)])
        process.send_signal(signal.SIGKILL)
        process.wait(60)
    with running(tmp_path) as (place, _):
        assert (await add(place, log.fork(2, 3).request(0))) == fetch.Answer(409, b"5\n")
        assert (await add(place, log.fork(2, 9).request(5))).status == 422
        kept = await fetch.ask(place, f"/{sha256(ORIGIN.encode()).hexdigest()}/checkpoint")
        assert kept.body == log.note().encode() + answer.body
        assert (await add(place, log.grow(3).request(5))).status == 200


@pytest.mark.parametrize("point", ["witness.seen", "witness.cosigned"])
async def test_killed_between_check_and_answer_it_never_cosigns_another_past(
    tmp_path: Path, vkey: str, point: str
) -> None:
    log = Log(5)
    with running(tmp_path, point) as (place, process):
        with pytest.raises(UnavailableError):
            await add(place, log.request(0))
        assert process.wait(60) == -signal.SIGKILL
    with running(tmp_path) as (place, _):
        assert (await add(place, log.fork(2, 3).request(0))) == fetch.Answer(409, b"5\n")
        assert (await add(place, log.fork(2, 3).request(5, 5))).status == 422
        answer = await add(place, log.request(5))
        assert answer.status == 200
        assert cosignature.cosignatures(log.note().encode() + answer.body, [cosignature.parse_cosigner(vkey)])


async def test_it_stops_when_it_is_asked_to(tmp_path: Path, vkey: str) -> None:
    assert vkey
    with running(tmp_path) as (place, process):
        assert (await add(place, Log(5).request(0))).status == 200
        process.terminate()
        assert process.wait(60) in {0, -signal.SIGTERM}


def test_what_is_set_wrongly_is_refused_with_a_reason(tmp_path: Path, vkey: str) -> None:
    key, state = str(tmp_path / "w1.key"), str(tmp_path / "witness.db")
    good = ["--origin", str(LOG), "--key", key, "--state", state, "--listen", "127.0.0.1:0"]
    for place, wrong, reason in (
        (1, vkey, "no log's verifier key"),
        (3, str(tmp_path / "none.key"), "cannot read"),
        (5, str(tmp_path / "no" / "w.db"), "folder that is there"),
        (7, "127.0.0.1", "HOST:PORT"),
        (7, "127.0.0.1:99999", "HOST:PORT"),
        (8, "--tls", "PEM form"),
    ):
        said = valise(*good[:place], wrong, *good[place + 1 :], *([key, key] if wrong == "--tls" else []))
        assert said.returncode == 1, said
        assert reason in said.stderr
    assert valise(*good[:2]).returncode == 2
    (tmp_path / "w1.key.vkey").write_text(str(LOG), encoding="utf-8")
    assert "does not name the witness" in valise(*good).stderr


async def test_over_tls_it_answers_only_those_whose_certificate_its_ca_signed(tmp_path: Path, vkey: str) -> None:
    pki = authorities.init_pki(tmp_path, ["AT"], datetime.now(UTC))
    ours = Tls(ca=pki / "nodes-ca.pem", certificate=pki / "router.crt", key=pki / "router.key")
    secured = ("--tls", str(pki / "node-1.crt"), str(pki / "node-1.key"), "--tls-ca", str(pki / "root.pem"))
    with running(tmp_path, "", *secured) as (place, _):
        named = Named(vkey=vkey, url=f"https://localhost:{place.port}/", tls=ours)
        settings = Settings(role="operator", federation="x", bus="sqlite:x", witnesses=(named,), witness_quorum=1)
        (known,) = witnessing.named(tmp_path, settings).known
        assert (await add(known.place, Log(5).request(0))).status == 200
        nobody = ssl.create_default_context(cafile=pki / "nodes-ca.pem")
        for stranger in (place, Place.of(f"https://localhost:{place.port}", nobody)):
            with pytest.raises(UnavailableError):
                await add(stranger, Log(5).request(5))
