"""A member enters from a machine of its own: what it is sent, what it takes, and the way to its first notice."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from adapters.versions import Versions
from broker import settings
from broker.errors import ConfigurationError, VersionRefusedError
from broker.settings import Settings
from broker.trust import draft
from broker.trust.bundle import Opened, Trust, WrittenBundle, first_root, open_bundle
from cli.home import clock
from cli.operator_home import tls_of
from cli.stage import Stage, running, set_up, settled
from cli.trust import invitation, proposing
from cli.trust.invitation import Invitation
from tests.journeys.test_by_hand import DRAFT
from tests.making import NOW
from tests.trust.signed_world import TIMESTAMP, changed_name, content, first_content, next_draft, opened
from tests.trust.test_adopted import Site, site
from tests.trust.test_commands import BUREAUS, Result, federation, valise

__all__ = ["site"]
FR = "FR/ncb"
BUS = "kafka:bus.example:9093"


def held(content: bytes) -> Opened:
    """A bundle as it is for whoever trusts the root that it begins with."""
    return open_bundle(content, Trust(first_root(content)), None)


def sent(path: Path, directory: bytes | None, name: str = "", bus: str = BUS) -> Path:
    """An invitation as a file: to the federation of the directory, or to that of this name."""
    written = WrittenBundle.model_validate_json(directory) if directory else None
    named = name or (held(directory).directory.federation if directory else "founded.example")
    path.write_bytes(Invitation(federation=named, bus=bus, directory=written).content())
    return path


# The whole way, on Kafka


async def done(home: Path, *words: str) -> Result:
    said = await valise(home, *words)
    assert said.code == 0, said.err
    return said


@pytest.mark.kafka
@pytest.mark.timeout(300)
async def test_a_member_enters_a_federation_that_runs_from_a_machine_of_its_own(
    on_kafka: Stage, tmp_path: Path
) -> None:
    """Nothing goes from one home to the other but the files that the commands name."""
    office, own, post = on_kafka.home, tmp_path / "own", tmp_path / "post"
    post.mkdir()
    larger = replace(on_kafka, federation=federation(*BUREAUS, FR))
    async with running(on_kafka):
        await settled(on_kafka)
        invited = await done(office, "member", "invite", "--to", str(post / "fr.invitation"))
        assert "is reached from this machine only" in invited.err
        taken = (await done(own, "member", "accept", str(post / "fr.invitation"), "--bureau", FR, "--json")).value
        assert (taken["version"], taken["pinned"]) == (1, False)
        made = (await done(own, "key", "new", "--bureau", FR, "--json")).value
        for each in ("request", "signatory"):
            shutil.copy(made[each], post)

        proposed = await proposing.propose(larger.operator, larger.federation, [post])
        shutil.copy(proposed.path, post / "entry.json")
        sign = ("directory", "sign", str(post / "entry.json"), "--to", str(post / "fr.json"), "--bureau", FR, "--yes")
        assert "valise directory trust FINGERPRINT" in (await valise(own, *sign)).err
        told = (await done(office, "directory", "status", "--bureau", "LV/ncb", "--json")).value["root"]
        assert told == taken["root"]
        await done(own, "directory", "trust", told, "--bureau", FR)
        shown = await valise(own, "directory", "show", str(post / "entry.json"), "--bureau", FR)
        assert shown.code == 5  # what the bus says now cannot be known
        assert "FR" in shown.out
        await done(own, *sign)
        for member in ("AT", "LV"):
            await done(office, "directory", "sign", str(proposed.path), "--bureau", f"{member}/ncb", "--yes")
        await done(office, "directory", "activate", str(proposed.path), str(post / "fr.json"))

        assert "`valise certificate request` asks for it" in (await valise(own, "inbox", "--bureau", FR)).err
        asked = (await done(own, "certificate", "request", "--adapter", "--bureau", FR, "--json")).value["request"]
        (given,) = (await done(office, "certificate", "sign", "--requests", asked, "--json")).value["issued"]
        await done(own, "certificate", "accept", given, "--bureau", FR)

        await done(own, "subscribe", "sought.*", "--bureau", FR)
        await settled(larger)
        person = {"deny": [], "topics": ["sought.red"], "purpose": "criminal-investigation"}
        for sender, home, to in (("LV/ncb", office, FR), (FR, own, "AT/ncb")):
            path = post / "person.json"
            path.write_text(json.dumps(DRAFT | person | {"audience": {"to": [to]}}), encoding="utf-8")
            out = await done(home, "publish", str(path), "--bureau", sender, "--wait", "45", "--json")
            assert out.value["notices"][0]["state"] == "routed"
        (came,) = (await done(own, "inbox", "--bureau", FR, "--json")).value["notices"]
        assert came["issuer"] == "LV/ncb"
        (came,) = (await done(office, "inbox", "--bureau", "AT/ncb", "--json")).value["notices"]
        assert came["issuer"] == FR
        status = (await done(own, "directory", "status", "--bureau", FR, "--json")).value
        assert (status["version"], status["refused"]) == (2, "")
    versions = Versions(own / "members" / "FR" / "versions")
    assert versions.newest().version == 2
    assert not versions.given.exists()
    assert versions.newest_digest("policies")


@pytest.mark.kafka
@pytest.mark.timeout(300)
async def test_an_invitation_holds_no_secret_and_no_more_than_the_directory(on_kafka: Stage, tmp_path: Path) -> None:
    path = tmp_path / "invitation"
    await done(on_kafka.home, "member", "invite", "--to", str(path))
    said = json.loads(path.read_bytes())
    assert set(said) == {"invitation", "federation", "bus", "directory"}
    assert set(said["directory"]) == {"bundle", "roots", "roles", "files"}
    directory = on_kafka.operator.versions.newest()
    annex = on_kafka.operator.versions.content(directory.annex) if directory.annex else None
    policies = on_kafka.operator.versions.newest_digest("policies")
    assert policies
    rules = on_kafka.operator.versions.content(policies)
    text = path.read_text(encoding="utf-8")
    for each in (annex, rules):
        assert each
        assert each.decode() not in text
    assert not any(name in text for name in ("clearances", "supervision", "PRIVATE", "permit"))


# The parts of it


@pytest.mark.parametrize(
    ("bus", "nearby"),
    [
        ("kafka:127.0.0.1:9093", True),
        ("kafka:bus.example:9093,localhost:9093", True),
        ("kafka:[::1]:9093", True),
        ("kafka:bus.example:9093,192.0.2.7:9093", False),
    ],
)
def test_a_bus_that_only_this_machine_reaches_is_told(bus: str, nearby: bool) -> None:
    assert invitation.is_nearby(bus) is nearby


async def test_the_embedded_bus_needs_no_invitation(tmp_path: Path) -> None:
    stage = await set_up(tmp_path / "home", federation(*BUREAUS), "sqlite", BUREAUS, lambda _: None)
    said = await valise(stage.home, "member", "invite", "--to", str(tmp_path / "invitation"))
    assert (said.code, "nobody needs an invitation" in said.err) == (1, True)
    assert not (tmp_path / "invitation").exists()


async def test_no_key_is_made_for_a_federation_that_nobody_named(tmp_path: Path) -> None:
    """Its request would be for no federation, and refused."""
    said = await valise(tmp_path, "key", "new", "--bureau", FR)
    assert (said.code, f"valise member accept FILE --bureau {FR}" in said.err) == (1, True)
    assert not (tmp_path / "members").exists()


async def test_a_member_beside_the_operator_gets_its_settings_on_kafka_too(tmp_path: Path) -> None:
    made = Settings(role="operator", federation="test", bus=BUS)
    settings.save(tmp_path / "operator", made)
    await done(tmp_path, "key", "new", "--bureau", FR)
    found = settings.load(tmp_path / "members" / "FR")
    assert (found.role, found.federation, found.bus, found.member, found.bureau) == ("member", "test", BUS, "FR", FR)


async def test_who_founds_is_invited_before_there_is_a_directory(tmp_path: Path) -> None:
    path = sent(tmp_path / "invitation", None)
    said = await done(tmp_path / "own", "member", "accept", str(path), "--bureau", FR)
    assert "there is no directory yet" in said.out
    made = (await done(tmp_path / "own", "key", "new", "--bureau", FR, "--json")).value
    assert made["federation"] == "founded.example"
    assert made["signatory"].endswith("/FR/trust/FR.signatory.json")
    assert settings.load(tmp_path / "own" / "members" / "FR").bus == BUS


async def test_the_directory_stands_for_nothing_before_its_root_is_pinned(tmp_path: Path) -> None:
    path = sent(tmp_path / "invitation", first_content(clock()))
    taken = (await done(tmp_path / "own", "member", "accept", str(path), "--bureau", FR, "--json")).value
    versions = Versions(tmp_path / "own" / "members" / "FR" / "versions")
    assert versions.guard().opened is None
    versions.pin(taken["root"])
    base = versions.guard().opened
    assert base is not None
    assert base.directory.version == 1


def second(base_content: bytes) -> bytes:
    base = opened(base_content)
    return content(next_draft(base, changed_name(base, "AT", "Wien")), base, ("AT",))


def refreshed(content: bytes) -> bytes:
    return draft.refresh(opened(content), TIMESTAMP, NOW)


async def test_what_was_accepted_is_gone_once_the_bus_shows_it_or_a_newer_one(site: Site) -> None:
    first = first_content()
    newer = second(first)
    member = site.member
    member.accept(first, opened(first).directory.federation)
    await site.write("directory", first)
    await site.write("directory", newer)
    assert await member.follow(site.bus) == 2
    assert (member.given.exists(), member.refused(), member.newest().version) == (False, "", 2)


async def test_a_bus_that_shows_less_than_was_accepted_rings_until_it_shows_it(site: Site) -> None:
    first = first_content()
    newer, member = second(first), site.member
    member.accept(newer, opened(first).directory.federation)
    await site.write("directory", first)
    await site.write("directory", refreshed(first))  # the timestamp alone goes on: it says nothing of what is signed
    for _ in range(2):
        await member.follow(site.bus)
        assert (member.newest().version, member.given.exists()) == (1, True)
        assert "AT: version 2 was accepted here, and the bus shows version 1" in member.refused()
    await site.write("directory", refreshed(newer))
    await member.follow(site.bus)
    assert (member.newest().version, member.given.exists(), member.refused()) == (2, False, "")


async def test_a_bus_that_shows_another_directory_than_was_accepted_rings(site: Site) -> None:
    first = first_content()
    base, member = opened(first), site.member
    shown = content(next_draft(base, changed_name(base, "AT", "Graz")), base, ("AT",))
    member.accept(second(first), base.directory.federation)
    for each in (first, shown, refreshed(shown)):
        await site.write("directory", each)
    for _ in range(2):
        await member.follow(site.bus)
        assert "was accepted here, and the bus shows another version 2" in member.refused()
    assert member.given.exists()


async def test_a_home_that_reads_the_bus_takes_no_invitation(site: Site, tmp_path: Path) -> None:
    """Whoever could give it one would freeze it by a timestamp of any number, or lead it where the bus does not go."""
    first = first_content()
    await site.write("directory", first)
    await site.member.follow(site.bus)
    with pytest.raises(ConfigurationError, match="reads the bus itself"):
        site.member.accept(second(first), opened(first).directory.federation)
    known = Settings(
        role="member", federation="test", bus=BUS, member="FR", bureau=FR, tls={"fr.ncb": tls_of("fr.ncb")}
    )
    with pytest.raises(ConfigurationError, match="has a certificate"):
        invitation.accept(tmp_path / "own", FR, known, sent(tmp_path / "invitation", first, "test"))


async def test_who_is_told_that_nothing_is_founded_after_a_directory_was_accepted_asks(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    done = invitation.accept(folder, FR, None, sent(tmp_path / "first", first_content(clock())))
    with pytest.raises(ConfigurationError, match=r"remove .*given"):
        invitation.accept(folder, FR, done.settings, sent(tmp_path / "second", None, done.settings.federation))


async def test_an_annex_or_anything_else_beside_the_directory_is_refused(tmp_path: Path) -> None:
    path = sent(tmp_path / "invitation", first_content(clock()))
    whole = json.loads(path.read_bytes())
    changes: list[dict[str, object]] = [
        {"annex": "{}"}, {"bus": "sqlite:/etc/passwd"}, {"bus": "kafka:a\nrole = 1"}, {"bus": "kafka:"},
        {"federation": ""}, {"federation": "a\u001b[2J"}, {"federation": 7}, {"directory": "x"}, {"directory": []},
        {"directory": whole["directory"] | {"more": ""}}, {"invitation": "valise/invitation/2"},
    ]  # fmt: skip
    for change in changes:
        path.write_text(json.dumps(whole | change), encoding="utf-8")
        with pytest.raises(ConfigurationError, match="is no invitation"):
            invitation.read(path)
    for text in ("[]", "[" * 20_000, "{", "null", '{"bus":"kafka:a:1","bus":"kafka:b:1","federation":"x"}', "\udc00"):
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        with pytest.raises(ConfigurationError, match="is no invitation"):
            invitation.read(path)


def test_an_expired_timestamp_is_not_waited_with(tmp_path: Path) -> None:
    old = first_content(clock() - draft.TIMESTAMP_LIFE_MS - 1)
    with pytest.raises(VersionRefusedError, match="timestamp: has expired"):
        invitation.accept(tmp_path / "own", FR, None, sent(tmp_path / "invitation", old))
    assert not (tmp_path / "own" / "settings.toml").exists()
    assert not Versions(tmp_path / "own" / "versions").given.exists()
