"""Starts the Kafka nodes of an operator's home, on other ports where another process came to have them first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from broker import node
from broker.certificates import pki_of
from cli.operator_home import name_all


def start(folder: Path, size: int, say: Callable[[str], None]) -> tuple[node.Cluster, list[int]]:
    """Start those that do not run yet, and name them in the home's settings; give their numbers.

    `folder` is HOME/operator. Raises PortHeldError where the ports are taken again and again, or members know them.
    """
    for last in (False, False, True):
        cluster = node.prepare(folder / "kafka", pki_of(folder), nodes=size)
        name_all(folder, cluster)
        try:
            return cluster, node.start(cluster, progress=say)
        except node.PortHeldError:
            if last or node.has_data(cluster):  # members know it by these
                raise
    raise AssertionError
