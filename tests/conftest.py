"""How Hypothesis finds its cases; the order of the files where several processes share them (`make test`)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    import pytest

FIRST = (
    "journeys/test_key_life.py",
    "journeys/test_demo_kafka.py",
    "faults/test_broker_killed.py",
    "model/test_lives.py",
    "trust/test_commands.py",
    "faults/test_new_log.py",
    "faults/test_owners.py",
    "trust/test_invitations.py",
    "faults/test_damaged_versions.py",
    "trust/test_certificate_commands.py",
    "faults/test_restored.py",
    "faults/test_kafka_nodes.py",
    "model/test_whole.py",
    "faults/test_members_killed.py",
    "contract/test_bus.py",
    "erasure/test_backup.py",
    "journeys/test_demo.py",
    "journeys/test_try_out.py",
    "kafka/test_node.py",
)
"""What takes longest, the longest first: begun last, it would leave one process with nothing to do."""
_RANK = {Path(__file__).parent / name: rank for rank, name in enumerate(FIRST)}

# The same cases in every run, on a machine however slow: no test fails by chance. `--hypothesis-profile default` tries
# others.
settings.register_profile("same", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("same")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put FIRST in front; all else stays as it was found."""
    items.sort(key=lambda each: _RANK.get(each.path, len(FIRST)))
