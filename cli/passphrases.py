"""Where passphrases and PINs come from: a file, or whoever sits at the terminal; never the command line."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import click

from broker.errors import ConfigurationError
from broker.signing import Passphrase, check_private

VARIABLE = "VALISE_PASSPHRASE_FILE"
PIN_VARIABLE = "VALISE_PIN_FILE"
passphrase_file = click.option(
    "--passphrase-file",
    type=click.Path(path_type=Path),
    help=f"File whose content, but for a line break at its end, opens the key file. Default: {VARIABLE}.",
)
prompted = click.option("--passphrase", "ask", is_flag=True, help="Ask for a passphrase and encrypt the key file.")
asked = click.option("--passphrase", "ask", is_flag=True, help=f"Ask for the passphrase, whatever {VARIABLE} names.")


def from_file(path: Path) -> bytes:
    """Read a secret; a line break at its end is not part of it. Raises ConfigurationError."""
    check_private(path)
    secret = path.read_bytes().rstrip(b"\r\n")
    if not secret:
        message = f"{path} is empty"
        raise ConfigurationError(message)
    return secret


def for_new(file: Path | None, *, ask: bool) -> bytes | None:
    """Give the passphrase under which a new key file is to be encrypted; None: it is not."""
    _check_one(file, ask=ask)
    if ask:
        return str(click.prompt("passphrase", hide_input=True, confirmation_prompt=True, err=True)).encode()
    named = file or _named(VARIABLE)
    return from_file(named) if named else None


def for_old(file: Path | None = None, *, ask: bool = False) -> Passphrase:
    """Give who answers when a key file turns out to be encrypted; with `ask`, only who sits at the terminal."""
    _check_one(file, ask=ask)
    return lambda path: _answer(None if ask else file or _named(VARIABLE), f"passphrase of {path}", VARIABLE)


def pin(file: Path | None) -> Callable[[str], str]:
    """Give who answers when a token, by its label, asks for its PIN."""
    return lambda token: _answer(file or _named(PIN_VARIABLE), f"PIN of the token {token}", PIN_VARIABLE).decode()


def _check_one(file: Path | None, *, ask: bool) -> None:
    if ask and file:
        message = "--passphrase asks for one, --passphrase-file names one: give one of them"
        raise click.UsageError(message)


def _named(variable: str) -> Path | None:
    named = os.environ.get(variable)
    return Path(named) if named else None


def _answer(file: Path | None, what: str, variable: str) -> bytes:
    if file:
        return from_file(file)
    if sys.stdin.isatty():
        return str(click.prompt(what, hide_input=True, err=True)).encode()
    message = f"the {what} is needed: name the file that holds it in {variable}"
    raise ConfigurationError(message)
