"""Which version an order ends, found without a walk through all that were replaced."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker import codec
from broker.decide import Subscriptions, View
from broker.directory import NO_ANNEX
from broker.judge import Judge
from broker.members import canonical, parse
from broker.notice import Reference, Standing
from broker.register import Register, notice_key
from broker.rules import PolicySet, Rules, read_rules
from tests import federation as world

AT = "AT/ncb"
DIRECTORY = parse(canonical(world.directory()))
VIEW = View(DIRECTORY, Rules(read_rules(PolicySet.packaged()), DIRECTORY, NO_ANNEX), Subscriptions.of(DIRECTORY, {}))


class Counting(Register):
    """A register that counts what it is asked."""

    asked = 0

    def standing(self, issuer: str, notice_id: bytes) -> Standing | None:
        self.asked += 1
        return super().standing(issuer, notice_id)


class Records:
    """Records of AT's, each a line of versions."""

    def __init__(self, register: Counting, first: int = 0) -> None:
        self.register = register
        self.judge = Judge(self.register, VIEW, lambda _: None)
        self.lines: list[list[bytes]] = []
        self.count = first

    def say(self, line: int) -> None:
        """Publish a record, or correct it."""
        self.count += 1
        notice_id = self.count.to_bytes(16, "big")
        if line >= len(self.lines):
            self.lines.append([])
        versions = self.lines[min(line, len(self.lines) - 1)]
        if versions:
            before = self.register.standing(AT, versions[-1])
            assert before
            self.put(versions[-1], replace(before, state="replaced", replaced_by=notice_id))
        versions.append(notice_id)
        self.put(notice_id, Standing(notice_id * 2, "routed", self.count, b"", self.count, "R", 1, (), b""))

    def put(self, notice_id: bytes, standing: Standing) -> None:
        self.register.put(notice_key(AT, notice_id), codec.encode(standing))

    def ended(self, named: bytes) -> Reference:
        """What an order that names this one ends."""
        found = self.register.standing(AT, named)
        reference, standing = self.judge._newest(Reference(AT, named, named * 2, "withdraws"), found)
        assert standing.header_digest == reference.header_digest
        return reference

    def walked(self, named: bytes) -> bytes:
        """The same by a walk from version to version."""
        standing = self.register.standing(AT, named)
        while standing and standing.replaced_by:
            named = standing.replaced_by
            standing = self.register.standing(AT, named)
        return named


@pytest.fixture(scope="module")
def register(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Counting]:
    with closing(Counting(tmp_path_factory.mktemp("judge") / "register.db")) as made:
        yield made


LIVES = count(0, 1 << 32)
"""Where the ids of the next records begin: all lie in one register."""


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 2), st.integers(0, 30)), max_size=60))
def test_an_order_ends_the_version_that_a_walk_would_find(
    register: Counting, acts: list[tuple[bool, int, int]]
) -> None:
    records = Records(register, next(LIVES))
    for says, line, place in acts:
        if says or not records.lines:
            records.say(line)
            continue
        versions = records.lines[line % len(records.lines)]
        named = versions[place % len(versions)]
        found = records.ended(named)
        assert (found.notice_id, found.header_digest) == (records.walked(named), records.walked(named) * 2)


def test_what_was_walked_through_once_is_passed_over(register: Counting) -> None:
    records = Records(register, next(LIVES))
    for _ in range(500):
        records.say(0)
    (versions,) = records.lines
    records.ended(versions[0])
    records.say(0)
    for named in versions:
        before = records.register.asked
        assert records.ended(named).notice_id == versions[-1]
        assert records.register.asked - before <= 3
