"""The bus is tested on the event loop that `valise` runs on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import uvloop

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], uvloop.Loop]]:
    """Give pytest-asyncio the loop of cli/main.py."""
    return {"uvloop": uvloop.new_event_loop}
