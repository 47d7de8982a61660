"""A revocation whose leaf comes after its command has ended."""

from __future__ import annotations

from pathlib import Path

from cli.stage import running, settled
from tests.trust.test_commands import made, valise


async def test_a_home_signs_no_more_with_a_key_whose_revocation_comes_late(tmp_path: Path) -> None:
    stage = await made(tmp_path)
    (key,) = (await valise(stage.home, "key", "list", "--bureau", "LV/ncb", "--json")).value
    words = ("key", "revoke", key["key_id"], "--bureau", "LV/ncb", "--yes", "--wait", "0")
    early = await valise(stage.home, *words)
    assert (early.code, "not on record yet" in early.out) == (8, True)
    async with running(stage):
        await settled(stage)
        assert (await valise(stage.home, "key", "revoked", "--bureau", "LV/ncb")).code == 0
    (key,) = (await valise(stage.home, "key", "list", "--bureau", "LV/ncb", "--json")).value
    assert key["state"] == "revoked"
