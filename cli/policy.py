"""`valise policy`: read, check, explain, compare and activate policies."""

from __future__ import annotations

import click

from cli.directory import show, sign
from cli.officer.activating import activate
from cli.officer.checking import check
from cli.officer.comparing import compare
from cli.officer.explaining import explain
from cli.officer.listing import list_rules
from cli.options import Group


@click.group(cls=Group)
def policy() -> None:
    """Read, check, explain, compare and activate policies."""


for command in (list_rules, check, explain, compare, activate, show, sign):
    policy.add_command(command)
