"""Every command that the README shows is one that there is, with these options and arguments."""

from __future__ import annotations

import re
import shlex
from copy import copy
from pathlib import Path

import click
import pytest

from cli.main import valise

README = Path(__file__).parent.parent.parent / "README.md"
SHOWN = [line for line in README.read_text(encoding="utf-8").splitlines() if line.startswith("valise ")]


def words_of(line: str) -> list[str]:
    """The words behind `valise`, without what is a remark, may be left out, or goes to a file."""
    command = re.sub(r"\s[#>|].*", "", line)
    return shlex.split(re.sub(r"\[[^]]*\]|…", "", command))[1:]


def found(words: list[str]) -> tuple[click.Context, click.Command, list[str]]:
    """Walk down to the command that is meant; the words that are left are its own."""
    context = click.Context(valise, info_name="valise")
    command: click.Command = valise
    while isinstance(command, click.Group):
        below = command.get_command(context, words[0])
        assert below is not None, f"no command {words[0]}"
        command, words = below, words[1:]
    return context, command, words


def test_the_readme_shows_commands() -> None:
    assert len(SHOWN) > 30


@pytest.mark.parametrize("line", SHOWN)
def test_a_command_of_the_readme_parses(line: str) -> None:
    context, command, words = found(words_of(line))
    # What must exist or be a number is not asked for here, only that click knows each word's place.
    command = copy(command)
    command.params = [copy(each) for each in command.params]
    for each in command.params:
        each.type, each.callback = click.STRING, None
    command.make_context(command.name, words, parent=context, resilient_parsing=False)
