"""`valise broker backup` and `restore`: the operator's home and the embedded bus, encrypted under the day's key.

The home goes first, then the bus: a trail older than its bus is finished from it. The broker may run meanwhile. What
can be made again (the register's cache, indexes) stays out, and so does a Kafka node's data, but for its ids and ports.
"""

from __future__ import annotations

import errno
import io
import os
import shlex
import shutil
import tarfile
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path, PurePosixPath

import click

from broker import durable, node, vault
from broker.errors import ConfigurationError, DamagedError
from broker.settings import load
from cli import answer, backup_keys, copied, restoring, running, snapshots, tally
from cli.home import clock
from cli.operator_home import OperatorHome, operator_home
from cli.options import Everywhere, confirm, everywhere
from cli.progress import progress_of

OPERATOR, BUS = "operator", "bus.db"
"""What the parts of a backup are called in it."""
LEFT_OUT = (
    "register", "records.index", tally.FILE, "judging", "broker.log", running.FILE, snapshots.PREFIX, copied.BIRTH,
)  # fmt: skip
"""Beginnings of names in the home that a backup does not have: they are derived, or mean this disk."""
ASIDE = ".valise-backup."
"""How the name of a backup begins that is being written, or of a bus that is moved to another disk."""
NODE = "kafka"
"""What the nodes store stays out, but for `node.CONFIG`: without it their data, wherever they are, cannot be served."""
DATABASES = (".db",)
SQLITE = ("-wal", "-shm", "-journal")
BESIDE = (*SQLITE, ".new", ".lock")
KEEP_DAYS = 30
KEYS = click.option(
    "--keys", required=True, type=click.Path(path_type=Path), help="Folder of the days' keys; never beside the backups."
)


@click.command("backup")
@click.option(
    "--to", type=click.Path(path_type=Path), help="The backup's file. Without it only old keys are destroyed."
)
@KEYS
@click.option(
    "--keep", type=click.IntRange(min=0), default=KEEP_DAYS, show_default=True,
    help="Days after which a day's key is destroyed, and with it all backups of that day.",
)  # fmt: skip
@everywhere
def backup_command(given: Everywhere, to: Path | None, keys: Path, keep: int) -> None:
    """Write an encrypted backup of the operator's home and bus; destroy the keys of days long past."""
    home, today = operator_home(given.home), _today()
    _check_apart(given.home, home, keys, to)
    restoring.tell_left(home.folder.parent)
    if not to and not keys.is_dir():
        message = f"{keys} is not there: name the folder of the days' keys"
        raise ConfigurationError(message)
    _check_clock(given, keys, today, keep)
    snapshots.remove_left(home.folder)
    count = _back_up(home, to, *backup_keys.of(keys, today)) if to else 0
    gone = backup_keys.destroy(keys, today - timedelta(days=keep))
    wrote = f"{count} files are in {to}, under the key of {today}" if to else "no backup was written"
    answer.show(
        f"{wrote}; {len(gone)} keys were destroyed{': ' + ', '.join(gone) if gone else ''}",
        {"file": str(to) if to else None, "files": count, "key": today.isoformat() if to else None, "destroyed": gone},
        as_json=given.as_json,
        # Not into the home that was backed up, which is there still.
        then=f"valise broker restore {shlex.quote(str(to))} --keys {shlex.quote(str(keys))} --home NEW" if to else "",
    )


@click.command("restore")
@click.argument("file", type=click.Path(path_type=Path))
@KEYS
@everywhere
def restore_command(given: Everywhere, file: Path, keys: Path) -> None:
    """Restore a backup into HOME, which must not have a broker. It runs after `valise broker resume` only."""
    restoring.remove_left(given.home)
    folder = given.home / OPERATOR
    if folder.exists():
        message = f"{folder} is there: restore into another home, or move it away first"
        raise ConfigurationError(message)
    try:
        with file.open("rb") as source:
            name, _ = vault.name_of(source)
            source.seek(0)
            with progress_of("restored", file.stat().st_size, source.tell):
                count = _restore(vault.Reader(source, backup_keys.find(keys, name)), given.home)
    except OSError as error:
        message = f"cannot restore {file}: {error.strerror or error}"
        raise ConfigurationError(message) from error
    answer.show(
        f"restored {count} files of {name}; {_before_it_runs(given.home)}",
        {"file": str(file), "files": count, "key": name},
        as_json=given.as_json,
        then=given.again("valise broker resume --seen FOLDER"),
    )


def _before_it_runs(home: Path) -> str:
    """Say what has to be done before the broker runs: nothing tells that the nodes of a Kafka were restored, too."""
    if load(home / OPERATOR).bus_kind == "sqlite":
        return "the broker does not run before it was compared with what others hold"
    return (
        "the broker takes what this home lacks from the nodes, and nothing holds it back: where these were restored, "
        "too, compare it first with what others hold; stop again who was stopped since"
    )


def _today() -> date:
    return datetime.fromtimestamp(clock() / 1000, UTC).date()


def _check_apart(given: Path, home: OperatorHome, keys: Path, to: Path | None) -> None:
    """Check that keys and backup lie neither in what is backed up nor together."""
    bus = copied.bus_file(home)
    own = frozenset(_with_its_own(bus) if bus else ())
    for path in (keys, *([to] if to else [])):
        whole = path.resolve()
        if whole in own or any(whole.is_relative_to(each.resolve()) for each in (given, home.folder)):
            message = f"{path} lies in {given} or is its bus, which is backed up: name a place elsewhere"
            raise ConfigurationError(message)
    if to and (to.resolve().is_relative_to(keys.resolve()) or keys.resolve().is_relative_to(to.resolve().parent)):
        message = f"{to} and its key in {keys} would lie together: name a place elsewhere"
        raise ConfigurationError(message)


def _check_clock(given: Everywhere, keys: Path, today: date, keep: int) -> None:
    """Ask before all keys are destroyed at once: perhaps no backup was made for so long, perhaps the clock is wrong."""
    newest = backup_keys.newest(keys)
    if newest and today - newest > timedelta(days=max(keep, 1)) and not given.yes:
        days = (today - newest).days
        confirm(
            f"Today is {today} by this clock, {days} days after the newest key ({newest}): all keys would be "
            "destroyed, and all backups with them. Is the clock right?"
        )


# Writing


def _back_up(home: OperatorHome, to: Path, name: str, key: bytes) -> int:
    """Write the backup aside, then put it in its place, durable on return; return how many files are in it."""
    folder = to.resolve().parent
    snapshots.remove_left(folder, ASIDE)
    with snapshots.aside(folder, ASIDE) as aside:
        with aside.open("r+b") as file:
            writer = vault.Writer(file, name, key)
            with (
                progress_of("written", 0, lambda: aside.stat().st_size),
                tarfile.open(fileobj=writer, mode="w|", format=tarfile.PAX_FORMAT) as archive,
            ):
                count = _add_home(archive, home) + _add_bus(archive, home)
            writer.finish()
            file.flush()
            os.fsync(file.fileno())
        aside.replace(to)
        durable.sync(folder)
    return count


def _add_home(archive: tarfile.TarFile, home: OperatorHome) -> int:
    """Add the home; the checkpoint before the tiles, which may grow meanwhile, so that they bear it."""
    added = set[Path]()
    first = sorted(home.folder.glob("trail*/checkpoint"))
    # What a partial tile is replaced by may come while we look: hence the second look.
    for path in (*first, *_files(home.folder), *_files(home.folder)):
        if path not in added and _add(archive, f"{OPERATOR}/{path.relative_to(home.folder).as_posix()}", path, home):
            added.add(path)
    return len(added)


def _files(folder: Path) -> Iterator[Path]:
    cluster = folder / NODE / node.CONFIG
    if cluster.is_file():  # by its name: its folder may be a link, to a disk for the nodes' data
        yield cluster
    elif (folder / NODE).is_symlink():
        message = f"{cluster} is not there, and without it the nodes' data cannot be served: is their disk mounted?"
        raise ConfigurationError(message)
    for path in sorted(folder.rglob("*")):
        first = path.relative_to(folder).parts[0]
        if first == NODE or first.startswith(LEFT_OUT) or path.name.endswith(BESIDE):
            continue
        if path.is_symlink():
            message = f"{path} is a link, whose target would not be in the backup: put that itself in its place"
            raise ConfigurationError(message)
        if path.is_file():
            yield path


def _add_bus(archive: tarfile.TarFile, home: OperatorHome) -> int:
    file = copied.bus_file(home)
    if file is None:
        return 0
    if not file.is_file():
        message = f"{file}, the bus, is not there: a backup without it is none"
        raise ConfigurationError(message)
    _add_database(archive, BUS, file, home.folder)
    return 1


def _add(archive: tarfile.TarFile, name: str, path: Path, home: OperatorHome) -> bool:
    """Add one file; False if it is gone meanwhile, as a partial tile may be."""
    if path.suffix in DATABASES:
        _add_database(archive, name, path, home.folder)
        return True
    try:
        data, mode = path.read_bytes(), path.stat().st_mode & 0o700
    except FileNotFoundError:
        return False
    archive.addfile(_member(name, len(data), mode), io.BytesIO(data))
    return True


def _add_database(archive: tarfile.TarFile, name: str, path: Path, folder: Path) -> None:
    """Add a database as it is at one moment, whoever writes it."""
    with snapshots.of(path, folder) as copy, copy.open("rb") as opened:
        archive.addfile(_member(name, copy.stat().st_size, 0o600), opened)


def _member(name: str, size: int, mode: int) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.size, made.mode = size, mode
    return made


# Reading


def _restore(reader: vault.Reader, home: Path) -> int:
    """Write everything aside, and put it in its place once all of it was checked. Raises DamagedError."""
    with restoring.aside(home) as aside:
        try:
            count = _unpack(reader, aside)
            _settle(aside, home)
        except tarfile.TarError as error:
            raise DamagedError from error
    return count


def _unpack(reader: vault.Reader, aside: Path) -> int:
    count = 0
    with tarfile.open(fileobj=reader, mode="r|") as archive:
        for member in archive:
            name, data = PurePosixPath(member.name), archive.extractfile(member)
            if data is None or name.is_absolute() or ".." in name.parts:
                raise DamagedError
            file = aside / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch(mode=member.mode & 0o700 | 0o600)
            with file.open("r+b") as opened:
                shutil.copyfileobj(data, opened)
                opened.flush()
                os.fsync(opened.fileno())
            count += 1
    reader.read()  # to the last piece: nothing was cut off
    return count


def _with_its_own(database: Path) -> list[Path]:
    """Name a database and the files that SQLite reads with it."""
    return [database, *(database.with_name(database.name + each) for each in SQLITE)]


def _settle(aside: Path, home: Path) -> None:
    settings = load(aside / OPERATOR)
    if settings.bus_kind == "sqlite":
        bus = (home / OPERATOR / settings.bus_address).resolve()
        # A log or journal of another bus would be played into the restored one by whoever opens it first.
        if there := [str(each) for each in _with_its_own(bus) if each.exists()]:
            message = f"{', '.join(there)}: there already, move all of it away first"
            raise ConfigurationError(message)
        if not (aside / BUS).is_file():
            message = "the backup has no bus, without which no broker can be restored: take another"
            raise ConfigurationError(message)
        if not bus.parent.is_dir():
            message = f"{bus.parent}, where the bus was, is not there: make or mount it first"
            raise ConfigurationError(message)
        _move(aside / BUS, bus)
    (aside / OPERATOR).rename(home / OPERATOR)
    durable.sync(home)


def _move(file: Path, to: Path) -> None:
    """Move a file, to another disk too; durable on return, and whole in its place or not there."""
    try:
        file.rename(to)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        snapshots.remove_left(to.parent, ASIDE)
        with snapshots.aside(to.parent, ASIDE) as aside:
            with file.open("rb") as source, aside.open("r+b") as target:
                shutil.copyfileobj(source, target)
                target.flush()
                os.fsync(target.fileno())
            aside.rename(to)
    durable.sync(to.parent)
