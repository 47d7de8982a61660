"""A backup holds nothing that can be read without its day's key, and nothing at all once that is destroyed."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import threading
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from broker import settings as settings_file
from broker import vault
from broker.errors import ConfigurationError, DamagedError
from broker.settings import Settings
from cli import backup, backup_keys, exits, restoring, seed, snapshots
from cli.operator_home import NOBODY, OperatorHome, make
from cli.operator_streams import make_streams
from cli.stage import running, set_up, settled
from tests.erasure.site import found
from tests.faults.test_new_log import GE, LV, Exchange
from tests.journeys.test_operator import valise

KEY, OTHER = bytes(range(32)), bytes(32)
WORD = b"Testov"
"""A name in the notices that are published here."""


def locked(clear: bytes, name: str = "2026-11-28") -> bytes:
    to = io.BytesIO()
    writer = vault.Writer(to, name, KEY)
    for begin in range(0, len(clear), 100_000):
        writer.write(clear[begin : begin + 100_000])
    writer.finish()
    return to.getvalue()


def opened(data: bytes, key: bytes = KEY) -> bytes:
    return vault.Reader(io.BytesIO(data), key).read()


@pytest.mark.parametrize("size", [0, 1, vault.PIECE, vault.PIECE + 1, 2 * vault.PIECE, 3 * vault.PIECE + 17])
def test_what_was_encrypted_comes_back_whole(size: int) -> None:
    clear = bytes(each % 251 for each in range(size))
    data = locked(clear)
    assert opened(data) == clear
    assert vault.name_of(io.BytesIO(data))[0] == "2026-11-28"
    assert size < 64 or clear[:64] not in data


def test_no_byte_can_be_changed_and_nothing_left_out() -> None:
    data = locked(b"x" * (2 * vault.PIECE + 5))
    border = len(vault.MAGIC) + 1 + 10 + vault.SALT_SIZE + 4 + vault.PIECE + vault.TAG_SIZE
    pieces = data[:border], data[border : border + 4 + vault.PIECE + vault.TAG_SIZE]
    whole = len(pieces[0]) + len(pieces[1])
    damaged = [data[:whole], data[:border], data[:-1], pieces[0] + data[whole:], data + b"\0", b""]
    for place in (0, 20, 30, border - 1, border + 2, len(data) - 1):
        changed = bytearray(data)
        changed[place] ^= 1
        damaged.append(bytes(changed))
    for each in damaged:
        with pytest.raises(DamagedError):
            opened(each)
    with pytest.raises(DamagedError):
        opened(data, OTHER)


def test_a_key_that_was_destroyed_leaves_nothing(tmp_path: Path) -> None:
    folder, today = tmp_path / "keys", date(2026, 11, 28)
    kept = [backup_keys.of(folder, today - timedelta(days=each))[1] for each in (0, 1, 40)]
    assert len(set(kept)) == 3
    assert backup_keys.of(folder, today)[1] == kept[0]
    assert backup_keys.destroy(folder, today - timedelta(days=30)) == ["2026-10-19"]
    assert found(folder, [kept[2]]) == set()
    with pytest.raises(ConfigurationError, match="destroyed"):
        backup_keys.find(folder, "2026-10-19")
    assert backup_keys.find(folder, "2026-11-27") == kept[1]


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    backup_keys.of(tmp_path, date(2026, 11, 28))
    next(tmp_path.iterdir()).chmod(0o640)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        backup_keys.find(tmp_path, "2026-11-28")


def test_of_kafka_a_backup_has_the_ids_and_ports_and_nothing_that_nodes_store(tmp_path: Path) -> None:
    made = make(tmp_path, seed.seed(), "kafka")
    (made.folder / "kafka" / "node-1").mkdir()
    (made.folder / "kafka" / "node-1" / "server.properties").touch()
    listed = [each.relative_to(made.folder) for each in backup._files(made.folder)]
    assert [str(each) for each in listed if each.parts[0] == "kafka"] == ["kafka/cluster.json"]


def test_a_restored_home_is_held_back_on_the_embedded_bus_only_and_says_so(tmp_path: Path) -> None:
    for bus in ("sqlite", "kafka"):
        make(tmp_path / bus, seed.seed(), bus)
    assert "does not run before" in backup._before_it_runs(tmp_path / "sqlite")
    assert "nothing holds it back" in backup._before_it_runs(tmp_path / "kafka")


def test_a_backup_has_the_nodes_ids_where_their_folder_is_a_link_to_a_disk_and_asks_for_the_disk(
    tmp_path: Path,
) -> None:
    folder, disk = make(tmp_path / "home", seed.seed(), "kafka").folder, tmp_path / "disk"
    (folder / "kafka").rename(disk)
    (folder / "kafka").symlink_to(disk)
    (disk / "node-1").mkdir()
    (disk / "node-1" / "data").touch()
    listed = [str(each.relative_to(folder)) for each in backup._files(folder)]
    assert [each for each in listed if each.startswith("kafka")] == ["kafka/cluster.json"]
    (disk / "cluster.json").unlink()
    with pytest.raises(ConfigurationError, match="mounted"):
        list(backup._files(folder))


def test_of_two_that_make_a_days_key_at_once_both_have_the_first_and_a_kill_leaves_none(tmp_path: Path) -> None:
    today, made = date(2026, 11, 28), tmp_path / "2026-11-28.backup-key"
    keys: list[bytes] = []

    def makes() -> None:
        backup_keys._make(made)  # both have seen that there is none
        keys.append(backup_keys.of(tmp_path, today)[1])

    threads = [threading.Thread(target=makes) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert (len(keys), len(set(keys)), list(tmp_path.iterdir())) == (8, 1, [made])
    made.write_bytes(b"")  # as an earlier version left it
    with pytest.raises(ConfigurationError, match="holds no key"):
        backup_keys.of(tmp_path, today)


def test_a_key_that_another_backup_has_just_destroyed_is_no_error(tmp_path: Path) -> None:
    for day in (1, 2, 3):
        backup_keys.of(tmp_path, date(2026, 10, day))
    theirs = list[str]()

    class Meanwhile(date):
        """A day that is not compared before another backup has done all of its work."""

        def __gt__(self, other: date, /) -> bool:
            theirs.extend(backup_keys.destroy(tmp_path, date(2026, 10, 3)))
            return super().__gt__(other)

    assert backup_keys.destroy(tmp_path, Meanwhile(2026, 10, 3)) == []
    assert theirs == ["2026-10-01", "2026-10-02"]
    assert [each.name for each in tmp_path.iterdir()] == ["2026-10-03.backup-key"]


def test_two_backups_to_one_file_never_write_into_one_another(tmp_path: Path) -> None:
    planted = tmp_path / "elsewhere"
    planted.write_bytes(b"ours")
    (tmp_path / "b.new").symlink_to(planted)
    home = made(tmp_path / "home")
    with snapshots.aside(tmp_path, backup.ASIDE) as other:
        backup._back_up(home, tmp_path / "b", "2026-11-28", KEY)
        assert other.exists()
    assert backup._back_up(home, tmp_path / "b", "2026-11-28", KEY) == opened_count(tmp_path / "b")
    assert planted.read_bytes() == b"ours"
    assert not list(tmp_path.glob(f"{backup.ASIDE}*"))


def made(home: Path) -> OperatorHome:
    """The home of a broker that never ran."""
    operator = make(home, seed.seed(), "sqlite")
    asyncio.run(make_streams(operator, NOBODY))
    return operator


def opened_count(file: Path) -> int:
    with tarfile.open(fileobj=io.BytesIO(opened(file.read_bytes()))) as archive:
        return len(archive.getnames())


def test_a_backup_that_would_lack_something_is_none(tmp_path: Path) -> None:
    home, to = made(tmp_path / "home"), tmp_path / "b"
    bus, elsewhere = tmp_path / "home" / "bus.db", tmp_path / "elsewhere"
    bus.rename(elsewhere)
    with pytest.raises(ConfigurationError, match=r"bus\.db, the bus, is not there"):
        backup._back_up(home, to, "2026-11-28", KEY)
    with (
        pytest.raises(ConfigurationError, match="cannot copy"),
        tarfile.open(fileobj=io.BytesIO(), mode="w") as archive,
    ):
        backup._add_database(archive, "bus.db", bus, home.folder)
    assert not bus.exists()
    elsewhere.rename(bus)
    for name in ("log.key", "trail"):  # a file and a folder
        path = home.folder / name
        path.rename(elsewhere)
        path.symlink_to(elsewhere)
        with pytest.raises(ConfigurationError, match=f"{name} is a link"):
            backup._back_up(home, to, "2026-11-28", KEY)
        path.unlink()
        elsewhere.rename(path)
    assert not to.exists()
    assert not list(tmp_path.glob(f"{backup.ASIDE}*"))
    backup._back_up(home, to, "2026-11-28", KEY)
    assert to.exists()


def test_a_restore_without_its_bus_is_refused_and_one_to_another_disk_is_whole(tmp_path: Path) -> None:
    home = made(tmp_path / "home")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as disk:
        bus = Path(disk) / "bus" / "bus.db"
        settings_file.save(home.folder, home.settings.model_copy(update={"bus": f"sqlite:{bus}"}))
        aside, new = tmp_path / "aside", tmp_path / "new"
        new.mkdir()
        shutil.copytree(home.folder, aside / "operator")
        with pytest.raises(ConfigurationError, match="has no bus"):
            backup._settle(aside, new)
        shutil.copy(tmp_path / "home" / "bus.db", aside / "bus.db")
        with pytest.raises(ConfigurationError, match="make or mount it"):
            backup._settle(aside, new)
        assert not list(new.iterdir())
        bus.parent.mkdir()
        whole = (aside / "bus.db").read_bytes()
        backup._settle(aside, new)
        assert (bus.read_bytes(), list(bus.parent.iterdir())) == (whole, [bus])
    assert (new / "operator").is_dir()


def test_a_clock_far_ahead_destroys_no_key_before_somebody_says_so(tmp_path: Path) -> None:
    home, keys = tmp_path / "home", tmp_path / "keys"
    made(home)
    command = [sys.executable, "-m", "cli.main", "broker", "backup", "--home", str(home), "--keys", str(keys), "--json"]

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *more], capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL
        )

    nowhere = run()
    assert (nowhere.returncode, "name the folder" in nowhere.stderr) == (exits.FAILED, True)
    today = datetime.now(UTC).date()
    for days in (31, 40):
        backup_keys.of(keys, today - timedelta(days=days))
    (tmp_path / "backups").mkdir()
    for more in ((), ("--to", str(tmp_path / "backups" / "b"))):
        refused = run(*more)
        said = re.search(r"\b3[12] days after the newest key", refused.stderr)  # 32: midnight has passed since `today`
        assert (refused.returncode, bool(said)) == (130, True)
        assert len(list(keys.iterdir())) == 2
    done = run("--yes")
    assert (done.returncode, len(json.loads(done.stdout)["destroyed"])) == (exits.DONE, 2)


async def said(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(valise, "broker", *words, "--home", str(home), "--json")


BACKUP = """
import sys, time
from pathlib import Path
from cli import snapshots
with snapshots.of(Path(sys.argv[1]), Path(sys.argv[2])) as copy:
    print(copy.name, flush=True)
    time.sleep(600)
"""


def copying(file: Path, folder: Path) -> tuple[subprocess.Popen[str], Path]:
    """A backup as a process of its own that stops while it has a copy, and that copy."""
    process = subprocess.Popen(
        [sys.executable, "-c", BACKUP, str(file), str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, folder / process.stdout.readline().strip()


def test_what_a_killed_backup_has_set_aside_is_removed_and_that_of_one_that_runs_is_not(tmp_path: Path) -> None:
    file, folder = tmp_path / "some.db", tmp_path / "operator"
    folder.mkdir()
    with closing(sqlite3.connect(file)) as database:
        database.execute("CREATE TABLE some(number)")
    (runs, copy), (killed, left) = copying(file, folder), copying(file, folder)
    killed.kill()
    killed.communicate()
    # Its number may be another process's by now, such as ours.
    reused = folder / f".snapshot.{os.getpid()}"
    reused.touch()
    assert all(each.stat().st_mode & 0o077 == 0 for each in (copy, left))
    try:
        snapshots.remove_left(folder)
        assert sorted(folder.iterdir()) == [copy]
        with tarfile.open(fileobj=io.BytesIO(), mode="w") as archive:
            backup._add_database(archive, "some.db", file, folder)
            assert archive.getnames() == ["some.db"]
        assert sorted(folder.iterdir()) == [copy]
    finally:
        runs.kill()
        runs.communicate()
    snapshots.remove_left(folder)
    assert not list(folder.iterdir())


RESTORE = """
import sys, time
from pathlib import Path
from cli import restoring
with restoring.aside(Path(sys.argv[1])) as aside:
    (aside / "log.key").touch(mode=0o600)
    print(aside.name, flush=True)
    time.sleep(600)
"""


def test_what_a_killed_restore_has_set_aside_is_nobody_elses_and_is_told_and_removed(tmp_path: Path) -> None:
    home, keys = tmp_path / "new", tmp_path / "keys"
    process = subprocess.Popen([sys.executable, "-c", RESTORE, str(home)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    left = home / process.stdout.readline().strip()
    again = ("broker", "restore", str(tmp_path / "none"), "--keys", str(keys), "--home", str(home))
    try:
        assert left.stat().st_mode & 0o077 == 0
        assert restoring.left(home) is None  # it runs
        with pytest.raises(ConfigurationError, match="another restore"), restoring.aside(home):
            pass
        assert valise(*again).returncode == exits.FAILED
        assert left.exists()
    finally:
        process.kill()
        process.communicate()
    for told in (valise("broker", "status", "--home", str(home)), valise("broker", "init", "--home", str(home))):
        assert f"{left} was left by a restore that was killed, and holds what its backup does, in clear" in told.stderr
    told = valise("broker", "status", "--home", str(home))
    assert (told.returncode, "the next restore" in told.stderr) == (exits.DONE, True)
    refused = valise(*again)  # there is a broker by now
    assert (refused.returncode, f"{left} was left" in refused.stderr) == (exits.FAILED, True)
    assert not left.exists()
    assert valise("broker", "status", "--home", str(home)).stderr == ""


def test_what_a_killed_restore_left_is_removed_while_no_other_can_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, removed, remove = tmp_path / restoring.NAME, [], shutil.rmtree
    left.mkdir()

    def removing(folder: Path) -> None:
        with pytest.raises(ConfigurationError, match="another restore"), restoring.aside(tmp_path):
            pytest.fail("what is made now would be removed")
        remove(folder)
        removed.append(folder)

    monkeypatch.setattr(shutil, "rmtree", removing)
    restoring.remove_left(tmp_path)
    assert (removed, left.exists()) == ([left], False)


def test_a_restore_that_fails_leaves_nothing_of_its_own(tmp_path: Path) -> None:
    def holding(**parts: bytes) -> bytes:
        tar = io.BytesIO()
        with tarfile.open(fileobj=tar, mode="w|", format=tarfile.PAX_FORMAT) as archive:
            for name, data in parts.items():
                archive.addfile(backup._member(name.replace("_", "/"), len(data), 0o600), io.BytesIO(data))
        return locked(tar.getvalue())

    made = tmp_path / "there"
    settings_file.save(made, Settings(role="operator", federation="invented", bus="sqlite:../gone/bus.db"))
    settings = {"operator_settings.toml": (made / "settings.toml").read_bytes()}
    (made / "settings.toml").unlink()
    damaged, no_archive, no_settings = holding(**settings)[:-1], locked(b"x" * 1000), holding(bus=b"x")
    no_place = holding(**settings, **{"bus.db": b"x"})  # for its bus
    for home in (tmp_path / "a" / "b", made):
        for data in (damaged, no_archive, no_settings, no_place):
            with pytest.raises((DamagedError, ConfigurationError, FileNotFoundError)):
                backup._restore(vault.Reader(io.BytesIO(data), KEY), home)
    assert [each.name for each in tmp_path.rglob("*")] == ["there"]


@pytest.mark.slow
async def test_a_broker_that_starts_removes_what_a_killed_backup_left(tmp_path: Path) -> None:
    stage = await set_up(tmp_path / "home", seed.seed(), "sqlite", (LV, GE), lambda _: None)
    left = stage.operator.folder / f".snapshot.{os.getpid()}"
    for start in ("broker", "backup"):
        left.write_bytes(WORD)
        if start == "broker":
            async with running(stage):
                assert not left.exists()
        else:  # one that writes nothing, too
            (tmp_path / "keys").mkdir()
            assert (await said(stage.home, "backup", "--keys", str(tmp_path / "keys"))).returncode == exits.DONE
    assert not left.exists()


@pytest.mark.slow
async def test_a_backup_gives_up_what_was_erased_with_its_key(tmp_path: Path) -> None:
    site = Exchange(await set_up(tmp_path / "home", seed.seed(), "sqlite", (LV, GE), lambda _: None))
    keys, backup, elsewhere = tmp_path / "keys", tmp_path / "backups" / "today", tmp_path / "elsewhere"
    backup.parent.mkdir()
    async with running(site.stage):
        assert (await site.said("subscribe", "organised-crime.*", "--bureau", GE)).returncode == exits.DONE
    await site.published("lv-1")
    async with running(site.stage):  # it is written while the broker runs
        done = await said(site.home, "backup", "--to", str(backup), "--keys", str(keys))
        assert (done.returncode, done.stderr) == (exits.DONE, "")
    assert found(site.home, [WORD]) >= {"bus.db"}
    assert found(backup.parent, [WORD, b"SQLite format 3"]) == set()
    assert not list(site.home.rglob(".snapshot*"))

    restore = ("restore", str(backup), "--keys", str(keys))
    elsewhere.mkdir()
    for left in ("-wal", "-shm", "-journal"):  # of another bus: SQLite would take the restored one's pages from it
        (elsewhere / f"bus.db{left}").write_bytes(b"x")
    refused = await said(elsewhere, *restore)
    assert refused.returncode == exits.FAILED
    assert all(f"bus.db{left}" in refused.stderr for left in ("-wal", "-shm", "-journal"))
    assert sorted(each.name for each in elsewhere.iterdir()) == ["bus.db-journal", "bus.db-shm", "bus.db-wal"]
    for each in elsewhere.iterdir():
        each.unlink()
    again = await said(elsewhere, *restore)
    assert (again.returncode, again.stderr) == (exits.DONE, "")
    assert found(elsewhere, [WORD]) == {"bus.db"}
    copied = await said(elsewhere, "up")
    assert (copied.returncode, '"code": "copied"' in copied.stderr) == (exits.VERIFICATION_FAILED, True)
    seen = await said(elsewhere, "resume", "--seen", str(site.home / "members"))
    assert (seen.returncode, seen.stderr) == (exits.DONE, "")
    assert (await said(elsewhere, *restore)).returncode == exits.FAILED  # never over a broker that is there

    async with running(site.stage):
        withdrawn = await site.said("withdraw", "lv-1", "--bureau", LV, "--yes", "--wait", "45")
        assert withdrawn.returncode == exits.DONE
        await settled(site.stage)
        await site.learned()
        for _ in range(600):
            if not found(site.home, [WORD]):
                break
            await asyncio.sleep(0.1)
    assert found(site.home, [WORD]) == set()
    (key,) = [each.read_bytes() for each in keys.iterdir()]
    day = json.loads(done.stdout)["key"]
    backup_keys.destroy(keys, date.fromisoformat(day) + timedelta(days=1))
    refused = await said(tmp_path / "third", *restore)
    assert (refused.returncode, "destroyed" in refused.stderr) == (exits.FAILED, True)
    assert found(tmp_path / "home", [WORD, key]) | found(backup.parent, [WORD, key]) | found(keys, [key]) == set()


@pytest.mark.slow
async def test_keys_and_backups_lie_apart_from_what_they_are_of(tmp_path: Path) -> None:
    stage = await set_up(tmp_path / "home", seed.seed(), "sqlite", (LV, GE), lambda _: None)
    inside, keys, to = stage.operator.folder / "x", tmp_path / "keys", tmp_path / "backups" / "b"
    to.parent.mkdir()
    bus = stage.home / "bus.db"
    apart = ((inside, keys), (to, inside), (keys / "b", keys), (to, to.parent / "keys"), (bus, keys))
    for written, where in (*apart, (stage.home / "b", keys), (stage.home / "bus.db-wal", keys)):
        before = bus.read_bytes()
        refused = await said(stage.home, "backup", "--to", str(written), "--keys", str(where))
        assert (refused.returncode, "elsewhere" in refused.stderr) == (exits.FAILED, True)
        assert bus.read_bytes() == before
    done = await said(stage.home, "backup", "--to", str(to), "--keys", str(keys), "--keep", "0")
    assert json.loads(done.stdout)["destroyed"] == []
    data = bytearray(to.read_bytes())
    data[-1] ^= 1
    to.write_bytes(data)
    refused = await said(tmp_path / "new", "restore", str(to), "--keys", str(keys))
    assert (refused.returncode, "damaged" in refused.stderr) == (exits.FAILED, True)
    assert not (tmp_path / "new").exists()
