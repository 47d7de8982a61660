"""A federation on a Kafka of its own, for whoever needs its commands there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.stage import Stage
from tests.trust.on_node import served


@pytest.fixture
def on_kafka(tmp_path: Path) -> Iterator[Stage]:
    with served(tmp_path / "home") as made:
        yield made
