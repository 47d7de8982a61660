"""`valise audit witness`: what a member runs so that the operator cannot show two logs."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import click

from broker import cosignature, crash, durable, notes
from broker.errors import ConfigurationError, ProofError
from broker.notes import Vkey
from broker.signing import SigningKey
from broker.witness import Identity, Witness
from cli import answer, jsonlog, passphrases
from cli.home import clock
from cli.options import Everywhere, everywhere

SERVING = "valise audit witness --origin VKEY --key {file} --state FILE --listen HOST:PORT"


@click.command()
@click.option("--new-key", nargs=2, type=(str, click.Path(path_type=Path)), metavar="NAME FILE", help="Make a key.")
@click.option("--origin", "origins", multiple=True, help="Verifier key of a log to witness, or the file with it.")
@click.option("--key", "key_file", type=click.Path(path_type=Path), help="The witness's key file.")
@click.option("--state", type=click.Path(path_type=Path), help="What was seen last, durable. Never restore an old one.")
@click.option("--listen", "address", help="HOST:PORT to answer on.")
@click.option("--tls", nargs=2, type=click.Path(path_type=Path), metavar="CERTIFICATE KEY", help="Answer over https.")
@click.option("--tls-ca", type=click.Path(path_type=Path), help="Answer only those whose certificate this CA signed.")
@everywhere
def witness(
    given: Everywhere,
    new_key: tuple[str, Path] | None,
    origins: tuple[str, ...],
    key_file: Path | None,
    state: Path | None,
    address: str | None,
    tls: tuple[Path, Path] | None,
    tls_ca: Path | None,
) -> None:
    """Cosign each checkpoint of a log that extends the last one seen, and none other (C2SP tlog-witness).

    --new-key NAME FILE makes the key and prints its verifier key, which the operator puts into its settings and an
    auditor gives to `valise audit verify --witness`. NAME is a URL without its scheme: witness.example/at.
    """
    if new_key:
        _make_key(given, *new_key)
        return
    if not (origins and key_file and state and address):
        message = "name --origin, --key, --state and --listen; or make a key with --new-key NAME FILE"
        raise click.UsageError(message)
    if tls_ca and not tls:
        message = "--tls-ca needs --tls"
        raise click.UsageError(message)
    _serve(
        given, Witness(state, identity(key_file), [log_key(each) for each in origins], clock), address, (tls, tls_ca)
    )


def _make_key(given: Everywhere, name: str, file: Path) -> None:
    public = file.with_name(f"{file.name}.vkey")
    cosignature.cosigner(name, SigningKey.new().public.raw)  # refuses a name before anything is made
    durable.remove_left(file)
    if public.exists():
        message = f"{public} is there already: name another file"
        raise ConfigurationError(message)
    if file.exists():  # a kill came before its .vkey
        key = SigningKey.load(file, passphrases.for_old())
        answer.aside(f"{file} lay there without its verifier key, which was made now")
    else:
        key = SigningKey.new()
        key.save(file, passphrases.for_new(None, ask=False))
    vkey = str(cosignature.cosigner(name, key.public.raw))
    durable.put(public, f"{vkey}\n".encode())
    value = {"name": name, "vkey": vkey, "key": str(file), "public": str(public)}
    answer.show(vkey, value, as_json=given.as_json, then=SERVING.format(file=shlex.quote(str(file))))


def identity(file: Path) -> Identity:
    """Read a witness's key and, from the .vkey beside it, its name. Raises ConfigurationError."""
    key, public = SigningKey.load(file, passphrases.for_old()), file.with_name(f"{file.name}.vkey")
    try:
        known = cosignature.parse_cosigner(public.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ProofError) as error:
        message = f"{public} does not name the witness ({error}): make the key with --new-key NAME FILE"
        raise ConfigurationError(message) from error
    if known.public.raw != key.public.raw:
        message = f"{public} is not the public part of {file}"
        raise ConfigurationError(message)
    return Identity(known.name, key)


def log_key(text: str) -> Vkey:
    """Read a log's verifier key, or the file that holds it. Raises ConfigurationError."""
    try:
        return notes.parse_vkey(written(text))
    except ProofError as error:
        raise ConfigurationError(f"{text} is no log's verifier key: {error}") from error


def written(text: str) -> str:
    """Give a verifier key that was given itself, or as the file that holds it. Raises ConfigurationError."""
    file = Path(text)
    try:
        return file.read_text(encoding="utf-8").strip() if len(text) < 4096 and file.is_file() else text
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{text} cannot be read: {error}") from error


def _serve(
    given: Everywhere, judge: Witness, address: str, secured: tuple[tuple[Path, Path] | None, Path | None]
) -> None:
    from cli.auditor import answering  # noqa: PLC0415 -- the web framework is slow to import

    jsonlog.to_stderr()
    if point := os.environ.get("VALISE_CRASH_AT"):
        crash.arm(point)
    with closing(judge):
        try:
            opened = answering.listen(address)
        except (OSError, ValueError, OverflowError) as error:
            raise ConfigurationError(f"cannot listen on {address}: {error}; --listen is HOST:PORT") from error
        files, ca = secured
        with opened:
            try:
                server = answering.server(judge, answering.Tls(*files, ca) if files else None)
            except OSError as error:
                raise ConfigurationError(f"--tls, --tls-ca: no certificate and key in PEM form: {error}") from error
            host, port = opened.getsockname()[:2]
            _say_ready(given, judge, f"{host}:{port}")
            server.run(sockets=[opened])


def _say_ready(given: Everywhere, judge: Witness, address: str) -> None:
    name, origins = judge.identity.name, judge.origins
    if given.as_json:
        value = {"ready": True, "witness": name, "listen": address, "checkpoints": _paths(origins)}
        answer.say(answer.in_json(value))
    else:
        answer.say(f"{name} witnesses {', '.join(origins)} on {address}; Ctrl-C stops it")
        for path in _paths(origins):
            answer.say(f"  what it cosigned last: GET {path}")
    sys.stdout.flush()


def _paths(origins: Sequence[str]) -> list[str]:
    return [f"/{sha256(each.encode()).hexdigest()}/checkpoint" for each in origins]
