"""A member asks for a certificate, the operator signs it, the member takes it home: the commands on the way."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
import structlog
from click.testing import CliRunner
from structlog.testing import capture_logs

from broker import authorities, bindings, certificates, durable, kafka_admin, pem, principals, settings
from broker.certificates import pki_of
from broker.errors import ConfigurationError, UnavailableError
from broker.signing import is_encrypted
from broker.streams import DAY_MS
from cli import broker, ending, passphrases, seed, standing
from cli import home as homes
from cli import main as command
from cli.home import clock
from cli.operator_home import make, operator_home, tls_of
from cli.operator_streams import names, stopped, stopped_path
from cli.stage import Stage, set_up
from cli.trust import issuing, proposing, vouched
from tests.trust.test_commands import BUREAUS, federation, valise

AT = "AT/ncb"


@pytest.fixture
async def stage(tmp_path: Path) -> Stage:
    """A federation whose homes name a Kafka bus that nobody runs: nothing here needs it."""
    made = await set_up(tmp_path / "home", federation(*BUREAUS), "sqlite", BUREAUS, lambda _: None)
    authorities.init_pki(made.operator.folder, [], datetime.now(UTC))
    for folder in (made.operator.folder, made.home / "members" / "AT"):
        known = settings.load(folder)
        tls = {"operator": tls_of("operator")} if known.role == "operator" else {}
        settings.save(folder, known.model_copy(update={"bus": "kafka:localhost:9", "tls": tls}))
    return made


async def test_a_bureau_that_no_certificate_could_be_made_out_to_is_refused_with_the_draft(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Kafka, and if it is to have one of its own; before members sign that it takes part."""
    operator, long, file = operator_home(stage.home), "a" * 51, stage.home / "federation.toml"
    text = (Path(seed.__file__).parent / "seed.toml").read_text(encoding="utf-8")
    text = text.replace('    "AD/ncb",', f'    "AD/ncb", "AD/{long}",')
    file.write_text(f'{text}[bureau."AD/{long}"]\ncertified = true\n', encoding="utf-8")
    told = (
        rf"AD/{long}: '{long}' cannot be a bureau: write up to 50 lower-case letters, digits and dashes\. One that .*"
        "take `certified` from it"
    )
    with pytest.raises(ConfigurationError, match=told):
        await proposing.propose(operator, seed.read(file), [])
    file.write_text(text, encoding="utf-8")
    monkeypatch.setattr(kafka_admin, "ANSWER_LIMIT_S", 0.5)
    with pytest.raises(UnavailableError):  # it goes on to ask the bus, which nobody runs
        await proposing.propose(operator, seed.read(file), [])


@pytest.mark.kafka
@pytest.mark.timeout(300)
async def test_a_member_gets_the_certificate_of_its_adapter(on_kafka: Stage) -> None:
    """By the directory on the bus: the operator's home was restored from before it. What is refused is named.

    The authorities' keys are encrypted, and nothing but the signing asks for their passphrase.
    """
    home, member = on_kafka.home, on_kafka.home / "members" / "AT"
    shutil.rmtree(on_kafka.operator.folder / "versions")
    secret = ("--passphrase-file", str(passphrase(home / "secret")))
    assert (await valise(home, "broker", "init", *secret)).code == 0
    for each in (("kafka", "up"), ("kafka", "check"), ("broker", "status")):
        assert "passphrase" not in (await valise(home, *each)).err
    asked = await valise(home, "certificate", "request", "--adapter", "--bureau", AT, "--json")
    locked = await valise(home, "certificate", "sign", "--requests", asked.value["request"])
    assert (locked.code, "VALISE_PASSPHRASE_FILE" in locked.err) == (1, True)
    signed = await valise(home, "certificate", "sign", "--requests", asked.value["request"], *secret, "--json")
    (given,) = signed.value["issued"]
    again = await valise(home, "certificate", "sign", "--requests", asked.value["request"], *secret, "--json")
    assert (again.code, again.value) == (0, signed.value)
    accepted = await valise(home, "certificate", "accept", given, "--bureau", AT, "--json")
    assert accepted.value == {"principal": "at.adapter", "until": issuing.read(Path(given)).until}
    assert set(settings.load(member).tls) == {"at.adapter"}
    assert certificates.credentials(pki_of(member), "at.adapter")
    rows = (await valise(home, "certificate", "list", "--json")).value["certificates"]
    assert [row["state"] for row in rows if row["principal"] == "at.adapter"] == ["in force", "in force"]
    path = vouched.write(member, "AT", "navy", on_kafka.federation.federation, clock())
    done = await valise(home, "certificate", "sign", "--requests", str(path), *secret)
    assert done.code == 1
    assert done.err.startswith(f"refused: {path}: the directory names no bureau AT/navy")
    assert (await valise(home, "certificate", "stop", "at.adapter", "--yes")).code == 0
    undo = ("certificate", "resume", "at.adapter", "--old-keys")
    asking = await valise(home, *undo)  # a thief of that key would be back
    assert (asking.code != 0, "whoever holds these keys comes in again" in asking.err) == (True, True)
    assert stopped(on_kafka.operator) == {"at.adapter"}
    back = await valise(home, *undo, "--yes", "--json")
    assert (back.code, len(back.value["in_force"]), bound(on_kafka)) == (0, 2, {"at.adapter"})
    assert (await valise(home, "certificate", "stop", "at.adapter", "--yes")).code == 0
    anew = await valise(home, "certificate", "resume", "at.adapter")
    assert (anew.code, "its member moves pki/at.adapter.key away and asks for its certificate anew" in anew.out) == (
        0,
        True,
    )
    (name,) = bound(on_kafka)
    assert name.startswith("at.adapter.")
    (pki_of(member) / "at.adapter.key").unlink()
    asked = await valise(home, "certificate", "request", "--adapter", "--bureau", AT, "--json")
    signed = await valise(home, "certificate", "sign", "--requests", asked.value["request"], *secret, "--json")
    assert (await valise(home, "certificate", "accept", signed.value["issued"][0], "--bureau", AT)).code == 0
    rows = (await valise(home, "certificate", "list", "--json")).value["certificates"]
    assert [row["state"] for row in rows if row["principal"] == "at.adapter"] == ["stopped", "stopped", "in force"]
    # With it the member reads the bus.
    assert (await valise(home, "directory", "status", "--bureau", AT, "--json")).value["stale"] is False


def bound(stage: Stage) -> set[str]:
    """The names by which AT's adapter is let in."""
    setup = certificates.credentials(pki_of(stage.operator.folder), "setup")
    found = {each.principal for each in bindings.standing(stage.operator.settings.bus_address, setup)}
    return {each for each in found if each.startswith("at.adapter")}


def passphrase(path: Path, content: str = "a long passphrase of the authorities\n") -> Path:
    path.touch(mode=0o600)
    path.write_text(content, encoding="utf-8")
    return path


async def test_a_home_of_before_is_told_how_its_authorities_get_a_passphrase(stage: Stage) -> None:
    """It goes on as it is until then; afterwards a wrong one is named as such."""
    pki, home = pki_of(stage.operator.folder), stage.home
    before = await valise(home, "broker", "init")
    assert (before.code, "`valise certificate passphrase`" in before.err) == (0, True)
    aside = home / "root.key"  # on a disk of its own
    (pki / "root.key").rename(aside)
    (pki / "root.key").symlink_to(aside)
    named = {each: passphrase(home / each, f"a long passphrase, called {each}\n") for each in ("right", "wrong")}
    done = await valise(home, "broker", "init", "--passphrase-file", str(named["right"]))
    assert (done.code, done.err, authorities.bare(pki)) == (0, "", [])
    assert is_encrypted(aside.read_bytes())
    assert not is_encrypted(stage.operator.key_path.read_bytes())  # with that one the broker starts
    wrong = await valise(home, "broker", "init", "--passphrase-file", str(named["wrong"]))
    assert (wrong.code, "if it is lost, only new authorities help" in wrong.err) == (1, True)
    assert "VALISE_PASSPHRASE_FILE" in (await valise(home, "broker", "init")).err


async def test_the_authorities_get_a_passphrase_and_another_by_one_command(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of the one before opens them any more; the operator's status says until then that they lie open."""
    monkeypatch.setattr(kafka_admin, "ANSWER_LIMIT_S", 0.5)  # nobody runs the bus
    pki, home = pki_of(stage.operator.folder), stage.home
    named = {each: str(passphrase(home / each, f"a long passphrase, called {each}\n")) for each in ("first", "second")}
    root, change = pki / "root.key", ("certificate", "passphrase", "--json")
    status = partial(CliRunner().invoke, command.valise, ["broker", "status", "--home", str(home)])
    assert "without a passphrase" in (await asyncio.to_thread(status)).stderr
    # A kill came after one of them: the same command goes on, and asks for none of before.
    durable.put_private(root, pem.key_pem(pem.load_key(root), b"a long passphrase, called first"))
    open_ = authorities.bare(pki)
    first = await valise(home, *change, "--new-passphrase-file", named["first"])
    assert (first.code, sorted(first.value["changed"]), authorities.bare(pki)) == (0, sorted(map(str, open_)), [])
    assert "without a passphrase" not in (await asyncio.to_thread(status)).stderr
    short = await valise(home, *change, "--new-passphrase-file", str(passphrase(home / "short", "hunter2")))
    assert (short.code, "VALISE_PASSPHRASE_FILE" in short.err) == (1, True)  # the one of before is asked for first
    before, named["third"] = {each: each.read_bytes() for each in pki.iterdir()}, str(passphrase(home / "third"))
    for old, new in (("second", "third"), ("first", "short")):
        secrets = ("--passphrase-file", named[old], "--new-passphrase-file", str(home / new))
        assert (await valise(home, *change, *secrets)).code == 1
        assert {each: each.read_bytes() for each in pki.iterdir()} == before
    done = await valise(home, *change, "--passphrase-file", named["first"], "--new-passphrase-file", named["second"])
    assert (done.code, sorted(done.value["changed"])) == (0, sorted([str(root), *first.value["changed"]]))
    for each, opens in (("first", 1), ("second", 0)):
        assert (await valise(home, "broker", "init", "--passphrase-file", named[each])).code == opens


async def test_a_passphrase_of_authorities_is_refused_where_there_are_none(tmp_path: Path) -> None:
    done = await valise(tmp_path, "broker", "init", "--passphrase")
    assert (done.code, "which the embedded bus has not" in done.err) == (2, True)
    assert not (tmp_path / "operator").exists()


async def test_new_authorities_take_the_place_of_those_whose_passphrase_is_lost(stage: Stage) -> None:
    """As README says: names that were stopped stay so, and each member takes the new root of the nodes by hand."""
    folder, pki, name = stage.home / "members" / "AT", pki_of(stage.operator.folder), stage.federation.federation
    asked = [vouched.write(folder, "AT", "adapter", name, clock() - 1)]
    (old,) = issuing.issue(stage.operator, asked, clock()).issued
    issuing.accept(folder, "AT", old, clock())
    issuing.stop(stage.operator, "lv.ncb")
    lost = pki.rename(pki.with_name("pki.lost"))
    secret = passphrase(stage.home / "secret")
    assert (await valise(stage.home, "broker", "init", "--passphrase-file", str(secret))).code == 0
    shutil.copy(lost / "stopped.json", pki)
    shutil.copytree(lost / "issued", pki / "issued")
    assert certificates.credentials(pki, "setup")
    assert stopped(stage.operator) == {"lv.ncb"}
    asked = [vouched.write(folder, "AT", "adapter", name, clock())]
    (new,) = issuing.issue(stage.operator, asked, clock(), (), passphrases.for_old(secret)).issued
    with pytest.raises(ConfigurationError, match="another root of the nodes"):
        issuing.accept(folder, "AT", new, clock())
    (pki_of(folder) / "nodes-ca.pem").unlink()
    assert issuing.accept(folder, "AT", new, clock()).principal == "at.adapter"


def test_no_certificate_is_signed_where_the_bus_does_not_say_what_is_in_force(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_admin, "ANSWER_LIMIT_S", 0.5)
    vouched.write(stage.home / "members" / "AT", "AT", "adapter", stage.federation.federation, clock())
    given = ["--home", str(stage.home), "certificate", "sign"]
    assert isinstance(CliRunner().invoke(command.valise, given).exception, UnavailableError)
    assert issuing.kept(stage.operator) == []


async def test_a_damaged_record_of_a_certificate_stops_its_own_principal_only(stage: Stage) -> None:
    folder, name = stage.home / "members", stage.federation.federation
    first = vouched.write(folder / "AT", "AT", "adapter", name, clock() - 1)
    (path,) = issuing.issue(stage.operator, [first], clock()).issued
    path.write_bytes(path.read_bytes()[:100])
    asked = [vouched.write(folder / each, each, "adapter", name, clock()) for each in ("AT", "LV")]
    done = issuing.issue(stage.operator, asked, clock())
    assert [each.name.partition(".")[0] for each in done.issued] == ["lv"]
    (refused,) = done.refused
    assert f"{path} is damaged: put that of a backup in its place" in refused
    assert len(list(issuing.in_force(stage.operator, "lv.adapter", clock()))) == 1
    with pytest.raises(ConfigurationError, match="is damaged"):
        issuing.kept(stage.operator)


def certify(stage: Stage, unit: str, then: int) -> None:
    """Give a unit of AT the certificate that it would have got then."""
    home, operator = pki_of(stage.home / "members" / "AT"), pki_of(stage.operator.folder)
    at = datetime.fromtimestamp(then / 1000, UTC)
    authorities.add_member(operator, "AT", at)
    chain = authorities.sign_request(operator, "AT", unit, certificates.request(home, "AT", unit), at)
    certificates.accept(home, "AT", unit, chain, (operator / "nodes-ca.pem").read_bytes(), at)


@pytest.mark.parametrize(("unit", "whose"), [("adapter", "--adapter"), ("ncb", "--bureau AT/ncb")])
def test_a_member_is_told_that_its_certificate_soon_ends(
    stage: Stage, capsys: pytest.CaptureFixture[str], unit: str, whose: str
) -> None:
    """Once, and also by a process that found nothing to say at first, as one that follows an inbox for weeks."""
    folder, name, said = stage.home / "members" / "AT", f"at.{unit}", list[str]()
    known = settings.load(folder).model_copy(update={"tls": {name: tls_of(name)}})
    for days in (50, 70, 70):
        certify(stage, unit, clock() - days * DAY_MS)
        homes.tls(folder, known, name)
        said.append(capsys.readouterr().err)
    assert (said[0], said[2]) == ("", "")
    assert f"RED: the certificate of {name} ends" in said[1]
    assert f"`valise certificate request {whose}`" in said[1]


async def test_the_operator_is_told_whose_certificates_end_soon(stage: Stage) -> None:
    """In the last week, and from then on: until its member has the next one, is stopped, or takes part no more."""
    operator, member = stage.operator, stage.home / "members" / "AT"
    then = clock() - 84 * DAY_MS

    def issue(at: int) -> None:
        issuing.issue(operator, [vouched.write(member, "AT", "adapter", stage.federation.federation, at)], at)

    issue(then)
    (first,) = issuing.kept(operator)
    assert ending.of_members(operator, first.until - ending.MEMBERS_MS - 1) == []
    for at, said in ((first.until - DAY_MS, "ends"), (first.until, "has ended")):
        (found,) = ending.of_members(operator, at)
        assert f"the certificate of at.adapter {said}" in found.said(at)
    # A bureau to which the directory gives none any more could not have the next one.
    of_bureau = first.model_copy(update={"principal": "at.ncb"})
    durable.put(issuing.issued_folder(operator) / of_bureau.file, of_bureau.model_dump_json().encode())
    assert [each.principal for each in ending.of_members(operator, first.until)] == ["at.adapter"]
    listed = await valise(stage.home, "certificate", "list")
    assert "RED: the certificate of at.adapter ends" in listed.out
    issuing.stop(operator, "at.adapter")
    assert ending.of_members(operator, first.until) == []
    issuing.resume(operator, "at.adapter", clock(), old_keys=True)
    issue(clock())
    assert ending.of_members(operator, first.until) == []
    assert (await valise(stage.home, "certificate", "list", "--json")).value["ending"] == []


def test_the_operator_is_told_which_of_its_own_certificates_end_soon(tmp_path: Path) -> None:
    """Those of its nodes, too, also where one runs with that of before; what lies in the safe is not looked for."""
    made = make(tmp_path, seed.seed(), "kafka")
    month = clock() + 340 * DAY_MS
    assert ending.of_operator(made, clock()) == []
    assert [each.principal for each in ending.of_operator(made, month)] == ["router", "operator", "setup", "node-1"]
    (pki_of(made.folder) / "setup.crt").unlink()
    assert [each.principal for each in ending.of_operator(made, month)] == ["router", "operator", "node-1"]
    (pid := made.folder / "kafka" / "node-1" / "pid").parent.mkdir(exist_ok=True)
    pid.write_text("1", encoding="ascii")
    os.utime(pid, (0, 0))
    assert ending.of_operator(made, clock()) == []  # it was killed: it will begin with the next one
    properties = str(pid.resolve().with_name("server.properties"))
    program = [sys.executable, "-c", "print('up', flush=True); input()", "kafka.Kafka", properties]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as runs:
        assert runs.stdout is not None
        assert runs.stdout.readline() == b"up\n"  # Linux knows its command line
        (before,) = ending.of_operator(made, clock())
        runs.communicate(b"\n", timeout=60)
    assert "node-1 runs with its certificate of before" in before.said(clock())


@pytest.mark.parametrize("damaged", ["pki/setup.crt", "pki/node-1.crt", "kafka/cluster.json"])
def test_a_damaged_certificate_that_a_broker_needs_not_does_not_end_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damaged: str
) -> None:
    made = make(tmp_path, seed.seed(), "kafka")
    (file := made.folder / damaged).write_bytes(file.read_bytes()[:50])
    with capture_logs() as logged:
        broker._ring_ending(made)
    structlog.reset_defaults()
    (said,) = [each["said"] for each in logged]
    assert f"the certificate of {file.stem} cannot be read" in said or f"{file} is damaged" in said
    shown = [each.said(clock()) for each in standing.ending_of(made)]
    assert shown == [said] or f"{file} is damaged" in capsys.readouterr().err


async def test_a_node_whose_certificate_has_ended_is_not_started(tmp_path: Path) -> None:
    """It gives up over a handshake with itself, which names no certificate."""
    pki = pki_of(make(tmp_path, seed.seed(), "kafka").folder)
    (pki / "node-1.pem").unlink()
    authorities.make_node(pki, 1, authorities.LOOPBACK, datetime.now(UTC) - authorities.LEAF_LIFE)
    up = await valise(tmp_path, "kafka", "up")
    assert (up.code, "the certificate of node-1" in up.err, "`valise broker init`" in up.err) == (1, True, True)


@pytest.mark.parametrize("asked", [("kafka", "up"), ("kafka", "status"), ("broker", "init", "--bus", "kafka")])
async def test_a_damaged_certificate_is_named(tmp_path: Path, asked: tuple[str, ...]) -> None:
    file = pki_of(make(tmp_path, seed.seed(), "kafka").folder) / "node-1.crt"
    file.write_bytes(file.read_bytes()[:50])
    said = await valise(tmp_path, *asked)
    assert (said.code, f"{file} is damaged" in said.err) == (1, True)


async def test_broker_status_and_the_brokers_log_tell_of_certificates_that_end(stage: Stage) -> None:
    home, pki = operator_home(stage.home), pki_of(stage.operator.folder)
    (pki / "operator.pem").unlink()
    authorities.make_person(pki, "operator", datetime.now(UTC) - timedelta(days=340))
    found = standing.ending_of(home)
    assert [each.principal for each in found] == ["operator"]
    shown = await valise(stage.home, "broker", "status")
    assert f"RED       {found[0].said(clock())}" in shown.out
    with capture_logs() as logged:
        broker._ring_ending(home)
    structlog.reset_defaults()
    assert [(each["event"], each["principal"]) for each in logged] == [("certificate.ends", "operator")]


async def test_a_list_of_who_was_stopped_of_a_version_before_lets_nobody_in(stage: Stage) -> None:
    """Nor does a version before let in whom this one has resumed: to it each name in the file is stopped."""
    operator, now = stage.operator, clock()
    path = stopped_path(operator)
    path.write_text('["at.ncb", "lv.ncb"]', encoding="utf-8")
    assert stopped(operator) == {"at.ncb", "lv.ncb"}
    issuing.resume(operator, "at.ncb", now)
    issuing.resume(operator, "lv.ncb", now, old_keys=True)
    assert (stopped(operator), list(json.loads(path.read_bytes()))) == (frozenset(), ["at.ncb"])
    for content in ('{"at.ncb": {"stopped": 0}}', "[[]]", "{", "7"):
        path.write_text(content, encoding="utf-8")
        with pytest.raises(ConfigurationError, match="put that of a backup in its place"):
            names(operator)


def test_nodes_of_before_call_nobody_by_the_name_of_a_principal_that_was_resumed() -> None:
    """Their rules refuse its certificate: `resume` asks before it changes anything."""
    template = (Path(__file__).parents[2] / "deploy/kafka/server.properties.in").read_text(encoding="utf-8")
    rules = next(each for each in template.splitlines() if each.startswith(principals.RULES)).partition("=")[2]
    before = rules.replace("(?:[.][0-9]+)?", "")
    assert before != rules
    for member in ("AT", "EUROPOL"):
        first = certificates.member_subject(member, "ncb")
        names = [each.rfc4514_string() for each in (first, certificates.renamed(first, "ncb.1764499200000"))]
        new = [f"{member.lower()}.ncb", f"{member.lower()}.ncb.1764499200000"]
        assert [principals.called(rules, each) for each in names] == new
        assert [principals.called(before, each) for each in names] == [new[0], None]
        assert [principals.called(f"{before},DEFAULT", each) for each in names] == [new[0], names[1]]
    for each in ("CN=ncb.,OU=members,O=X,C=AT", "CN=ncb.1.2,OU=members,O=X,C=AT", "CN=setup,OU=members,O=Valise"):
        assert principals.called(rules, each) is None


async def test_only_a_members_name_on_the_bus_can_be_stopped(stage: Stage) -> None:
    for name in ("router", "setup", "at"):
        done = await valise(stage.home, "certificate", "stop", name, "--yes")
        assert "write at.ncb or at.adapter" in done.err


def test_two_who_stop_principals_at_once_forget_none(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable, "ALONE_S", 60.0)  # the others may take that long on a busy machine
    names = [f"at.bureau-{number}" for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(partial(issuing.stop, stage.operator), names))
    assert stopped(stage.operator) == frozenset(names)


def test_a_member_that_entered_later_gets_its_authority_with_its_first_certificate(stage: Stage) -> None:
    """Whoever made the operator's home named none of these members: the directory does."""
    folder = stage.home / "members" / "LV"
    asked = vouched.write(folder, "LV", "adapter", stage.federation.federation, clock())
    assert len(issuing.issue(stage.operator, [asked], clock()).issued) == 1
    assert [each.name for each in pki_of(stage.operator.folder).glob("member-*.pem")] == ["member-lv-ca.pem"]


async def test_a_home_is_not_made_again_for_another_federation(stage: Stage) -> None:
    """Nor with certificates of its members, whom this federation does not have."""
    before = set(pki_of(stage.operator.folder).iterdir())
    another = stage.federation.model_copy(update={"federation": "another"})
    for other, bus in ((another, "kafka:localhost:9"), (stage.federation, "sqlite")):
        with pytest.raises(ConfigurationError, match="name another --home, or --from its file"):
            make(stage.home, other, bus)
    assert set(pki_of(stage.operator.folder).iterdir()) == before
