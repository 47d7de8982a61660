"""Addresses of nodes: which ports are free, what a listener may be bound to, what others can connect to."""

from __future__ import annotations

import ipaddress
import random
import re
import socket
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

from broker.errors import ConfigurationError

PORT_RANGE = (20_000, 32_000)
"""Below the range from which outgoing connections take theirs: a node that is down must find its port free again."""
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")


def free_ports(host: str, count: int) -> list[int]:
    """Draw so many ports that no process holds or claims now. Raises ConfigurationError."""
    taken: list[int] = []
    for port in random.SystemRandom().sample(range(*PORT_RANGE), PORT_RANGE[1] - PORT_RANGE[0]):
        if is_free(host, port) and not is_claimed(port):
            taken.append(port)
        if len(taken) == count:
            return taken
    raise ConfigurationError(f"{host} has no {count} free ports between {PORT_RANGE[0]} and {PORT_RANGE[1]}")


def is_free(host: str, port: int) -> bool:
    """Say whether a listener may have this address, which may be another machine's; of port 0: whether it is ours."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            # As Kafka does: what lingers of a node that was killed does not count.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError:
        return False
    return True


@contextmanager
def claimed(ports: Iterable[int]) -> Iterator[list[int]]:
    """Claim ports before other processes of ours on this machine; give those that another claims already.

    A node binds its own only seconds after it was started: two homes that drew the same port would both have found it
    free. The kernel ends a claim with its process.
    """
    with ExitStack() as stack:
        claims = {port: stack.enter_context(socket.socket(socket.AF_UNIX)) for port in ports}
        yield [port for port, claim in claims.items() if not _claim(claim, port)]


def is_claimed(port: int) -> bool:
    """Say whether a process claims a port at this moment."""
    with claimed([port]) as others:
        return bool(others)


def _claim(claim: socket.socket, port: int) -> bool:
    try:
        claim.bind(f"\0valise-port-{port}")  # no file: any account of the machine sees it
    except OSError:
        return False
    return True


def check_reach(advertised: str, listen: str = "") -> None:
    """Check that clients could reach nodes so. Raises ConfigurationError."""
    if not _is_host(advertised):
        message = f"{advertised!r} is no name or address that members could connect to, as bus.example or 192.0.2.1 are"
        raise ConfigurationError(message)
    if not is_free(listen or advertised, 0):
        message = f"{listen or advertised} is no address of this machine: --listen names one, or 0.0.0.0 for all"
        raise ConfigurationError(message)


def _is_host(text: str) -> bool:
    """Say whether one host has this address, spelled as certificates do, or this name."""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return _NAME.fullmatch(text) is not None
    return str(found) == text and not found.is_unspecified


def in_address(host: str) -> str:
    """Write a host as it stands before a port."""
    return f"[{host}]" if ":" in host else host
