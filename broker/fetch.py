"""One HTTP request to somebody who may be dead, slow or hostile: time and size of the answer have limits.

HTTP/1.1 over asyncio, one connection a request; redirects are not followed.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

import h11

from broker.errors import ConfigurationError, UnavailableError

ANSWER_S = 10.0
"""Seconds for the whole exchange, name look-up included."""
ANSWER_LIMIT = 64 * 1024
"""Bytes of an answer's body."""
HEAD_LIMIT = 16 * 1024
_PLAIN = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and body."""

    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Place:
    """Where to ask: a URL's parts; `path` ends in no slash. `tls` None: plain HTTP."""

    host: str
    port: int
    path: str
    tls: ssl.SSLContext | None

    @classmethod
    def of(cls, url: str, tls: ssl.SSLContext | None = None) -> Place:
        """Take a URL apart. Raises ConfigurationError."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ConfigurationError(f"{url} is no URL: {error}") from error
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or not _PLAIN.fullmatch(url):
            raise ConfigurationError(f"{url} is no http:// or https:// URL")
        if parts.scheme == "http":
            return cls(parts.hostname, port or 80, parts.path.rstrip("/"), None)
        return cls(parts.hostname, port or 443, parts.path.rstrip("/"), tls or ssl.create_default_context())


async def ask(place: Place, path: str, body: bytes | None = None, *, limit_s: float = ANSWER_S) -> Answer:
    """GET, or POST a body. Raises UnavailableError for everything that is no whole answer within the limits."""
    try:
        async with asyncio.timeout(limit_s):
            reader, writer = await asyncio.open_connection(
                place.host, place.port, ssl=place.tls, server_hostname=place.host if place.tls else None
            )
            try:
                return await _exchange(place, path, body, reader, writer)
            finally:
                writer.transport.abort()  # whoever does not close shall not keep us
    except TimeoutError as error:
        message = f"no answer within {limit_s:g} s"
        raise UnavailableError(message) from error
    except (OSError, h11.RemoteProtocolError, UnicodeError) as error:
        raise UnavailableError(str(error) or type(error).__name__) from error


async def _exchange(
    place: Place, path: str, body: bytes | None, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> Answer:
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_LIMIT)
    host = f"[{place.host}]" if ":" in place.host else place.host
    headers = [("Host", f"{host}:{place.port}"), ("Connection", "close")]
    if body is not None:
        headers.append(("Content-Length", str(len(body))))
    for event in (
        h11.Request(method="GET" if body is None else "POST", target=place.path + path, headers=headers),
        h11.Data(data=body or b""),
        h11.EndOfMessage(),
    ):
        writer.write(connection.send(event) or b"")
    await writer.drain()
    return await _answer(connection, reader)


async def _answer(connection: h11.Connection, reader: asyncio.StreamReader) -> Answer:
    status, body = 0, bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(HEAD_LIMIT))
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > ANSWER_LIMIT:
                message = f"an answer over the limit of {ANSWER_LIMIT} bytes"
                raise UnavailableError(message)
        elif isinstance(event, h11.EndOfMessage):
            return Answer(status, bytes(body))
        elif not isinstance(event, h11.InformationalResponse):
            message = "the connection was closed without an answer"
            raise UnavailableError(message)
