"""`valise audit enrol`: make a key that signs looks at clear data."""

from __future__ import annotations

import json

import click

from cli import answer
from cli.auditor import enrolled
from cli.operator_home import operator_home
from cli.options import Everywhere, everywhere


@click.command()
@click.argument("name")
@everywhere
def enrol(given: Everywhere, name: str) -> None:
    """Make the key of auditor NAME, a pseudonym, and the request with which the directory takes it in.

    The key signs looks at clear data and nothing else: every such look is a leaf of the trail.
    """
    home = operator_home(given.home)
    folder = home.folder / "auditors"
    path, request = enrolled.make_key(folder, name, home.settings.federation)
    answer.show(
        f"made the key of auditor {name} in {path}",
        {"key": str(path), "request": str(request), **json.loads(request.read_text(encoding="utf-8"))},
        as_json=given.as_json,
        then=given.again("valise directory draft"),
    )
