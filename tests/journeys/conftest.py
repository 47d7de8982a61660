"""Homes of members whose broker runs beside the commands."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.journeys.member_homes import Homes, served


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Homes]:
    with served(tmp_path_factory.mktemp("homes")) as made:
        yield made
