"""A draft that is checked with no home is refused for what an outbox would refuse it for, and for nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from adapters import alone
from adapters.adapter import Draft, Pointer
from adapters.outbox import Outbox, Refusal
from broker.errors import NoticeRejectedError
from broker.members import INDEX_LIMIT
from broker.notice import KINDS, RELATION_OF_KIND, SIZE_LIMIT, Audience, Grant
from broker.signing import SigningKey
from cli import drafts
from cli.schema import example_of
from tests.making import NOW
from tests.member.conftest import World, draft

GRANT = Grant("LV/ncb", ("identity",), NOW)


def checked(tried: Draft) -> str | None:
    """The code for which a draft is refused with no home."""
    try:
        alone.check(tried, SigningKey.new(), NOW)
    except NoticeRejectedError as error:
        return error.code
    return None


def rehearsed(outbox: Outbox, tried: Draft) -> str | None:
    """The code for which an outbox refuses a draft; None, too, where it only does not know what is meant."""
    (made,) = outbox.rehearse([tried])
    return made.code if isinstance(made, Refusal) and "not known here" not in made.reason else None


SLOW = pytest.mark.slow


@pytest.mark.parametrize("kind", KINDS)
async def test_the_example_of_each_kind_is_what_an_outbox_takes(world: World, kind: str) -> None:
    (made,) = drafts.read(json.dumps(example_of(kind)), "-")
    outbox = world.machine("AT/ncb").outbox()
    assert (checked(made), rehearsed(outbox, made)) == (None, None)
    without = replace(made, pointers=())
    expected = "invalid-reference" if kind in RELATION_OF_KIND else None
    assert (checked(without), rehearsed(outbox, without)) == (expected, expected)
    outbox.close()


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"kind": "rumour"}, "unknown-kind"),
        ({"purpose": "curiosity"}, "unknown-purpose"),
        ({"handling": ("H9",)}, "unknown-handling"),
        ({"topics": ("Not A Topic",)}, "invalid-field"),
        ({"compartments": {"nonsense": {"x": 1}}}, "invalid-field"),
        ({"compartments": {"identity": {"names": 7}}}, "unreadable"),
        ({"compartments": {"narrative": {"items": [{"text": "x" * SIZE_LIMIT}]}}}, "too-large"),
        ({"conversation": "x" * SIZE_LIMIT}, "too-large"),
        pytest.param({"deny": tuple(f"A{number}" for number in range(INDEX_LIMIT))}, "too-large", marks=SLOW),
        pytest.param({"deny": tuple(f"A{number}/b" for number in range(INDEX_LIMIT))}, "too-large", marks=SLOW),
        ({"expires": NOW}, "already-expired"),
        ({"expires": NOW + 1}, None),
        ({"retain_until": 1 << 64}, "unreadable"),
        ({"audience": Audience(everyone=False)}, "empty-audience"),
        ({"audience": Audience(everyone=False, to=("AT", "LV/ncb")), "deny": ("AT", "LV")}, "empty-audience"),
        ({"audience": Audience(everyone=False, agreements=("Project Millennium",))}, "invalid-field"),
        ({"deny": ("lv/ncb",)}, "invalid-field"),
        ({"deny": ("LV/adapter",)}, "invalid-field"),
        ({"protected_from": ("nobody",)}, "invalid-field"),
        ({"grants": (GRANT,), "handling": ("H2",)}, None),
        ({"grants": (GRANT,)}, "invalid-field"),
        ({"grants": (replace(GRANT, compartments=("routing",)),), "handling": ("H2",)}, "invalid-field"),
        ({"grants": (replace(GRANT, bureau="LV"),), "handling": ("H2",)}, "invalid-field"),
        ({"grants": (replace(GRANT, until=1 << 64),), "handling": ("H2",)}, "unreadable"),
        ({"pointers": (Pointer("", "R-2", "dreams of"),)}, "invalid-reference"),
        ({"pointers": (Pointer("", "R-2", "corrects"),)}, "invalid-reference"),
        ({"pointers": (Pointer("LV/ncb", "R-2", "cites"), Pointer("", "R-2", "answers"))}, None),
    ],
)  # fmt: skip
async def test_what_is_refused_with_no_home_is_what_an_outbox_refuses(
    world: World, changes: dict[str, Any], code: str | None
) -> None:
    tried, outbox = draft(**changes), world.machine("AT/ncb").outbox()
    assert (checked(tried), rehearsed(outbox, tried)) == (code, code)
    outbox.close()


@pytest.mark.parametrize(
    ("audience", "deny"),
    [
        (Audience(everyone=False, to=("LV",)), ("LV/ncb",)),
        (Audience(everyone=False, agreements=("project-millennium",)), ("GE", "LV")),
    ],
)
def test_what_depends_on_who_takes_part_is_refused_by_an_outbox_only(audience: Audience, deny: tuple[str, ...]) -> None:
    assert checked(draft(audience=audience, deny=deny)) is None


@pytest.mark.parametrize(
    ("kind", "relation", "code"),
    [
        ("person", "withdraws", "invalid-reference"),
        ("restriction", "cites", "invalid-reference"),
        ("approval", "approves", "invalid-field"),  # it seeks nothing
    ],
)
def test_what_a_record_would_be_refused_for_is_said_before_what_it_names_is_known(
    kind: str, relation: str, code: str
) -> None:
    assert checked(draft(kind=kind, compartments={}, pointers=(Pointer("", "R-1", relation),))) == code


def test_only_the_issuer_of_a_record_changes_it_and_any_may_be_an_authority() -> None:
    theirs = draft(pointers=(Pointer("LV/ncb", "R-1", "corrects"),))
    assert (checked(theirs), checked(replace(theirs, bureau="AT/ncb"))) == (None, "invalid-reference")
    order = draft(kind="withdrawal", pointers=(Pointer("LV/ncb", "R-1", "withdraws"),), compartments={})
    assert (checked(order), checked(replace(order, bureau="AT/ncb"))) == (None, None)


@pytest.mark.parametrize("bureau", ["AT", "at/ncb", "AT/adapter", "AT/ncb/2"])
def test_a_bureau_that_no_directory_can_have_is_refused(bureau: str) -> None:
    assert checked(draft(bureau=bureau)) == "invalid-field"
