"""deploy/THREATS.md names a test for what it says, and every attack that is played is named there."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

FOLDER = Path(__file__).parent
THREATS = (FOLDER.parent.parent / "deploy" / "THREATS.md").read_text(encoding="utf-8")
NAMED = frozenset(re.findall(r"`([a-z0-9]+(?:_[a-z0-9]+){3,})`", THREATS))
"""Words in code with three underscores or more."""
TEST = re.compile(r"^(?:async )?def test_(\w+)\(", re.MULTILINE)


def played(files: Iterable[Path]) -> set[str]:
    """Names of all tests in these files, without their `test_`."""
    return {name for each in files for name in TEST.findall(each.read_text(encoding="utf-8"))}


def attacks() -> set[str]:
    """Names of the stories of this folder; this file tells none."""
    return played(each for each in FOLDER.glob("test_*.py") if each != Path(__file__))


def test_every_test_that_is_named_exists() -> None:
    assert NAMED - played(FOLDER.parent.rglob("test_*.py")) == set()


def test_every_attack_is_named() -> None:
    assert attacks() - NAMED == {
        "an_operator_who_changed_nothing_is_called_honest",
        "a_witness_vouches_for_an_honest_log",
        "a_bus_and_a_witness_whose_clocks_differ_as_much_as_the_broker_bears_accuse_nobody",
        "a_log_that_began_long_after_its_empty_head_was_cosigned_is_not_called_ahead_of_time",
        "a_held_notice_is_released_by_who_was_given_it",
        "issuer_and_holder_follow_a_release_and_a_refusal",
        "an_operator_who_reviewed_nothing_away_is_called_honest",
        "an_honest_order_is_called_honest",
        "what_an_honest_broker_records_of_statements_is_called_honest",
        "what_was_signed_is_found_for_every_version_in_force",
    }


def test_there_are_at_least_forty_attacks() -> None:
    assert len(attacks()) >= 40


def test_no_threat_is_told_twice_in_one_table() -> None:
    for part in THREATS.split("\n\n"):
        told = [tuple(line.strip("|").split("|")[:-2]) for line in part.splitlines() if line.startswith("| ")]
        assert sorted(set(told)) == sorted(told)
