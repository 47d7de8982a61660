"""An outbox whose bureau's key changes while notices are on their way, before the real broker."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from adapters.compose import Maker
from adapters.outbox import Outbox
from broker import members
from broker.notice import Audience, Revocation
from tests import federation as world
from tests.federation import Federation
from tests.making import FEDERATION, NOW, key_of, statement
from tests.member.conftest import draft

WRITTEN = world.directory(extra_keys=(world.written_key("AT/ncb", 1),))
TO = Audience(everyone=False, to=("GE/ncb",))


def opened(folder: Path, generation: int) -> Outbox:
    """AT's outbox, with this key of AT/ncb."""
    directory = members.parse(members.canonical(WRITTEN))
    maker = Maker(directory, lambda bureau: key_of(bureau, generation), lambda: NOW, os.urandom)
    return Outbox(folder / "outbox.db", maker, "AT/ncb")


@pytest.mark.parametrize("written", [WRITTEN])
@pytest.mark.parametrize("end", ["correction", "withdrawal"])
async def test_what_builds_on_a_notice_under_a_revoked_key_finds_it_on_record(
    federation: Federation, tmp_path: Path, end: str
) -> None:
    """The first version went out under a key that was revoked before the broker took it in."""
    gone = Revocation(FEDERATION, "AT/organised-crime", key_of("AT/ncb").public.id, "stolen", NOW)
    await federation.append("notices.at", statement(gone, key_of("AT/organised-crime")))
    outbox = opened(tmp_path, 0)
    outbox.publish([draft(audience=TO, topics=("vehicles.stolen",))])
    await outbox.flush(federation.bus)
    outbox.close()
    outbox = opened(tmp_path, 1)
    if end == "correction":
        outbox.publish([draft(audience=TO, topics=("vehicles.stolen",), action_sought="arrest")])
    else:
        outbox.withdraw("R-1")
    await outbox.flush(federation.bus)
    outbox.close()
    told = await federation.outcomes("AT", 4)
    assert [each.code or each.kind for each in told] == ["revoked", "key-revoked", "routed", "routed"]
    first, second = await federation.inbox("GE/ncb", 2)
    ends = second.delivery.replaces if end == "correction" else second.delivery.erases
    assert ends == (first.delivery.delivery_number,)
