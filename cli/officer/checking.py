"""`valise policy check`: what is broken in a policy set, what never matters in it, and what no case has tried."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from broker.errors import ConfigurationError
from cli import answer, exits
from cli.officer import in_force
from cli.officer.sets import open_set
from cli.operator_home import operator_folder, operator_home
from cli.options import Everywhere, everywhere

if TYPE_CHECKING:
    from broker.proofread import Finding, Report
    from broker.rules import PolicySet
    from cli.officer.in_force import Basis


@click.command()
@click.argument("name", metavar="[DIR|DIGEST]", required=False)
@everywhere
def check(given: Everywhere, name: str | None) -> None:
    """Check the policies in a folder (or of a version; left out: those in force): every finding with file and line.

    Where the operator's home is at hand, the set is also tried with the directory in force.
    """
    from broker.proofread import proofread  # noqa: PLC0415 -- cedarpy is slow to import

    policies, basis = _given(given, name)
    annex = in_force.known_annex(basis) if basis else None
    report = proofread(policies, basis.directory if basis else None, annex)
    named = shlex.quote(name) if name else "DIR"
    answer.show(
        _first(report),
        {
            "good": not report.findings, "digest": policies.digest.hex(), "rules": report.rules,
            "cases": report.cases, "trials": report.trials, "findings": [asdict(each) for each in report.findings],
            "tricky": report.covered,
        },
        as_json=given.as_json,
        table=answer.Table(
            ("place", "finding", "what", "what to do"),
            [(_place(each), each.code, each.what, each.todo) for each in report.findings],
        ),
        then=given.again(f"valise policy {'check' if report.findings else 'compare'} {named}"),
    )  # fmt: skip
    if report.findings:
        raise click.exceptions.Exit(exits.FAILED)


def _given(given: Everywhere, name: str | None) -> tuple[PolicySet, Basis | None]:
    """Open the set, and what it would be in force with, if there is an operator's home here."""
    if not (operator_folder(given.home) / "settings.toml").is_file():
        if name is None:
            message = f"no broker in {given.home}: name a folder of policies"
            raise ConfigurationError(message)
        return open_set(name, None), None
    home = operator_home(given.home)
    basis = in_force.at_operator(home)
    return (open_set(name, home.versions) if name else basis.policies), basis


def _place(finding: Finding) -> str:
    return f"{finding.file}:{finding.line}" if finding.line else finding.file


def _first(report: Report) -> str:
    points = [names for file in report.covered.values() for names in file.values()]
    tried = (
        f"{report.rules} rules, {report.cases} cases for {sum(map(bool, points))} of {len(points)} tricky points, "
        f"{report.trials:,} notices tried"
    )
    count = len(report.findings)
    return f"{count} finding{'s' * (count != 1)}: {tried}" if count else f"no finding: {tried}"
