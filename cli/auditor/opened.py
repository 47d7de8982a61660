"""Opens what an auditor works with: the operator's trail, decision records and index."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from adapters.versions import Versions
from broker import reading
from broker.errors import ConfigurationError
from broker.index import Index
from broker.records import Records
from broker.trail import Trail
from cli.auditor.shards import shard_of, trails
from cli.operator_home import operator_folder
from cli.progress import progress
from cli.publish import NoSuchNoticeError
from cli.story import Stories


@dataclass(frozen=True, slots=True)
class Opened:
    """One shard's trail with all that explains it; `folder` is HOME/operator."""

    folder: Path
    trail: Trail
    records: Records
    index: Index
    stories: Stories
    versions: Versions

    def no_such_notice(self) -> NoSuchNoticeError:
        """Give what is raised of a notice id or leaf number that nothing here speaks of."""
        size = self.trail.size
        return NoSuchNoticeError(f" among the {size:,} leaves of this trail: `valise audit search` lists them")


@contextmanager
def opened(home: Path, shard: int = 0, *, rebuild: bool = False) -> Iterator[Opened]:
    """Open one shard's trail and bring its index up to date. Raises ConfigurationError that says what to do."""
    operator, suffix = operator_folder(home), f"-{shard}" if shard else ""
    if not (operator / f"records{suffix}.db").is_file():
        message = f"there are no decision records in {operator}: name the home with --home"
        raise ConfigurationError(message)
    with closing(Records.to_read(operator / f"records{suffix}.db")) as records:
        trail = Trail.open(operator / f"trail{suffix}")
        file = operator / f"records{suffix}.index.db"
        with _indexed(file, trail, records, rebuild=rebuild) as (index, covered):
            versions = Versions(operator / "versions")
            stories = Stories(covered, records, index, versions)
            yield Opened(operator, covered, records, index, stories, versions)


@contextmanager
def opened_about(home: Path, notice: str, shard: int | None = None) -> Iterator[Opened]:
    """Open the shard that `shard` names, or else the first whose trail tells of a notice (of a number: shard 0)."""
    told = shard if shard is not None else 0 if notice.isdecimal() else _shard_of(home, notice)
    with opened(home, told) as found:
        yield found


def _shard_of(home: Path, notice: str) -> int:
    shards = [shard_of(each) for each in trails(operator_folder(home))]
    for shard in shards[:-1]:
        with opened(home, shard) as one:
            if one.stories.find(notice):
                return shard
    return shards[-1]


@contextmanager
def _indexed(file: Path, trail: Trail, records: Records, *, rebuild: bool) -> Iterator[tuple[Index, Trail]]:
    """Open an index that covers the trail, and give the trail as it does; in memory where the disk has no room."""
    with ExitStack() as stack:
        index = stack.enter_context(closing(_index(file)))
        try:
            if rebuild:
                index.forget()
            covered = index.update(trail, records, progress("indexed"))
        except sqlite3.OperationalError as error:
            _check_not_kept(error)
            index = stack.enter_context(closing(Index(None)))
            covered = index.update(trail, records, progress("indexed"))
        yield index, covered


def _index(file: Path) -> Index:
    try:
        return Index(file if _is_ours(file) else None)
    except sqlite3.OperationalError as error:
        _check_not_kept(error)
        return Index(None)  # an auditor may look at what he may not write, or where there is no room
    except sqlite3.DatabaseError:
        return _again(file)


def _check_not_kept(error: sqlite3.OperationalError) -> None:
    """Raise what says that another keeps the index: who waits has it, and need not index it all for this once."""
    if reading.code_of(error) in reading.KEPT:
        raise error


def _is_ours(file: Path) -> bool:
    """Say whether the index is there, or can be: through a link it would be written elsewhere."""
    try:
        reading.check(file)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _again(file: Path) -> Index:
    """Make again what is damaged: it is derived."""
    try:
        file.unlink()
    except OSError:
        return Index(None)
    return Index(file)
