"""A member asks for a certificate, the operator signs it, the member takes it home: the commands on the way."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from broker import certificates, settings
from broker.certificates import pki_of
from broker.streams import DAY_MS
from cli import home as homes
from cli.home import clock
from cli.operator_home import stopped
from cli.stage import Stage, set_up
from cli.trust import issuing, vouched
from tests.trust.test_commands import BUREAUS, federation, valise

AT = "AT/ncb"


@pytest.fixture
async def stage(tmp_path: Path) -> Stage:
    """A federation whose homes name a Kafka bus that nobody runs: nothing here needs it."""
    made = await set_up(tmp_path / "home", federation(*BUREAUS), "sqlite", BUREAUS, lambda _: None)
    certificates.init_pki(made.operator.folder, ["AT", "LV"], datetime.now(UTC))
    for folder in (made.operator.folder, made.home / "members" / "AT"):
        known = settings.load(folder)
        settings.save(folder, known.model_copy(update={"bus": "kafka:localhost:9"}))
    return made


async def test_a_member_gets_the_certificate_of_its_adapter(stage: Stage) -> None:
    asked = await valise(stage.home, "certificate", "request", "--adapter", "--bureau", AT, "--json")
    signed = await valise(stage.home, "certificate", "sign", "--json")
    (given,) = signed.value["issued"]
    again = await valise(stage.home, "certificate", "sign", "--requests", asked.value["request"], "--json")
    assert (again.code, again.value) == (0, signed.value)
    assert (await valise(stage.home, "certificate", "accept", given, "--bureau", AT)).code == 0
    member = stage.home / "members" / "AT"
    assert set(settings.load(member).tls) == {"at.adapter"}
    assert certificates.credentials(pki_of(member), "at.adapter")
    (row,) = (await valise(stage.home, "certificate", "list", "--json")).value["certificates"]
    assert (row["principal"], row["state"]) == ("at.adapter", "in force")


async def test_what_is_refused_is_named_and_the_command_fails(stage: Stage) -> None:
    path = vouched.write(stage.home / "members" / "AT", "AT", "navy", stage.federation.federation, clock())
    done = await valise(stage.home, "certificate", "sign")
    assert done.code == 1
    assert done.err.startswith(f"refused: {path}: the directory names no bureau AT/navy")


async def test_drafting_a_directory_signs_no_certificate(tmp_path: Path) -> None:
    home = (await set_up(tmp_path / "home", federation(*BUREAUS), "sqlite", BUREAUS, lambda _: None)).home
    certificates.init_pki(home / "operator", ["AT", "LV"], datetime.now(UTC))
    certificates.request(home / "members" / "LV", "AT", "ncb")
    await valise(home, "directory", "draft")
    assert not list(home.rglob("*.signed.pem"))
    assert not (pki_of(home / "operator") / "issued").exists()


async def test_a_member_is_told_that_its_certificate_soon_ends(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, then = stage.home / "members" / "AT", clock() - 70 * DAY_MS
    asked = vouched.write(folder, "AT", "adapter", stage.federation.federation, then)
    (path,) = issuing.issue(stage.operator, [asked], then).issued
    assert (await valise(stage.home, "certificate", "accept", str(path), "--bureau", AT)).code == 0
    homes._tls(folder, settings.load(folder), "at.adapter")
    assert "RED: the certificate of at.adapter ends" in capsys.readouterr().err


async def test_only_a_members_name_on_the_bus_can_be_stopped(stage: Stage) -> None:
    for name in ("router", "setup", "at"):
        done = await valise(stage.home, "certificate", "stop", name, "--yes")
        assert "write at.ncb or at.adapter" in done.err


def test_two_who_stop_principals_at_once_forget_none(stage: Stage) -> None:
    names = [f"at.bureau-{number}" for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(partial(issuing.stop, stage.operator), names))
    assert stopped(stage.operator) == frozenset(names)
