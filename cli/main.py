"""The `valise` command: finds the sub-command and turns failures into exit codes."""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import sys
from pathlib import Path

import click
import uvloop

from broker.errors import ValiseError
from cli import answer, exits, refused
from cli.options import Everywhere, default_home, is_named

COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("cli.demo:demo", "The whole way, on invented data."),
    "publish": ("cli.publish:publish", "Publish notices from a file, or try it (--dry-run)."),
    "correct": ("cli.publish:correct", "Publish a corrected version of a record."),
    "withdraw": ("cli.publish:withdraw", "Withdraw a record from everyone who holds it."),
    "inbox": ("cli.inbox:inbox", "List what has been delivered to a bureau."),
    "read": ("cli.inbox:read", "Open one notice for a case."),
    "cases": ("cli.cases:cases", "List for which cases a bureau opened what, for its auditor."),
    "review": ("cli.review:review", "Release or refuse notices that are held for review."),
    "trace": ("cli.trace:trace", "Tell what became of a notice of ours."),
    "subscribe": ("cli.subscribe:subscribe", "Say which topics a bureau wants, or list them."),
    "agreement": ("cli.agreement:agreement", "List agreements, and draft what changes them."),
    "directory": ("cli.directory:directory", "Draft, show, sign and activate what members decide together."),
    "member": ("cli.members:member", "List members and bureaus, and draft who enters or is suspended."),
    "key": ("cli.keys:key", "Make, take over from, list and revoke signing keys."),
    "certificate": (
        "cli.certificate:certificate",
        "Members' certificates for Kafka: ask, sign, take home, list, stop.",
    ),
    "schema": ("cli.schema:schema", "List, show and check schemas."),
    "adapter": ("cli.adapter:adapter", "Run a national system's adapter."),
    "policy": ("cli.policy:policy", "Read, check, explain, compare and activate policies."),
    "audit": ("cli.audit:audit", "Verify the trail and tell a notice's story from it."),
    "broker": ("cli.broker:broker", "Make, start and look at the operator's broker."),
    "kafka": ("cli.kafka:kafka", "Run Apache Kafka on this machine."),
    "real": ("cli.real:real", ""),
}
"""Name → (module and object, one line of help): modules are loaded when their command is called, not before.
A command without a help line is hidden."""


class Lazy(click.Group):
    """A group whose commands are imported only when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 -- click's signature
        """Name the commands that are installed."""
        return [name for name in COMMANDS if _is_there(name)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in self.list_commands(ctx):
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        found: click.Command = getattr(importlib.import_module(module), name)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in self.list_commands(ctx) if COMMANDS[name][1]])


def _is_there(name: str) -> bool:
    module = COMMANDS[name][0].partition(":")[0].removeprefix("cli.")
    folder = Path(__file__).parent
    return (folder / f"{module}.py").is_file() or (folder / module).is_dir()


@click.group(cls=Lazy)
@click.option("--home", type=click.Path(path_type=Path), help="Folder of the homes (or VALISE_HOME).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON value (one a line where it streams).")
@click.option("--yes", is_flag=True, help="Ask nothing.")
@click.version_option(package_name="valise")
@click.pass_context
def valise(context: click.Context, home: Path | None, as_json: bool, yes: bool) -> None:
    """Valise: the diplomatic bag for data. Signed notices between member states, with proof of every step."""
    context.obj = Everywhere(home or default_home(), as_json, yes, is_named(home))


def main(arguments: list[str] | None = None) -> None:
    """Run the command and exit."""
    stdout = sys.stdout
    as_json = "--json" in (sys.argv[1:] if arguments is None else arguments)
    if arguments is None:  # the process is ours
        os.umask(0o077)  # whatever a home gets is for its account alone; Kafka's nodes and our children keep to it, too
        # What the bus costs, it costs in the loop.
        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    logging.getLogger().addHandler(logging.NullHandler())  # what libraries cannot do comes as an error of ours
    try:
        with refused.here():
            code = valise.main(arguments, standalone_mode=False)
        sys.exit(code or exits.DONE)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except SystemExit as error:
        # Of click, which has put another in the place of a stdout that nobody reads any more (--help): nothing failed.
        sys.exit(error.code if sys.stdout is stdout else exits.UNREAD)
    except click.ClickException as error:
        if as_json:
            answer.aside(answer.in_json({"error": "usage", "detail": error.format_message()}))
        else:
            error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        if as_json:
            answer.aside(answer.in_json({"error": "interrupted", "detail": "interrupted, or not confirmed: see --yes"}))
        sys.exit(130)
    except ValiseError as error:
        sys.exit(fail(error, as_json=as_json))


def fail(error: ValiseError, *, as_json: bool) -> int:
    """Tell a failure on stderr and give its exit code."""
    if as_json:
        answer.aside(answer.in_json({"error": error.code, "detail": str(error)}))
    else:
        answer.aside(f"{error.code}: {error}")
    return exits.of(error)


if __name__ == "__main__":
    main()
