"""The operator shows a bureau more of an H2 notice than its owner granted it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from broker.notice import Grant
from tests.attacks.bench import Bench, notice
from tests.attacks.test_review import Books, said
from tests.making import NOW

pytestmark = pytest.mark.asyncio(loop_scope="module")

WARNINGS = 1 << 2
"""The place of `warnings` in a notice on a person."""


async def test_the_operator_shows_a_bureau_more_than_its_grant_names(shared: Bench) -> None:
    """GE is granted the warnings of AT's notice and sees them alone: nothing is said of that. The operator shows it the
    identity, too, under a row that says so: exit 4."""
    grants = (Grant("GE/ncb", ("warnings",), NOW + 86_400_000),)
    got = await shared.delivered(notice().but(handling=("H2",)).routed(grants=grants), "GE/ncb")
    await shared.federation.settled()
    books, number = Books.of(shared), got.delivery.leaf_number
    leaf, record = books.find(number)
    assert {each.bureau: each.shown & ~WARNINGS == 0 for each in record.rows} == {"LV/ncb": False, "GE/ncb": True}
    with books.checked() as (findings, found):
        assert (findings, found.findings) == ([], [])
    rows = tuple(replace(each, shown=each.shown | WARNINGS >> 1) for each in record.rows)
    books.put(number, leaf, replace(record, rows=rows))
    with books.checked() as (_, found):
        assert said(found, number) == "sees identity: GE/ncb: on record, not by these policies"
