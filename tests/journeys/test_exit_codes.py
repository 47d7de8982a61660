"""What a command says of itself besides its answer: its exit code, which home it meant, what to type next."""

from __future__ import annotations

import asyncio
import json
import shlex
import shutil
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import policies
from broker import streams
from broker.sqlite import SqliteBus
from cli import main
from cli.home import clock
from cli.options import Everywhere, everywhere
from tests import federation as world
from tests.journeys.member_homes import Homes, make, notices, person


def test_what_is_not_decided_does_not_hold_or_may_be_stale_is_not_called_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path)
    homes = Homes(tmp_path)
    sent = homes.valise("publish", "-", "--bureau", "AT/ncb", "--json", "--wait", "0.1", given=person("R-1"))
    told = homes.valise("publish", "-", "--bureau", "AT/ncb", "--wait", "0", given=person("R-0")).out.splitlines()
    assert told[0].startswith("sent; nothing is decided yet, the broker may be behind or not running"), told
    assert told[-1].startswith("valise trace ")
    trace = ("trace", "R-1", "--bureau", "AT/ncb", "--json")
    assert (sent.code, notices(sent)[0]["state"], homes.valise(*trace).code) == (8, "sent", 8)

    async def forge() -> None:
        async with SqliteBus(tmp_path / "bus.db", "router", world.world(), clock) as bus:
            await bus.append(streams.inbox("LV/ncb"), [(b"", b"no delivery")])

    asyncio.run(forge())
    inbox = ("inbox", "--bureau", "LV/ncb", "--json")
    found = homes.valise(*inbox)
    assert (found.code, found.value["refused"], found.value["stale"]) == (4, 1, False)
    assert "1 delivery does not hold" in capsys.readouterr().err
    assert homes.valise(*inbox).code == 0

    listings = (
        ("review", "list"),
        ("key", "revoked"),
        ("member", "list"),
        ("member", "show", "AT"),
        ("agreement", "list"),
    )
    shown = [(*each, *inbox[1:]) for each in listings]
    assert [homes.valise(*each).code for each in shown] == [0] * len(shown)
    for each in tmp_path.glob("bus.db*"):
        each.unlink()
    for command_line in (trace, inbox, *shown):
        found = homes.valise(*command_line)
        assert (found.code, found.value["stale"]) == (5, True), command_line
    capsys.readouterr()
    keys = homes.valise("key", "list", "--bureau", "LV/ncb", "--json")
    assert (keys.code, keys.value[0]["bureau"]) == (5, "LV/ncb")
    assert json.loads(capsys.readouterr().err.splitlines()[-1]) == {"stale": True, "called_lost": 0}
    tried = ("publish", "-", "--dry-run", "--bureau", "LV/ncb", "--json")
    assert homes.valise(*tried, given=person("R-2")).code == 5


def test_a_home_that_was_named_is_meant_wherever_it_was_named_and_is_printed_for_a_shell() -> None:
    @click.group()
    @everywhere
    @click.pass_context
    def group(context: click.Context, given: Everywhere) -> None:
        context.obj = given

    @group.command()
    @everywhere
    def told(given: Everywhere) -> None:
        click.echo(f"{given.named} {given.again('valise inbox')}")

    def said(*words: str, **environment: str) -> str:
        return CliRunner().invoke(group, words, env={"VALISE_HOME": None, **environment}).output.strip()

    assert said("told") == "False valise inbox"
    assert said("--home", "a b", "told") == said("told", "--home", "a b") == "True valise inbox --home 'a b'"
    assert said("told", VALISE_HOME="a b") == "True valise inbox"


def test_a_printed_command_can_be_typed_as_it_stands_whatever_a_folder_is_called(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home, keys, to = tmp_path / "a home", tmp_path / "the keys", tmp_path / "b $(x)" / "today"
    to.parent.mkdir()

    def said(*words: str) -> str:
        with pytest.raises(SystemExit):
            main.main([*words])
        told = capsys.readouterr()
        return (told.out + told.err).splitlines()[-1]

    first = shlex.split(said("broker", "status", "--home", str(home)).split("`")[1])
    assert first == ["valise", "broker", "init", "--home", str(home)]
    said(*first[1:])
    restore = said("broker", "backup", "--to", str(to), "--keys", str(keys), "--home", str(home))
    new = str(tmp_path / "new")
    assert "resume --seen" in said(*[new if each == "NEW" else each for each in shlex.split(restore)[1:]])
    (home / "operator" / "trail" / "checkpoint").write_text("damaged")
    verify = shlex.split(said("audit", "verify", str(home / "operator" / "trail")))
    assert verify[:4] == ["valise", "audit", "verify", str(home / "operator" / "trail")], verify
    unread = json.loads(said(*verify[1:]))
    assert (unread["size"], unread["root"], unread["good"]) == (None, None, False)
    drafted = tmp_path / "a set"
    shutil.copytree(Path(policies.__file__).parent, drafted)
    checked = said("policy", "check", str(drafted), "--home", str(tmp_path))
    assert shlex.split(checked)[3:] == [str(drafted), "--home", str(tmp_path)]
