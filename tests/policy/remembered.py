"""A small world in which a notice is decided and remembered as the trail does it."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from functools import lru_cache

from broker import cases, codec
from broker.cases import World, WrittenNotice
from broker.decide import Subscriptions, View, decide
from broker.directory import Annex, Directory
from broker.notice import (
    RELEASED,
    ROUTING,
    Compartment,
    DecisionRecord,
    Envelope,
    Header,
    Holder,
    Leaf,
    Opened,
    Reference,
    Slot,
    Verified,
)
from broker.recorded import Recorded, remember
from broker.rules import PolicySet, Read, Rules, read_rules
from broker.signing import compartment_digest, decision_digest, header_digest

PACKAGED = PolicySet.packaged()
NAMES = ("AT/ncb", "AT/border", "GE/ncb", "GE/analysis", "LV/ncb", "RU/ncb", "US/ncb")
WORLD = World(
    bureaus={name: ["criminal-investigation"] for name in NAMES},
    agreements={"project-millennium": ["AT", "GE", "RU"]},
    suspended_agreements={"old-circle": ["AT", "GE", "LV"]},
    clearances={"GE/ncb": "confidential"},
)
EVERYBODY = dict.fromkeys(NAMES, ("*",))
NOW = 1_000_000
SALT = bytes(32)


@lru_cache(maxsize=4)
def _read(policies: bytes) -> tuple[Read, ...]:
    return read_rules(PolicySet.parse(policies))


@dataclass
class Place:
    """A directory with its annex, a policy set, and who has subscribed to what."""

    policies: PolicySet = PACKAGED
    world: World = WORLD
    patterns: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: EVERYBODY)

    def __post_init__(self) -> None:
        self.directory: Directory
        self.annex: Annex
        self.directory, self.annex = cases.world_of(self.world)
        self.read: tuple[Read, ...] = _read(self.policies.content)
        self.rules = Rules(self.read, self.directory, self.annex)
        self.view = View(self.directory, self.rules, Subscriptions.of(self.directory, self.patterns))

    def subscribed(self, patterns: Mapping[str, tuple[str, ...]]) -> Place:
        """The same place, where others have subscribed."""
        made = copy(self)
        made.patterns = patterns
        made.view = View(self.directory, self.rules, Subscriptions.of(self.directory, patterns))
        return made

    def notice(self, *, present: tuple[str, ...] = (), relation: str = "", **fields: object) -> Verified:
        """Make a notice as cases write it; all compartments carry something, or those named."""
        written = WrittenNotice.model_validate({"issuer": "AT/ncb", **fields})
        header, routing = cases.notice_of(written, self.directory.federation)
        if relation:
            header = _referring(header, relation)
        inside = codec.encode(routing)
        digest = compartment_digest(ROUTING, SALT, inside)
        header = replace(header, compartments=(Slot(ROUTING, digest), *header.compartments[1:]))
        opened = [not place or not present or slot.name in present for place, slot in enumerate(header.compartments)]
        parts = tuple(
            Compartment(slot.name, Opened(SALT, b"x") if there else None)
            for slot, there in zip(header.compartments, opened, strict=True)
        )
        data = codec.encode(header)
        mask = sum(1 << place for place, there in enumerate(opened) if there)
        envelope = Envelope(data, bytes(32), bytes(64), b"")
        return Verified(header, header_digest(data), routing, Opened(SALT, inside), parts, mask, envelope)

    def decided(
        self,
        made: Verified,
        now: int = NOW,
        holders: tuple[Holder, ...] = (),
        number: int = 7,
        *,
        releases: int | None = None,
        reviewers: tuple[Holder, ...] = (),
    ) -> Recorded:
        """Decide it and remember it; `releases`: the leaf in which it was held until one of `reviewers` released it."""
        found = remember(number, *self.entry(made, now, holders, releases=releases, reviewers=reviewers))
        assert found is not None
        return found

    def entry(
        self,
        made: Verified,
        now: int = NOW,
        holders: tuple[Holder, ...] = (),
        *,
        releases: int | None = None,
        reviewers: tuple[Holder, ...] = (),
    ) -> tuple[bytes, bytes, bytes]:
        """Give leaf, salt and decision record as the trail keeps them."""
        decision = decide(made, self.view, now, holders, released=releases is not None, reviewers=reviewers)
        record = codec.encode(
            DecisionRecord(
                "notices.at", 0, 1, now, bytes(32),
                header=made.envelope.header, routing=made.routing_opened.salt + made.routing_opened.data,
                rows=decision.recipients, rules=decision.hits, terms=decision.terms, warnings=decision.warnings,
                holders=decision.holders,
            )
        )  # fmt: skip
        kind = decision.state if releases is None else RELEASED
        leaf = Leaf(
            kind, now, None, made.header_digest, releases, 0, self.directory.digest, self.policies.digest,
            decision_digest(SALT, record), bytes(32),
        )  # fmt: skip
        return codec.encode(leaf), SALT, record


def _referring(header: Header, relation: str) -> Header:
    return replace(header, references=(Reference("AT/ncb", bytes(16), bytes(32), relation),))


def with_rule(text: str, tests: str, name: str = "90-more") -> PolicySet:
    """The packaged set with one file more."""
    return PolicySet.of({**PACKAGED.files, f"{name}.cedar": text, f"cases/{name}.toml": tests})


def without(*names: str) -> PolicySet:
    """The packaged set without these files of rules."""
    return PolicySet.of({
        name: text
        for name, text in PACKAGED.files.items()
        if not any(name in (f"{each}.cedar", f"cases/{each}.toml") for each in names)
    })  # fmt: skip
