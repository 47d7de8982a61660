"""A federation on a Kafka of its own, for whoever needs its commands there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from cli.stage import Stage, set_up, stop_kafka
from tests.trust.test_commands import BUREAUS, federation


@pytest_asyncio.fixture
async def on_kafka(tmp_path: Path) -> AsyncIterator[Stage]:
    made = await set_up(tmp_path / "home", federation(*BUREAUS), "kafka", BUREAUS, lambda _: None)
    yield made
    stop_kafka(made)
