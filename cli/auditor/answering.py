"""Answers for a witness over HTTP, C2SP tlog-witness: sizes and times are limited before anything is judged."""

from __future__ import annotations

import asyncio
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from broker.errors import UnavailableError
from broker.notes import NOTE_LIMIT
from broker.witness import AnotherSizeError, NotCosignedError, Witness

log = structlog.get_logger()
BODY_LIMIT = NOTE_LIMIT
BODY_S = 10.0
"""Seconds for a whole request body."""
AT_ONCE = 64
"""Connections at once; more are answered 503."""


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files of the server; `ca`, where it is given, signs whoever may ask."""

    certificate: Path
    key: Path
    ca: Path | None


def application(witness: Witness) -> Starlette:
    """Make the application: POST /add-checkpoint, GET /<hash of origin>/checkpoint."""

    async def add(request: Request) -> Response:
        try:
            async with asyncio.timeout(BODY_S):
                body = await _body(request)
        except TimeoutError:
            return PlainTextResponse("the request did not come in time\n", 408)
        except ClientDisconnect:
            return Response(status_code=400)
        if body is None:
            return PlainTextResponse(f"a request is at most {BODY_LIMIT} bytes\n", 413)
        return await asyncio.to_thread(_judged, witness, body)

    async def newest(request: Request) -> Response:
        note = await asyncio.to_thread(witness.newest, request.path_params["origin"])
        if note is None:
            return PlainTextResponse("no checkpoint of such a log was cosigned\n", 404)
        return PlainTextResponse(note)

    return Starlette(
        routes=[
            Route("/add-checkpoint", add, methods=["POST"]),
            Route("/{origin:str}/checkpoint", newest, methods=["GET"]),
        ]
    )


def _judged(witness: Witness, body: bytes) -> Response:
    try:
        return PlainTextResponse(witness.add(body))
    except AnotherSizeError as error:
        return Response(error.answer, error.status, headers={"Content-Type": "text/x.tlog.size"})
    except NotCosignedError as error:
        return PlainTextResponse(error.answer, error.status)
    except UnavailableError as error:
        log.warning("state.unavailable", code=error.code, said=str(error))  # a full disk is for whoever runs us to mend
        return PlainTextResponse(f"{error}\n", 503)


async def _body(request: Request) -> bytes | None:
    """Read a body; None as soon as it is known to be over the limit."""
    declared = request.headers.get("content-length", "0")
    if not declared.isdecimal() or int(declared[:19]) > BODY_LIMIT:
        return None
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > BODY_LIMIT:
            return None
    return bytes(body)


def listen(address: str) -> socket.socket:
    """Open HOST:PORT. Raises OSError, ValueError or OverflowError for something else."""
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    return socket.create_server((host, int(port)), family=socket.AF_INET6 if ":" in host else socket.AF_INET)


def server(witness: Witness, tls: Tls | None = None) -> uvicorn.Server:
    """Make the server; what is under way when it is stopped is ended first. Raises OSError for bad PEM files."""
    secured = {} if tls is None else {
        "ssl_certfile": str(tls.certificate),
        "ssl_keyfile": str(tls.key),
        "ssl_ca_certs": str(tls.ca) if tls.ca else None,
        "ssl_cert_reqs": ssl.CERT_REQUIRED if tls.ca else ssl.CERT_NONE,
    }  # fmt: skip
    config = uvicorn.Config(
        application(witness),
        http="h11",
        loop="asyncio",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=AT_ONCE,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=10,
        **secured,  # type: ignore[arg-type]  # each name has its own type
    )
    config.load()
    return uvicorn.Server(config)
