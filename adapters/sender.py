"""Sends what waits in an outbox, in order, each under the key that its bureau has now."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256

from adapters.compose import NO_KEY, Maker, sign
from adapters.database import check_went, transaction
from adapters.requeue import Requeue
from broker import codec, crash, streams
from broker.bus import Bus
from broker.errors import ConfigurationError
from broker.notice import Envelope

PAGE = 100


class NoKeyError(ConfigurationError):
    """What some bureaus of the member have to send waits, as they cannot sign; `bureaus`: bureau → why."""

    def __init__(self, bureaus: Mapping[str, str]) -> None:
        said = (f"what {bureau} has to send waits until it can sign: {why}" for bureau, why in bureaus.items())
        super().__init__("; ".join(said))
        self.bureaus = bureaus


class Sender:
    """The sending half of an outbox, over its file."""

    def __init__(self, database: sqlite3.Connection, maker: Maker, requeue: Requeue) -> None:
        self._database, self._maker, self._requeue = database, maker, requeue

    async def send(self, bus: Bus, shard: int) -> int:
        """Append what waits, in order; return how many went. May append the same again after a raise.

        Raises UnavailableError, also where another process keeps signing the same anew; NoKeyError, once all that
        other bureaus have is sent, where a bureau has no key, or its token does not sign: all that is of it waits.
        Meanwhile another bureau's notice may come before one of these that it cites or answers: the broker takes it.
        """
        sent, before, without = 0, list[tuple[int, int]](), dict[str, str]()
        newest = self._queue_again()
        while page := self._page(without):
            if page[-1]["place"] > newest:  # published meanwhile by another process: first what it builds on
                newest = self._queue_again()
                continue
            # Who had no key keeps waiting where it has one by the next page: nothing later of it goes first.
            without |= self._without_key({row["bureau"] for row in page})
            signed = self._signed([row for row in page if row["bureau"] not in without], without)
            if not signed:
                continue
            check_went(before, before := [(row["place"], row["queued"]) for row, _ in signed])
            self._note([(row, each) for row, each in signed if sent_digest(each) != row["sent_digest"]])
            values = [(bytes(row["notice_id"]), codec.encode(each)) for row, each in signed]
            await bus.append(streams.notices(signed[0][0]["bureau"].partition("/")[0]), values, partition=shard)
            crash.here("outbox.appended")
            self._mark_sent(signed)
            crash.here("outbox.marked")
            sent += len(signed)
        if without:
            raise NoKeyError(without)
        return sent

    def _queue_again(self) -> int:
        """Queue what comes again; give the newest place of all that was published by then.

        Where more bureaus have such once a passphrase was typed, ask for their keys, too.
        """
        asked = set[str]()
        while True:
            asked |= self._requeue.bureaus()
            self._requeue.unlock(asked)
            with transaction(self._database):
                if self._requeue.bureaus() <= asked:
                    self._requeue.rejected()
                    self._requeue.before_what_builds_on_it()
                    return int(self._database.execute("SELECT coalesce(max(place), 0) FROM envelopes").fetchone()[0])

    def _page(self, without: Iterable[str]) -> list[sqlite3.Row]:
        """Give what waits first, but for these bureaus."""
        return self._database.execute(
            "SELECT * FROM envelopes WHERE sent_at IS NULL AND bureau NOT IN (SELECT value FROM json_each(?))"
            " ORDER BY place LIMIT ?",
            (json.dumps(list(without)), PAGE),
        ).fetchall()

    def _without_key(self, bureaus: Iterable[str]) -> dict[str, str]:
        """Say which of these bureaus have no key, and why."""
        found: dict[str, str] = {}
        for bureau in sorted(bureaus):
            try:
                self._maker.key(bureau)
            except NO_KEY as error:
                found[bureau] = str(error)
        return found

    def _signed(self, rows: Sequence[sqlite3.Row], without: dict[str, str]) -> list[tuple[sqlite3.Row, Envelope]]:
        """Give rows as they go out, but all of a bureau whose token does not sign: that is put among `without`."""
        signed = list[tuple[sqlite3.Row, Envelope]]()
        for row in rows:
            if row["bureau"] not in without:
                try:
                    signed.append((row, self._in_force(row)))
                except NO_KEY as error:
                    without[row["bureau"]] = str(error)
        return [(row, each) for row, each in signed if row["bureau"] not in without]

    def _note(self, signed: Sequence[tuple[sqlite3.Row, Envelope]]) -> None:
        """Keep envelopes as they will go out, before they do: another process may hear first that one was rejected."""
        if not signed:
            return
        with transaction(self._database):
            self._database.executemany(
                "UPDATE envelopes SET key_id = ?, signature = ?, sent_digest = ?"
                " WHERE place = ? AND sent_at IS NULL AND queued = ?",
                [(each.key_id, each.signature, sent_digest(each), row["place"], row["queued"]) for row, each in signed],
            )

    def _mark_sent(self, signed: Sequence[tuple[sqlite3.Row, Envelope]]) -> None:
        """Mark what went. What another process has signed anew or queued anew meanwhile has not gone as it is now."""
        with transaction(self._database):
            self._database.executemany(
                "UPDATE envelopes SET sent_at = ?"
                " WHERE place = ? AND sent_at IS NULL AND queued = ? AND sent_digest = ?",
                [(self._maker.clock(), row["place"], row["queued"], sent_digest(each)) for row, each in signed],
            )

    def _in_force(self, row: sqlite3.Row) -> Envelope:
        """Give the envelope as it was signed, or the same header bytes signed anew if the bureau's key has changed."""
        kept = Envelope(bytes(row["header"]), bytes(row["key_id"]), bytes(row["signature"]), bytes(row["compartments"]))
        key = self._maker.key(row["bureau"])
        if kept.key_id == key.public.id:
            return kept
        return sign(kept.header, kept.compartments, key)


def sent_digest(envelope: Envelope) -> bytes:
    """Name the bytes that go out; a rejection of which the broker names no notice names these."""
    return sha256(codec.encode(envelope)).digest()
