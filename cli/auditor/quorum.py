"""Which checkpoint of a log the witnesses stand by that an auditor names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from broker import cosignature, witnessed
from broker.cosignature import Cosigner
from broker.errors import ConfigurationError, ProofError
from broker.notes import Vkey
from broker.seen import SeenHead
from broker.witnessed import NO_QUORUM_MS, Witnessed
from cli import answer
from cli.auditor.witness import written


@dataclass(frozen=True, slots=True)
class Quorum:
    """Whose cosignatures count, and how many of them are enough."""

    cosigners: tuple[Cosigner, ...]
    least: int

    @classmethod
    def of(cls, given: Sequence[str], least: int | None) -> Quorum | None:
        """Read --witness and --quorum; None where no witness is named."""
        if not given and least is None:
            return None
        if not 0 < (least or len(given)) <= len(given):
            message = f"--quorum says how many of the {len(given)} --witness are enough"
            raise click.UsageError(message)
        cosigners = tuple(map(_cosigner, given))
        try:
            cosignature.check_distinct(cosigners)
        except ProofError as error:
            raise ConfigurationError(str(error)) from error
        return cls(cosigners, least or len(given))

    def look(self, folder: Path, log: Vkey, kept: Iterable[SeenHead]) -> Stood:
        """Find the newest checkpoint that enough of them cosigned, on disk or among what others kept.

        A note that cannot be trusted is told of; it bears nothing out.
        """
        names = [each.name for each in self.cosigners]
        others = (each.note for each in kept if any(name in each.note for name in names))
        good: dict[str, Witnessed] = {}
        bad: list[str] = []
        for note in (*_on_disk(folder, bad), *others):
            try:
                for one in witnessed.gather([note], log, self.cosigners):
                    good.setdefault(one.head.text, one).found.update(one.found)
            except ProofError as error:
                bad.append(str(error))
        ordered = sorted(good.values(), key=lambda each: each.head.size)
        return Stood(self, ordered, witnessed.newest(ordered, self.least), bad)

    def check(self, note: str, log: Vkey) -> None:
        """Check that one checkpoint bears enough cosignatures. Raises ProofError."""
        witnessed_notes = witnessed.gather([note], log, self.cosigners)
        found = len(witnessed_notes[0].found) if witnessed_notes else 0
        if found < self.least:
            raise ProofError(self.lacking(found))

    def lacking(self, found: int) -> str:
        """Say that cosignatures are lacking."""
        return f"{found} of the {len(self.cosigners)} named witnesses cosigned a checkpoint; {self.least} must"


@dataclass(frozen=True, slots=True)
class Stood:
    """What was found of the witnesses' word: every checkpoint that one cosigned, and the newest with a quorum."""

    asked: Quorum
    all: list[Witnessed]
    newest: Witnessed | None
    bad: list[str]

    def heads(self) -> Iterator[SeenHead]:
        """Give what was cosigned, to be compared: a witness kept it, whoever holds the file."""
        for each in self.all:
            by = ", ".join(sorted(one.by.name for one in each.found.values()))
            enough = len(each.found) >= self.asked.least
            # The newest word: beside others a witness whose clock is slow accuses nobody.
            at = max(one.time for one in each.found.values()) * 1000 if enough else None
            yield SeenHead(each.head.size, each.head.root, each.note, f"the witness {by}", at)

    @property
    def wrong(self) -> list[str]:
        """What does not hold."""
        if self.newest is not None:
            return self.bad
        return [*self.bad, self.asked.lacking(max((len(each.found) for each in self.all), default=0))]

    @property
    def at(self) -> int | None:
        """When the quorum stood by it, in ms."""
        at = cosignature.quorum_time(self.newest.found, self.asked.least) if self.newest else None
        return None if at is None else at * 1000

    def beyond(self, size: int, now: int) -> int:
        """Count the leaves that no quorum saw although there was an hour's time."""
        if self.newest is None or self.at is None or now - self.at < NO_QUORUM_MS:
            return 0
        return max(0, size - self.newest.head.size)

    def line(self, size: int) -> str:
        """Say for people how far the word of the witnesses goes."""
        if self.newest is None:
            return f"no checkpoint with {self.asked.least} of {len(self.asked.cosigners)}"
        by = ", ".join(sorted(each.by.name for each in self.newest.found.values()))
        rest = size - self.newest.head.size
        more = f"; {rest:,} newer leaves not yet" if rest > 0 else ""
        return f"{self.newest.head.size:,} leaves at {answer.when(self.at)} by {by}{more}"

    def value(self) -> dict[str, Any]:
        """Say it in JSON."""
        return {
            "quorum": self.asked.least,
            "of": [each.name for each in self.asked.cosigners],
            "size": self.newest.head.size if self.newest else None,
            "at": self.at,
            "by": sorted(each.by.name for each in self.newest.found.values()) if self.newest else [],
        }


def _on_disk(folder: Path, bad: list[str]) -> Iterator[str]:
    """Read the notes of a trail; add to `bad` why one cannot be read."""
    for name in witnessed.ON_DISK:
        try:
            yield witnessed.note_of(folder, name)
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            bad.append(f"{name} cannot be read: {error}")


def _cosigner(text: str) -> Cosigner:
    try:
        return cosignature.parse_cosigner(written(text))
    except ProofError as error:
        raise ConfigurationError(f"{text} is no witness's verifier key: {error}") from error
