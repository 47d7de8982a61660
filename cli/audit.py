"""`valise audit`: what an auditor runs; each command has its file in `cli/auditor`."""

from __future__ import annotations

import click

from cli.auditor.enrol import enrol
from cli.auditor.export import export
from cli.auditor.prove import prove
from cli.auditor.reads import reads
from cli.auditor.search import search
from cli.auditor.show import show
from cli.auditor.verify import verify
from cli.auditor.witness import witness
from cli.options import Group


@click.group(cls=Group)
def audit() -> None:
    """Check what the broker did, with public keys only."""


audit.add_command(verify)
audit.add_command(show)
audit.add_command(enrol)
audit.add_command(prove)
audit.add_command(export)
audit.add_command(search)
audit.add_command(reads)
audit.add_command(witness)
