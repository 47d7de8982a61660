"""A federation on a Kafka node of its own, for tests that need its commands there."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING

from broker import node
from broker.certificates import pki_of
from cli.stage import Stage, set_up
from tests.kafka_world import quick_nodes
from tests.trust.test_commands import BUREAUS, federation

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def served(home: Path) -> Iterator[Stage]:
    """Set it up in `home`; what is started in this process meanwhile is quick, too. The node ends with the block."""
    with quick_nodes():
        made = asyncio.run(set_up(home, federation(*BUREAUS), "kafka", BUREAUS, lambda _: None))
        try:
            yield made
        finally:
            folder = made.operator.folder
            node.stop(node.load(folder / "kafka", pki_of(folder)), limit=0)
