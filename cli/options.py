"""The options that every command takes: --home, --json, --yes."""

from __future__ import annotations

import functools
import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from cli import answer

DEFAULT_HOME = "home"
VARIABLE = "VALISE_HOME"
SENTENCE = 300
"""characters of a sentence in a list of commands, at most"""


@dataclass(frozen=True, slots=True)
class Everywhere:
    """What was given for this command, or before it."""

    home: Path
    as_json: bool
    yes: bool
    named: bool = False
    """Whether the home was named, by --home or VALISE_HOME; it is the default one otherwise."""

    def again(self, command: str) -> str:
        """Complete a command that is to be tried next, so that it means the same home."""
        return command if self.home == default_home() else f"{command} --home {shlex.quote(str(self.home))}"


class Group(click.Group):
    """A group that lists each of its commands by a whole sentence."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands; click would cut what they say at the end of a line."""
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(name, each.get_short_help_str(SENTENCE)) for name, each in found if each])


def everywhere(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options; it gets them as its first argument, an `Everywhere`."""

    @click.option("--home", type=click.Path(path_type=Path), help="Folder of the homes, or one party's home.")
    @click.option("--json", "as_json", is_flag=True, help="Print one JSON value (one a line where it streams).")
    @click.option("--yes", is_flag=True, help="Ask nothing.")
    @click.pass_context
    @functools.wraps(command)
    def with_options(
        context: click.Context, /, *args: Any, home: Path | None, as_json: bool, yes: bool, **more: Any
    ) -> Any:
        before = context.find_object(Everywhere)
        given = Everywhere(
            home or (before.home if before else default_home()),
            as_json or bool(before and before.as_json),
            yes or bool(before and before.yes),
            is_named(home) or bool(before and before.named),
        )
        return command(given, *args, **more)

    return with_options


def is_named(home: Path | None) -> bool:
    """Say whether somebody named a home: this option, or VALISE_HOME."""
    return home is not None or VARIABLE in os.environ


def confirm(question: str) -> None:
    """Ask before something that cannot be undone. Raises click.Abort unless the answer is yes."""
    try:
        click.confirm(answer.safe(question), abort=True, err=True)
    except click.Abort:
        answer.aside("nothing was done; --yes answers without asking")
        raise


def default_home() -> Path:
    """Give the home that is meant where none is named."""
    return Path(os.environ.get(VARIABLE, DEFAULT_HOME))


bureau = click.option("--bureau", help="The bureau to act for, as AT/ncb.")
