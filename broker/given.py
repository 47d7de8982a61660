"""Who was given what, for receipts: kept as it is committed, read from the decision records when it is long ago."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from sys import intern

from broker import avro
from broker.confirm import Given
from broker.records import Records
from broker.signing import header_digest

KEPT = 20_000
"""leaves; a receipt comes soon after its delivery, and one from each bureau"""


class Givens:
    """What was given under each leaf."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._kept: OrderedDict[int, Given] = OrderedDict()

    def keep(self, given: Iterable[tuple[int, Given]]) -> None:
        """Keep what was just committed, by leaf: most receipts ask for that."""
        self._kept.update(given)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)

    def find(self, leaf_number: int) -> Given | None:
        """Tell what was given under a leaf; None where it is of no notice."""
        kept = self._kept.get(leaf_number)
        if kept is not None:
            return kept
        found = self._read(leaf_number)
        # A leaf that is not there yet may be there when the genuine receipt comes: only what was found is kept.
        if found is not None:
            self.keep([(leaf_number, found)])
        return found

    def _read(self, leaf_number: int) -> Given | None:
        kept = self._records.get(leaf_number)
        # As it is encoded: of a whole decision record a receipt needs two fields.
        record = avro.read("decision", kept[1]) if kept else None
        if record is None or not record["header"]:
            return None
        header: bytes = record["header"]
        member = avro.read("header", header)["issuer"].partition("/")[0]
        return Given(intern(member), header_digest(header), tuple(intern(each["bureau"]) for each in record["rows"]))
