"""Starts the Kafka nodes of an operator's home, on other ports where another process came to have them first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from broker import node
from broker.certificates import pki_of
from cli.operator_home import name_all

DRAWS = 3
"""How often ports are drawn: between drawing and binding them another process may come to have one."""


def start(folder: Path, size: int, say: Callable[[str], None], draws: int = DRAWS) -> tuple[node.Cluster, list[int]]:
    """Start those that do not run yet, and name them in the home's settings; give their numbers.

    `folder` is HOME/operator. Raises PortHeldError where the ports are taken again and again, or members know them.
    """
    cluster = node.prepare(folder / "kafka", pki_of(folder), nodes=size)
    name_all(folder, cluster)
    try:
        return cluster, node.start(cluster, progress=say)
    except node.PortHeldError:
        if draws <= 1 or node.has_data(cluster):  # members know it by these
            raise
    return start(folder, size, say, draws - 1)  # `prepare` draws others
