"""What a real broker leaves behind is a trail that the auditor finds good, and tells the story of."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any
from uuid import UUID

from click.testing import CliRunner

from broker import codec, notes, streams
from broker.notice import Header
from cli.audit import audit
from tests.federation import Federation
from tests.making import Draft, receipt, reference


async def examined(*arguments: str) -> Any:
    """Run `valise audit` beside the broker that goes on working."""
    result = await asyncio.to_thread(CliRunner().invoke, audit, [*arguments, "--json"])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return json.loads(result.stdout)


async def operators_home(federation: Federation) -> str:
    """The home whose operator's folder is this world's."""
    (federation.folder / "log.key").touch()
    return str(federation.folder)


async def test_the_trail_of_every_kind_of_leaf_is_good_and_its_story_whole(
    federation: Federation, tmp_path: Path
) -> None:
    home = await operators_home(federation)
    first = Draft("AT/ncb").to("GE/ncb").but(record="r-1").envelope()
    await federation.publish(first)
    await federation.publish(first)
    (got,) = await federation.inbox("GE/ncb", 1)
    await federation.append(streams.notices("LV"), b"garbage")
    leaf_number, digest = got.delivery.leaf_number, got.leaf.header_digest
    assert digest is not None
    read = receipt("GE/ncb", leaf_number, digest, "AT", "read")
    await federation.append(streams.receipts("GE"), read)
    await federation.outcomes("AT", 3)
    withdrawal = Draft("AT/ncb", kind="withdrawal", parts=("reason",)).numbered(2).to("GE/ncb")
    await federation.publish(
        withdrawal.but(record="r-1", version=2, references=(reference(first, "withdraws"),)).envelope()
    )
    await federation.inbox("GE/ncb", 2)
    await federation.settled()

    seen = tmp_path / "checkpoint-kept"
    (record,) = await federation.bus.read(streams.CHECKPOINTS, 0, limit=1)
    seen.write_text(notes.parse_advance(record.value or b"").checkpoint, encoding="utf-8")
    report = await examined("verify", str(federation.trail), "--seen", str(seen))
    assert report["findings"] == []
    assert report["compared"]["heads"] == 1
    kinds = {each.kind for each in await federation.leaves()}
    assert kinds >= {"resumed", "adopted", "routed", "repeated", "rejected", "receipt"}

    notice_id = UUID(bytes=codec.decode(Header, first.header).notice_id)
    story = await examined("show", str(notice_id), "--home", home)
    assert [each["kind"] for each in story] == ["routed", "repeated", "receipt", "routed"]
    assert [each["bureau"] for each in story[0]["recipients"]] == ["GE/ncb"]
    assert story[2]["receipt"]["act"] == "read"
    assert story[3]["notice_kind"] == "withdrawal"
    assert all(each["decision_holds"] for each in story)
