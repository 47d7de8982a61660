"""Invents the national systems of the demo: the same files for the same seed, and the source that reads each."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from adapters.case_database import CaseDatabase
from adapters.csv_folder import CsvFolder
from adapters.interpol_json import InterpolJson
from adapters.xml_export import XmlExport
from cli.invented import systems
from cli.invented.people import world

if TYPE_CHECKING:
    from datetime import date
    from pathlib import Path

    from adapters.adapter import Source

SEED = 2026


@dataclass(frozen=True, slots=True)
class Site:
    """One national system: whose it is, which bureau publishes from it, its make, and where its files lie."""

    member: str
    bureau: str
    make: str
    path: Path

    def source(self, today: date) -> Source:
        """Give the adapter that reads this make; one source is for one run."""
        language = world()["members"][self.member]["language"]
        if self.make == "csv":
            return CsvFolder(self.member, today, language)
        if self.make == "xml":
            return XmlExport(self.member, today)
        if self.make == "json":
            return InterpolJson(self.member, today, files=("notices.json",))
        return CaseDatabase(self.bureau)


def invent(folder: Path, seed: int = SEED) -> list[Site]:
    """Write the files of every member's system into `folder`, and say where they are.

    Sites that hold requests come before those that hold the answers to them: publish in this order.
    """
    sites = [_site(folder, member) for member in sorted(world()["members"])]
    xml = [site for site in sites if site.make == "xml"]
    for place, site in enumerate(sites):
        site.path.mkdir(parents=True, exist_ok=True)
        # a generator of its own for each, so that a change to one system leaves the others' data alone
        rng = _generator(seed * 1000 + place)
        if site.make == "xml":
            systems.xml_export(rng, site.member, site.path, _after(xml, site).member)
        else:
            WRITERS[site.make](rng, site.member, site.path)
    for site in xml[1:]:  # the first one's answer would have to come before the request
        asker = xml[xml.index(site) - 1]
        systems.xml_answers(_generator(seed), site.member, site.path, asker.member)
    return sites


WRITERS = {"csv": systems.csv_folder, "json": systems.interpol_json, "database": systems.case_database}


def _after(sites: list[Site], site: Site) -> Site:
    return sites[(sites.index(site) + 1) % len(sites)]


def _site(folder: Path, member: str) -> Site:
    home = world()["members"][member]
    return Site(member, f"{member}/{home.get('bureau', 'ncb')}", home["make"], folder / member)


def _generator(seed: int) -> Random:
    return Random(seed)  # noqa: S311 - invented data, no secret
