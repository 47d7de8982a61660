"""What a second run publishes, and the runs that are refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from adapters.adapter import EVERYONE, Draft, Rejected
from adapters.changes import Corrected, Guard, New, RunRefusedError, Unchanged, Withdrawn, changes

DRAFT = Draft(
    record="r-0",
    kind="person",
    topics=("wanted.red",),
    purpose="extradition",
    legal_basis="invented",
    audience=EVERYONE,
    compartments={"identity": {"names": []}},
)


def some(count: int) -> list[Draft]:
    return [replace(DRAFT, record=f"r-{number}") for number in range(count)]


def published(drafts: list[Draft]) -> dict[str, bytes]:
    return {draft.record: draft.digest() for draft in drafts}


def test_a_first_run_publishes_everything() -> None:
    drafts = some(3)
    assert list(changes({}, drafts)) == [New(draft, draft.digest()) for draft in drafts]


def test_a_second_run_publishes_only_what_changed() -> None:
    drafts = some(3)
    changed = replace(drafts[1], compartments={"identity": {"names": [], "sex": "male"}})
    new = replace(DRAFT, record="r-9")
    found = list(changes(published(drafts), [drafts[0], changed, new]))
    assert found == [
        Withdrawn("r-2"),
        Unchanged("r-0"),
        Corrected(changed, changed.digest()),
        New(new, new.digest()),
    ]


def test_a_record_that_is_rejected_now_is_not_withdrawn() -> None:
    drafts = some(40)
    rejected = Rejected("line 7", "status", "missing", "r-39")
    found = list(changes(published(drafts), [*drafts[:39], rejected]))
    assert rejected in found
    assert not [change for change in found if isinstance(change, Withdrawn)]


def test_a_source_that_came_back_empty_withdraws_nothing() -> None:
    with pytest.raises(RunRefusedError, match="came back empty"):
        changes(published(some(3)), [])


def test_a_mass_withdrawal_is_refused_unless_told_to() -> None:
    before = published(some(40))
    with pytest.raises(RunRefusedError, match="20 of 40"):
        changes(before, some(20))
    found = changes(before, some(20), Guard(accept_withdrawals=True))
    assert sum(isinstance(change, Withdrawn) for change in found) == 20


def test_a_run_with_too_many_rejects_is_refused_before_anything_is_given() -> None:
    rejected = [Rejected(f"line {number}", "status", "missing", f"x-{number}") for number in range(3)]
    with pytest.raises(RunRefusedError, match="3 of 43"):
        changes({}, [*some(40), *rejected])
    assert len(list(changes({}, [*some(40), *rejected], Guard(accept_rejects=True)))) == 43


def test_withdrawals_wait_where_a_rejected_record_has_no_id() -> None:
    drafts = some(40)
    with pytest.raises(RunRefusedError, match="without an id"):
        changes(published(drafts), [*drafts[:39], Rejected("line 7", "id", "missing")])


def test_two_source_records_with_one_id_are_one_reject_and_change_nothing() -> None:
    drafts = some(40)
    other = replace(drafts[0], legal_basis="another")
    found = list(changes(published(drafts), [*drafts, other]))
    assert [change for change in found if not isinstance(change, Unchanged)] == [
        Rejected("r-0", "record", "another record has the same id", "r-0")
    ]


def test_the_digest_covers_everything_that_is_said() -> None:
    assert DRAFT.digest() != replace(DRAFT, urgency="flash").digest()
    assert DRAFT.digest() != replace(DRAFT, deny=("RU",)).digest()
