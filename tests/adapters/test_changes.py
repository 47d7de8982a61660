"""What a second run publishes, and the runs that are refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from adapters.adapter import EVERYONE, Draft, Rejected, SourceReport
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
    with pytest.raises(
        RunRefusedError, match=r"20 of 40 .*: r-20, r-21, .* and 15 more\. .*`Guard\(accept_withdrawals=True\)`"
    ):
        changes(before, some(20))
    found = changes(before, some(20), Guard(accept_withdrawals=True))
    assert sum(isinstance(change, Withdrawn) for change in found) == 20


def test_a_run_with_too_many_rejects_is_refused_before_anything_is_given() -> None:
    rejected = [Rejected(f"line {number}", "status", "missing", f"x-{number}") for number in range(3)]
    with pytest.raises(
        RunRefusedError, match=r"3 of 43 .*x-0 \(status: missing\), x-1 .*`Guard\(accept_rejects=True\)`"
    ):
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


def test_two_source_records_with_one_id_stand_in_the_report_of_the_source() -> None:
    drafts, report = some(40), SourceReport()
    list(changes(published(drafts), [*drafts, replace(drafts[0], action_sought="arrest")], report=report))
    assert report.rejected == [Rejected("r-0", "record", "another record has the same id", "r-0")]


def test_two_source_records_with_one_id_are_both_kept_back_while_neither_is_published() -> None:
    drafts = some(40)
    other = replace(drafts[0], legal_basis="another")
    found = list(changes(published(drafts[1:]), [*drafts, other]))
    assert not [change for change in found if isinstance(change, New)]


def mixed(persons: int, objects: int) -> list[Draft]:
    return some(persons) + [replace(DRAFT, record=f"o-{number}", kind="object") for number in range(objects)]


def of(drafts: list[Draft]) -> dict[str, str]:
    return {draft.record: draft.kind for draft in drafts}


@pytest.mark.parametrize("objects", [2, 9])
def test_a_kind_that_came_back_empty_withdraws_nothing(objects: int) -> None:
    before, now = mixed(100, objects), mixed(100, 0)
    with pytest.raises(RunRefusedError, match=f"without any object; {objects} were"):
        changes(published(before), now, kinds=of(before))
    found = changes(published(before), now, Guard(accept_withdrawals=True), of(before))
    assert sum(isinstance(change, Withdrawn) for change in found) == objects


def test_the_only_record_of_its_kind_may_end() -> None:
    before = mixed(100, 1)
    assert Withdrawn("o-0") in list(changes(published(before), mixed(100, 0), kinds=of(before)))


def test_a_mass_withdrawal_of_one_kind_is_refused_though_it_is_none_of_the_whole() -> None:
    before = mixed(1000, 40)
    with pytest.raises(RunRefusedError, match="20 of 40 published records of the kind object"):
        changes(published(before), mixed(1000, 20), kinds=of(before))


def poorer(drafts: list[Draft]) -> list[Draft]:
    return [replace(draft, compartments={"identity": {}}) for draft in drafts]


def test_a_source_of_which_most_records_change_at_once_is_refused_unless_told_to() -> None:
    drafts = some(40)
    with pytest.raises(
        RunRefusedError, match=r"30 of 40 published records say something else .*\(accept_corrections=True\)"
    ):
        changes(published(drafts), poorer(drafts[:30]) + drafts[30:])
    found = changes(published(drafts), poorer(drafts), Guard(accept_corrections=True))
    assert sum(isinstance(change, Corrected) for change in found) == 40
    assert len(list(changes(published(drafts), poorer(drafts[:20]) + drafts[20:]))) == 40


def test_a_column_that_one_kind_has_lost_is_seen_in_a_source_of_several() -> None:
    drafts = mixed(100, 20)
    with pytest.raises(RunRefusedError, match="20 of 20 published records of the kind object say"):
        changes(published(drafts), drafts[:100] + poorer(drafts[100:]))


def test_the_digest_covers_everything_that_is_said() -> None:
    assert DRAFT.digest() != replace(DRAFT, urgency="flash").digest()
    assert DRAFT.digest() != replace(DRAFT, deny=("RU",)).digest()
