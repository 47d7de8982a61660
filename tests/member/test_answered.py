"""What `trace` says of a bureau's answers: when, and with which result."""

from __future__ import annotations

import pytest

from adapters.trace import Answer, Reached
from cli.trace import _answered

DAY = 1_800_000_000_000


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ((), "–"),
        ((Answer("erased", "erased", DAY),), "2027-01-15 08:00:00"),
        ((Answer("erased", "kept-under-national-law", DAY),), "2027-01-15 08:00:00, kept under national law"),
        ((Answer("read", None, DAY),), "–"),
    ],
)
def test_who_keeps_what_was_withdrawn_does_not_look_like_who_erased_it(answers: tuple[Answer, ...], said: str) -> None:
    assert _answered(Reached("LV/ncb", 1, (), answers), "erased") == said


def test_an_outcome_is_told_with_its_result() -> None:
    reached = Reached("LV/ncb", 1, (), (Answer("outcome", "no-trace", DAY),))
    assert _answered(reached, "outcome") == "2027-01-15 08:00:00, no trace"
