"""The operator hands the auditor a folder that is to keep his tool busy, exhaust it, or lead it elsewhere."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from broker import authorities, codec, notes
from broker import settings as settings_file
from broker.notice import Leaf
from broker.settings import Settings
from broker.streams import OPERATOR, ROUTER
from cli.operator_home import tls_of
from tests.audit.conftest import AUDITOR
from tests.audit.homes import Homes, standing
from tests.making import FEDERATION
from tests.steps.ledger import KEY, ORIGIN, Ledger
from tests.witness.log import cosigner

SIZE, ENDLESS = 600, 9_000_000_000_000_000_000
ROOT, LIMIT_S = Path(__file__).parent.parent.parent, 120.0


@pytest.fixture
async def ledger(tmp_path: Path) -> Ledger:
    """A trail of 600 leaves, whose heads and deliveries AT's collector kept."""
    ledger = Ledger(tmp_path / "home")
    await ledger.recover()
    await ledger.step(550)
    await ledger.step(SIZE - 550)
    ledger.stop()
    ledger.keep()
    return ledger


def run(ledger: Ledger, *more: str) -> subprocess.CompletedProcess[str]:
    """Verify in a process of its own: a tool that hangs is ended, and found out."""
    command = [sys.executable, "-m", "cli.main", "audit", "verify", str(ledger.folder), "--json", *more]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False, cwd=ROOT)


def verify(ledger: Ledger, *more: str) -> dict[str, Any]:
    """Verify what does not hold."""
    done = run(ledger, *more)
    assert done.returncode == 4, done.stderr
    value: dict[str, Any] = json.loads(done.stdout)
    return value


def wrong(ledger: Ledger, *more: str) -> list[str]:
    """What is wrong, as PLACE: WHAT."""
    return [f"{each['place']}: {each['what']}" for each in verify(ledger, *more)["findings"]]


def claim(ledger: Ledger, size: int, *, signed: bool = True) -> None:
    """Write a checkpoint of as many leaves as one likes."""
    note = notes.sign_checkpoint(notes.Checkpoint(ORIGIN, size, bytes(32)), KEY)
    if not signed:
        note = note.replace(ORIGIN, f"{ORIGIN}-1")
    (ledger.folder / "checkpoint").write_text(note, encoding="utf-8")


@pytest.mark.parametrize("signed", [True, False])
def test_the_operator_claims_more_leaves_than_a_walk_could_ever_visit(ledger: Ledger, signed: bool) -> None:
    """The walk ends with what lies on disk; what lies nowhere is named as one stretch."""
    claim(ledger, ENDLESS, signed=signed)
    told = wrong(ledger)
    assert any(f"are missing with their hashes: leaves 512 to {ENDLESS - 1}" in each for each in told), told
    assert any(each.startswith("checkpoint: cannot be trusted") for each in told) is not signed


def test_the_operator_puts_one_bundle_far_beyond_his_log(ledger: Ledger) -> None:
    """A file with a high number makes nobody walk up to it, nor do its notices, which were taken in before."""
    claim(ledger, ENDLESS)
    far = ledger.folder / "tile/entries/x020/x000/x000/x000/x000/000"
    far.parent.mkdir(parents=True)
    far.write_bytes((ledger.folder / "tile/entries/000").read_bytes())
    told = wrong(ledger)
    assert any(f"leaves 512 to {20 * 1000**5 * 256 - 1}" in each for each in told), told


NAMES = ("tile/1/000.p/2", "tile/0/002.p/88", "ended.1"), ("tile/entries/001", "tile/0/001")
"""Without the second pair no root can be told, and the tile above is not looked at."""
EARLIER = ("tile/0/002.p/38", "tile/entries/002.p/38")


def pipe(file: Path) -> None:
    """Nobody ever writes into it: whoever opens it waits."""
    os.mkfifo(file)


def link(file: Path) -> None:
    """It leads to bytes without an end."""
    file.symlink_to("/dev/zero")


def endless(file: Path) -> None:
    """A terabyte, of which not a block lies on disk."""
    file.touch()
    os.truncate(file, 2**40)


Put = Callable[[Path], None]
THINGS = pytest.mark.parametrize(
    ("put", "said"),
    [(pipe, "it is no regular file"), (link, "it is no regular file"), (endless, "it has more than")],
)


def replaced(file: Path, put: Put) -> Path:
    """Put something else in a file's place."""
    file.unlink(missing_ok=True)
    put(file)
    return file


@THINGS
def test_the_operator_puts_pipes_links_and_endless_files_in_the_place_of_tiles(
    ledger: Ledger, put: Put, said: str
) -> None:
    """Each is called by its name and passed over: nothing waits, nothing is followed, nothing is read to its end."""
    for names in NAMES:
        for name in names:
            replaced(ledger.folder / name, put)
        told = [each for each in wrong(ledger) if said in each]
        for name in names:
            assert any(name in each for each in told), name


@THINGS
def test_the_operator_puts_pipes_links_and_endless_files_in_the_place_of_earlier_tiles(
    ledger: Ledger, put: Put, said: str
) -> None:
    """No head in force needs them; they are called by their names all the same."""
    for name in EARLIER:
        replaced(ledger.folder / name, put)
    told = wrong(ledger)
    assert [each.partition(":")[0] for each in told] == list(EARLIER)
    assert all(said in each for each in told)


@THINGS
@pytest.mark.parametrize("name", ["checkpoint", "checkpoint.witnessed"])
def test_the_operator_puts_pipes_links_and_endless_files_in_the_place_of_checkpoints(
    ledger: Ledger, put: Put, said: str, name: str
) -> None:
    """The checkpoint, or that which witnesses are said to have cosigned."""
    replaced(ledger.folder / name, put)
    told = wrong(ledger, "--witness", str(cosigner()))
    assert any(name in each and said in each for each in told), told


@THINGS
@pytest.mark.parametrize(
    "name",
    [
        "operator/trail/vkey",
        "operator/root.sha256",
        "operator/versions/signed/000000000000-0123456789abcdef",
        "members/AT/outbox.db",
        "members/AT/inbox.ncb.db-journal",
        "members/AT/witness.db",
    ],
)
def test_the_operator_puts_pipes_links_and_endless_files_beside_his_log(
    ledger: Ledger, put: Put, said: str, name: str
) -> None:
    """What cannot be compared with ends the command, which names it; a database may be of any size."""
    file = ledger.home / name
    file.parent.mkdir(parents=True, exist_ok=True)
    (ledger.home / "operator" / "root.sha256").write_text("0" * 64, encoding="ascii")
    replaced(file, put)
    done = run(ledger)
    if put is endless and file.match("*.db*"):
        assert done.returncode in (0, 1), done
        return
    assert done.returncode == 1, done
    assert str(file) in done.stderr
    assert said in done.stderr


# What the home names elsewhere.

POLICIES = str(ROOT / "policies")


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A home whose broker has stopped, and a notice that it took in."""
    folder = tmp_path_factory.mktemp("handed") / "home"
    with standing(folder) as homes:
        notice, _ = homes.published("r-1")
    return folder, notice


@pytest.fixture
def handed(ended: tuple[Path, str], tmp_path: Path) -> tuple[Homes, str]:
    """The home as the auditor is given it, without its bus."""
    shutil.copytree(ended[0], tmp_path / "home", ignore=lambda *_: ["bus.db"])
    return Homes(tmp_path / "home"), ended[1]


@contextmanager
def sqlite_bus(operator: Path) -> Iterator[Settings]:
    """A file that would be made in a folder of the auditor's."""
    folder = operator.parent.parent / "elsewhere"
    folder.mkdir()
    yield Settings(role="operator", federation=FEDERATION, bus=f"sqlite:{folder / 'bus.db'}")
    assert list(folder.iterdir()) == []


@contextmanager
def kafka_bus(operator: Path) -> Iterator[Settings]:
    """A place where somebody waits to learn who audits."""
    authorities.init_pki(operator, [], datetime.now(UTC), nodes=1)
    with socket.create_server(("127.0.0.1", 0)) as waiting:
        address = f"127.0.0.1:{waiting.getsockname()[1]}"
        tls = {each: tls_of(each) for each in (ROUTER, OPERATOR)}
        yield Settings(role="operator", federation=FEDERATION, bus=f"kafka:{address}", tls=tls)
        waiting.setblocking(False)
        with pytest.raises(BlockingIOError):
            waiting.accept()


@pytest.mark.parametrize("bus", [sqlite_bus, kafka_bus])
def test_the_operator_names_a_bus_in_the_home_and_leaves_out_what_would_be_asked_of_it(
    handed: tuple[Homes, str], bus: Callable[[Path], AbstractContextManager[Settings]]
) -> None:
    """Nobody asks it: what is missing is named, and who can mend that."""
    homes, notice = handed
    directory = codec.decode(Leaf, homes.trail.entry(homes.trail.size - 1)).directory.hex()[:16]
    shutil.rmtree(homes.operator / "versions")
    (homes.operator / "root.sha256").write_text("0" * 64, encoding="ascii")
    with bus(homes.operator) as settings:
        settings_file.save(homes.operator, settings)
        unsigned = homes.audit("verify", "--root", "0" * 64)
        assert unsigned.code == 6
        assert "nothing that was signed is kept" in unsigned.out
        for asked in (("verify", "--policy", POLICIES), ("show", notice, "--redecide")):
            said = homes.audit(*asked)
            assert said.code == 1, said
            assert f"the directory {directory} is not in `versions` of this home" in said.err
            assert "`valise broker up`" in said.err


@pytest.mark.parametrize("bus", [sqlite_bus, kafka_bus])
@pytest.mark.parametrize("linked", [False, True])
def test_the_operator_has_a_look_signed_and_sent_to_a_bus_of_his_choice(
    handed: tuple[Homes, str],
    tmp_path: Path,
    bus: Callable[[Path], AbstractContextManager[Settings]],
    linked: bool,
) -> None:
    """The key is the auditor's, wherever the home says that it lies; who signs, and where that goes, is asked first."""
    homes, notice = handed
    theirs, own = homes.operator / "auditors" / f"{AUDITOR}.pem", tmp_path / "own" / "auditor.pem"
    own.parent.mkdir()
    theirs.rename(own)
    if linked:
        theirs.symlink_to(own)
    key = () if linked else ("--key", str(own))
    look = ("--reason", "request 2026/17", *key)
    with bus(homes.operator) as settings:
        settings_file.save(homes.operator, settings)
        for asked in (("show", notice, "--content"), ("export", notice, "--to", str(tmp_path / "bundle.json"))):
            said = homes.audit(*asked, *look)
            assert (said.code, said.out) == (130, ""), said
            assert f"as {AUDITOR} of {FEDERATION}" in said.err
            assert settings.bus.partition(":")[2] in said.err
            assert "nothing was done" in said.err


def test_the_operator_passes_a_file_of_the_auditor_off_as_a_directory(
    handed: tuple[Homes, str], tmp_path: Path
) -> None:
    """A link under the digest's name: in a bundle of digests, which is handed on, the file would leave the auditor."""
    homes, notice = handed
    secret = tmp_path / "auditor.pem"
    secret.write_text("the auditor's own", encoding="utf-8")
    versions = [each for each in (homes.operator / "versions").iterdir() if len(each.name) == 64]
    for each in versions:
        replaced(each, lambda file: file.symlink_to(secret))
    said = homes.audit("export", notice, "--digests-only", "--to", str(tmp_path / "bundle.json"))
    assert said.code == 1
    assert "it is no regular file" in said.err
    assert not (tmp_path / "bundle.json").exists()
    assert homes.audit("show", notice).code == 0


def test_the_operator_has_the_auditor_export_decision_records_of_another_federation(
    handed: tuple[Homes, str], tmp_path: Path
) -> None:
    """His records.db is a link to one that the auditor keeps; what his trail does not commit to is not handed on."""
    homes, notice = handed
    records = homes.operator / "records.db"
    records.rename(tmp_path / "another.db")
    with closing(sqlite3.connect(tmp_path / "another.db")) as database:
        database.execute("UPDATE decision SET salt = zeroblob(32)")
        database.commit()
    replaced(records, lambda file: file.symlink_to(tmp_path / "another.db"))
    said = homes.audit("export", notice, "--digests-only", "--to", str(tmp_path / "bundle.json"))
    assert said.code == 4
    assert "is not the one that it commits to" in said.err
    assert not (tmp_path / "bundle.json").exists()
