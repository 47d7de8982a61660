"""What the operator does: the federation's file, requests, directories, starting and stopping the broker."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest

from broker import durable, members, settings
from broker.directory import Directory
from broker.errors import ConfigurationError
from broker.settings import Settings, Tls
from broker.signing import SigningKey
from cli import keys, seed, subscribe
from cli.composing import read_request
from cli.home import clock
from cli.operator_home import credentials, make, operator_home
from cli.seed import Federation, Order
from cli.stage import agree, joined, running, set_up, settled, verified
from cli.standing import standing
from tests.modes import open_to_others

BUREAUS = ("AT/ncb", "LV/ncb")


def small(*bureaus: str) -> Federation:
    """The first federation, cut down to the members of these bureaus."""
    whole = seed.seed()
    names = {each.partition("/")[0] for each in bureaus}
    return whole.model_copy(
        update={
            "order": Order(bureaus=bureaus),
            "reviewers": (),
            "authorities": (),
            "bureau": {},
            "members": tuple(each for each in whole.members if each.id in names),
            "agreements": (),
            "transfers": (),
            "annex": seed.Annex(),
        }
    )


def valise(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def first() -> Directory:
    directory, annex = seed.compose(seed.seed(), (), (), 1)
    found = members.parse(directory)
    members.parse_annex(annex, found)
    return found


def test_the_first_federation_is_of_26_states_and_two_organisations(first: Directory) -> None:
    kinds = [each.kind for each in first.members.values()]
    assert (kinds.count("state"), kinds.count("organisation")) == (26, 2)
    assert all(f"{member}/ncb" in first.bureaus for member in first.members)
    assert {"INTERPOL/review", "INTERPOL/un-notices"} <= first.bureaus.keys()
    assert sum(len(first.bureaus_of(member)) > 1 for member in first.members) > 20


def test_a_border_desk_is_no_analysis_unit(first: Directory) -> None:
    borders = [each for each in first.bureaus.values() if each.id.endswith("/border")]
    assert borders
    assert not any("criminal-analysis" in each.mandates for each in borders)


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ("AT", "LV", True),  # both in the Union
        ("DK", "EUROPOL", True),  # by its own agreement
        ("AT", "GB", True),  # adequacy
        ("LV", "GE", True),
        ("LV", "RU", False),  # but by the terms of the Eurasian file
        ("FI", "RU", False),
        ("RU", "UA", False),
        ("EUROPOL", "RU", False),
        ("EUROPOL", "JP", False),
        ("GB", "AZ", False),
    ],
)
def test_data_goes_from_one_member_to_another_only_on_a_recorded_basis(
    first: Directory, source: str, target: str, expected: bool
) -> None:
    assert first.transfer_ok(source, target) is expected


def test_the_terms_of_the_eurasian_file_cover_its_own_notices_only(first: Directory) -> None:
    assert first.transfer_ok("LV", "RU", ["project-millennium"])
    assert not first.transfer_ok("LV", "RU", ["baltic-sea-task-force"])
    assert not first.transfer_ok("FI", "RU", ["project-millennium"])


def test_a_transfer_by_agreement_falls_with_it() -> None:
    federation = seed.seed()
    suspended = tuple(
        each.model_copy(update={"status": "suspended"}) if each.id == "project-millennium" else each
        for each in federation.agreements
    )
    directory = members.parse(seed.compose(federation.model_copy(update={"agreements": suspended}), (), (), 2)[0])
    assert not directory.transfer_ok("LV", "RU")
    assert directory.transfer_ok("LV", "AT")


def test_a_clause_names_two_sides_or_one_circle(tmp_path: Path) -> None:
    file = tmp_path / "federation.toml"
    file.write_text('federation = "x"\nmembers = []\norder.bureaus = []\n[[transfers]]\nbasis = "adequacy"\n'
                    'reference = "none"\nfrom = ["AT"]\n', encoding="utf-8")  # fmt: skip
    with pytest.raises(ConfigurationError, match="between"):
        seed.read(file)


@pytest.mark.parametrize(
    ("right", "mistyped", "said"),
    [
        ('["RU", "UA"]', '["RO", "UA"]', "RO and UA are no two members of its clause"),
        ('["RU", "UA"]', '["RU", "RU"]', "RU and RU are no two members of its clause"),
        (
            '[bureau."GE/organised-crime"]',
            '[bureau."GE/organised-crime-x"]',
            "bureau.GE/organised-crime-x: order.bureaus",
        ),
    ],
)
def test_a_mistyped_exception_opens_nothing(tmp_path: Path, right: str, mistyped: str, said: str) -> None:
    """It would keep nobody apart, in silence: both ways between RU and UA would be open."""
    text = files("cli").joinpath("seed.toml").read_text(encoding="utf-8")
    assert text.count(right) == 1
    file = tmp_path / "federation.toml"
    file.write_text(text.replace(right, mistyped), encoding="utf-8")
    with pytest.raises(ConfigurationError, match=said):
        seed.read(file)


def test_a_request_made_without_the_private_key_is_refused(tmp_path: Path) -> None:
    federation = seed.seed()
    theirs, ours = SigningKey.new(), SigningKey.new()
    forged = keys.key_request(theirs, "LV/ncb", federation.federation)
    wanted = {name: value for name, value in forged.items() if name != "proof"}
    forged["proof"] = ours.sign_payload(keys.REQUEST_TYPE, keys.canonical(wanted)).hex()
    path = tmp_path / "ncb.request.json"
    path.write_text(json.dumps(forged), encoding="utf-8")
    with pytest.raises(ConfigurationError, match="does not have the private key"):
        read_request(path, federation, clock())


@pytest.mark.parametrize(
    ("bureau", "federation", "said"),
    [("LV/navy", None, "no bureau LV/navy"), ("LV/ncb", "another.example", "another federation")],
)
def test_a_request_for_what_the_federation_is_not_is_refused(
    tmp_path: Path, bureau: str, federation: str | None, said: str
) -> None:
    whole = seed.seed()
    path = tmp_path / "ncb.request.json"
    path.write_text(json.dumps(keys.key_request(SigningKey.new(), bureau, federation or whole.federation)), "utf-8")
    with pytest.raises(ConfigurationError, match=said):
        read_request(path, whole, clock())


async def test_the_next_directory_keeps_the_keys_of_the_last(tmp_path: Path) -> None:
    stage = await set_up(tmp_path / "home", small(*BUREAUS), "sqlite", BUREAUS, lambda _: None)
    keys.make_key(stage.home / "members" / "LV", "LV/analysis", stage.federation.federation)

    done = await agree(replace(stage, federation=small(*BUREAUS, "LV/analysis")))

    assert (done.version, done.keys, done.policies) == (2, 3, False)


async def test_a_member_that_joins_is_heard_by_the_broker_that_runs(tmp_path: Path) -> None:
    stage = await set_up(tmp_path / "home", small(*BUREAUS), "sqlite", BUREAUS, lambda _: None)
    async with running(stage):
        await settled(stage)
        larger = await joined(stage, small(*BUREAUS, "GE/ncb"), ["GE/ncb"])
        await subscribe.send(larger.member("GE/ncb"), ("sought.*",))
        await settled(larger)
        told = list[int]()
        found = await standing(operator_home(stage.home), lambda done, _size: told.append(done))

    assert found.kinds["subscribed"] == 1
    assert (min(told), max(told)) == (1, found.size), "how far it is, beginning with the first leaf"
    assert found.last_seen["GE"] is not None
    assert not verified(larger).wrong


def test_init_makes_no_key_of_a_member_and_keeps_the_log_key_to_itself(tmp_path: Path) -> None:
    made = valise("broker", "init", "--home", str(tmp_path), "--json")

    assert json.loads(made.stdout)["vkey"] == (tmp_path / "operator/trail/vkey").read_text(encoding="utf-8").strip()
    assert (tmp_path / "operator/log.key").stat().st_mode & 0o077 == 0
    assert [path.name for path in tmp_path.rglob("*.key")] == ["log.key"]
    assert not (tmp_path / "members").exists()
    again = valise("broker", "init", "--home", str(tmp_path), "--json")
    assert again.stdout == made.stdout


def test_a_home_of_before_is_closed_to_other_accounts_by_the_next_start(tmp_path: Path) -> None:
    file = Path(seed.__file__).with_suffix(".toml")
    made = valise("broker", "init", "--home", str(tmp_path), "--from", str(file))
    assert made.stdout.splitlines()[-1].startswith(f"valise directory draft --from {file} ")
    (tmp_path / "operator").chmod(0o755)
    (tmp_path / "bus.db").chmod(0o644)
    command = [sys.executable, "-m", "cli.main", "broker", "up", "--home", str(tmp_path), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["ready"] is True
        assert open_to_others(tmp_path) == []
        process.terminate()


def test_a_home_of_another_federation_is_not_taken_over(tmp_path: Path) -> None:
    federation = seed.seed()
    make(tmp_path, federation, "sqlite")
    with pytest.raises(ConfigurationError, match="name another --home"):
        make(tmp_path, federation.model_copy(update={"federation": "another.example"}), "sqlite")


def test_who_makes_a_home_beside_another_waits_and_takes_nothing_over(tmp_path: Path) -> None:
    federation = seed.seed()
    first = Settings(role="operator", federation="another.example", bus="sqlite:../bus.db")
    (tmp_path / "operator").mkdir()
    with ThreadPoolExecutor(1) as other:
        with durable.alone(tmp_path / "operator"):
            second = other.submit(make, tmp_path, federation, "kafka")
            with pytest.raises(TimeoutError):
                second.result(timeout=0.3)
            settings.save(tmp_path / "operator", first)
        with pytest.raises(ConfigurationError, match="name another --home"):
            second.result()
    assert settings.load(tmp_path / "operator") == first
    assert not (tmp_path / "operator" / "pki").exists()


@pytest.mark.parametrize("left", ["", "valise.example/tr"])
def test_half_of_a_vkey_is_made_again_by_init(tmp_path: Path, left: str) -> None:
    made = make(tmp_path, seed.seed(), "sqlite")
    whole = made.vkey_path.read_text(encoding="utf-8")
    made.vkey_path.write_text(left, encoding="utf-8")
    make(tmp_path, seed.seed(), "sqlite")
    assert made.vkey_path.read_text(encoding="utf-8") == whole


def test_anothers_vkey_is_left_for_the_broker_to_refuse(tmp_path: Path) -> None:
    other = make(tmp_path / "other", seed.seed(), "sqlite").vkey_path.read_bytes()
    made = make(tmp_path / "home", seed.seed(), "sqlite")
    made.vkey_path.write_bytes(other)
    make(tmp_path / "home", seed.seed(), "sqlite")
    assert made.vkey_path.read_bytes() == other


@pytest.mark.parametrize("content", ["", "role = ", "role = 'nobody'\nfederation = 'f'\nbus = 'sqlite:b'\n"])
def test_settings_that_are_damaged_say_in_a_line_what_is_wrong_and_what_to_do(tmp_path: Path, content: str) -> None:
    made = make(tmp_path, seed.seed(), "sqlite")
    (made.folder / "settings.toml").write_text(content, encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"settings\.toml: .*put that of a backup in its place") as said:
        operator_home(tmp_path)
    assert "\n" not in str(said.value)
    assert "pydantic" not in str(said.value)


def test_settings_are_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    made = make(tmp_path, seed.seed(), "sqlite")
    os.link(made.folder / "settings.toml", tmp_path / "held")  # what is written in place would change here, too
    settings.save(made.folder, made.settings.model_copy(update={"step_limit": 7}))
    assert "step_limit" not in (tmp_path / "held").read_text(encoding="utf-8")
    assert operator_home(tmp_path).settings.step_limit == 7


def test_kafka_homes_get_certificates_for_the_operator_and_for_no_member(tmp_path: Path) -> None:
    made = make(tmp_path, small(*BUREAUS), "kafka:localhost:9092")
    leaves = {path.stem for path in (made.folder / "pki").glob("*.crt")}
    assert {"router", "operator", "setup"} <= leaves
    assert not any(name.startswith(("at.", "lv.")) for name in leaves)
    assert made.settings.tls.keys() == {"router", "operator", "setup"}


def test_a_new_log_is_not_begun_on_kafka_where_no_backup_of_ours_takes_the_record_back(tmp_path: Path) -> None:
    make(tmp_path / "home", small(*BUREAUS), "kafka:localhost:9092")
    refused = valise("broker", "resume", "--new-log", "--seen", str(tmp_path), "--home", str(tmp_path / "home"))
    assert refused.returncode == 1
    assert "--new-log is for the embedded bus" in refused.stderr


async def test_whoever_loses_its_shard_ends_with_exit_code_5(tmp_path: Path) -> None:
    home = tmp_path / "home"
    stage = await set_up(home, small(*BUREAUS), "sqlite", BUREAUS, lambda _: None)
    command = [sys.executable, "-m", "cli.main", "broker", "up", "--home", str(home)]
    pipe = asyncio.subprocess.PIPE
    old = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe)
    assert old.stdout is not None
    await old.stdout.readline()
    async with running(stage, "--take-over"):
        await settled(stage)
        await subscribe.send(stage.member("AT/ncb"), ("sought.*",))
        await asyncio.wait_for(old.communicate(), 60)
        await settled(stage)
    assert old.returncode == 5
    assert not verified(stage).wrong


async def test_a_trail_that_contradicts_the_record_stops_the_broker_with_exit_code_4(tmp_path: Path) -> None:
    stage = await set_up(tmp_path / "home", small(*BUREAUS), "sqlite", BUREAUS, lambda _: None)
    async with running(stage):
        await settled(stage)
    checkpoint = stage.operator.folder / "trail" / "checkpoint"
    origin, _, rest = checkpoint.read_text(encoding="utf-8").split("\n", 2)
    checkpoint.write_text(f"{origin}\n999\n{rest}", encoding="utf-8")

    stopped = await asyncio.to_thread(valise, "broker", "up", "--home", str(stage.home))

    assert stopped.returncode == 4
    assert "Do not delete anything" in stopped.stderr


def test_it_stops_when_it_is_told_to(tmp_path: Path) -> None:
    valise("broker", "init", "--home", str(tmp_path))
    command = [sys.executable, "-m", "cli.main", "broker", "up", "--home", str(tmp_path)]
    for number in (signal.SIGTERM, signal.SIGINT):
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as broker:
            assert broker.stdout is not None
            assert "is up" in broker.stdout.readline()
            broker.send_signal(number)
            assert broker.wait(timeout=60) == 0


def test_a_second_broker_in_a_home_is_refused_unless_it_is_told_to_take_over(tmp_path: Path) -> None:
    valise("broker", "init", "--home", str(tmp_path))
    up = ("broker", "up", "--home", str(tmp_path))
    command = [sys.executable, "-m", "cli.main", *up]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert first.stdout is not None
    assert "is up" in first.stdout.readline()

    refused = valise(*up)
    said = json.loads(refused.stderr.splitlines()[-1])
    assert (refused.returncode, said["code"]) == (1, "already-running")
    assert f"process {first.pid}, up since" in said["said"]
    assert "--take-over" in said["then"]
    assert first.poll() is None

    second = subprocess.Popen([*command, "--take-over"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert second.stdout is not None
    assert "is up" in second.stdout.readline()
    _, errors = first.communicate(timeout=180)
    fenced = json.loads(errors.splitlines()[-1])
    assert (first.returncode, fenced["code"]) == (5, "fenced")
    assert fenced["then"].startswith(f"process {second.pid}, up since")
    assert valise(*up).returncode == 1

    second.kill()
    _, errors = second.communicate(timeout=60)
    takes_over = next(json.loads(each) for each in errors.splitlines() if "broker.takes-over" in each)
    assert takes_over["said"].startswith(f"from process {first.pid}, up since")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as third:
        assert third.stdout is not None
        assert "is up" in third.stdout.readline()
        third.send_signal(signal.SIGTERM)
        assert third.wait(timeout=60) == 0


def test_what_looks_at_kafka_takes_the_files_that_the_settings_name(tmp_path: Path) -> None:
    made = make(tmp_path, seed.seed(), "kafka:127.0.0.1:9")
    elsewhere = Path("elsewhere")
    (made.folder / elsewhere).mkdir()
    for name in ("operator.crt", "operator.key"):
        (made.folder / "pki" / name).rename(made.folder / elsewhere / name)
    with pytest.raises(ConfigurationError, match=r"operator\.crt is missing"):
        credentials(made, "operator")
    moved = Tls(ca=Path("pki/nodes-ca.pem"), certificate=elsewhere / "operator.crt", key=elsewhere / "operator.key")
    named = made.settings.model_copy(update={"tls": made.settings.tls | {"operator": moved}})
    found = credentials(replace(made, settings=named), "operator")
    assert (found.chain, found.key) == (made.folder / moved.certificate, made.folder / moved.key)
