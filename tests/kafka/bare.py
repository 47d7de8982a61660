"""A Kafka client of one request: a Fetch by name over TLS that asks for no metadata first.

A stock client asks for metadata, is not shown the topic, and never sends its Fetch; what a hostile one would be told is
seen only so (https://kafka.apache.org/protocol, Fetch version 4).
"""

from __future__ import annotations

import socket
import ssl
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.certificates import Credentials

LIMIT_S = 60.0
FETCH, FETCH_VERSION = 1, 4


def client_context(ca: str, who: Credentials | None) -> ssl.SSLContext:
    """Trust `ca` alone, and show `who`'s certificate, or none."""
    context = ssl.create_default_context(cafile=ca)
    if who is not None:
        context.load_cert_chain(who.chain, who.key)
    return context


def fetch(address: str, context: ssl.SSLContext, topics: Sequence[str]) -> dict[str, tuple[int, bytes]]:
    """Fetch partition 0 of each topic from its start: (Kafka's error code, record bytes) by topic.

    Raises OSError (ssl.SSLError where an alert came) if the node ends the connection.
    """
    host, _, port = address.partition(":")
    with (
        socket.create_connection((host, int(port)), timeout=LIMIT_S) as raw,
        context.wrap_socket(raw, server_hostname=host) as tls,
    ):
        tls.sendall(_request(topics))
        size = struct.unpack(">i", _read(tls, 4))[0]
        return _answer(_read(tls, size))


def _request(topics: Sequence[str]) -> bytes:
    header = struct.pack(">hhih4s", FETCH, FETCH_VERSION, 7, 4, b"bare")
    body = struct.pack(">iiiibi", -1, 0, 0, 1 << 20, 0, len(topics))
    for topic in topics:
        name = topic.encode()
        body += struct.pack(f">h{len(name)}siiqi", len(name), name, 1, 0, 0, 1 << 16)
    return struct.pack(">i", len(header) + len(body)) + header + body


def _read(tls: ssl.SSLSocket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = tls.recv(size - len(data))
        if not more:
            raise ConnectionResetError("the node ended the connection")
        data += more
    return data


def _answer(data: bytes) -> dict[str, tuple[int, bytes]]:
    found: dict[str, tuple[int, bytes]] = {}
    place = 12
    for _ in range(struct.unpack_from(">i", data, 8)[0]):
        (length,) = struct.unpack_from(">h", data, place)
        name = data[place + 2 : place + 2 + length].decode()
        place += 2 + length
        _, _, error, _, _, aborted = struct.unpack_from(">iihqqi", data, place)
        place += 30 + 16 * max(aborted, 0)
        (size,) = struct.unpack_from(">i", data, place)
        found[name] = error, data[place + 4 : place + 4 + max(size, 0)]
        place += 4 + max(size, 0)
    return found
