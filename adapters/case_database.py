"""An SQLite case database: dossiers about firms and networks, and the analysts' reports on them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from adapters import terms, values
from adapters.adapter import Draft, Pointer, Rejected, SourceReport
from adapters.fields import FieldError, Fields
from broker.notice import MINOR

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from adapters.values import Value

LIST = ","
CERTAIN = {"1": True, "0": False}
TABLES = ("subject", "tie", "occurrence", "holding", "opinion", "finding", "passage", "company")


@dataclass
class CaseDatabase:
    """Reads `cases.db`, read-only and in one transaction; `bureau` issues, its member prefixes the record ids.

    Its subjects have no birth dates: `minors` of a dossier says whether one of them is a minor.
    """

    bureau: str
    report: SourceReport = field(default_factory=SourceReport)

    def drafts(self, path: Path) -> Iterator[Draft | Rejected]:
        """Give a draft for every dossier. Raises sqlite3.Error if the file is no such database."""
        file = path / "cases.db" if path.is_dir() else path
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as database:
            database.row_factory = sqlite3.Row
            database.execute("BEGIN")  # all tables as of one moment
            rows = database.execute("SELECT * FROM dossier ORDER BY id")
            if lacking := terms.COLUMNS.difference(column[0] for column in rows.description):
                yield self.report.count(Rejected(file.name, "dossier", f"no column {', '.join(sorted(lacking))}"))
                return
            for row in rows.fetchall():
                yield self.report.count(self._judge(_Dossier(database, row, self.report)))

    def _record(self, number: str) -> str:
        return f"{self.bureau.partition('/')[0].lower()}-{number}"

    def _judge(self, dossier: _Dossier) -> Draft | Rejected:
        record = None
        try:
            record = self._record(dossier.top.need("id"))
            kind = dossier.top.need("kind")
            draft = self._draft(dossier, record, kind, self._bodies(kind, dossier))
            dossier.close()
        except FieldError as error:
            return Rejected(f"dossier {dossier.number}", error.field, error.reason, record)
        return draft

    def _bodies(self, kind: str, dossier: _Dossier) -> dict[str, Value | None]:
        makers = {"network": _network, "report": self._report, "organisation": _organisation}
        if kind not in makers:
            raise FieldError("dossier.kind", "not a kind that we know")
        return makers[kind](dossier)

    def _draft(self, dossier: _Dossier, record: str, kind: str, bodies: dict[str, Value | None]) -> Draft:
        top = dossier.top
        cited = [self._record(number) for number in terms.listed(top, "cites", LIST)]
        return Draft(
            record=record, kind=kind, topics=terms.listed(top, "topics", LIST) or (kind,),
            purpose=top.take("purpose") or "criminal-analysis", legal_basis=top.need("basis"),
            audience=terms.audience(top, "audience"), deny=terms.denied(top, "deny"),
            origins=terms.origins(top, "origins"), handling=terms.handling(top, "handling"), minor=_minors(top),
            confidentiality=top.take("confidentiality") or "restricted", source_evaluation=top.take("source_grade"),
            information_evaluation=terms.whole_number(top, "info_grade"), subject_categories=("suspect",),
            languages=terms.listed(top, "languages", LIST) or ("en",),
            pointers=tuple(Pointer(self.bureau, number, "cites") for number in cited),
            compartments=values.compartments(**bodies),
        )  # fmt: skip

    def _report(self, dossier: _Dossier) -> dict[str, Value | None]:
        title = dossier.top.need("title")
        findings = [self._finding(row) for row in dossier.rows("finding")]
        if any("basis" not in finding for finding in findings):
            raise FieldError("finding.cites", "a finding has no source")
        texts = _passages(dossier)
        method = values.tidy(text="\n".join(texts.pop("method", [])) or None, gaps=texts.pop("gap", []))
        bodies: dict[str, Value | None] = {
            part: {"title": title, "text": "\n".join(texts.pop(part)), "language": "en"}
            for part in ("summary", "sanitised")
            if part in texts
        }
        return {**bodies, "findings": values.items(findings), "method": method if "text" in method else None}

    def _finding(self, row: Fields) -> Value:
        basis = []
        for cited in terms.listed(row, "cites", LIST):
            number, compartment, local = [*cited.split("/"), "", ""][:3]
            basis.append(
                values.tidy(
                    issuer=self.bureau,
                    record=self._record(number),
                    compartment=compartment or None,
                    local_id=local or None,
                )
            )
        return values.tidy(
            local_id=row.need("local"), statement=row.need("statement"), nature=row.need("nature"),
            confidence=row.take("confidence"), basis=basis,
        )  # fmt: skip


class _Dossier:
    """One dossier with the rows of every table that belong to it, each watched."""

    def __init__(self, database: sqlite3.Connection, row: sqlite3.Row, report: SourceReport) -> None:
        self.number = row["id"]
        self.top = _watched(row, "dossier", report)
        self._rows = {
            table: [_watched(found, table, report) for found in database.execute(query, (self.number,))]
            for table, query in _queries(database).items()
        }
        for fields in (one for rows in self._rows.values() for one in rows):
            fields.skip("dossier", "a key of the database's own tables")

    def rows(self, table: str) -> list[Fields]:
        """Give the rows of one table."""
        return self._rows[table]

    def close(self) -> None:
        """Report what is left over."""
        for fields in (self.top, *(one for rows in self._rows.values() for one in rows)):
            fields.close()


def _minors(top: Fields) -> str:
    said = top.take("minors") or "unknown"
    if said not in MINOR:
        raise FieldError("dossier.minors", "neither yes, no nor unknown")
    return said


def _queries(database: sqlite3.Connection) -> dict[str, str]:
    """Give a query for each table that holds something on dossiers; of one that we do not know all is left over."""
    rows = database.execute(
        "SELECT t.name FROM sqlite_schema AS t JOIN pragma_table_info(t.name) AS c ON c.name = 'dossier'"
        " WHERE t.type IN ('table', 'view')"
    )
    others = {row[0]: f'SELECT * FROM "{row[0]}" WHERE dossier = ?' for row in rows}  # noqa: S608 - names in its schema
    return others | {table: f"SELECT * FROM {table} WHERE dossier = ? ORDER BY rowid" for table in TABLES}  # noqa: S608 - ours


def _watched(row: sqlite3.Row, table: str, report: SourceReport) -> Fields:
    text = {name: None if row[name] is None else str(row[name]) for name in row.keys()}  # noqa: SIM118 - a Row iterates over its values
    return Fields(text, report, f"{table}.")


def _network(dossier: _Dossier) -> dict[str, Value | None]:
    return {
        "entities": values.items([_entity(row) for row in dossier.rows("subject")]),
        "links": values.items([_link(row) for row in dossier.rows("tie")]),
        "events": values.items([_event(row) for row in dossier.rows("occurrence")]),
        "assets": values.items([_held(row) for row in dossier.rows("holding")]),
        "assessments": values.items([_assessment(row) for row in dossier.rows("opinion")]),
        "source": _source(dossier),
    }


def _organisation(dossier: _Dossier) -> dict[str, Value | None]:
    row = next(iter(dossier.rows("company")), None)
    if row is None:
        raise FieldError("company", "missing")
    state, number = values.state(row.take("state")), row.take("number")
    founded = values.partial_date(row.take("founded"))
    where = values.place(row.take("seat_state"), city=row.take("city"), street=row.take("street"))
    names = [values.other_name(row.need("name")), *(values.other_name(name) for name in row.take_all("name_original"))]
    texts = [values.text(text, "Dossier") for text in _passages(dossier).get("narrative", [])]
    associates = [
        values.tidy(name=one.need("name"), kind=one.take("type"), relation=one.take("fact"), confirmed=None)
        for one in dossier.rows("subject")
    ]
    return {
        "identity": values.tidy(
            names=names, form=row.take("form"), founded=[founded] if founded else [], states=[state] if state else [],
            identifiers=[values.tidy(kind="registration-number", number=number, state=state)] if number else [],
        ),
        "description": values.tidy(activities=row.take_all("activity")),
        "location": {"addresses": [{"place": where}]} if where else None,
        "associates": values.items(associates),
        "assets": values.items([_held(one)["asset"] for one in dossier.rows("holding")]),
        "narrative": values.items(texts),
        "source": _source(dossier),
    }  # fmt: skip


def _passages(dossier: _Dossier) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in dossier.rows("passage"):
        found.setdefault(row.need("part"), []).append(row.need("text"))
    return found


def _source(dossier: _Dossier) -> Value | None:
    reference = dossier.top.take("reference")
    return values.items([{"kind": "record", "reference": reference}] if reference else [])


def _grades(row: Fields) -> Value:
    return values.tidy(source=row.take("source_grade"), information=terms.whole_number(row, "info_grade"))


def _entity(row: Fields) -> Value:
    names = [values.person_name(whole=row.need("name"))]
    names += [values.person_name(whole=name) for name in row.take_all("original")]
    names += [values.person_name(whole=name, kind="nickname") for name in terms.listed(row, "nicknames", LIST)]
    facts = [{"name": "key fact", "value": fact} for fact in row.take_all("fact")]
    return values.tidy(
        local_id=row.need("local"), type=row.need("type"), names=names, facts=facts, evaluation=_grades(row)
    )


def _link(row: Fields) -> Value:
    return values.tidy(
        local_id=row.need("local"), **{"from": row.need("a"), "to": row.need("b")}, type=row.need("nature"),
        role=row.take("role"), since=values.partial_date(row.take("since")),
        until=values.partial_date(row.take("until")),
        confirmed=CERTAIN.get(row.take("certain") or ""), evaluation=_grades(row), source=row.take("source_ref"),
        note=row.take("remark"),
    )  # fmt: skip


def _event(row: Fields) -> Value:
    return values.tidy(
        local_id=row.need("local"), kind=row.need("kind"), when=values.partial_date(row.take("day")),
        place=values.place(row.take("state"), city=row.take("city")), text=row.take("text"),
        participants=[{"entity": one} for one in terms.listed(row, "who", LIST)], evaluation=_grades(row),
    )  # fmt: skip


def _held(row: Fields) -> Value:
    asset: dict[str, Any] = values.tidy(
        kind=row.need("kind"), identifier=row.take("identifier"), text=row.take("text"),
        state=values.state(row.take("state")), holder=row.take("holder"), value=terms.whole_number(row, "value"),
        currency=row.take("currency"),
    )  # fmt: skip
    return {"local_id": row.need("local"), "holders": list(terms.listed(row, "who", LIST)), "asset": asset}


def _assessment(row: Fields) -> Value:
    return values.tidy(
        local_id=row.need("local"), statement=row.need("statement"), language="en", confidence=row.take("confidence"),
        basis=list(terms.listed(row, "basis", LIST)), date=values.partial_date(row.take("day")),
    )  # fmt: skip
